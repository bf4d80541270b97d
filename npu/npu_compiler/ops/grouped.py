"""Products of rows by the matrix of their group (a mixture of experts), and histograms."""

from __future__ import annotations

from npu_compiler.lowering import Builder, as_int, as_number, unsupported
from npu_compiler.ops import lowers
from npu_compiler.ops.arithmetic import choose
from npu_compiler.ops.creation import count, full
from npu_compiler.ops.elementwise import cast
from npu_compiler.ops.matmul import product_of
from npu_compiler.ops.views import reshape, slice_dim, tensor_input
from torch_ir.expr import product
from torch_ir.ir import Node

#: More groups than this would mean as many products over all rows.
MOST_GROUPS = 256


@lowers("transformers.grouped_mm_fallback.default", "aten._grouped_mm.default")
def lower_grouped_product(b: Builder, node: Node) -> str:
    """``y[r] = x[r] @ w[g]`` for ``ends[g - 1] <= r < ends[g]``, 0 behind the last end: rows ``[n, k]``,
    weights ``[groups, k, m]``. Every group's product covers all rows: the ends are known at run time only."""
    x, w = tensor_input(node), tensor_input(node, 1)
    ends = node.inputs[2] if len(node.inputs) > 2 else None
    if ends is None or len(b.shape(x)) != 2 or len(b.shape(w)) != 3 or any(node.inputs[3:]):
        raise unsupported("a grouped product other than of rows by matrices", "multiply each group by itself")
    groups, inner, width = b.shape(w)
    if not isinstance(groups, int) or groups > MOST_GROUPS:
        raise unsupported(f"a grouped product of {groups} groups", f"use at most {MOST_GROUPS}")
    rows = b.shape(x)[0]
    row = reshape(b, count(b, rows), (rows, 1))
    passed = b.emit("le", reshape(b, cast(b, ends, "int64"), (1, groups)), row)
    group = b.emit("reduce_sum", cast(b, passed, "int64"), dims=(1,))
    y = full(b, (rows, width), 0.0, node.out.dtype)
    for index in range(groups):
        matrix = reshape(b, slice_dim(b, w, 0, index, 1), (inner, width))
        mine = b.emit("eq", group, None, scalar=index)
        y = choose(b, mine, product_of(b, x, matrix), y, node.out.dtype)
    return y


@lowers("aten.histc.default")
def lower_histogram(b: Builder, node: Node) -> str:
    """How many elements lie in each of ``bins`` equal parts of the range, its end in the last one."""
    x, bins = tensor_input(node), as_int(node.attrs.get("bins", 100))
    low, high = float(as_number(node.attrs.get("min", 0))), float(as_number(node.attrs.get("max", 0)))
    if low >= high:
        raise unsupported("a histogram over the range of its values", "give min and max")
    flat = reshape(b, x, (product(b.shape(x)), 1))
    place = b.emit("mul", b.emit("sub", flat, None, scalar=low), None, scalar=float(bins))
    place = b.emit("trunc", b.emit("div", place, None, scalar=high - low))
    place = b.emit("clamp_max", place, None, scalar=float(bins - 1))
    inside = b.emit(
        "logical_and", b.emit("ge", flat, None, scalar=low), b.emit("le", flat, None, scalar=high)
    )
    mine = b.emit("eq", place, count(b, bins, node.out.dtype))
    found = cast(b, b.emit("logical_and", mine, inside), node.out.dtype)
    return reshape(b, b.emit("reduce_sum", found, dims=(0,)), (bins,))
