"""Tensors on a device."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest

from npu_runtime.backend import Backend
from npu_runtime.buffer import NPUBuffer, within
from npu_runtime.dtypes import ITEM_SIZE, numpy_dtype
from npu_runtime.errors import InputError
from npu_runtime.program import IOSpec


@pytest.mark.parametrize("dtype", sorted(ITEM_SIZE))
@pytest.mark.parametrize("shape", [(), (0,), (3, 0, 2), (7,), (2, 3, 5)], ids=str)
def test_round_trip(first_device: Backend, dtype: str, shape: tuple[int, ...]) -> None:
    array = (
        np.random.default_rng(1).integers(0, 2 if dtype == "bool" else 100, shape).astype(numpy_dtype(dtype))
    )
    back = NPUBuffer.from_numpy(array, first_device).to_numpy()
    assert (back.dtype, back.shape) == (array.dtype, shape)
    np.testing.assert_array_equal(back, array)


def test_the_specs_of_the_guide(device: Backend) -> None:
    spec = IOSpec("x", (2, "n"), "float32")
    array = np.random.default_rng(2).standard_normal((2, 5)).astype(np.float32)
    buffer = NPUBuffer.from_numpy(array, device, spec=spec)
    for back in (buffer.to_numpy(spec=spec), buffer.to_numpy(spec=...), buffer.to_numpy()):
        np.testing.assert_array_equal(back, array)
    array[:] = 0
    assert buffer.to_numpy().any()


@pytest.mark.parametrize(
    "view",
    [
        lambda a: a.T,
        lambda a: a[::2],
        lambda a: a.astype(">f4"),
        lambda a: a[:, ::-1],
    ],
)
def test_any_memory_layout_is_accepted(first_device: Backend, view: Any) -> None:
    array = view(np.arange(24, dtype=np.float32).reshape(4, 6))
    np.testing.assert_array_equal(NPUBuffer.from_numpy(array, first_device).to_numpy(), array)


def test_float32_becomes_bfloat16_by_rounding_to_nearest_even(first_device: Backend) -> None:
    array = np.array([1.0, 1.00390625, 1.01171875, -3.14159, 1e38, np.inf, 0.1], np.float32)
    back = NPUBuffer.from_numpy(array, first_device, IOSpec("x", (7,), "bfloat16")).to_numpy()
    assert back.dtype == ml_dtypes.bfloat16
    bits = array.view(np.uint32).astype(np.uint64)
    expected = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
    np.testing.assert_array_equal(back.view(np.uint16), expected)


@pytest.mark.parametrize(
    ("array", "dtype"),
    [
        (np.array([1, 2], np.int32), "int64"),
        (np.array([1, 200], np.int64), "uint8"),
        (np.array([True, False]), "int64"),
        ([1, 2], "int32"),
        (np.array([1.5, 2], np.float16), "float32"),
        (np.array([1.5, 2], np.float32), "float16"),
        (np.array([1.5, 2.0], ml_dtypes.bfloat16), "float32"),
    ],
)
def test_conversions_that_lose_nothing(first_device: Backend, array: Any, dtype: str) -> None:
    back = NPUBuffer.from_numpy(array, first_device, IOSpec("x", (2,), dtype)).to_numpy()
    assert back.dtype == numpy_dtype(dtype)
    np.testing.assert_array_equal(back.astype(np.float64), np.asarray(array).astype(np.float64))


@pytest.mark.parametrize(
    ("array", "dtype", "says"),
    [
        (np.zeros(2, np.float64), "float32", r"float64: expected float32.*astype\('float32'\)"),
        (np.array([1, 300]), "uint8", "values from 1 to 300, which uint8 cannot hold"),
        (np.zeros(2, np.float32), "int64", "float32: expected int64"),
        (np.zeros(2, np.int64), "float32", "int64: expected float32"),
        (np.zeros(3, np.float32), "float32", r"'x' is float32\[3\]: expected float32\[2\]"),
        (np.zeros((1, 2), np.float32), "float32", r"float32\[1, 2\]: expected float32\[2\]"),
        (np.array(["a", "b"]), "float32", "dtype str"),
        (np.array([None, 1]), "float32", "dtype object"),
    ],
)
def test_others_are_refused(first_device: Backend, array: Any, dtype: str, says: str) -> None:
    with pytest.raises(InputError, match=says):
        NPUBuffer.from_numpy(array, first_device, IOSpec("x", (2,), dtype))


def test_zeros_and_bounds(first_device: Backend) -> None:
    buffer = NPUBuffer.zeros((2, 3), "int16", first_device)
    np.testing.assert_array_equal(buffer.to_numpy(), np.zeros((2, 3), np.int16))
    assert buffer.bounds() == (0, 0)
    assert NPUBuffer.from_numpy(np.array([5, -3, 4]), first_device).bounds() == (-3, 5)
    assert NPUBuffer.from_numpy(np.array([], np.int64), first_device).bounds() is None
    assert NPUBuffer.from_numpy(np.array([1.0]), first_device).bounds() is None
    for shape, dtype in (((-1,), "int8"), ((1,), "int7")):
        with pytest.raises(InputError, match="cannot make zeros"):
            NPUBuffer.zeros(shape, dtype, first_device)


def test_reading_as_another_spec_is_refused(first_device: Backend) -> None:
    buffer = NPUBuffer.zeros((2, 3), "float32", first_device)
    with pytest.raises(InputError, match=r"'y' is float32\[2, 3\]: expected bfloat16\[2, 3\]"):
        buffer.to_numpy(IOSpec("y", (2, 3), "bfloat16"))


@pytest.mark.parametrize("dtype", ["int8", "int64", "uint8", "uint64"])
@pytest.mark.parametrize("low", [None, -3, 0, 2])
@pytest.mark.parametrize("high", [None, 5, 1000])
def test_values_within_bounds(dtype: str, low: int | None, high: int | None) -> None:
    info = np.iinfo(dtype)
    for value in (info.min, -4, -3, -1, 0, 1, 2, 5, 6, info.max):
        if info.min <= value <= info.max:
            fits = (low is None or low <= value) and (high is None or value <= high)
            found = within(np.array([[3, value, 4]], dtype), low, high)
            assert found == fits, (value, low, high)


@pytest.mark.parametrize("array", [np.zeros((3, 0), np.int64), np.full(3, np.nan), np.array([True])], ids=str)
def test_bounds_hold_for_whole_numbers_only(array: Any) -> None:
    assert within(array, 5, 4)
