"""Weights on a device: read once, prepared when first needed, shared by the programs of a model; and their
state."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping, Set
from pathlib import Path

import msgspec
import numpy as np

from npu_runtime import env, state_file, transforms
from npu_runtime.backend import Backend, Memory
from npu_runtime.buffer import as_bytes
from npu_runtime.dtypes import Array, nbytes, numpy_dtype, spec_text
from npu_runtime.errors import WeightsMismatchError
from npu_runtime.program import CompiledProgram, StateSpec, Transform
from npu_runtime.safetensors_file import write_safetensors
from npu_runtime.weight_sources import CONTENTS, DIGEST, KIND, Source, open_source


class Tensors:
    """Prepared tensors on one device, each made once."""

    def __init__(self, source: Source, device: Backend) -> None:
        self.source = source
        self.device = device
        self._memory: dict[str, Memory] = {}
        self._arrays: dict[str, Array] = {}
        self._checked: set[bytes] = set()
        self._lock = threading.Lock()

    def check(self, program: CompiledProgram) -> None:
        """Raises ``WeightsMismatchError`` unless the source has all that ``program`` needs; cheap when
        repeated."""
        key = msgspec.json.encode([program.transform_digest, program.states])
        if key not in self._checked:
            self.source.check(
                (*program.transforms, *(state for state in program.states if state.init is not None))
            )
            self._checked.add(key)

    def memory(self, transform: Transform) -> Memory:
        """The device memory of ``transform``, made at the first call."""
        key = transforms.content_key(transform, transform.expr)
        with self._lock:
            found = self._memory.get(key)
            if found is None:
                data = as_bytes(self.source.make(transform))
                found = self._memory[key] = self.device.upload(data, share=self.source.stable)
                self.source.release(transform)
            return found

    def array(self, transform: Transform) -> Array:
        """``transform`` as a writable array in host memory, made at the first call."""
        key = transforms.content_key(transform, transform.expr)
        with self._lock:
            found = self._arrays.get(key)
            if found is None:
                made = self.source.make(transform)
                found = self._arrays[key] = made if made.flags.writeable else made.copy()
            return found

    @property
    def nbytes(self) -> int:
        """Bytes on the device so far."""
        return sum(memory.nbytes for memory in self._memory.values())


class Weights:
    """The weights of a model on a device, for any of its programs, and the state of one sequence.

    Its source stays open, and a tensor is prepared when a program first needs it, once per (tensor,
    transform).

    A program that was extracted alone takes a buffer that it only reads for a weight, or for a constant. As
    soon as another program has changed that buffer, what is made of it is made of its present content.
    """

    def __init__(self, tensors: Tensors, model: str = "", declared: Iterable[StateSpec] = ()) -> None:
        self.tensors = tensors
        self._model = model
        self._declared = {spec.name: spec for spec in declared}
        self._states: dict[str, tuple[StateSpec, Memory]] = {}
        self._changed: dict[str, int] = {}
        self._changes = 0
        self._made: dict[str, tuple[list[int], Memory]] = {}

    def __repr__(self) -> str:
        return f"Weights({self.tensors.source.name!r}, {self.tensors.nbytes} bytes on {self.device.name!r})"

    @property
    def device(self) -> Backend:
        return self.tensors.device

    def new_state(self) -> Weights:
        """An independent sequence over the same tensors: its states start afresh."""
        return Weights(self.tensors, self._model, self._declared.values())

    def reset(self) -> None:
        """Puts every state back to its initial content."""
        for spec, memory in self._states.values():
            self._fill(spec, memory)
        self._changed.clear()

    def save_state(self, path: str | Path) -> None:
        """Writes the present content of every state to a safetensors file: whole, or not at all."""
        specs = self._declared | {name: spec for name, (spec, _) in self._states.items()}
        state_file.save(path, self._model, specs.values(), self.read_state, self._changed)

    def restore_state(self, path: str | Path) -> None:
        """Puts every state to what ``save_state`` wrote. Nothing changes where that fails: raises
        ``FormatError`` for a damaged file or one of another kind, and ``WeightsMismatchError`` for the states
        of another model, or of other sizes."""
        specs = self._declared | {name: spec for name, (spec, _) in self._states.items()}
        contents, changed = state_file.read(path, self._model, specs.values())
        self.reset()
        for name, content in contents.items():
            self.device.write(self.state(specs[name]), as_bytes(content))
        self.note_changes(specs[name] for name in changed)

    @property
    def changed(self) -> Set[str]:
        """The names of the states that programs have changed so far."""
        return self._changed.keys()

    def note_changes(self, states: Iterable[StateSpec]) -> None:
        """Programs have changed the content of ``states``."""
        self._changes += 1
        self._changed.update((spec.name, self._changes) for spec in states)

    def memory(self, transform: Transform) -> Memory:
        """The device memory of ``transform`` with the present content of changed states."""
        reads = self._changed_reads(transform)
        if not reads:
            return self.tensors.memory(transform)
        key = transforms.content_key(transform, transform.expr)
        versions, memory = self._made.get(key, ([], None))
        now = [self._changed[name] for name in reads]
        if memory is None or versions != now:
            data = as_bytes(self.tensors.source.make(transform, self._contents(reads)))
            memory = memory or self.device.allocate(data.size)
            self.device.write(memory, data)
            self._made[key] = (now, memory)
        return memory

    def array(self, transform: Transform) -> Array:
        """``transform`` as an array in host memory with the present content of changed states."""
        reads = self._changed_reads(transform)
        if not reads:
            return self.tensors.array(transform)
        return self.tensors.source.make(transform, self._contents(reads))

    def read_state(self, spec: StateSpec) -> Array:
        """The present content of a state."""
        content = np.empty(spec.shape, numpy_dtype(spec.dtype))
        if content.size:
            self.device.read(self.state(spec), as_bytes(content))
        return content

    def changed_content(self, key: str) -> Array | None:
        """The present content of the state ``key`` if a program has changed it."""
        return self.read_state(self._states[key][0]) if key in self._changed else None

    def state(self, spec: StateSpec) -> Memory:
        """The memory of a state, with its initial content at the first call. Raises ``WeightsMismatchError``
        if another program has declared a state of this name differently."""
        known = self._states.get(spec.name)
        if known is None:
            memory = self.device.allocate(nbytes(spec.shape, spec.dtype))
            self._fill(spec, memory)
            known = self._states[spec.name] = (spec, memory)
        elif known[0] != spec:
            raise WeightsMismatchError(
                f"state {spec.name!r} is {spec_text(known[0].dtype, known[0].shape)} in one program and "
                f"{spec_text(spec.dtype, spec.shape)} (or initialised otherwise) in another: compile both "
                "from the same model, or give each its own new_state()"
            )
        return known[1]

    def _changed_reads(self, transform: Transform) -> list[str]:
        if not self._changed:
            return []
        return sorted(transforms.reads_of(transform.expr) & self._changed.keys())

    def _contents(self, names: Iterable[str]) -> dict[str, Array]:
        return {name: self.read_state(self._states[name][0]) for name in names}

    def _fill(self, spec: StateSpec, memory: Memory) -> None:
        if spec.init is None:
            self.device.zero(memory)
        else:
            self.device.write(memory, as_bytes(self.tensors.source.make(spec)))


def load_weights(
    source: str | Path | Mapping[str, object], program: CompiledProgram, device: Backend
) -> Weights:
    """The weights of ``program``'s model on ``device``.

    ``source``: the model's original state_dict as a safetensors file, as a folder of them, or as a mapping of
    arrays; or the file that the build prepared, which is recognised. Tensors that the program does not use
    are ignored.

    Raises ``WeightsMismatchError`` naming every tensor that is missing, or if the file was prepared for
    another program; ``FormatError`` for a damaged file; ``OSError`` for one that cannot be read.
    """
    tensors = Tensors(open_source(source), device)
    tensors.check(program)
    env.debug(env.STAGES, f"weights of {program.model}: {tensors.source.name}")
    return Weights(tensors, program.model, program.states)


def prepare_file(
    source: str | Path | Mapping[str, object], wanted: Iterable[Transform], path: str | Path
) -> None:
    """Applies ``wanted`` to the original weights ``source`` and writes the prepared safetensors file
    ``path``.

    Equal inputs give equal bytes; the file appears whole or not at all; one tensor at a time is in memory.
    Transforms of several programs may be given together; equal names must be equal transforms (else
    ``ValueError``).

    Raises as ``load_weights``.
    """
    opened = open_source(source)
    unique: dict[str, Transform] = {}
    for spec in wanted:
        if unique.setdefault(spec.name, spec) != spec:
            raise ValueError(
                f"two transforms are named {spec.name!r}: names must be unique over all programs"
            )
    # sizes that keep the next tensor aligned come first, so that all of these can be mapped to a device
    ordered = sorted(unique.values(), key=lambda spec: (nbytes(spec.shape, spec.dtype) % 128 != 0, spec.name))
    opened.check(ordered)
    contents = {spec.name: transforms.content_key(spec, spec.expr) for spec in ordered}
    write_safetensors(
        path,
        {spec.name: (spec.shape, spec.dtype) for spec in ordered},
        _made(opened, ordered),
        {
            KIND: "prepared",
            DIGEST: transforms.digest(ordered),
            CONTENTS: msgspec.json.encode(contents, order="sorted").decode(),
        },
        contents,
    )


def _made(source: Source, wanted: Iterable[Transform]) -> Iterator[tuple[str, Array]]:
    for spec in wanted:
        yield spec.name, source.make(spec)
        source.release(spec)
