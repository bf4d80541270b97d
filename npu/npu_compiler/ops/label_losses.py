"""Losses over lists of labels."""

from __future__ import annotations

from npu_compiler.lowering import Builder, as_int, unsupported
from npu_compiler.ops import lowers
from npu_compiler.ops.creation import full
from npu_compiler.ops.elementwise import cast
from npu_compiler.ops.views import reshape, tensor_input
from npu_compiler.shapes import require
from torch_ir.ir import Node


@lowers("aten.multilabel_margin_loss.default")
def lower_multilabel_margin(b: Builder, node: Node) -> str:
    """Over the labels j before the first -1 of a row's list, and all classes i that are no label of it:
    sum(max(0, 1 - (x[j] - x[i]))) / classes."""
    x, labels, dtype = tensor_input(node), tensor_input(node, 1), b.spec(tensor_input(node)).dtype
    require(b.shape(x) == b.shape(labels) and 1 <= len(b.shape(x)) <= 2, f"labels of {b.shape(labels)}")
    rows = (1, *b.shape(x))[-2:]
    if not isinstance(rows[1], int) or rows[1] == 0:
        raise unsupported("a number of classes that is not known, or 0")
    x, labels = reshape(b, x, rows), reshape(b, labels, rows)
    ended = b.emit("cumsum", cast(b, b.emit("lt", labels, None, scalar=0), "int64"), dim=1)
    given = cast(b, b.emit("eq", ended, None, scalar=0), dtype)
    places = b.emit("clamp_min", labels, None, scalar=0)
    is_label = b.emit("combine_along", full(b, rows, 0, dtype), places, given, dim=1, combine="sum")
    others = cast(b, b.emit("eq", is_label, None, scalar=0), dtype)
    scores = reshape(b, b.emit("gather_along", x, places, dim=1), (*rows, 1))
    margin = b.emit("sub", reshape(b, x, (rows[0], 1, rows[1])), scores)
    margin = b.emit("relu", b.emit("add", margin, None, scalar=1.0))
    pairs = b.emit("mul", reshape(b, given, (*rows, 1)), reshape(b, others, (rows[0], 1, rows[1])))
    each = b.emit(
        "reduce_sum", b.emit("where", cast(b, pairs, "bool"), margin, None, scalar=0.0), dims=(1, 2)
    )
    loss = reshape(b, b.emit("mul", each, None, scalar=1 / rows[1]), rows[:1])
    reduction = as_int(node.attrs.get("reduction", 1))
    if reduction == 0:
        return reshape(b, loss, node.out.shape)
    return reshape(b, b.emit("reduce_sum" if reduction == 2 else "reduce_mean", loss, dims=(0,)), ())
