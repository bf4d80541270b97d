"""Resizing images and padding with copies of their elements: reads at positions that are known beforehand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from npu_compiler.argument_shapes import scales_of
from npu_compiler.dtypes import is_float
from npu_compiler.lowering import Builder, as_int, as_ints, unsupported
from npu_compiler.ops import lowers
from npu_compiler.ops.creation import all_static, nearest, numbers
from npu_compiler.ops.indexing import take
from npu_compiler.ops.views import permute, reshape, slice_dim, tensor_input
from torch_ir.ir import Attr, Node


def picked(b: Builder, x: str, dim: int, positions: Sequence[int]) -> str:
    """The elements of ``x`` at these positions of ``dim``."""
    size = b.shape(x)[dim]
    if list(positions) == list(range(as_int(size))):
        return x
    return take(b, x, numbers(b, positions, "int64"), (dim,))


def _sizes(b: Builder, node: Node, rank: int) -> tuple[str, tuple[int, ...], tuple[float | None, ...]]:
    """The image, its sizes, and the scale factors that were given."""
    x = tensor_input(node)
    if not all_static((*b.shape(x)[-rank:], *node.out.shape[-rank:])):
        raise unsupported("resizing of a dynamic size")
    return x, as_ints(tuple(b.shape(x)[-rank:])), scales_of(node, rank)


@lowers(
    *(
        f"aten.{name}{rank}d.{kind}"
        for name in ("upsample_nearest", "_upsample_nearest_exact")
        for rank in (1, 2, 3)
        for kind in ("vec", "default")
    )
)
def lower_nearest(b: Builder, node: Node) -> str:
    rank, exact = int(node.op.split("d.")[0][-1]), "exact" in node.op
    x, sizes, scales = _sizes(b, node, rank)
    for i, (size, scale) in enumerate(zip(sizes, scales, strict=True)):
        dim, out = node.out.rank - rank + i, as_int(node.out.shape[node.out.rank - rank + i])
        if out % size == 0 and scale in (None, out / size):  # every element some times over
            lead, tail = b.shape(x)[: dim + 1], b.shape(x)[dim + 1 :]
            wide = b.emit("expand", reshape(b, x, (*lead, 1, *tail)), shape=(*lead, out // size, *tail))
            x = reshape(b, wide, (*lead[:-1], out, *tail))
        else:
            x = picked(b, x, dim, nearest(size, out, scale, 0.5 if exact else 0.0))
    return x


def _fractional(b: Builder, node: Node, rank: int) -> tuple[str, tuple[int, ...], tuple[float | None, ...]]:
    """``_sizes`` where results lie between elements."""
    if not is_float(node.out.dtype):
        raise unsupported(
            "interpolation of whole numbers, which PyTorch rounds in its own way", "convert to float32 before"
        )
    return _sizes(b, node, rank)


def _places(size: int, out: int, scale: float | None, corners: bool) -> np.ndarray[Any, Any]:
    """Where each output element lies between the input's."""
    at = np.arange(out, dtype=np.float64)
    if corners:
        return at * ((size - 1) / (out - 1) if out > 1 else 0.0)
    return (at + 0.5) * (1 / scale if scale else size / out) - 0.5


@lowers(
    *(
        f"aten.upsample_{name}.{kind}"
        for name in ("linear1d", "bilinear2d", "trilinear3d")
        for kind in ("vec", "default")
    )
)
def lower_linear(b: Builder, node: Node) -> str:
    rank = int(node.op.split("d.")[0][-1])
    x, sizes, scales = _fractional(b, node, rank)
    corners = bool(node.attrs.get("align_corners", False))
    for i, (size, scale) in enumerate(zip(sizes, scales, strict=True)):
        dim = node.out.rank - rank + i
        out = as_int(node.out.shape[dim])
        at = np.maximum(_places(size, out, scale, corners), 0)
        low = np.minimum(at.astype(np.int64), size - 1)
        first = picked(b, x, dim, [int(p) for p in low])
        second = picked(b, x, dim, [int(p) for p in np.minimum(low + 1, size - 1)])
        parts = ((first, 1 - (at - low)), (second, at - low))  # in this form infinities stay
        x = b.emit("add", *(b.emit("mul", part, _along(b, share, dim, node)) for part, share in parts))
    return x


def _along(b: Builder, weights: np.ndarray[Any, Any], dim: int, node: Node) -> str:
    """Numbers along one dimension of the node's result."""
    shape = tuple(len(weights) if j == dim else 1 for j in range(node.out.rank))
    return reshape(b, numbers(b, [float(w) for w in weights], node.out.dtype), shape)


def _cubic(t: np.ndarray[Any, Any], a: float) -> np.ndarray[Any, Any]:
    """Keys' kernel of cubic convolution (IEEE Transactions on Acoustics 29, 1981) at distance ``t``."""
    t = np.abs(t)
    near = ((a + 2) * t - (a + 3)) * t * t + 1
    far = (((t - 5) * t + 8) * t - 4) * a
    return np.where(t <= 1, near, np.where(t < 2, far, 0.0))


