"""Bounds of kernels by a device's peaks, and those peaks measured."""

from __future__ import annotations

import pytest

from npu_runtime.device import Device
from pipelines.results import KernelTime, Peaks
from pipelines.roofline import bound_of, held_back, idle_share, measure

PEAKS = Peaks(gflops=100.0, gbytes=10.0, start_us=2.0)


def step(flops: int = 0, moved: int = 0, calls: int = 1) -> KernelTime:
    return KernelTime("k", calls, 50.0, flops, moved)


@pytest.mark.parametrize(
    ("steps", "peaks", "least", "by"),
    [
        ([step(flops=1_000_000, moved=50_000)], PEAKS, 10.0, "compute"),
        ([step(flops=100_000, moved=50_000)], PEAKS, 5.0, "memory"),
        ([step(flops=10, moved=10)], PEAKS, 2.0, "start"),
        ([step(calls=9)], PEAKS, 18.0, "start"),
        ([step(flops=1_000_000), step(moved=200_000), step()], PEAKS, 32.0, "memory"),
        ([step(flops=1_000_000, moved=50_000)], Peaks(None, 10.0, 2.0), 5.0, "memory"),
    ],
)
def test_the_highest_roof_of_each_step_counts(
    steps: list[KernelTime], peaks: Peaks, least: float, by: str
) -> None:
    found = bound_of(steps, peaks)
    assert (found.least_us, found.by) == (pytest.approx(least), by)


@pytest.mark.parametrize(
    ("took", "flops", "moved", "groups", "peaks", "words"),
    [
        (20.0, 1_000_000, 10_000, 64, PEAKS, ("peak it reaches 50%", "starting takes 10%")),
        (20.0, 0, 100_000, 64, PEAKS, ("bandwidth it reaches 50%", "starting takes 10%")),
        (4.0, 0, 1000, 64, PEAKS, ("by its start, which is 50%", "explain")),
        (5.0, 0, 100_000, 64, PEAKS, ("at its bound by bytes", "starting takes 40%")),
        (100.0, 9_000_000, 10_000, 3, PEAKS,
         ("reaches 90%", "3 work-groups for 2 threads leave these idle for 25%")),
        (100.0, 9_000_000, 10_000, 1, PEAKS,
         ("reaches 90%", "1 work-groups for 2 threads leave these idle for 50%")),
        (100.0, 9_000_000, 10_000, 0, PEAKS, ("reaches 90%",)),
        (100.0, 6_000_000, 500_000, 8, PEAKS, ("reaches 60%", "its bytes alone take 50%")),
        (100.0, 6_000_000, 10_000, 8, PEAKS, ("reaches 60%", "do not explain the rest")),
        (100.0, 0, 500_000, 1, Peaks(None, 10.0, 2.0), ("bandwidth it reaches 50%", "explain")),
    ],
)  # fmt: skip
def test_what_holds_a_kernel_back_is_said(
    took: float, flops: int, moved: int, groups: int, peaks: Peaks, words: tuple[str, ...]
) -> None:
    said = held_back([KernelTime("k", 1, took, flops, moved, groups=groups)], peaks, threads=2)
    assert len(said) == len(words), said
    assert all(word in line for word, line in zip(words, said, strict=True)), said


def test_nothing_is_said_of_a_kernel_that_was_not_timed() -> None:
    assert held_back([], PEAKS, threads=2) == ()


@pytest.mark.parametrize(
    ("groups", "threads", "share"), [(4, 2, 0.0), (5, 2, 1 / 6), (1, 2, 0.5), (7, 4, 1 / 8), (0, 2, 0.0)]
)
def test_work_groups_that_do_not_divide_leave_threads_idle(groups: int, threads: int, share: float) -> None:
    assert idle_share(groups, threads) == pytest.approx(share)


def test_peaks_are_measured() -> None:
    found = measure(Device())
    assert found.gflops is not None and 1 < found.gflops < 100_000
    assert 0.1 < found.gbytes < 10_000
    assert 0 < found.start_us < 100_000
