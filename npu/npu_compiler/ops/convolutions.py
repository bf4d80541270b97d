"""ATen's convolutions: in one to three dimensions, plain and transposed, by the convolution of images."""

from __future__ import annotations

from collections.abc import Sequence

from npu_compiler.lowering import Builder, as_int, as_ints, unsupported
from npu_compiler.ops import lowers
from npu_compiler.ops.creation import full
from npu_compiler.ops.norm import optional_input
from npu_compiler.ops.views import permute, reshape, slice_dim, tensor_input
from npu_compiler.shapes import window_out
from torch_ir.expr import Dim
from torch_ir.ir import Attr, Node

#: Widths before and after each dimension.
Pads = Sequence[tuple[int, int]]


def conv_padding(padding: Attr, kernel: Sequence[int], dilation: Sequence[int]) -> Pads:
    """Padding before and after each dimension; "same" puts the odd element after, as PyTorch does."""
    if padding == "valid":
        return tuple((0, 0) for _ in kernel)
    if padding == "same":
        totals = [step * (size - 1) for size, step in zip(kernel, dilation, strict=True)]
        return tuple((total // 2, total - total // 2) for total in totals)
    return tuple((size, size) for size in as_ints(padding, len(kernel)))


def convolved(
    b: Builder,
    x: str,
    w: str,
    bias: str | None,
    stride: tuple[int, ...],
    pads: Pads,
    dilation: tuple[int, ...],
    groups: int,
) -> str:
    """``x`` [N, C, *spatial] convolved with ``w`` [O, C / groups, *kernel]."""
    rank = len(stride)
    if rank == 3:
        return _convolved_volume(b, x, w, bias, stride, pads, dilation, groups)
    if rank == 1:
        x, w = (reshape(b, value, (*b.shape(value)[:2], 1, b.shape(value)[2])) for value in (x, w))
        stride, dilation, pads = (1, *stride), (1, *dilation), ((0, 0), *pads)
    y = b.emit(
        "conv",
        x,
        w,
        bias,
        stride=stride,
        padding=tuple(size for pair in pads for size in pair),
        dilation=dilation,
        groups=groups,
    )
    return reshape(b, y, (*b.shape(y)[:2], b.shape(y)[3])) if rank == 1 else y


def _convolved_volume(
    b: Builder,
    x: str,
    w: str,
    bias: str | None,
    stride: tuple[int, ...],
    pads: Pads,
    dilation: tuple[int, ...],
    groups: int,
) -> str:
    """The sum over the kernel's depth of convolutions of images: those at one step of depth, as one batch."""
    out, per_group, kernel_depth, *kernel = (as_int(size) for size in b.shape(w))
    depth = window_out(b.shape(x)[2], kernel_depth, stride[0], pads[0], dilation[0])
    if any(pads[0]):
        x = b.emit("pad", x, pads=(0, 0, 0, 0, *pads[0], 0, 0, 0, 0), value=0)
    batch, channels, _, height, width = b.shape(x)
    total = ""
    for step in range(kernel_depth):
        images = permute(b, slice_dim(b, x, 2, step * dilation[0], depth, stride[0]), (0, 2, 1, 3, 4))
        images = reshape(b, images, (batch * depth, channels, height, width))
        weight = reshape(b, slice_dim(b, w, 2, step, 1), (out, per_group, *kernel))
        part = convolved(
            b, images, weight, bias if step == 0 else None, stride[1:], pads[1:], dilation[1:], groups
        )
        total = b.emit("add", part, total) if total else part
    return permute(b, reshape(b, total, (batch, depth, *b.shape(total)[1:])), (0, 2, 1, 3, 4))


def transposed(
    b: Builder,
    x: str,
    w: str,
    bias: str | None,
    stride: tuple[int, ...],
    padding: tuple[int, ...],
    extra: tuple[int, ...],
    dilation: tuple[int, ...],
    groups: int,
) -> str:
    """The transposed convolution with ``w`` [C, O / groups, *kernel]: a convolution of the input with zeros
    between its elements by the mirrored kernel. ``extra``: output padding."""
    rank = len(stride)
    inner, outer, *kernel = (as_int(size) for size in b.shape(w))
    w = reshape(b, w, (groups, inner // groups, outer, *kernel))
    w = permute(b, w, (0, 2, 1, *range(3, 3 + rank)))
    w = b.emit(
        "flip", reshape(b, w, (groups * outer, inner // groups, *kernel)), dims=tuple(range(2, 2 + rank))
    )
    pads: list[tuple[int, int]] = []
    for dim, (size, step, width, more, spread) in enumerate(
        zip(kernel, stride, padding, extra, dilation, strict=True), start=2
    ):
        x = spaced(b, x, dim, step)
        low = spread * (size - 1) - width
        high = low + more
        cut = max(-low, 0), max(-high, 0)
        length: Dim = b.shape(x)[dim] - cut[0] - cut[1]
        x = slice_dim(b, x, dim, cut[0], length)
        pads.append((max(low, 0), max(high, 0)))
    return convolved(b, x, w, bias, (1,) * rank, pads, dilation, groups)


def spaced(b: Builder, x: str, dim: int, step: int) -> str:
    """``x`` with ``step - 1`` zeros between any two elements along ``dim``."""
    if step == 1:
        return x
    shape = list(b.shape(x))
    shape[dim] = (shape[dim] - 1) * step + 1
    zeros = full(b, tuple(shape), 0.0, b.spec(x).dtype)
    return b.emit("insert", zeros, x, dim=dim, start=0, step=step)


@lowers(
    *(f"aten.conv{rank}d.{kind}" for rank in (1, 2, 3) for kind in ("default", "padding")),
    "aten.convolution.default",
    "aten._convolution.default",
    "aten.conv_transpose1d.default",
    "aten.conv_transpose2d.input",
    "aten.conv_transpose3d.input",
)
def lower_conv(b: Builder, node: Node) -> str:
    x, w, bias = tensor_input(node), tensor_input(node, 1), optional_input(node, 2)
    rank = len(b.shape(w)) - 2
    if not 1 <= rank <= 3:
        raise unsupported(f"convolution over {rank} spatial dimensions", "use one to three")
    if any(not isinstance(size, int) for size in b.shape(w)):
        raise unsupported("a convolution weight of symbolic shape")
    if len(b.shape(x)) == rank + 1:
        x = reshape(b, x, (1, *b.shape(x)))
    groups = as_int(node.attrs.get("groups", 1))
    stride, dilation = (as_ints(node.attrs.get(name, 1), rank) for name in ("stride", "dilation"))
    if node.attrs.get("transposed") or "transpose" in node.op:
        padding, extra = (as_ints(node.attrs.get(name, 0), rank) for name in ("padding", "output_padding"))
        y = transposed(b, x, w, bias, stride, padding, extra, dilation, groups)
    else:
        kernel = as_ints(tuple(b.shape(w)[2:]))
        pads = conv_padding(node.attrs.get("padding", 0), kernel, dilation)
        y = convolved(b, x, w, bias, stride, pads, dilation, groups)
    return reshape(b, y, node.out.shape)


@lowers("aten.conv_tbc.default")
def lower_conv_tbc(b: Builder, node: Node) -> str:
    """Time first: ``x`` [T, N, C], ``w`` [K, C, O]."""
    x, w, bias = (tensor_input(node, i) for i in range(3))
    pad = as_int(node.attrs.get("pad", 0))
    x, w = permute(b, x, (1, 2, 0)), permute(b, w, (2, 1, 0))
    return permute(b, convolved(b, x, w, bias, (1,), ((pad, pad),), (1,), 1), (2, 0, 1))
