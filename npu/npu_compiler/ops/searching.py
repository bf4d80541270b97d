"""Where values stand in sorted ones, and whether they are among others: by comparing all with all."""

from __future__ import annotations

from npu_compiler.dtypes import promote, promote_scalar
from npu_compiler.lowering import Builder, as_number, unsupported
from npu_compiler.ops import lowers
from npu_compiler.ops.creation import full
from npu_compiler.ops.elementwise import cast
from npu_compiler.ops.views import reshape
from torch_ir.expr import product
from torch_ir.ir import Node


def _pair(b: Builder, node: Node, first: str, second: str, at: int) -> tuple[str, str]:
    """Two tensors of one dtype, one of which may be a number under its name; the first stands at input
    ``at``."""
    tensors = [value for value in node.inputs if value is not None][:2]
    numbers = [as_number(node.attrs[name]) for name in (first, second) if name in node.attrs]
    dtypes = [b.spec(value).dtype for value in tensors]
    if numbers:
        dtypes = [promote_scalar(dtypes[0], numbers[0])]
        number = full(b, (), numbers[0], dtypes[0])
        tensors = [number, tensors[0]] if first in node.attrs else [tensors[0], number]
    left, right = (cast(b, value, promote(dtypes)) for value in tensors)
    return (left, right) if at == 0 else (right, left)


@lowers(
    "aten.searchsorted.Tensor",
    "aten.searchsorted.Scalar",
    "aten.bucketize.Tensor",
    "aten.bucketize.Scalar",
)
def lower_search(b: Builder, node: Node) -> str:
    """How many of the sorted values stand in front of each: those that are not above it (or equal to it). A
    NaN is above all."""
    if "searchsorted" in node.op:
        borders, values = _pair(b, node, "", "self", 0)
        if any(value is not None for value in node.inputs[(1 if "self" in node.attrs else 2) :]):
            raise unsupported("searchsorted with a sorter", "sort the sequence before, with gather")
    else:
        borders, values = _pair(b, node, "self", "", 1)
    right = bool(node.attrs.get("right", False)) or node.attrs.get("side") == "right"
    row = b.shape(borders)[-1:]
    lead = b.shape(borders)[:-1]
    if lead:
        borders = reshape(b, borders, (*lead, 1, *row))
    values = reshape(b, values, (*b.shape(values), 1))
    behind = b.emit("gt" if right else "ge", borders, values)
    before = cast(b, b.emit("logical_not", behind), node.out.dtype)
    last = len(b.shape(before)) - 1
    return reshape(b, b.emit("reduce_sum", before, dims=(last,)), node.out.shape)


@lowers("aten.isin.Tensor_Tensor", "aten.isin.Tensor_Scalar", "aten.isin.Scalar_Tensor")
def lower_isin(b: Builder, node: Node) -> str:
    values, others = _pair(b, node, "element", "test_element", 0)
    values = reshape(b, values, (*b.shape(values), 1))
    others = reshape(b, others, (product(b.shape(others)),))
    same = b.emit("eq", values, others)
    found = reshape(b, b.emit("reduce_any", same, dims=(len(b.shape(same)) - 1,)), node.out.shape)
    return b.emit("logical_not", found) if node.attrs.get("invert") else found
