"""dtypes: how OpenCL C writes and computes them, and PyTorch's type promotion."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType

from npu_compiler.errors import Unsupported

#: What a value is in memory.
STORAGE_TYPE: Mapping[str, str] = MappingProxyType(
    {
        "float16": "ushort",
        "bfloat16": "ushort",
        "float32": "float",
        "float64": "double",
        "int8": "char",
        "int16": "short",
        "int32": "int",
        "int64": "long",
        "uint8": "uchar",
        "uint16": "ushort",
        "uint32": "uint",
        "uint64": "ulong",
        "bool": "uchar",
    }
)
#: What a kernel computes with.
COMPUTE_TYPE: Mapping[str, str] = MappingProxyType({**STORAGE_TYPE, "float16": "float", "bfloat16": "float"})
#: Floating point of 16 bits: a form of storage. Kernels compute in float32 and round when they store.
HALF = frozenset({"float16", "bfloat16"})
#: What the parts of complex numbers are. No kernel computes with the numbers themselves.
REAL: Mapping[str, str] = MappingProxyType({"complex64": "float32", "complex128": "float64"})
#: The short form in kernels' names.
SHORT: Mapping[str, str] = MappingProxyType(
    {
        "float16": "f16",
        "bfloat16": "bf16",
        "float32": "f32",
        "float64": "f64",
        "int8": "i8",
        "int16": "i16",
        "int32": "i32",
        "int64": "i64",
        "uint8": "u8",
        "uint16": "u16",
        "uint32": "u32",
        "uint64": "u64",
        "bool": "b8",
    }
)
_RANK = (
    *("bool", "uint8", "int8", "int16", "int32", "int64", "uint16", "uint32", "uint64"),
    *("float16", "bfloat16", "float32", "float64"),
)


_SUFFIX: Mapping[str, str] = MappingProxyType({"int64": "L", "uint32": "U", "uint64": "UL"})


def is_float(dtype: str) -> bool:
    return dtype.startswith(("float", "bfloat"))


def category(dtype: str) -> int:
    """0 for bool, 1 for integers, 2 for floating point."""
    return 0 if dtype == "bool" else 2 if is_float(dtype) else 1


def promote(dtypes: Sequence[str]) -> str:
    """The dtype that tensors of these dtypes compute in together (PyTorch's rule for tensors of rank above
    0)."""
    result = dtypes[0]
    for dtype in dtypes[1:]:
        if {result, dtype} == {"uint8", "int8"}:
            result = "int16"
        elif {result, dtype} == {"float16", "bfloat16"}:
            result = "float32"
        elif _RANK.index(dtype) > _RANK.index(result):
            result = dtype
    return result


def promote_scalar(dtype: str, scalar: object) -> str:
    """The dtype of a tensor of ``dtype`` combined with a Python number: only a higher category changes it."""
    kind = 0 if isinstance(scalar, bool) else 1 if isinstance(scalar, int) else 2
    if kind <= category(dtype):
        return dtype
    return "int64" if kind == 1 else "float32"


def held(value: float, dtype: str) -> float:
    """A Python number as an element of a dtype has it: any but 0 is true, whole numbers lose their fraction.

    Raises ``Unsupported`` for a whole number that is not finite."""
    if dtype == "bool":
        return bool(value)
    if is_float(dtype):
        return float(value)
    if not math.isfinite(value):
        raise Unsupported(f"the number {value} in a tensor of {dtype}", "use a finite number")
    return int(value)


def literal(value: float, dtype: str) -> str:
    """A number as an OpenCL C literal of the dtype's compute type, in parentheses where negative."""
    if is_float(dtype):
        suffix = "" if dtype == "float64" else "f"
        number = float(value)
        if number != number:
            return "NAN"
        if number in (float("inf"), float("-inf")):
            return "INFINITY" if number > 0 else "(-INFINITY)"
        text = (
            f"{number!r}{suffix}" if "." in repr(number) or "e" in repr(number) else f"{number!r}.0{suffix}"
        )
        return f"({text})" if number < 0 else text
    number = int(held(value, dtype))
    if number == -(1 << 63):
        return "(-9223372036854775807L - 1)"
    text = f"{number}{_SUFFIX.get(dtype, '')}"
    return f"({text})" if number < 0 else text


def attr_dtype(text: object) -> str:
    """The dtype in an attribute: "torch.float32" -> "float32"."""
    return str(text).removeprefix("torch.")


def reader(dtype: str) -> str:
    """The C function from a stored element to the compute type (``templates/lib/half.cl.j2``); "" where they
    are the same."""
    return f"npu_from_{SHORT[dtype]}" if dtype in HALF else ""


def writer(dtype: str) -> str:
    """The C function from the compute type to a stored element, rounding to nearest even; "" where they are
    the same."""
    return f"npu_to_{SHORT[dtype]}" if dtype in HALF else ""
