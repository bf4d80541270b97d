"""From logits to the next token: the rules of ``transformers``' logits processors, in its order.

repetition penalty, temperature, top-k, top-p, min-p; then a draw from what is left, or the best token.

Probabilities are whole numbers, of which sums are the same in any order: a token whose logit lies ``gap``
below the best has the weight exp(-gap / temperature) in units of 2**-40, computed by whole-number arithmetic
(``weights_of``). The kernels of ``draw_token`` (templates/ops/draw_token.cl.j2) do the same, so that equal
logits and equal seeds give equal tokens here and on every device, bit for bit. Against real numbers a weight
is off by less than 1e-8 of itself and 2**-40; a token below that is never drawn.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any

import numpy as np

from npu_runtime.dtypes import Array
from npu_runtime.errors import InputError

_WEIGHT_BITS = 40
_CHANCE_BITS = 53
#: No model has so many tokens; float32 holds every number up to it.
_MOST_TOKENS = 1 << 23
#: log2(e) in units of 2**-31, and the polynomial's terms in units of 2**-32, signs alternating.
_LOG2_E = 3098164009
EXP2 = (4294967296, 2977044471, 1031764939, 238387495, 41304489, 5712048, 639488, 48550)


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


    @property
    def rules(self) -> Array:
        """What a ``draw_token`` kernel is given, float32 [4]: 1 over the temperature, top-k (0: all), the
        probability that top-p leaves out (0: none), min-p. Temperatures below 2**-64 are as that one."""
        inverse = 1 / max(self.temperature, 2.0**-64)
        top_k = min(self.top_k or 0, _MOST_TOKENS)
        left_out = 0.0 if self.top_p is None else 1 - self.top_p
        return np.array([inverse, top_k, left_out, self.min_p or 0], np.float32)


class Sampler:
    """Chooses the tokens of one sequence."""

    def __init__(self, sampling: Sampling, prompt: Iterable[int]) -> None:
        self.sampling = sampling
        self._random = np.random.default_rng(sampling.seed)
        self._seen = set(map(int, prompt)) if sampling.repetition_penalty != 1 else None

    def choose(self, logits: Array) -> int:
        """The next token for ``logits`` (float, one per token), which are left as they are.

        Raises ``InputError`` if they hold NaN, or nothing finite.
        """
        scores = logits
        if self._seen is not None:
            scores = penalised(logits, sorted(self._seen), self.sampling.repetition_penalty)
        token = int(scores.argmax())
        check_best(scores[token])
        if self.sampling.temperature:
            tokens, weights = candidates(scores, self.sampling)
            sums = weights.cumsum()
            place = int(sums[-1]) * self.chance() >> _CHANCE_BITS
            token = int(tokens[sums.searchsorted(np.uint64(place), side="right")])
        if self._seen is not None:
            self._seen.add(token)
        return token


    def chance(self) -> int:
        """The random number of the next draw: from 0 to 2**53 - 1, 2**53 times a number from 0 to 1."""
        return int(self._random.random() * 2**_CHANCE_BITS)


def check_best(logit: float) -> None:
    """Raises ``InputError`` unless the largest logit is a number that others can be compared with."""
    if not isfinite(logit):
        raise InputError(
            f"the model's logits cannot be sampled from: their largest is {logit}; check its weights, and "
            "its precision"
        )


def penalised(logits: Array, seen: Sequence[int], penalty: float) -> Array:
    """A copy of ``logits`` in which the tokens ``seen`` are less likely by ``penalty``; those that have no
    logit are ignored."""
    scores = logits.copy()
    tokens = np.asarray([token for token in seen if token < len(scores)], np.int64)
    old = scores[tokens]
    scores[tokens] = np.where(old < 0, old * scores.dtype.type(penalty), old / scores.dtype.type(penalty))
    return scores


def candidates(logits: Array, sampling: Sampling) -> tuple[Array, Array]:
    """The tokens that may be drawn, in order, and their weights (uint64); ``logits`` are float32
    [vocabulary], the largest finite."""
    inverse, top_k, left_out, min_p = sampling.rules
    tokens = np.arange(len(logits))
    if 0 < top_k < len(logits):
        place = len(logits) - int(top_k)
        tokens = np.flatnonzero(logits >= np.partition(logits, place)[place])
    kept = logits[tokens]
    weights = weights_of((kept.max() - kept) * inverse)
    if left_out > 0:
        inside = _nucleus(kept, weights, min(int(float(left_out) * 2.0**64), 2**64 - 1))
        tokens, weights = tokens[inside], weights[inside]
    if min_p > 0:
        inside = np.flatnonzero(weights >= np.uint64(int(float(min_p) * 2.0**_WEIGHT_BITS)))
        tokens, weights = tokens[inside], weights[inside]
    return tokens, weights


def weights_of(gaps: Array) -> Array:
    """exp(-gap) in units of 2**-40, rounded down, for float32 numbers from 0 on: uint64.

    The gap, rounded down to a multiple of 2**-27, times log2(e) is a whole number e and a rest f; the result
    is 2**-e times a polynomial of degree 7 in f, which interpolates 2**-f at Chebyshev's nodes and is 1 at 0:
    its error is 1.8e-9. All of it is arithmetic on whole numbers of 64 bits."""
    near = np.flatnonzero(gaps < np.float32(32))
    product = (gaps[near] * np.float32(2**27)).astype(np.uint64) * np.uint64(_LOG2_E)
    rest = product >> np.uint64(26) & np.uint64(0xFFFFFFFF)
    power = np.full_like(rest, EXP2[-1])
    for term in EXP2[-2::-1]:
        power = np.uint64(term) - (power * rest >> np.uint64(32))
    weights = np.zeros(gaps.shape, np.uint64)
    weights[near] = power << np.uint64(_WEIGHT_BITS - 32) >> (product >> np.uint64(58))
    return weights


def _nucleus(logits: Array, weights: Array, left_out: int) -> Array:
    """Where tokens belong to the best that make up the probability 1 - ``left_out`` / 2**64: the others,
    summed from the smallest, the first of equals before the last, stay within the rest. The best one always
    belongs."""
    rest = int(weights.sum()) * left_out >> 64
    # so small that all of them together stay within the rest: they need not be sorted
    least = logits[weights > np.uint64(rest // len(weights))].min()
    kept = np.flatnonzero(logits >= least)
    order = kept[np.argsort(logits[kept], kind="stable")]
    small = weights.sum() - weights[kept].sum()
    return np.sort(order[small + weights[order].cumsum() > np.uint64(rest)])
