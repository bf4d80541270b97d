"""Numbers that compare tensors: errors, signal to noise, agreement of class scores."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np

from pipelines.results import Accuracy, ErrorStats, Guess, ImageCheck

Array: TypeAlias = "np.ndarray[Any, np.dtype[Any]]"


#: Stands for minus infinity: errors against a reference without energy.
LOWEST_SNR = -999.0


class ErrorSum:
    """Collects the errors of many tensors into one ``ErrorStats``, in float64."""

    def __init__(self) -> None:
        self._max_abs = self._sum_abs = self._reference_max = self._signal = self._noise = 0.0
        self._elements = self._mismatched = 0

    def add(self, found: Array, reference: Array) -> None:
        """Infinities and NaNs must be at the same places with the same sign: others are counted as
        mismatched, and errors are taken where both sides are finite. Raises ``ValueError`` if the shapes
        differ."""
        if found.shape != reference.shape:
            raise ValueError(f"a result of shape {found.shape} cannot be compared with {reference.shape}")
        ours, theirs = found.astype(np.float64), reference.astype(np.float64)
        finite = np.isfinite(ours) & np.isfinite(theirs)
        same = finite | (ours == theirs) | (np.isnan(ours) & np.isnan(theirs))
        self._elements += ours.size
        self._mismatched += int(np.count_nonzero(~same))
        if not finite.any():
            return
        theirs = theirs[finite]
        error = np.abs(ours[finite] - theirs)
        self._max_abs = max(self._max_abs, float(error.max()))
        self._sum_abs += float(error.sum())
        self._reference_max = max(self._reference_max, float(np.abs(theirs).max()))
        self._noise += float(np.square(error).sum())
        self._signal += float(np.square(theirs).sum())

    def stats(self) -> ErrorStats:
        """What was collected. Against an all-zero reference the relative error is the absolute one."""
        snr = None
        if self._noise:
            snr = 10 * math.log10(self._signal / self._noise) if self._signal else LOWEST_SNR
        return ErrorStats(
            self._max_abs,
            self._sum_abs / max(self._elements, 1),
            self._max_abs / (self._reference_max or 1.0),
            snr,
            self._elements,
            self._mismatched,
        )


def error_stats(found: Array, reference: Array) -> ErrorStats:
    """The errors of one tensor."""
    total = ErrorSum()
    total.add(found, reference)
    return total.stats()


def best_classes(scores: Array, count: int = 5) -> Array:
    """The indices of the ``count`` largest scores of each row ``[n, classes]``, largest first; of equals
    the first."""
    return np.argsort(-scores.astype(np.float64), axis=-1, kind="stable")[..., :count]


def guesses(scores: Array, count: int = 5) -> tuple[Guess, ...]:
    """The best classes of one row of logits, with softmax probabilities."""
    shifted = np.exp(scores.astype(np.float64) - scores.max())
    shares = shifted / shifted.sum()
    return tuple(Guess(int(index), float(shares[index])) for index in best_classes(scores, count))


def agreement(found: Array, reference: Array, count: int) -> float:
    """The share of rows whose ``count`` best classes are the same set on both sides."""
    ours, theirs = (np.sort(best_classes(scores, count), axis=-1) for scores in (found, reference))
    return float((ours == theirs).all(axis=-1).mean())


def accuracy(images: Sequence[ImageCheck]) -> Accuracy:
    """Counts over the images; those without a label count as images only."""

    def hits(attribute: str, depth: int) -> int:
        return sum(
            image.label in [guess.index for guess in getattr(image, attribute)[:depth]] for image in images
        )

    return Accuracy(
        images=len(images),
        top1=hits("found", 1),
        top5=hits("found", 5),
        reference_top1=hits("expected", 1),
        reference_top5=hits("expected", 5),
        agree_top1=sum(image.agrees for image in images),
        agree_top5=sum(
            {guess.index for guess in image.found} == {guess.index for guess in image.expected}
            for image in images
        ),
    )


def percentile(samples: Sequence[float], percent: float) -> float:
    """Linear interpolation between the nearest samples."""
    return float(np.percentile(np.asarray(samples, np.float64), percent))
