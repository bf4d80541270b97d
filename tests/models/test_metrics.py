"""Metrics on arrays whose results can be worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from pipelines.metrics import LOWEST_SNR, ErrorSum, accuracy, agreement, best_classes, error_stats, guesses
from pipelines.results import Guess, ImageCheck


def test_errors_of_known_arrays() -> None:
    stats = error_stats(np.array([1.0, -4.0, 2.5]), np.array([1.0, -4.0, 2.0]))
    assert (stats.max_abs, stats.mean_abs, stats.max_relative) == (0.5, pytest.approx(0.5 / 3), 0.125)
    assert stats.snr_db == pytest.approx(10 * math.log10(21 / 0.25))
    assert (stats.elements, stats.mismatched) == (3, 0)


@pytest.mark.parametrize(
    ("found", "reference", "snr", "relative", "mismatched"),
    [
        ([1.0, 2.0], [1.0, 2.0], None, 0.0, 0),
        ([0.5], [0.0], LOWEST_SNR, 0.5, 0),
        ([], [], None, 0.0, 0),
        ([math.nan, math.inf, 1.0], [math.nan, math.inf, 1.0], None, 0.0, 0),
        ([math.nan, 1.0], [0.0, 1.0], None, 0.0, 1),
        ([math.inf], [-math.inf], None, 0.0, 1),
        ([3, 7], [3, 5], 10 * math.log10(34 / 4), 0.4, 0),
    ],
)
def test_errors_at_the_edges(
    found: list[float], reference: list[float], snr: float | None, relative: float, mismatched: int
) -> None:
    stats = error_stats(np.array(found), np.array(reference))
    assert stats.snr_db == (None if snr is None else pytest.approx(snr))
    assert stats.max_relative == pytest.approx(relative)
    assert stats.mismatched == mismatched


def test_errors_add_up_over_tensors() -> None:
    total = ErrorSum()
    total.add(np.array([1.0, 2.0]), np.array([1.0, 2.5]))
    total.add(np.array([[10.0]]), np.array([[9.0]]))
    stats = total.stats()
    assert (stats.max_abs, stats.mean_abs, stats.max_relative, stats.elements) == (1.0, 0.5, 1 / 9, 3)


def test_other_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(2,\).*\(3,\)"):
        error_stats(np.zeros(2), np.zeros(3))


def test_best_classes_take_the_first_of_equals() -> None:
    assert best_classes(np.array([[1, 9, 3, 9, 5, 0]]), 3).tolist() == [[1, 3, 4]]


def test_guesses_are_softmax_probabilities() -> None:
    best, second, *_ = guesses(np.log(np.array([0.7, 0.1, 0.2])), 3)
    assert (best.index, second.index) == (0, 2)
    assert (best.probability, second.probability) == (pytest.approx(0.7), pytest.approx(0.2))


@pytest.mark.parametrize(("count", "share"), [(1, 0.5), (2, 1.0)])
def test_agreement_compares_sets_row_by_row(count: int, share: float) -> None:
    ours, theirs = np.array([[3.0, 2.0, 1.0], [3.0, 2.0, 1.0]]), np.array([[3.0, 2.0, 1.0], [2.0, 3.0, 1.0]])
    assert agreement(ours, theirs, count) == share


def image(label: int | None, expected: list[int], found: list[int]) -> ImageCheck:
    return ImageCheck(
        "x.jpg",
        label,
        tuple(Guess(index, 0.1) for index in expected),
        tuple(Guess(index, 0.1) for index in found),
        0.0,
    )


def test_accuracy_counts() -> None:
    counts = accuracy(
        [
            image(1, [1, 2, 3, 4, 5], [1, 2, 3, 5, 4]),  # both right, the same five
            image(2, [1, 2, 3, 4, 5], [2, 1, 3, 4, 5]),  # ours right, PyTorch only among five
            image(9, [1, 2, 3, 4, 5], [1, 2, 3, 4, 6]),  # both wrong, other five
            image(None, [1, 2, 3, 4, 5], [1, 2, 3, 4, 5]),
        ]
    )
    assert (counts.images, counts.top1, counts.top5) == (4, 2, 2)
    assert (counts.reference_top1, counts.reference_top5) == (1, 2)
    assert (counts.agree_top1, counts.agree_top5) == (3, 3)
