"""Architectures that nobody tuned for: each compiled without fallback, and equal to eager PyTorch."""

from __future__ import annotations

import numpy as np
import pytest
import table
import torch
from architecture import Architecture, NotEqualError, check, difference

from npu_runtime.device import Device, list_devices


@pytest.fixture(scope="module")
def device() -> Device:
    if not list_devices():
        pytest.skip("no OpenCL device on this machine")
    return Device()


def _parameters() -> list[object]:
    return [
        pytest.param(item, id=item.name, marks=() if item.quick else pytest.mark.full)
        for item in table.ARCHITECTURES
    ]


@pytest.mark.parametrize("architecture", _parameters())
def test_an_architecture_equals_eager_pytorch_or_says_why_not(
    architecture: Architecture, device: Device
) -> None:
    check(architecture, device)


def test_the_table_is_worth_its_name() -> None:
    names = [item.name for item in table.ARCHITECTURES]
    assert len(set(names)) == len(names)
    assert sum(not item.refused for item in table.ARCHITECTURES) >= 60


@pytest.mark.parametrize(
    ("found", "expected", "message"),
    [
        (np.ones((2, 3), np.float32), torch.randn(2, 2), "instead of"),
        (np.ones((2, 3), np.float64), torch.randn(2, 3), "instead of"),
        (np.ones((2, 3), np.float32), torch.ones(2, 3), "constant"),
        (np.ones(2, np.float32), torch.tensor([1.0, float("nan")]), "not finite"),
    ],
)
def test_what_would_prove_nothing_is_an_error(
    found: np.ndarray, expected: torch.Tensor, message: str
) -> None:
    with pytest.raises(NotEqualError, match=message):
        difference(found, expected, "y")


def test_differences_are_relative_to_the_largest_value_and_nan_is_infinite() -> None:
    expected = torch.tensor([1.0, -4.0])
    assert difference(np.array([1.5, -4.0], np.float32), expected, "y") == 0.125
    assert difference(np.array([np.nan, -4.0], np.float32), expected, "y") == float("inf")
