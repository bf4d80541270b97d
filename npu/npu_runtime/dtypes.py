"""dtype names of programs and files, and their numpy types."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from math import prod
from types import MappingProxyType
from typing import Any

import numpy as np

from npu_runtime.errors import FormatError

#: dtype name -> bytes per element.
ITEM_SIZE: Mapping[str, int] = MappingProxyType({
    "float16": 2, "bfloat16": 2, "float32": 4, "float64": 8, "complex64": 8, "complex128": 16,
    "int8": 1, "int16": 2, "int32": 4, "int64": 8, "uint8": 1, "uint16": 2, "uint32": 4, "uint64": 8, "bool": 1,
})


@cache
def numpy_dtype(name: str) -> np.dtype[Any]:
    """The numpy type of ``name``; bfloat16 is ml_dtypes'. Raises ``FormatError`` for an unknown name."""
    if name not in ITEM_SIZE:
        raise FormatError(f"unknown dtype {name!r}; known are {', '.join(ITEM_SIZE)}")
    if name == "bfloat16":
        import ml_dtypes

        return np.dtype(ml_dtypes.bfloat16)
    return np.dtype(name)


def nbytes(shape: Sequence[int], dtype: str) -> int:
    """Bytes of a dense tensor."""
    return prod(shape) * ITEM_SIZE[dtype]


def is_integer(dtype: str) -> bool:
    """Whether ``dtype`` holds whole numbers (bool does not)."""
    return dtype.startswith(("int", "uint"))


def spec_text(dtype: str, shape: Sequence[object]) -> str:
    """A shape and dtype for a message: ``float32[1, 3, 224, 224]``."""
    return f"{dtype}[{', '.join(map(str, shape))}]"
