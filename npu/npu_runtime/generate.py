"""Text generation with a decoder's two programs: ``prefill`` takes the prompt, ``decode`` a token at a time.

    for piece in generate(prefill, decode, weights, prompt_ids, max_tokens=64, bytes_of=tokenizer.bytes_of):
        print(piece.text, end="", flush=True)

The programs' inputs and outputs (B = 1):

    prefill  input_ids, attention_mask, position_ids  int64 [B, S]
    decode   input_ids, position_ids  int64 [B, 1];  cache_position  int64 [1];
             attention_mask  int64 [B, length of the cache], 1 where the cache is used
    both     logits  float [B, 1 or S, vocabulary];  token  int64 [B, 1], where the program has it: the best
             of the last position, with the lowest id among equals
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

import numpy as np

from npu_runtime.choosing import Chooser, Chosen, Runs, Specs
from npu_runtime.dtypes import Array, numpy_dtype
from npu_runtime.errors import InputError
from npu_runtime.executor import Executor, Running
from npu_runtime.program import IOSpec
from npu_runtime.sampling import Sampling
from npu_runtime.symbols import evaluate
from npu_runtime.text_stream import TextStream
from npu_runtime.weight_loader import Weights

__all__ = ["Finish", "Piece", "Sampling", "generate"]

#: Why a sequence ended: a stop token or stop string, ``max_tokens``, or a full cache.
Finish = Literal["stop", "length", "cache"]

GREEDY = Sampling()

_PREFILL = ("input_ids", "attention_mask", "position_ids")
_DECODE = ("input_ids", "cache_position", "position_ids", "attention_mask")


@dataclass(frozen=True, slots=True)
class Piece:
    """A generated token, and the text that has become certain with it: often the token's own, nothing while
    a character is incomplete or a stop string may have begun. ``finish`` is set on the last one."""

    token: int
    text: str = ""
    finish: Finish | None = None


def generate(
    prefill: Runs,
    decode: Runs,
    weights: Weights,
    prompt: Sequence[int] | Array,
    *,
    max_tokens: int | None = None,
    sampling: Sampling = GREEDY,
    stop_tokens: Collection[int] = (),
    stop_strings: Sequence[str] = (),
    bytes_of: Callable[[int], bytes] | None = None,
    sampler: Runs | None = None,
) -> Iterator[Piece]:
    """Continues ``prompt`` (token ids, one sequence), a ``Piece`` per token, each as soon as it is chosen.

    It ends with the first of ``stop_tokens``, which is given as the last piece, without text; where the text
    contains one of ``stop_strings``, of which the text ends before the first; after ``max_tokens`` (None: no
    limit); or when the cache has no room for the next. ``bytes_of`` gives a token's bytes of UTF-8; without
    it pieces have no text, and there can be no stop strings. The state in ``weights`` is that of the
    sequence: a prefill begins it anew, and two sequences at a time need a ``weights.new_state()`` each.
    Programs for several sequences at once (B above 1) are refused.

    ``sampler`` is the program that draws a token from logits (``npu_compiler.token_sampler``): with it the
    device draws where a temperature is given and no repetition penalty. Without, logits are read and tokens
    drawn here; both give the same tokens.

    Where the device chooses the tokens, and ``token`` is bounded to those that the model has, a step is
    enqueued before its token has been read: the token goes from one run's output to the next one's input on
    the device, and a sequence that ends by a stop token or string has run a step too many.

    Raises ``InputError``, before anything runs, for an empty prompt, one longer than the cache, a token that
    the model does not have, an impossible setting, or programs that are not a decoder's; and while it runs
    where logits are not numbers.
    """
    loop = _Loop(prefill, decode, weights, Chooser(sampling, sampler, weights))
    tokens = loop.check_prompt(prompt)
    if max_tokens is not None and (isinstance(max_tokens, bool) or max_tokens < 1):
        raise InputError(f"max_tokens is {max_tokens!r}: expected 1 or more, None for no limit")
    if stop_strings and bytes_of is None:
        raise InputError("stop_strings are looked for in the text: give bytes_of, a token's bytes")
    text = TextStream(stop_strings)
    return _pieces(loop, tokens, max_tokens, sampling, frozenset(stop_tokens), text, bytes_of)


def _pieces(
    loop: _Loop,
    prompt: Array,
    max_tokens: int | None,
    sampling: Sampling,
    stop_tokens: frozenset[int],
    text: TextStream,
    bytes_of: Callable[[int], bytes] | None,
) -> Iterator[Piece]:
    loop.chooser.begin(prompt)
    ahead = loop.stays_on_device()
    chosen, count = loop.chooser.choose(loop.start(prompt)), 0
    following: Chosen | None = None
    try:
        while True:
            more = count + 1 != max_tokens and loop.position != loop.room
            following = loop.follow(chosen) if ahead and more else None
            token = chosen.token()
            count += 1
            if token in stop_tokens:
                yield Piece(token, text.finish(), "stop")
                return
            new = text.push(bytes_of(token)) if bytes_of else ""
            if text.stopped or not more:
                finish: Finish = "stop" if text.stopped else "length" if count == max_tokens else "cache"
                yield Piece(token, new + text.finish(), finish)
                return
            yield Piece(token, new)
            chosen = following or loop.chooser.choose(loop.step(token))
    finally:
        if following is not None:
            with suppress(InputError):  # nobody asks for what it gives
                following.token()


class _Loop:
    """The programs with their inputs, which are made once and changed in place."""

    def __init__(self, prefill: Runs, decode: Runs, weights: Weights, chooser: Chooser) -> None:
        self._prefill, self._decode, self._weights, self.chooser = prefill, decode, weights, chooser
        self._prompt_specs = _known_inputs("prefill", prefill, _PREFILL)
        specs = _known_inputs("decode", decode, _DECODE)
        sizes = _vocabulary("prefill", prefill), _vocabulary("decode", decode)
        bounds = [spec.upper for spec in (specs["input_ids"], self._prompt_specs["input_ids"])]
        self._last_token = min((bound for bound in bounds if bound is not None), default=min(sizes) - 1)
        self.room = _room(specs)
        self.position = 0
        self._input_ids = specs["input_ids"]
        self._step = {name: np.zeros(_shape(spec), numpy_dtype(spec.dtype)) for name, spec in specs.items()}
        self._mask = self._step.get("attention_mask", np.zeros((1, self.room), np.int64))
        self._places = [self._step[name] for name in ("cache_position", "position_ids") if name in specs]

    def check_prompt(self, prompt: Sequence[int] | Array) -> Array:
        """The prompt as int64 [S]."""
        tokens = np.asarray(prompt)
        if tokens.ndim == 2 and len(tokens) == 1:
            tokens = tokens[0]
        if tokens.size == 0:
            raise InputError("the prompt is empty: give at least one token, such as the model's begin token")
        if tokens.ndim != 1 or tokens.dtype.kind not in "iu":
            raise InputError(
                f"the prompt is {tokens.dtype.name} of shape {list(tokens.shape)}: expected the token ids of "
                "one sequence"
            )
        if len(tokens) > self.room:
            raise InputError(
                f"the prompt has {len(tokens)} tokens and the cache room for {self.room}: shorten it, or "
                "build the model with a larger max_cache"
            )
        wrong = np.flatnonzero((tokens < 0) | (tokens > self._last_token))
        if wrong.size:
            raise InputError(
                f"token {wrong[0]} of the prompt is {tokens[wrong[0]]}: the model has 0 to "
                f"{self._last_token}; was it made by another model's tokenizer?"
            )
        return tokens.astype(np.int64)

    def start(self, prompt: Array) -> Running:
        """Runs the prompt from position 0: with ``prefill`` as far as that goes, the rest token by token."""
        first = prompt[: _longest(self._prefill.program, self._prompt_specs["input_ids"])]
        values = {
            "input_ids": first,
            "attention_mask": np.ones_like(first),
            "position_ids": np.arange(len(first)),
        }
        inputs = {
            name: values[name].astype(numpy_dtype(spec.dtype))[None]
            for name, spec in self._prompt_specs.items()
        }
        last = Running(self._prefill.run(inputs, self._weights))
        self._mask[:] = 0
        self._mask[:, : len(first)] = 1
        self.position = len(first)
        for token in prompt[len(first) :]:
            last = self.step(int(token))
        return last

    def step(self, token: int) -> Running:
        """Runs ``token`` at the next position, which the cache has room for."""
        self._step["input_ids"][0, 0] = token
        return Running(self._decode.run(self._next_inputs(), self._weights))

    def follow(self, chosen: Chosen) -> Chosen:
        """Enqueues a step for the token that is being chosen, as ``step``, and the choice of the next."""
        assert isinstance(self._decode, Executor)
        inputs = {**self._next_inputs(), "input_ids": chosen.on_device}
        return self.chooser.choose(self._decode.start(inputs, self._weights))

    def _next_inputs(self) -> dict[str, Array]:
        """The decode program's inputs at the next position, but for the token."""
        self._mask[0, self.position] = 1
        for place in self._places:
            place.fill(self.position)
        self.position += 1
        return self._step

    def stays_on_device(self) -> bool:
        """Whether every token can go from output to input on the device."""
        token = [self.chooser.token_of(runs.program) for runs in (self._prefill, self._decode)]
        fits = all(spec is not None and _fits(spec, self._input_ids) for spec in token)
        return fits and isinstance(self._decode, Executor)


