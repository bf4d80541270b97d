"""Places in sorted sequences and what follows from them, and whether values are among others."""

from __future__ import annotations

from typing import TYPE_CHECKING

from npu_compiler.ctext import size_text
from npu_compiler.dtypes import SHORT, STORAGE_TYPE, promote, promote_scalar
from npu_compiler.lowering import Builder, as_number, unsupported, wrap_dim
from npu_compiler.ops import Attrs, Case, Cost, OpDef, Specs, lowers, register
from npu_compiler.ops.creation import count, full
from npu_compiler.ops.elementwise import cast
from npu_compiler.ops.indexing import take
from npu_compiler.ops.views import reshape, tensor_input
from npu_compiler.pointwise import check_dtypes
from npu_compiler.select import BufferUse
from torch_ir.expr import product
from torch_ir.ir import Node, TensorSpec

if TYPE_CHECKING:
    from npu_compiler.emit import Emitter


def _infer(specs: Specs, attrs: Attrs) -> tuple[TensorSpec, ...]:
    assert specs[1] is not None
    return (TensorSpec(specs[1].shape, "int64"),)


def _emit(e: Emitter, node: Node) -> None:
    sequence = e.dense(e.view(node.inputs[0]), node, "sorted")
    x, out = e.dense(e.view(node.inputs[1]), node, "values"), e.output(node)
    check_dtypes(e, [x.dtype])
    length = sequence.shape[-1]
    width = x.shape[-1] if x.shape else 1
    symbols, symbol_args = e.symbol_args([length, width, x.offset, sequence.offset])
    before = "!(s > v)" if node.attrs["right"] else "!(s >= v)"
    params = {
        "type": STORAGE_TYPE[x.dtype],
        "symbols": symbols,
        "length": size_text(length),
        "width": size_text(width),
        "shared": len(sequence.shape) == 1,
        "before": before,
        "sorted_base": size_text(sequence.offset),
        "x_base": size_text(x.offset),
    }
    e.call(
        "search",
        "right" if node.attrs["right"] else "left",
        "ops/search.cl.j2",
        params,
        node=node,
        dtype=SHORT[x.dtype],
        args=[
            BufferUse(sequence.buffer, "r"),
            BufferUse(x.buffer, "r"),
            BufferUse(out.buffer, "w"),
            *symbol_args,
        ],
        global_size=(x.spec.numel,),
        cost=Cost(x.spec.numel * 8, x.spec.nbytes + sequence.spec.nbytes, out.spec.nbytes),
    )


register(
    OpDef(
        "search",
        _infer,
        lambda torch, sequence, x, right: torch.searchsorted(sequence, x, right=right),
        emit=_emit,
        cases=tuple(  # bisection finds the same places in sequences that are not sorted
            Case(shapes, {"right": right}, dtypes, values)
            for right in (False, True)
            for shapes, dtypes, values in (
                (((29,), (3, 7)), ("float32", "float64", "int64", "uint8"), "index:9"),
                (((3, 13), (3, 5)), ("float32", "int32"), "normal"),
                (((1,), (113,)), ("float32",), "normal"),
            )
        ),
    )
)


def positions_in(b: Builder, sequence: str, x: str, *, right: bool) -> str:
    """How many elements of the sorted ``sequence`` are smaller than those of ``x`` (``right``: or equal)."""
    return b.emit("search", sequence, x, right=right)


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
    """Bisection, of a sequence that is brought into order where a ``sorter`` is given."""
    if "searchsorted" in node.op:
        borders, values = _pair(b, node, "", "self", 0)
        sorter = [value for value in node.inputs[(1 if "self" in node.attrs else 2) :] if value is not None]
        if sorter:
            borders = b.emit("gather_along", borders, sorter[0], dim=len(b.shape(borders)) - 1)
    else:
        borders, values = _pair(b, node, "self", "", 1)
    right = bool(node.attrs.get("right", False)) or node.attrs.get("side") == "right"
    return cast(b, positions_in(b, borders, values, right=right), node.out.dtype)


@lowers("aten.repeat_interleave.self_Tensor")
def lower_repeat_interleave(b: Builder, node: Node) -> str:
    """Element ``i`` of the result is the one in whose running sum of repetitions ``i`` falls."""
    x, times = tensor_input(node), cast(b, tensor_input(node, 1), "int64")
    if node.attrs.get("output_size") is None:
        raise unsupported("the result's size depends on the repetitions", "give output_size")
    if node.attrs.get("dim") is None:
        x = reshape(b, x, (product(b.shape(x)),))
    dim = wrap_dim(node.attrs.get("dim") or 0, len(b.shape(x)))
    size = b.shape(x)[dim]
    if b.shape(times) != (size,):
        times = b.emit("expand", reshape(b, times, (1,)), shape=(size,))
    ends = b.emit("cumsum", times, dim=0)
    return take(b, x, positions_in(b, ends, count(b, node.out.shape[dim]), right=True), (dim,))


@lowers("aten.isin.Tensor_Tensor", "aten.isin.Tensor_Scalar", "aten.isin.Scalar_Tensor")
def lower_isin(b: Builder, node: Node) -> str:
    values, others = _pair(b, node, "element", "test_element", 0)
    values = reshape(b, values, (*b.shape(values), 1))
    others = reshape(b, others, (product(b.shape(others)),))
    same = b.emit("eq", values, others)
    found = reshape(b, b.emit("reduce_any", same, dims=(len(b.shape(same)) - 1,)), node.out.shape)
    return b.emit("logical_not", found) if node.attrs.get("invert") else found
