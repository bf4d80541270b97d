"""Who chooses a token: the decoder's own program (``token``), a program that draws from logits, or the
host."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from npu_runtime.buffer import NPUBuffer, as_bytes
from npu_runtime.dtypes import Array, numpy_dtype
from npu_runtime.errors import InputError
from npu_runtime.executor import Executor, Running
from npu_runtime.program import IOSpec, Symbol
from npu_runtime.sampling import Sampler, Sampling, check_best
from npu_runtime.weight_loader import Weights


class Specs(Protocol):
    """What is asked of a program's description."""

    @property
    def input_specs(self) -> Sequence[IOSpec]: ...
    @property
    def output_specs(self) -> Sequence[IOSpec]: ...
    @property
    def symbols(self) -> Sequence[Symbol]: ...


class Runs(Protocol):
    """An ``Executor``, or what runs a program as one does."""

    @property
    def program(self) -> Specs: ...
    def run(self, inputs: Mapping[str, object], weights: Weights) -> dict[str, NPUBuffer]: ...


@dataclass(frozen=True, slots=True)
class Chosen:
    """A token that is being chosen. ``on_device``: where it will lie, if the device chooses it."""

    token: Callable[[], int]
    """Waits for it. Raises ``InputError`` where logits are not numbers, or an index was out of range."""
    on_device: NPUBuffer | None = None


class Chooser:
    """Chooses the tokens of one sequence. Raises ``InputError`` for a ``sampler`` that draws from no logits.

    ``weights``: any on the device, of which a sampler needs none."""

    def __init__(self, sampling: Sampling, sampler: Runs | None, weights: Weights) -> None:
        self._greedy, self._weights = sampling.greedy, weights
        self._sampling, self._sampler = sampling, Sampler(sampling, ())
        self._logits: Array = np.empty(0)
        self._drawing: Executor | None = None
        if sampler is None:
            return
        names = tuple(spec.name for spec in sampler.program.input_specs)
        if not isinstance(sampler, Executor) or names != _INPUTS:
            raise InputError(f"the sampler must be an Executor of a program that takes {', '.join(_INPUTS)}: "
                             "compile npu_compiler.token_sampler")
        if sampling.temperature and sampling.repetition_penalty == 1:
            self._drawing = sampler
            self._rules = NPUBuffer.from_numpy(sampling.rules, sampler.device)

    def begin(self, prompt: Iterable[int]) -> None:
        """A sequence begins: seeds and penalties start anew."""
        self._sampler = Sampler(self._sampling, prompt)

    def token_of(self, program: Specs) -> IOSpec | None:
        """The token that the device chooses where ``program`` gives the logits; None where it does not."""
        outputs = {spec.name: spec for spec in program.output_specs}
        if self._drawing is None:
            return outputs.get("token") if self._greedy else None
        drawn = {spec.name: spec for spec in self._drawing.program.output_specs}
        return drawn["token"] if self._takes(outputs["logits"]) else None

    def choose(self, last: Running) -> Chosen:
        """The token behind ``last``, which is done or being run."""
        outputs = last.outputs
        if self._drawing is not None and self._takes(outputs["logits"]):
            chance = np.full((1, 1), self._sampler.chance(), np.int64)
            inputs = {"logits": outputs["logits"], "rules": self._rules, "chance": chance}
            drawn = self._drawing.start(inputs, self._weights)
            return Chosen(lambda: _drawn(last, drawn), drawn.outputs["token"])
        if self._greedy and "token" in outputs:
            return Chosen(lambda: _best(last), outputs["token"])
        return Chosen(lambda: self._sampled(last))

    def _takes(self, logits: NPUBuffer | IOSpec) -> bool:
        """Whether the device can draw from ``logits``."""
        assert self._drawing is not None
        given = self._drawing.program.input_specs[0]
        return (given.shape, given.dtype) == (logits.shape, logits.dtype)

    def _sampled(self, last: Running) -> int:
        last.wait()
        buffer = last.outputs["logits"]
        if self._logits.shape != buffer.shape:
            self._logits = np.empty(buffer.shape, numpy_dtype(buffer.dtype))
        buffer.device.read(buffer.memory, as_bytes(self._logits))
        return self._sampler.choose(self._logits[0, -1].astype(np.float32, copy=False))


_INPUTS = ("logits", "rules", "chance")


def _best(last: Running) -> int:
    last.wait()
    return int(last.outputs["token"].to_numpy().flat[-1])


def _drawn(last: Running, drawn: Running) -> int:
    last.wait()
    drawn.wait()
    check_best(float(drawn.outputs["best"].to_numpy()[0, 0]))
    return int(drawn.outputs["token"].to_numpy()[0, 0])