@lowers("aten.upsample_bicubic2d.vec", "aten.upsample_bicubic2d.default")
def lower_cubic(b: Builder, node: Node) -> str:
    x, sizes, scales = _fractional(b, node, 2)
    corners = bool(node.attrs.get("align_corners", False))
    for i, (size, scale) in enumerate(zip(sizes, scales, strict=True)):
        dim = node.out.rank - 2 + i
        at = _places(size, as_int(node.out.shape[dim]), scale, corners)
        low = np.floor(at).astype(np.int64)
        total = ""
        for tap in range(-1, 3):
            element = picked(b, x, dim, [int(p) for p in np.clip(low + tap, 0, size - 1)])
            part = b.emit("mul", element, _along(b, _cubic(at - low - tap, -0.75), dim, node))
            total = b.emit("add", total, part) if total else part
        x = total
    return x


def _smooth(size: int, out: int, scale: float | None, corners: bool, cubic: bool) -> np.ndarray[Any, Any]:
    """The matrix [out, size] of resizing with antialiasing: a kernel as wide as the step between outputs."""
    step = 1 / scale if scale else size / out
    if corners:
        step = (size - 1) / (out - 1) if out > 1 else 0.0
    stretch = max(step, 1.0)
    reach = (2.0 if cubic else 1.0) * stretch
    matrix = np.zeros((out, size))
    for i in range(out):
        centre = step * (i + 0.5)
        start = max(int(centre - reach + 0.5), 0)
        at = np.arange(start, min(int(centre + reach + 0.5), size))
        distance = (at - centre + 0.5) / stretch
        weights = _cubic(distance, -0.5) if cubic else np.maximum(1 - np.abs(distance), 0)
        matrix[i, at] = weights / weights.sum()
    return matrix


@lowers(
    *(f"aten._upsample_bi{name}2d_aa.{kind}" for name in ("linear", "cubic") for kind in ("vec", "default"))
)
def lower_smooth(b: Builder, node: Node) -> str:
    """Each dimension is a product with a constant matrix."""
    x, sizes, scales = _fractional(b, node, 2)
    corners = bool(node.attrs.get("align_corners", False))
    for i, (size, scale) in enumerate(zip(sizes, scales, strict=True)):
        dim, rank = node.out.rank - 2 + i, node.out.rank
        matrix = _smooth(size, as_int(node.out.shape[dim]), scale, corners, "cubic" in node.op)
        last = (*(j for j in range(rank) if j != dim), dim)
        weights = numbers(b, [float(w) for w in matrix.ravel()], node.out.dtype)
        y = b.emit("linear", permute(b, x, last), reshape(b, weights, matrix.shape), None)
        x = permute(b, y, tuple(last.index(j) for j in range(rank)))
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


def _pad_dynamic(b: Builder, x: str, mode: str, dim: int, widths: tuple[int, int]) -> str:
    """``x`` between what stands before and behind it along a dimension of dynamic size."""
    cut = [min(width, 0) for width in widths]
    x = slice_dim(b, x, dim, -cut[0], b.shape(x)[dim] + sum(cut)) if any(cut) else x
    size, parts = b.shape(x)[dim], [x]
    if mode == "circular" and any(cut) and b.bounds(size)[0] < max(widths):
        raise unsupported("wrapping around more than may be left of a dynamic size")
    for width, before in zip(widths, (True, False), strict=True):
        if width <= 0:
            continue
        if mode == "reflect":
            part = b.emit("flip", slice_dim(b, x, dim, 1 if before else size - 1 - width, width), dims=(dim,))
        elif mode == "circular":
            part = slice_dim(b, x, dim, size - width if before else 0, width)
        else:
            edge = slice_dim(b, x, dim, 0 if before else size - 1, 1)
            part = b.emit("expand", edge, shape=(*b.shape(x)[:dim], width, *b.shape(x)[dim + 1 :]))
        parts.insert(0 if before else len(parts), part)
    return b.emit("concat", *parts, dim=dim) if len(parts) > 1 else x


def pad_with_copies(b: Builder, x: str, mode: Attr, widths: Sequence[int]) -> str:
    """``x`` padded, last dimension first in ``widths``, by its own elements."""
    if mode not in PADDING:
        raise unsupported(f"padding mode {mode!r}", f"use constant or one of {', '.join(PADDING)}")
    rank = len(b.shape(x))
    for i in range(len(widths) // 2):
        dim = rank - 1 - i
        size = b.shape(x)[dim]
        low, high = widths[2 * i], widths[2 * i + 1]
        if not isinstance(size, int):
            x = _pad_dynamic(b, x, str(mode), dim, (low, high))
            continue
        if mode == "circular" and (low < 0 or high < 0):  # what is cut off does not come back
            size += min(low, 0) + min(high, 0)
            x = slice_dim(b, x, dim, max(-low, 0), size)
            low, high = max(low, 0), max(high, 0)
        x = picked(b, x, dim, [PADDING[str(mode)](p, size) for p in range(-low, size + high)])
    return x


@lowers(
    *(
        f"aten.{mode}_pad{rank}d.default"
        for mode, ranks in (("reflection", (1, 2, 3)), ("replication", (1, 2, 3)))
        for rank in ranks
    )
)
def lower_copying_pad(b: Builder, node: Node) -> str:
    mode = "reflect" if "reflection" in node.op else "replicate"
    return pad_with_copies(b, tensor_input(node), mode, as_ints(node.attrs["padding"]))
