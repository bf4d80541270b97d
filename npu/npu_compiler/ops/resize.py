"""Resizing images and padding with copies of their elements: reads at positions that are known beforehand."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from npu_compiler.dtypes import is_float
from npu_compiler.lowering import Builder, as_int, as_ints, as_number, unsupported
from npu_compiler.ops import lowers
from npu_compiler.ops.creation import all_static, nearest, numbers
from npu_compiler.ops.indexing import take
from npu_compiler.ops.views import reshape, slice_dim, tensor_input
from torch_ir.ir import Attr, Node


def picked(b: Builder, x: str, dim: int, positions: Sequence[int]) -> str:
    """The elements of ``x`` at these positions of ``dim``."""
    size = b.shape(x)[dim]
    if list(positions) == list(range(as_int(size))):
        return x
    return take(b, x, numbers(b, positions, "int64"), (dim,))


def _sizes(b: Builder, node: Node, rank: int) -> tuple[str, tuple[int, ...], list[float | None]]:
    x = tensor_input(node)
    if not all_static((*b.shape(x)[-rank:], *node.out.shape[-rank:])):
        raise unsupported("resizing of a dynamic size")
    factors = node.attrs.get("scale_factors")
    scales: list[float | None] = [None] * rank
    if isinstance(factors, tuple):
        scales = [float(as_number(factor)) for factor in factors]
    return x, as_ints(tuple(b.shape(x)[-rank:])), scales


@lowers(*(f"aten.upsample_nearest{rank}d.{kind}" for rank in (1, 2) for kind in ("vec", "default")))
def lower_nearest(b: Builder, node: Node) -> str:
    rank = 1 if "1d" in node.op else 2
    x, sizes, scales = _sizes(b, node, rank)
    for i, (size, scale) in enumerate(zip(sizes, scales, strict=True)):
        dim, out = node.out.rank - rank + i, as_int(node.out.shape[node.out.rank - rank + i])
        if out % size == 0 and scale in (None, out / size):  # every element some times over
            lead, tail = b.shape(x)[: dim + 1], b.shape(x)[dim + 1 :]
            wide = b.emit("expand", reshape(b, x, (*lead, 1, *tail)), shape=(*lead, out // size, *tail))
            x = reshape(b, wide, (*lead[:-1], out, *tail))
        else:
            x = picked(b, x, dim, nearest(size, out, scale))
    return x


@lowers(
    "aten.upsample_bilinear2d.vec",
    "aten.upsample_bilinear2d.default",
    "aten.upsample_linear1d.vec",
    "aten.upsample_linear1d.default",
)
def lower_linear(b: Builder, node: Node) -> str:
    if not is_float(node.out.dtype):
        raise unsupported(
            "interpolation of whole numbers, which PyTorch rounds in its own way", "convert to float32 before"
        )
    rank = 1 if "1d" in node.op else 2
    x, sizes, scales = _sizes(b, node, rank)
    corners = bool(node.attrs.get("align_corners", False))
    for i, (size, scale) in enumerate(zip(sizes, scales, strict=True)):
        dim = node.out.rank - rank + i
        out = as_int(node.out.shape[dim])
        at = np.arange(out, dtype=np.float64)
        if corners:
            at *= (size - 1) / (out - 1) if out > 1 else 0.0
        else:
            at = np.maximum((at + 0.5) * (1 / scale if scale else size / out) - 0.5, 0)
        low = np.minimum(at.astype(np.int64), size - 1)
        shape = tuple(out if j == dim else 1 for j in range(node.out.rank))
        weight = reshape(b, numbers(b, [float(w) for w in at - low], node.out.dtype), shape)
        first = picked(b, x, dim, [int(p) for p in low])
        second = picked(b, x, dim, [int(p) for p in np.minimum(low + 1, size - 1)])
        x = b.emit("add", first, b.emit("mul", b.emit("sub", second, first), weight))
    return x


def _reflected(position: int, size: int) -> int:
    position = abs(position)
    return 2 * (size - 1) - position if position >= size else position


#: The element that stands at a position outside of ``size`` elements, by padding mode.
PADDING: dict[str, Callable[[int, int], int]] = {
    "reflect": _reflected,
    "replicate": lambda position, size: min(max(position, 0), size - 1),
    "circular": lambda position, size: position % size,
}


def pad_with_copies(b: Builder, x: str, mode: Attr, widths: Sequence[int]) -> str:
    """``x`` padded, last dimension first in ``widths``, by its own elements."""
    if mode not in PADDING:
        raise unsupported(f"padding mode {mode!r}", f"use constant or one of {', '.join(PADDING)}")
    rank = len(b.shape(x))
    for i in range(len(widths) // 2):
        dim = rank - 1 - i
        size = b.shape(x)[dim]
        if not isinstance(size, int):
            raise unsupported(f"padding mode {mode!r} of a dynamic size")
        low, high = widths[2 * i], widths[2 * i + 1]
        if mode == "circular" and (low < 0 or high < 0):  # what is cut off does not come back
            size += min(low, 0) + min(high, 0)
            x = slice_dim(b, x, dim, max(-low, 0), size)
            low, high = max(low, 0), max(high, 0)
        x = picked(b, x, dim, [PADDING[str(mode)](p, size) for p in range(-low, size + high)])
    return x


@lowers(
    *(
        f"aten.{mode}_pad{rank}d.default"
        for mode, ranks in (("reflection", (1, 2)), ("replication", (1, 2)))
        for rank in ranks
    )
)
def lower_copying_pad(b: Builder, node: Node) -> str:
    mode = "reflect" if "reflection" in node.op else "replicate"
    return pad_with_copies(b, tensor_input(node), mode, as_ints(node.attrs["padding"]))
