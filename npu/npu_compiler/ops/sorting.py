"""Sorting along a dimension, and what takes elements of a sorted row: topk, kthvalue, median."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from npu_compiler.ctext import size_text
from npu_compiler.dtypes import SHORT, STORAGE_TYPE, is_float
from npu_compiler.errors import Unsupported
from npu_compiler.lowering import Builder, as_dim, as_int, unsupported, wrap_dim
from npu_compiler.ops import Case, Cost, OpDef, like_first_with_places, lowers, register
from npu_compiler.ops.arithmetic import choose
from npu_compiler.ops.elementwise import cast
from npu_compiler.ops.reduce import reduce
from npu_compiler.ops.views import reshape, slice_dim, tensor_input
from npu_compiler.pointwise import check_dtypes
from npu_compiler.rows import rows_along
from npu_compiler.select import BufferUse
from torch_ir.expr import Dim, product
from torch_ir.ir import Node, TensorSpec

if TYPE_CHECKING:
    from npu_compiler.emit import Emitter


def _emit(e: Emitter, node: Node) -> None:
    x, dim = e.view(node.inputs[0]), as_int(node.attrs["dim"])
    values, indices = e.output(node, 0), e.output(node, 1)
    check_dtypes(e, [x.dtype])
    length = x.shape[dim]
    if e.bounds(length)[1] >= 1 << 31:
        raise Unsupported("sorting more than 2**31 elements", "lower the bounds of the dynamic dimension")
    rows = rows_along(e, dim, [x, values], [length])
    spare = e.scratch(f"{node.name}:positions", TensorSpec((rows.items, 2, length), "int32"))
    sign = ">" if node.attrs["descending"] else "<"
    before = f"a {sign} b"
    if is_float(x.dtype):
        before = "a > b || (a != a && b == b)" if sign == ">" else "a < b || (b != b && a == a)"
    params = {
        **rows.params,
        "x_type": STORAGE_TYPE[x.dtype],
        "length": size_text(length),
        "x_base": rows.bases[0],
        "x_step": rows.steps[0],
        "y_base": rows.bases[1],
        "y_step": rows.steps[1],
        "before": before,
    }
    levels = max(e.bounds(length)[1] - 1, 1).bit_length()
    e.call(
        "sort",
        "descending" if node.attrs["descending"] else "ascending",
        "ops/sort.cl.j2",
        params,
        node=node,
        dtype=SHORT[x.dtype],
        args=[
            BufferUse(x.buffer, "r"),
            BufferUse(values.buffer, "w"),
            BufferUse(indices.buffer, "w"),
            BufferUse(spare.buffer, "rw"),
            *rows.symbol_args,
        ],
        global_size=(rows.items,),
        cost=Cost(x.spec.numel * levels, x.spec.nbytes, values.spec.nbytes + indices.spec.nbytes),
    )


register(
    OpDef(
        "sort",
        like_first_with_places,
        lambda torch, x, dim, descending: tuple(torch.sort(x, dim=dim, descending=descending, stable=True)),
        emit=_emit,
        cases=tuple(
            Case((shape,), {"dim": dim, "descending": descending}, dtypes, values, layouts=layouts)
            for descending in (False, True)
            for shape, dim, dtypes, values, layouts in (
                ((3, 7), 1, ("float32", "float64", "int8", "int32", "uint8", "bool"), "normal", ("row",)),
                ((7, 3), 0, ("float32",), "normal", ("row",)),
                ((113,), 0, ("int64", "float32"), "index:9", ("row",)),
                ((2, 13, 3, 5), 1, ("float32",), "normal", ("row", "nhwc8")),
                ((2, 64), 1, ("float32",), "index:7", ("row",)),
                ((1, 1), 0, ("float32",), "normal", ("row",)),
            )
        ),
    )
)


def sorted_along(b: Builder, x: str, dim: int, descending: bool = False) -> tuple[str, str]:
    """``x`` in order along ``dim``, and where each element stood."""
    values, indices = b.emit_multi("sort", x, dim=dim, descending=descending)
    return values, indices


def row_input(b: Builder, node: Node, dim: Any, whole: bool = False) -> tuple[str, int]:
    """The node's tensor with at least one dimension (``whole``: with one alone), and ``dim`` in it."""
    x = tensor_input(node)
    at = 0 if whole else wrap_dim(dim, len(b.shape(x)))
    if whole or not b.shape(x):
        return reshape(b, x, (product(b.shape(x)),)), 0
    return x, at


