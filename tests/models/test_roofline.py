"""Bounds of kernels by a device's peaks, and those peaks measured."""

from __future__ import annotations

import pytest

from npu_runtime.device import Device
from pipelines.results import KernelTime, Peaks
from pipelines.roofline import bound_of, measure

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


def test_peaks_are_measured() -> None:
    found = measure(Device())
    assert found.gflops is not None and 1 < found.gflops < 100_000
    assert 0.1 < found.gbytes < 10_000
    assert 0 < found.start_us < 100_000
