"""Constants as nested lists of numbers (in files) and as bytes (in memory). Never imports PyTorch.

bfloat16 values are written as the numbers that they are; complex ones as [real, imaginary].
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from torch_ir.errors import IRError
from torch_ir.ir import ITEM_SIZE, Constant, TensorSpec

#: Kinds of NumPy values that a dtype's kind can be read from.
_KINDS = {"b": "b", "i": "iu", "u": "iuO", "f": "fiu"}
_KIND_NAMES = {"b": "true and false", "i": "whole numbers", "u": "whole numbers", "f": "numbers"}


def to_array(constant: Constant) -> npt.NDArray[Any]:
    """The values; bfloat16 as float32, which holds each of them exactly."""
    shape = static_shape(constant.spec, "a constant")
    if constant.spec.dtype == "bfloat16":
        words = np.frombuffer(constant.data, np.dtype("<u2")).astype(np.uint32) << 16
        return words.view(np.float32).reshape(shape)
    return np.frombuffer(constant.data, np.dtype(constant.spec.dtype).newbyteorder("<")).reshape(shape)


def to_nested(constant: Constant) -> Any:
    """The values as nested lists."""
    array = to_array(constant)
    if np.iscomplexobj(array):
        array = np.stack([array.real, array.imag], axis=-1)
    return array.tolist()


def from_nested(data: Any, spec: TensorSpec, name: str) -> Constant:
    """The constant with these values. Raises ``IRError`` if they do not fit ``spec``."""
    shape = static_shape(spec, name)
    width = ITEM_SIZE[spec.dtype]
    try:
        if spec.dtype.startswith("complex"):
            part = np.float32 if width == 8 else np.float64
            parts = np.asarray(data, part).reshape(*shape, 2)
            array = np.ascontiguousarray(parts).view(f"<c{width}")
        elif spec.dtype == "bfloat16":
            array = _round_to_bfloat16(np.asarray(data, np.float32))
        else:
            wanted = np.dtype(spec.dtype).newbyteorder("<")
            given = np.asarray(data, object if spec.dtype == "uint64" else None)
            if given.size and given.dtype.kind not in _KINDS[wanted.kind]:
                raise ValueError(f"expected {_KIND_NAMES[wanted.kind]}")
            array = np.asarray(data, wanted)
        array = array.reshape(shape)
    except (ValueError, TypeError, OverflowError) as error:
        raise IRError(f"{name}: the values do not fit {spec.dtype}{list(shape)}: {error}") from None
    return Constant(spec, array.tobytes())


def static_shape(spec: TensorSpec, name: str) -> tuple[int, ...]:
    shape = tuple(dim for dim in spec.shape if isinstance(dim, int) and dim >= 0)
    if len(shape) != len(spec.shape):
        raise IRError(f"{name}: a stored tensor needs a fixed shape, not {', '.join(map(str, spec.shape))}")
    return shape


def nested_shape(data: Any) -> tuple[int, ...]:
    """The shape of nested lists, where nothing else tells it."""
    shape: tuple[int, ...] = ()
    while isinstance(data, list):
        shape = (*shape, len(data))
        if not data:
            break
        data = data[0]
    return shape


def _round_to_bfloat16(array: npt.NDArray[np.float32]) -> npt.NDArray[Any]:
    bits = np.atleast_1d(array).view(np.uint32).astype(np.uint64)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    kept = np.where(np.isnan(np.atleast_1d(array)), (bits >> 16) | 0x40, rounded)
    return kept.astype("<u2")
