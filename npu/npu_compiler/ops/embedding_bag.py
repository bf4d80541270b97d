"""Sums, means and maxima of rows of a table, bag by bag."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from npu_compiler.ctext import size_text
from npu_compiler.dtypes import SHORT, STORAGE_TYPE
from npu_compiler.lowering import Builder, as_int, unsupported
from npu_compiler.ops import Attrs, Case, Cost, OpDef, Specs, lowers, register
from npu_compiler.ops.creation import count, full
from npu_compiler.ops.elementwise import cast
from npu_compiler.ops.norm import optional_input
from npu_compiler.ops.searching import positions_in
from npu_compiler.ops.views import tensor_input
from npu_compiler.pointwise import check_dtypes
from npu_compiler.select import BufferUse
from npu_compiler.shapes import require
from torch_ir.ir import Node, TensorSpec

if TYPE_CHECKING:
    from npu_compiler.emit import Emitter

#: PyTorch's numbers of the modes.
MODES = ("sum", "mean", "max")


def _infer(specs: Specs, attrs: Attrs) -> tuple[TensorSpec, ...]:
    table, _, offsets = specs[:3]
    assert table is not None and offsets is not None
    bags = offsets.shape[0] - (1 if attrs["last"] else 0)
    out = TensorSpec((bags, table.shape[1]), table.dtype)
    places = (TensorSpec(out.shape, "int64"),) if attrs["mode"] == "max" else ()
    return (out, TensorSpec((bags,), "int64"), *places)


def _emit(e: Emitter, node: Node) -> None:
    table, index, offsets = (e.view(value) for value in node.inputs[:3])
    weights = e.view(node.inputs[3]) if len(node.inputs) > 3 and node.inputs[3] is not None else None
    outputs = [e.output(node, i) for i in range(len(node.outputs))]
    given = [table, index, offsets, *([weights] if weights is not None else [])]
    check_dtypes(e, [view.dtype for view in given])
    rows, width = table.shape
    e.bound_input(index, rows, wrap=False)
    bags = outputs[0].shape[0]
    sizes = [rows, width, index.shape[0], bags, *(s for view in given for s in (*view.strides, view.offset))]
    symbols, symbol_args = e.symbol_args(sizes)
    params = {
        "type": STORAGE_TYPE[table.dtype],
        "mode": node.attrs["mode"],
        "weighted": weights is not None,
        "index_storage": STORAGE_TYPE[index.dtype],
        "offset_storage": STORAGE_TYPE[offsets.dtype],
        "symbols": symbols,
        "rows": size_text(rows),
        "width": size_text(width),
        "count": size_text(index.shape[0]),
        "bags": size_text(bags),
        "last": bool(node.attrs["last"]),
        "padding": as_int(node.attrs["padding"]),
        "row_step": size_text(table.strides[0]),
        "step": size_text(table.strides[1]),
        "base": size_text(table.offset),
        "index_base": size_text(index.offset),
        "index_step": size_text(index.strides[0]),
        "offset_base": size_text(offsets.offset),
        "offset_step": size_text(offsets.strides[0]),
        "weight_base": size_text(weights.offset if weights is not None else 0),
        "weight_step": size_text(weights.strides[0] if weights is not None else 0),
    }
    moved = index.spec.numel * width
    e.call(
        "embedding_bag",
        str(node.attrs["mode"]),
        "ops/embedding_bag.cl.j2",
        params,
        node=node,
        dtype=SHORT[table.dtype],
        args=[
            *(BufferUse(view.buffer, "r") for view in given),
            *(BufferUse(view.buffer, "w") for view in outputs),
            *symbol_args,
        ],
        global_size=(width, bags),
        cost=Cost(moved, 4 * moved, outputs[0].spec.nbytes),
        indexes=True,
    )


def _reference(
    torch: Any,
    table: Any,
    index: Any,
    offsets: Any,
    weights: Any = None,
    *,
    mode: str,
    last: bool,
    padding: int,
) -> Any:
    out, _, sizes, places = torch.ops.aten._embedding_bag(
        table, index, offsets, False, MODES.index(mode), False, weights, last, padding
    )
    if mode == "sum":
        ends = torch.cat([offsets[1:], offsets.new_full((0 if last else 1,), len(index))])
        starts = offsets[:-1] if last else offsets
        kept = torch.cumsum(torch.cat([torch.zeros(1), (index != padding).float()]), 0)
        sizes = (kept[ends] - kept[starts]).long()
    return (out, sizes, places) if mode == "max" else (out, sizes)


register(
    OpDef(
        "embedding_bag",
        _infer,
        _reference,
        emit=_emit,
        cases=tuple(
            Case(shapes, {"mode": mode, "last": last, "padding": padding}, dtypes, values)
            for mode, last, padding, dtypes, shapes, values in (
                (
                    "sum",
                    False,
                    -1,
                    ("float32", "float64"),
                    ((11, 7), (29,), (1,)),
                    ("normal", "index:11", "index:1"),
                ),
                (
                    "sum",
                    False,
                    3,
                    ("float32",),
                    ((11, 7), (29,), (1,), (29,)),
                    ("normal", "index:11", "index:1", "normal"),
                ),
                ("sum", True, -1, ("float32",), ((11, 7), (29,), (4,)), ("normal", "index:11", "ends:29")),
                ("mean", False, 2, ("float32",), ((5, 1), (13,), (1,)), ("normal", "index:5", "index:1")),
                ("max", False, -1, ("float32",), ((113, 3), (29,), (1,)), ("normal", "index:113", "index:1")),
            )
        ),
    )
)


@lowers(
    "aten.embedding_bag.default",
    "aten.embedding_bag.padding_idx",
    "aten._embedding_bag.default",
    "aten._embedding_bag_forward_only.default",
)
def lower_embedding_bag(b: Builder, node: Node) -> list[str]:
    """The bags, and what PyTorch's kernels tell beside them: the bag of each index, the bags' sizes, and the
    rows that the maxima are of (sizes for the mean, and zeros for the sum, where PyTorch does not count)."""
    table, index, offsets = (tensor_input(node, i) for i in range(3))
    if len(b.shape(index)) != 1:
        raise unsupported("bags of indices that are not a vector", "flatten them and give offsets")
    place = as_int(node.attrs.get("mode", 0))
    require(0 <= place < len(MODES), f"the mode {place}, where 0 to 2 are {', '.join(MODES)}")
    mode = MODES[place]
    last = bool(node.attrs.get("include_last_offset", False))
    given = node.attrs.get("padding_idx")
    padding = -1 if given is None else as_int(given)
    rows = b.shape(table)[0]
    if padding < 0 and given is not None and not node.op.startswith("aten._"):
        padding += as_int(rows)
    results = b.emit_multi(
        "embedding_bag",
        table,
        index,
        offsets,
        optional_input(node, 3),
        mode=mode,
        last=last,
        padding=padding,
    )
    values = [results[0]]
    for place, out in enumerate(node.outs[1:], start=1):
        if place == 1 and out.shape == b.shape(index):
            number = positions_in(b, offsets, count(b, out.shape[0]), right=True)
            values.append(b.emit("add", number, None, scalar=-1))
        elif place == 1 or mode == "sum":
            values.append(full(b, out.shape, 0, out.dtype))
        else:
            value = results[2] if place == 3 and mode == "max" else results[1]
            if b.shape(value) != out.shape:  # with the end of the last bag given, PyTorch has a row more
                value = b.emit("concat", value, full(b, (1, *out.shape[1:]), 0, out.dtype), dim=0)
            values.append(value)
    return [cast(b, value, out.dtype) for value, out in zip(values, node.outs, strict=True)]
