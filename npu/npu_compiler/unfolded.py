"""Convolutions whose weight is computed during the run: windows copied out, then a general matrix product."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from npu_compiler import views
from npu_compiler.ctext import Step, unpack_body
from npu_compiler.lowering import as_int, as_ints
from npu_compiler.ops.matmul import emit_matmul
from npu_compiler.pointwise import emit_body
from npu_compiler.products import pads_of
from npu_compiler.views import View, place
from torch_ir.expr import Dim
from torch_ir.ir import Node, TensorSpec

if TYPE_CHECKING:
    from npu_compiler.emit import Emitter

#: Where the operands of the op ``conv`` stand.
BIAS, RESIDUAL = 2, 3


def convolve(e: Emitter, node: Node) -> None:
    """``y[n, g, o] = sum over c, i, j of w[g, o, c, i, j] * x[n, g, c, ...]`` per window, then bias and
    epilogue, for any weight."""
    x = _padded(e, node, e.view(node.inputs[0]))
    w = e.dense(e.view(node.inputs[1]), node, "weight")
    y = e.output(node)
    groups = as_int(node.attrs["groups"])
    batch, channels = x.shape[0], as_int(w.shape[1])
    out, inner = as_int(w.shape[0]) // groups, channels * as_int(w.shape[2]) * as_int(w.shape[3])
    height, width = y.shape[2:]

    sizes = (batch, groups, height, width, channels, *w.shape[2:])
    windows = View(x.buffer, x.dtype, sizes, _window_strides(node, x, channels), x.offset)
    patches = e.scratch(f"{node.name}:patches", TensorSpec((batch, groups, height * width, inner), x.dtype))
    e.copy(windows, place(patches.buffer, TensorSpec(sizes, x.dtype)), node)
    weight = replace(w, shape=(groups, inner, out), strides=(out * inner, 1, inner))
    product = e.scratch(f"{node.name}:product", TensorSpec((batch, groups, height * width, out), x.dtype))
    emit_matmul(e, node, patches, weight, product)

    shape = (batch, groups, height, width, out)
    result = place(product.buffer, TensorSpec(shape, x.dtype))
    if len(node.inputs) > BIAS and node.inputs[BIAS] is not None:
        bias = e.view(node.inputs[BIAS])
        step = bias.strides[0]
        added = View(bias.buffer, bias.dtype, shape, (0, step * out, 0, 0, step), bias.offset)
        summed = place(e.scratch(f"{node.name}:sum", result.spec).buffer, result.spec)
        emit_body(e, (Step("add", ("i0", "i1"), {}, x.dtype),), [result, added], summed, node)
        result = summed
    sources = [result]
    if len(node.inputs) > RESIDUAL and node.inputs[RESIDUAL] is not None:
        sources.append(_by_group(e.view(node.inputs[RESIDUAL]), shape))
    emit_body(e, unpack_body(node.attrs.get("epilogue", ())), sources, _by_group(y, shape), node)


def _padded(e: Emitter, node: Node, x: View) -> View:
    """``x`` with its zeros around it in memory."""
    pads = pads_of(node.attrs)
    if not any(size for pair in pads for size in pair):
        return x
    sizes = tuple(size + low + high for size, (low, high) in zip(x.shape[2:], pads, strict=True))
    padded = e.scratch(f"{node.name}:padded", TensorSpec((*x.shape[:2], *sizes), x.dtype))
    e.fill(padded, 0, node)
    inside = padded
    for dim, (low, _) in enumerate(pads, start=2):
        inside = views.slice_dim(inside, dim, low, 1, x.shape[dim])
    e.copy(x, inside, node)
    return padded


def _window_strides(node: Node, x: View, channels: int) -> tuple[Dim, ...]:
    """From one group, output row and column, channel, kernel row and column to the next."""
    batch, channel, row, column = x.strides
    (down, right), (apart, aside) = as_ints(node.attrs["stride"]), as_ints(node.attrs["dilation"])
    return (batch, channel * channels, row * down, column * right, channel, row * apart, column * aside)


def _by_group(view: View, shape: tuple[Dim, ...]) -> View:
    """``[n, g * o, h, w]`` as ``[n, g, h, w, o]``."""
    batch, channel, row, column = view.strides
    return replace(view, shape=shape, strides=(batch, channel * shape[-1], row, column, channel))
