"""From logits to the next token: the rules of ``transformers``' logits processors, in its order.

repetition penalty, temperature, top-k, top-p, min-p; then a draw from what is left, or the best token.
Comparisons are made in float32 and running sums in float64, as PyTorch makes them on a CPU.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any

import numpy as np

from npu_runtime.dtypes import Array
from npu_runtime.errors import InputError


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the next token is chosen.

    ``temperature`` divides the logits; 0 takes the best token, the one with the lowest id among equals, and
    top-k, top-p and min-p then mean nothing. ``top_k`` keeps the k best tokens and their equals (None or 0:
    all), ``top_p`` the fewest best ones whose probabilities sum to it (None or 1: all), ``min_p`` those at
    least so probable, relative to the best (None or 0: all). ``repetition_penalty`` divides positive and
    multiplies negative logits of every token in the prompt or generated so far (1: off). Equal seeds give
    equal draws for equal logits; None draws differently each time.

    Raises ``InputError`` for a number that cannot be meant.
    """

    temperature: float = 0.0
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    repetition_penalty: float = 1.0
    seed: int | None = None

    def __post_init__(self) -> None:
        whole = (int, np.integer)
        number = (float, np.floating, *whole)
        rules: tuple[tuple[str, tuple[type, ...], Callable[[Any], bool], str], ...] = (
            ("temperature", number, lambda x: x >= 0 and isfinite(x), "0 (the best token) or more"),
            ("top_k", whole, lambda x: x >= 0, "a whole number of tokens, 0 or None for all"),
            ("top_p", number, lambda x: 0 <= x <= 1, "a probability from 0 to 1, 1 or None for all"),
            ("min_p", number, lambda x: 0 <= x <= 1, "a share from 0 to 1, 0 or None for all"),
            ("repetition_penalty", number, lambda x: x > 0 and isfinite(x), "above 0, 1 for none"),
            ("seed", whole, lambda x: x >= 0, "a whole number from 0, None for another each time"),
        )
        optional = ("top_k", "top_p", "min_p", "seed")
        for name, kinds, holds, expected in rules:
            value = getattr(self, name)
            if value is None and name in optional:
                continue
            if not isinstance(value, kinds) or isinstance(value, bool) or not holds(value):
                raise InputError(f"{name} is {value!r}: expected {expected}")

    @property
    def greedy(self) -> bool:
        """Whether the best of the model's own logits is taken, whatever came before."""
        return self.temperature == 0 and self.repetition_penalty == 1


class Sampler:
    """Chooses the tokens of one sequence."""

    def __init__(self, sampling: Sampling, prompt: Iterable[int]) -> None:
        self.sampling = sampling
        self._random = np.random.default_rng(sampling.seed) if sampling.temperature else None
        self._seen = set(map(int, prompt)) if sampling.repetition_penalty != 1 else None

    def choose(self, logits: Array) -> int:
        """The next token for ``logits`` (float, one per token), which are left as they are.

        Raises ``InputError`` if they hold NaN, or nothing finite.
        """
        scores = logits
        if self._seen is not None:
            scores = penalised(logits, sorted(self._seen), self.sampling.repetition_penalty)
        best = int(scores.argmax())
        if not isfinite(scores[best]):
            raise InputError(
                f"the model's logits cannot be sampled from: their largest is {scores[best]}; check its "
                "weights, and its precision"
            )
        token = best
        if self._random is not None:
            tokens, scores = candidates(scores, self.sampling)
            sums = np.exp(scores.astype(np.float64) - float(scores.max())).cumsum()
            place = int(sums.searchsorted(self._random.random() * sums[-1], side="right"))
            token = int(tokens[min(place, len(tokens) - 1)])
        if self._seen is not None:
            self._seen.add(token)
        return token


def penalised(logits: Array, seen: Sequence[int], penalty: float) -> Array:
    """A copy of ``logits`` in which the tokens ``seen`` are less likely by ``penalty``; those that have no
    logit are ignored."""
    scores = logits.copy()
    tokens = np.asarray([token for token in seen if token < len(scores)], np.int64)
    old = scores[tokens]
    scores[tokens] = np.where(old < 0, old * scores.dtype.type(penalty), old / scores.dtype.type(penalty))
    return scores


def candidates(logits: Array, sampling: Sampling) -> tuple[Array, Array]:
    """The tokens that may be drawn, in order, and their scores (float32: logits over the temperature)."""
    scores = logits.astype(np.float32, copy=False)
    if sampling.temperature not in (0, 1):
        scores = scores / np.float32(sampling.temperature)
    tokens = np.arange(len(scores))
    if sampling.top_k and sampling.top_k < len(scores):
        place = len(scores) - sampling.top_k
        tokens = np.flatnonzero(scores >= np.partition(scores, place)[place])
    if sampling.top_p is not None and sampling.top_p < 1:
        tokens = tokens[_nucleus(_softmax(scores[tokens]), sampling.top_p)]
    if sampling.min_p:
        shares = _softmax(scores[tokens])
        tokens = tokens[shares >= np.float32(sampling.min_p) * shares.max()]
    return tokens, scores[tokens]


def _nucleus(shares: Array, top_p: float) -> Array:
    """Where the probabilities ``shares`` belong to the best that sum to ``top_p``: the others, summed from
    the smallest, stay within ``1 - top_p``. The best one always belongs."""
    rest = np.float32(1 - top_p)
    # so small that all of them together stay within the rest: they need not be sorted
    kept = np.flatnonzero(shares >= rest / np.float32(len(shares)))
    order = kept[np.argsort(shares[kept], kind="stable")]
    small = float(shares.sum(dtype=np.float64)) - float(shares[kept].sum(dtype=np.float64))
    sums = (small + shares[order].cumsum(dtype=np.float64)).astype(np.float32)
    inside = sums > rest
    inside[-1] = True
    return np.sort(order[inside])


def _softmax(scores: Array) -> Array:
    weights = np.exp(scores - scores.max())
    shares: Array = weights / weights.sum()
    return shares
