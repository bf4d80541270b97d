"""dtype names of programs and files, and their numpy types."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from math import prod
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from npu_runtime.errors import FormatError

#: Any numpy array.
Array = NDArray[Any]

#: dtype name -> bytes per element.
ITEM_SIZE: Mapping[str, int] = MappingProxyType(
    dict.fromkeys(("int8", "uint8", "bool"), 1)
    | dict.fromkeys(("float16", "bfloat16", "int16", "uint16"), 2)
    | dict.fromkeys(("float32", "int32", "uint32"), 4)
    | dict.fromkeys(("float64", "int64", "uint64", "complex64"), 8)
    | {"complex128": 16}
)


@cache
def numpy_dtype(name: str) -> np.dtype[Any]:
    """The numpy type of ``name``; bfloat16 is ml_dtypes'. Raises ``FormatError`` for an unknown name."""
    if name not in ITEM_SIZE:
        raise FormatError(f"unknown dtype {name!r}; known are {', '.join(ITEM_SIZE)}")
    dtype: np.dtype[Any]
    if name == "bfloat16":
        import ml_dtypes

        dtype = np.dtype(ml_dtypes.bfloat16)
    else:
        dtype = np.dtype(name)
    return dtype


def nbytes(shape: Sequence[int], dtype: str) -> int:
    """Bytes of a dense tensor."""
    return prod(shape) * ITEM_SIZE[dtype]


def is_integer(dtype: str) -> bool:
    """Whether ``dtype`` holds whole numbers (bool does not)."""
    return dtype.startswith(("int", "uint"))


def spec_text(dtype: str, shape: Sequence[object]) -> str:
    """A shape and dtype for a message: ``float32[1, 3, 224, 224]``."""
    return f"{dtype}[{', '.join(map(str, shape))}]"