def at(b: Builder, x: str, dim: int, position: Dim) -> str:
    """One element of each row along ``dim``."""
    return slice_dim(b, x, dim, position, 1)


@lowers("aten.sort.default", "aten.sort.stable", "aten.argsort.default", "aten.argsort.stable")
def lower_sort(b: Builder, node: Node) -> list[str]:
    x, dim = row_input(b, node, node.attrs.get("dim", -1))
    values = sorted_along(b, x, dim, bool(node.attrs.get("descending", False)))
    if "argsort" in node.op:
        return [reshape(b, values[1], node.out.shape)]
    return [reshape(b, value, out.shape) for value, out in zip(values, node.outs, strict=True)]


@lowers("aten.msort.default")
def lower_msort(b: Builder, node: Node) -> str:
    x, dim = row_input(b, node, 0)
    return reshape(b, sorted_along(b, x, dim)[0], node.out.shape)


@lowers("aten.topk.default")
def lower_topk(b: Builder, node: Node) -> list[str]:
    """The first ``k`` of the sorted row, in order whether that is asked for or not."""
    x, dim = row_input(b, node, node.attrs.get("dim", -1))
    both = sorted_along(b, x, dim, bool(node.attrs.get("largest", True)))
    count = as_dim(node.attrs["k"])
    return [
        reshape(b, slice_dim(b, value, dim, 0, count), out.shape)
        for value, out in zip(both, node.outs, strict=True)
    ]


@lowers("aten.kthvalue.default")
def lower_kthvalue(b: Builder, node: Node) -> list[str]:
    x, dim = row_input(b, node, node.attrs.get("dim", -1))
    place = as_dim(node.attrs["k"]) - 1
    both = sorted_along(b, x, dim)
    return [
        reshape(b, at(b, value, dim, place), out.shape) for value, out in zip(both, node.outs, strict=True)
    ]


@lowers("aten.median.default", "aten.median.dim", "aten.nanmedian.default", "aten.nanmedian.dim")
def lower_median(b: Builder, node: Node) -> list[str]:
    """The lower of the middle elements. A NaN is the median of its row, or (nanmedian) does not count."""
    x, dim = row_input(b, node, node.attrs.get("dim", 0), whole="default" in node.op)
    size = b.shape(x)[dim]
    if size == 0:
        raise unsupported("the median of no elements", "make the dimension's size at least 1")
    values, indices = sorted_along(b, x, dim)
    floating = is_float(b.spec(x).dtype)
    if floating and "nanmedian" in node.op:
        shape = tuple(1 if i == dim else s for i, s in enumerate(b.shape(x)))
        numbers = cast(b, b.emit("eq", x, x), "int64")
        last = b.emit("add", reduce(b, "sum", numbers, (dim,), shape), None, scalar=-1)
        last = b.emit("clamp_min", last, None, scalar=0)
        place = b.emit("floor_div", last, None, scalar=2)
        both = [b.emit("gather_along", value, place, dim=dim) for value in (values, indices)]
    else:
        middle = (size - 1) // 2
        both = [at(b, value, dim, middle) for value in (values, indices)]
        if floating:  # NaN is the greatest, and arg_reduce gives the first of several
            best, where = b.emit_multi("arg_reduce", x, dim=dim, largest=True)
            missing = b.emit("ne", best, best)
            pairs = ((best, both[0]), (where, both[1]))
            both = [choose(b, missing, nan, plain, b.spec(plain).dtype) for nan, plain in pairs]
    return [reshape(b, value, out.shape) for value, out in zip(both, node.outs, strict=False)]