def _known_inputs(name: str, executor: Runs, known: Sequence[str]) -> dict[str, IOSpec]:
    """The inputs of a program by name. Raises ``InputError`` unless it is a decoder's, for one sequence."""
    specs = {spec.name: spec for spec in executor.program.input_specs}
    if "input_ids" not in specs or not specs.keys() <= set(known):
        raise InputError(
            f"the {name} program takes {', '.join(specs)}: expected {', '.join(known)}; were the two "
            "programs confused, or is the model no decoder?"
        )
    for spec in specs.values():
        if spec.name != "cache_position" and isinstance(spec.shape[0], int) and spec.shape[0] != 1:
            raise InputError(
                f"the {name} program takes {spec.shape[0]} sequences at once: generation runs one; build "
                "the model with batch 1"
            )
    return specs


def _fits(token: IOSpec, ids: IOSpec) -> bool:
    """Whether ``token`` needs no look before it is an input ``ids``."""
    return token.dtype == ids.dtype and _shape(token) == _shape(ids) and (
        token.lower is not None and token.lower >= (ids.lower or 0)
        and token.upper is not None and (ids.upper is None or token.upper <= ids.upper)
    )


def _vocabulary(name: str, executor: Runs) -> int:
    """The number of tokens that have a logit."""
    found = {spec.name: spec for spec in executor.program.output_specs}
    size = found["logits"].shape[-1] if "logits" in found else None
    if not isinstance(size, int):
        raise InputError(f"the {name} program has no output logits of one number per token; it has "
                         f"{', '.join(found)}")
    return size


def _room(specs: Mapping[str, IOSpec]) -> int:
    """Positions that the cache has."""
    mask, place = specs.get("attention_mask"), specs.get("cache_position")
    sizes = []
    if mask is not None and isinstance(mask.shape[-1], int):
        sizes.append(mask.shape[-1])
    if place is not None and place.upper is not None:
        sizes.append(place.upper + 1)
    if not sizes:
        raise InputError("the decode program does not say how long its cache is: its attention_mask must be "
                         "[1, length of the cache]")
    return min(sizes)


def _shape(spec: IOSpec) -> tuple[int, ...]:
    return tuple(size if isinstance(size, int) else 1 for size in spec.shape)


def _longest(program: Specs, ids: IOSpec) -> int:
    """The most tokens that a prefill takes at once."""
    return evaluate(ids.shape[-1], {symbol.name: symbol.upper for symbol in program.symbols})
