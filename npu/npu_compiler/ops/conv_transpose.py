"""Transposed convolutions: a convolution of the input with zeros between its elements."""

from __future__ import annotations

from npu_compiler.lowering import Builder, as_int, as_ints, unsupported
from npu_compiler.ops import lowers
from npu_compiler.ops.creation import full
from npu_compiler.ops.norm import optional_input
from npu_compiler.ops.views import permute, reshape, slice_dim, tensor_input
from torch_ir.expr import Dim
from torch_ir.ir import Node


def spaced(b: Builder, x: str, dim: int, step: int) -> str:
    """``x`` with ``step - 1`` zeros between any two elements along ``dim``."""
    if step == 1:
        return x
    shape = list(b.shape(x))
    shape[dim] = (shape[dim] - 1) * step + 1
    zeros = full(b, tuple(shape), 0.0, b.spec(x).dtype)
    return b.emit("insert", zeros, x, dim=dim, start=0, step=step)


@lowers("aten.conv_transpose2d.input", "aten.conv_transpose1d.default")
def lower_conv_transpose(b: Builder, node: Node) -> str:
    rank = 1 if "1d" in node.op else 2
    x, w, bias = tensor_input(node), tensor_input(node, 1), optional_input(node, 2)
    if len(b.shape(x)) == rank + 1:
        x = reshape(b, x, (1, *b.shape(x)))
    groups = as_int(node.attrs.get("groups", 1))
    stride, padding, extra, dilation = (
        as_ints(node.attrs.get(name, default), rank)
        for name, default in (("stride", 1), ("padding", 0), ("output_padding", 0), ("dilation", 1))
    )
    if any(not isinstance(size, int) for size in b.shape(w)):
        raise unsupported("a convolution weight of symbolic shape")
    if rank == 1:
        x = reshape(b, x, (*b.shape(x)[:2], 1, b.shape(x)[2]))
        w = reshape(b, w, (*b.shape(w)[:2], 1, b.shape(w)[2]))
        stride, padding, extra, dilation = (1, *stride), (0, *padding), (0, *extra), (1, *dilation)
    inner, outer, *kernel = (as_int(size) for size in b.shape(w))
    w = reshape(b, w, (groups, inner // groups, outer, *kernel))
    w = reshape(b, permute(b, w, (0, 2, 1, 3, 4)), (groups * outer, inner // groups, *kernel))
    w = b.emit("flip", w, dims=(2, 3))
    pads: list[int] = []
    for dim, (size, step, width, more, spread) in enumerate(
        zip(kernel, stride, padding, extra, dilation, strict=True), start=2
    ):
        x = spaced(b, x, dim, step)
        low = spread * (size - 1) - width
        high = low + more
        cut = max(-low, 0), max(-high, 0)
        length: Dim = b.shape(x)[dim] - cut[0] - cut[1]
        x = slice_dim(b, x, dim, cut[0], length)
        pads += [max(low, 0), max(high, 0)]
    y = b.emit("conv", x, w, bias, stride=(1, 1), padding=tuple(pads), dilation=dilation, groups=groups)
    return reshape(b, y, node.out.shape)
