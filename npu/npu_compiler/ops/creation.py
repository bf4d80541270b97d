"""Tensors that no input determines: filled, counted and listed. Where sizes are numbers they are made once,
with the weights."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from npu_compiler.ctext import size_text
from npu_compiler.dtypes import COMPUTE_TYPE, SHORT, STORAGE_TYPE, attr_dtype, held, is_float, literal
from npu_compiler.lowering import Builder, as_dim, as_dims, as_int, as_number, unsupported
from npu_compiler.ops import Attrs, Case, OpDef, Specs, lowers, register
from npu_compiler.ops.arithmetic import choose, size_value
from npu_compiler.ops.elementwise import cast
from npu_compiler.ops.views import reshape, tensor_input
from npu_compiler.pointwise import TEMPLATE, check_dtypes
from npu_compiler.select import BufferUse
from npu_compiler.views import View
from npu_compiler.weights import const_expr
from npu_runtime.program import WeightExpr
from torch_ir.expr import Dim, Expr, ceil_div, is_static
from torch_ir.ir import Node, TensorSpec

if TYPE_CHECKING:
    from npu_compiler.emit import Emitter


def _shaped(specs: Specs, attrs: Attrs) -> tuple[TensorSpec, ...]:
    return (TensorSpec(as_dims(attrs["shape"]), attr_dtype(attrs["dtype"])),)


def _array_expr(array: np.ndarray[Any, Any]) -> WeightExpr:
    return const_expr(array.tobytes(), array.dtype.name, array.shape)


def _full_expr(node: Node, exprs: Sequence[WeightExpr]) -> WeightExpr:
    value, dtype = as_number(node.attrs["value"]), np.dtype(node.out.dtype)
    if dtype.kind in "iu":  # a number beyond the dtype's range wraps, as in PyTorch
        dtype = np.dtype(f"u{dtype.itemsize}")
        value = int(value) % (1 << 8 * dtype.itemsize)
    array = np.array(value, dtype).view(node.out.dtype)
    return ["broadcast", _array_expr(array), list(node.out.shape)]


register(
    OpDef(
        "full",
        _shaped,
        reference=lambda torch, shape, value, dtype: torch.full(
            shape, value, dtype=getattr(torch, attr_dtype(dtype))
        ),
        emit=lambda e, node: e.fill(e.output(node), node.attrs["value"], node),
        weight_expr=_full_expr,
        cases=(Case((), {"shape": (3, 7), "value": 2.5, "dtype": "torch.float32"}),),
    )
)


def _counted(specs: Specs, attrs: Attrs) -> tuple[TensorSpec, ...]:
    return (TensorSpec((as_dim(attrs["length"]),), attr_dtype(attrs["dtype"])),)


def _count(length: int, start: float, step: float, dtype: str) -> np.ndarray[Any, Any]:
    kind = np.float64 if is_float(dtype) else np.int64
    values: np.ndarray[Any, Any] = np.arange(length).astype(kind) * kind(step) + kind(start)
    return values.astype(dtype)


def _emit_count(e: Emitter, node: Node) -> None:
    out, kind = e.output(node), "double" if is_float(node.out.dtype) else "long"
    wide = "float64" if kind == "double" else "int64"
    start, step = (literal(as_number(node.attrs[name]), wide) for name in ("start", "step"))
    _emit_vector(e, node, out, f"{start} + i * {step}", [])


def _emit_vector(e: Emitter, node: Node, out: View, element: str, sizes: Sequence[Dim]) -> None:
    """``out[i] = element``, a C expression of ``i`` and of the symbols in ``sizes``."""
    check_dtypes(e, [out.dtype])
    symbols, symbol_args = e.symbol_args([*out.shape, *sizes])
    grain = max(min(e.target.grain, e.bounds(out.shape[0])[1]), 1)
    kind = COMPUTE_TYPE[out.dtype]
    params = {
        "target": {
            "type": STORAGE_TYPE[out.dtype],
            "value_type": kind,
            "convert": "",
            "row": "0",
            "step": "i",
        },
        "sources": [],
        "lines": [f"const {kind} t0 = ({kind})({element});"],
        "half": False,
        "index_type": "int",
        "symbols": symbols,
        "result": "t0",
        "inner": size_text(out.shape[0]),
        "grain": grain,
        "rows": "1",
        "rows_per_item": 1,
        "outer": [],
    }
    e.call(
        node.op,
        "pointwise",
        TEMPLATE,
        params,
        node=node,
        dtype=SHORT[out.dtype],
        args=[BufferUse(out.buffer, "w"), *symbol_args],
        global_size=(ceil_div(out.shape[0], grain), 1),
    )


def _reference_count(torch: Any, length: int, start: float, step: float, dtype: str) -> Any:
    return torch.from_numpy(_count(length, start, step, attr_dtype(dtype)))


register(
    OpDef(
        "count",
        _counted,
        _reference_count,
        emit=_emit_count,
        weight_expr=lambda node, exprs: _array_expr(
            _count(
                as_int(node.attrs["length"]),
                as_number(node.attrs["start"]),
                as_number(node.attrs["step"]),
                node.out.dtype,
            )
        ),
        cases=(
            Case((), {"length": 7, "start": 2, "step": -3, "dtype": "torch.int64"}),
            Case((), {"length": 113, "start": 0.5, "step": 0.25, "dtype": "torch.float32"}),
        ),
    )
)


def _emit_listed(e: Emitter, node: Node) -> None:
    raise AssertionError(f"{node.name}: a list of numbers is a constant")


def _listed(node: Node) -> np.ndarray[Any, Any]:
    values = node.attrs["values"]
    assert isinstance(values, tuple)
    return np.array(values, node.out.dtype).reshape([as_int(size) for size in node.out.shape])


register(
    OpDef(
        "numbers",
        _shaped,
        reference=lambda torch, values, shape, dtype: torch.tensor(
            values, dtype=getattr(torch, attr_dtype(dtype))
        ).reshape(shape),
        emit=_emit_listed,
        weight_expr=lambda node, exprs: _array_expr(_listed(node)),
        cases=(Case((), {"values": (3, 1, 2, 7, 5), "shape": (5,), "dtype": "torch.int64"}),),
    )
)


def _emit_sizes(e: Emitter, node: Node) -> None:
    out, values = e.output(node), as_dims(node.attrs["values"])
    for value in values:
        require_c_division(e, value)
    *most, last = (size_text(value, "(long)") for value in values)
    chosen = "".join(f"i == {index} ? {text} : " for index, text in enumerate(most)) + last
    _emit_vector(e, node, out, chosen, values)


def require_c_division(e: Emitter, value: Dim) -> None:
    """Refuses quotients and remainders of sizes that may be negative: C rounds those towards 0."""
    for monomial, _ in value.terms if isinstance(value, Expr) else ():
        for atom in monomial:
            if atom.op in ("//", "%") and any(e.bounds(arg)[0] < 0 for arg in atom.args):
                raise unsupported(f"{atom} as a value, whose parts may be negative")
            for arg in atom.args:
                require_c_division(e, arg)


def _sizes_expr(node: Node, exprs: Sequence[WeightExpr]) -> WeightExpr | None:
    values = as_dims(node.attrs["values"])
    return _array_expr(np.array(values, node.out.dtype)) if all_static(values) else None


register(
    OpDef(
        "sizes",
        lambda specs, attrs: (TensorSpec((len(as_dims(attrs["values"])),), attr_dtype(attrs["dtype"])),),
        reference=lambda torch, values, dtype: torch.tensor(values, dtype=getattr(torch, attr_dtype(dtype))),
        emit=_emit_sizes,
        weight_expr=_sizes_expr,
        cases=(Case((), {"values": (7, 2, 5), "dtype": "torch.int64"}),),
    )
)


def numbers(b: Builder, values: Sequence[float], dtype: str) -> str:
    """A constant vector."""
    return b.emit("numbers", values=tuple(values), shape=(len(values),), dtype=f"torch.{dtype}")


def count(b: Builder, length: Dim, dtype: str = "int64", start: float = 0, step: float = 1) -> str:
    """``start, start + step, ...``."""
    return b.emit("count", length=length, start=start, step=step, dtype=f"torch.{dtype}")


def full(b: Builder, shape: tuple[Dim, ...], value: float, dtype: str) -> str:
    return b.emit("full", shape=shape, value=value, dtype=f"torch.{dtype}")


@lowers(
    *(
        f"aten.{name}.default"
        for kind in ("zeros", "ones", "full")
        for name in (kind, f"{kind}_like", f"new_{kind}")
    ),
    "aten.empty.memory_format",
    "aten.empty_like.default",
    "aten.new_empty.default",
    "aten.empty_strided.default",
    "aten.empty_permuted.default",
    "aten.new_empty_strided.default",
    "aten.scalar_tensor.default",
    "aten.fill.Scalar",
)
def lower_full(b: Builder, node: Node) -> str:
    """What PyTorch leaves to chance is 0."""
    value = node.attrs.get(
        "fill_value", node.attrs.get("s", node.attrs.get("value", float("ones" in node.op)))
    )
    if isinstance(value, Expr):
        return b.emit("expand", cast(b, size_value(b, value), node.out.dtype), shape=node.out.shape)
    return full(b, node.out.shape, held(as_number(value), node.out.dtype), node.out.dtype)


@lowers("aten.arange.default", "aten.arange.start", "aten.arange.start_step")
def lower_arange(b: Builder, node: Node) -> str:
    start = node.attrs.get("start", 0)
    step = as_number(node.attrs.get("step", 1))
    if isinstance(start, Expr):
        offsets = count(b, node.out.shape[0], node.out.dtype, 0, step)
        return b.emit("add", offsets, cast(b, size_value(b, start), node.out.dtype))
    return count(b, node.out.shape[0], node.out.dtype, as_number(start), step)


@lowers("aten.linspace.default")
def lower_linspace(b: Builder, node: Node) -> str:
    length, start, end = node.out.shape[0], as_number(node.attrs["start"]), as_number(node.attrs["end"])
    if not isinstance(length, int):
        raise unsupported("a linspace of symbolic length")
    if is_float(node.out.dtype):
        return count(b, length, node.out.dtype, float(start), (end - start) / max(length - 1, 1))
    first, last, half = int(start), int(end), length // 2  # counted from both ends, so that both are exact
    step = (last - first) / max(length - 1, 1)
    low = count(b, max(half, 1), "float64", float(first), step)
    high = b.emit("flip", count(b, max(length - half, 1), "float64", float(last), -step), dims=(0,))
    if not length:
        return full(b, (0,), 0, node.out.dtype)
    return cast(b, b.emit("concat", low, high, dim=0) if half else low, node.out.dtype)


@lowers("aten.fft_fftfreq.default", "aten.fft_rfftfreq.default")
def lower_frequencies(b: Builder, node: Node) -> str:
    """The frequency of each element of a Fourier transform of ``n`` samples ``d`` apart."""
    size, step = as_int(node.attrs["n"]), as_number(node.attrs.get("d", 1.0))
    if step == 0:
        raise unsupported("frequencies of samples no time apart", "give a spacing d that is not 0")
    half = "rfft" in node.op
    indices = range(size // 2 + 1) if half else [*range((size + 1) // 2), *range(-(size // 2), 0)]
    return numbers(b, [index / (size * step) for index in indices], node.out.dtype)


def positions(b: Builder, shape: Sequence[Dim], dim: int) -> str:
    """The index along ``dim``, shaped to broadcast against ``shape``."""
    return reshape(b, count(b, shape[dim]), tuple(size if i == dim else 1 for i, size in enumerate(shape)))


@lowers("aten.eye.default", "aten.eye.m")
def lower_eye(b: Builder, node: Node) -> str:
    rows, columns = (positions(b, node.out.shape, dim) for dim in (0, 1))
    return cast(b, b.emit("eq", rows, columns), node.out.dtype)


@lowers("aten.tril.default", "aten.triu.default")
def lower_triangle(b: Builder, node: Node) -> str:
    x, diagonal = tensor_input(node), as_int(node.attrs.get("diagonal", 0))
    rows, columns = (positions(b, node.out.shape[-2:], dim) for dim in (0, 1))
    reach = b.emit("add", rows, None, scalar=diagonal)
    return choose(b, b.emit("ge" if "tril" in node.op else "le", reach, columns), x, 0, node.out.dtype)


@lowers("aten.one_hot.default")
def lower_one_hot(b: Builder, node: Node) -> str:
    x, classes = tensor_input(node), as_int(node.attrs.get("num_classes", -1))
    if classes < 0:
        raise unsupported("one_hot without a number of classes", "give num_classes")
    columns = b.emit("reshape", x, shape=(*b.shape(x), 1))
    return cast(b, b.emit("eq", columns, count(b, classes, b.spec(x).dtype)), node.out.dtype)


def nearest(size: int, out: int, scale: float | None, shift: float = 0.0) -> list[int]:
    """The input position of each output position in nearest-neighbour resizing; ``shift``: of the output
    positions."""
    step = np.float32(1 / scale if scale else size / out)
    return [min(math.floor((np.float32(i) + np.float32(shift)) * step), size - 1) for i in range(out)]


def all_static(dims: Sequence[Dim]) -> bool:
    return all(is_static(dim) for dim in dims)
