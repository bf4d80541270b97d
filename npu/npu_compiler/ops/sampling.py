"""Volumes sampled at computed places, rounding to a grid of levels, and the most frequent element."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import product as pairs

from npu_compiler.dtypes import is_float
from npu_compiler.lowering import Builder, as_int, as_number, unsupported, wrap_dim
from npu_compiler.ops import lowers
from npu_compiler.ops.arithmetic import choose
from npu_compiler.ops.creation import full, positions
from npu_compiler.ops.elementwise import cast
from npu_compiler.ops.scattering import extreme
from npu_compiler.ops.views import reshape, slice_dim, tensor_input
from npu_compiler.shapes import require
from torch_ir.expr import product
from torch_ir.ir import Node


@lowers("aten.grid_sampler.default", "aten.grid_sampler_3d.default")
def lower_volume_sampler(b: Builder, node: Node) -> str:
    """``x`` [N, C, D, H, W] at ``grid`` [N, ..., 3], of which the last names (w, h, d) from -1 to 1."""
    x, grid = tensor_input(node), tensor_input(node, 1)
    if len(b.shape(x)) != 5:
        raise unsupported("images sampled at computed places, which PyTorch's tables take apart")
    batch, channels, *spatial = b.shape(x)
    sizes = [as_int(size) for size in spatial]
    places = b.shape(grid)[1:-1]
    padding, corners = as_int(node.attrs["padding_mode"]), bool(node.attrs["align_corners"])
    mode = as_int(node.attrs["interpolation_mode"])
    require(mode in (0, 1) and padding in (0, 1, 2), f"interpolation_mode {mode}, padding_mode {padding}")
    nearest = mode == 1
    at = []
    for axis, size in enumerate(sizes):
        g = reshape(b, slice_dim(b, grid, 4, 2 - axis, 1), (batch, 1, product(places)))
        g = b.emit("add", g, None, scalar=1.0)
        g = b.emit("mul", g, None, scalar=(size - 1 if corners else size) / 2)
        g = g if corners else b.emit("sub", g, None, scalar=0.5)
        at.append(_within(b, g, size, padding, corners))
    flat = reshape(b, x, (batch, channels, math.prod(sizes)))
    total = ""
    for index, weight in _taps(b, at, sizes, nearest):
        index = b.emit("expand", index, shape=(batch, channels, product(places)))
        value = b.emit("mul", b.emit("gather_along", flat, index, dim=2), weight)
        total = b.emit("add", total, value) if total else value
    return reshape(b, total, node.out.shape)


def _within(b: Builder, g: str, size: int, padding: int, corners: bool) -> str:
    """Coordinates outside of a dimension: as they are (0), at its edge (1), or reflected at it (2)."""
    if padding == 2:
        low, span = (0.0, size - 1.0) if corners else (-0.5, float(size))
        if span == 0:
            g = b.emit("mul", g, None, scalar=0.0)
        else:
            g = b.emit("abs", b.emit("sub", g, None, scalar=low))
            rest = b.emit("fmod", g, None, scalar=span)
            turns = b.emit("fmod", b.emit("floor", b.emit("div", g, None, scalar=span)), None, scalar=2.0)
            back = b.emit("sub", None, rest, scalar=span)
            g = b.emit("where", b.emit("eq", turns, None, scalar=0.0), rest, back)
            g = b.emit("add", g, None, scalar=low)
    if padding:
        g = b.emit("fmin", b.emit("fmax", g, None, scalar=0.0), None, scalar=size - 1.0)
    return g


def _taps(b: Builder, at: list[str], sizes: list[int], nearest: bool) -> Iterator[tuple[str, str]]:
    """The flat index and the weight of each element that a place is made of; outside the weight is 0."""
    lows = [b.emit("round" if nearest else "floor", g) for g in at]
    for corner in pairs(*((0,) if nearest else (0, 1) for _ in at)):
        index = weight = ""
        for g, low, size, step in zip(at, lows, sizes, corner, strict=True):
            place = b.emit("add", low, None, scalar=1.0) if step else low
            inside = b.emit(
                "logical_and",
                b.emit("ge", place, None, scalar=0.0),
                b.emit("lt", place, None, scalar=float(size)),
            )
            part = full(b, b.shape(g), 1.0, b.spec(g).dtype)
            if not nearest:
                part = b.emit("sub", None, b.emit("abs", b.emit("sub", g, place)), scalar=1.0)
            part = b.emit("where", inside, part, None, scalar=0.0)
            place = cast(b, b.emit("where", inside, place, None, scalar=0.0), "int64")
            weight = b.emit("mul", weight, part) if weight else part
            index = b.emit("add", b.emit("mul", index, None, scalar=size), place) if index else place
        yield index, weight


@lowers(
    "aten.fake_quantize_per_tensor_affine.default",
    "aten.fake_quantize_per_tensor_affine.tensor_qparams",
    "aten.fake_quantize_per_channel_affine.default",
)
def lower_fake_quantize(b: Builder, node: Node) -> str:
    """``(clamp(round(x / scale) + zero) - zero) * scale``; NaN becomes the lowest level, as in PyTorch."""
    x, rank = tensor_input(node), len(node.out.shape)
    if "scale" in node.attrs:
        scale = full(b, (), as_number(node.attrs["scale"]), node.out.dtype)
        zero = full(b, (), as_number(node.attrs["zero_point"]), node.out.dtype)
    else:
        scale, zero = (cast(b, tensor_input(node, i), node.out.dtype) for i in (1, 2))
        axis = wrap_dim(node.attrs["axis"], rank) if "axis" in node.attrs else 0
        shape = tuple(size if i == axis else 1 for i, size in enumerate(node.out.shape))
        scale, zero = (
            reshape(b, v, shape) if "axis" in node.attrs else reshape(b, v, ()) for v in (scale, zero)
        )
    level = b.emit("add", b.emit("round", b.emit("mul", x, b.emit("reciprocal", scale))), zero)
    low, high = (float(as_number(node.attrs[name])) for name in ("quant_min", "quant_max"))
    level = b.emit("fmin", b.emit("fmax", level, None, scalar=low), None, scalar=high)
    return b.emit("mul", b.emit("sub", level, zero), scale)


#: A dimension is compared with itself.
_LONGEST_MODE = 2048


@lowers("aten.mode.default")
def lower_mode(b: Builder, node: Node) -> list[str]:
    """The smallest of the most frequent elements along a dimension, and the last place where it stands."""
    x, stored = tensor_input(node), node.outs[0].dtype
    dtype = "uint8" if stored == "bool" else stored
    x = cast(b, x, dtype)
    x = reshape(b, x, b.shape(x) or (1,))
    shape = b.shape(x)
    dim = wrap_dim(node.attrs.get("dim", -1), len(shape))
    length = as_int(shape[dim])
    if length > _LONGEST_MODE:
        raise unsupported(f"the most frequent of {length} elements", "sort them, or count them with one_hot")
    sides = (reshape(b, x, (*shape[:dim], *size, *shape[dim + 1 :])) for size in ((length, 1), (1, length)))
    equal = cast(b, b.emit("eq", *sides), "int64")
    counts = reshape(b, b.emit("reduce_sum", equal, dims=(dim,)), shape)
    if is_float(dtype):  # NaN is no other NaN, and comes before every number
        counts = b.emit("clamp_min", counts, None, scalar=1)
    frequent = b.emit("eq", counts, b.emit("reduce_amax", counts, dims=(dim,)))
    kept = choose(b, frequent, x, extreme(dtype, largest=True), dtype)
    best = b.emit("reduce_amin", kept, dims=(dim,))
    place = positions(b, shape, dim)
    found = b.emit("where", b.emit("eq", x, best), place, None, scalar=-1)
    if is_float(dtype):  # nothing but NaN: any place
        found = b.emit("clamp_min", found, None, scalar=0)
    last = b.emit("reduce_amax", found, dims=(dim,))
    best = cast(b, best, stored)
    return [reshape(b, value, out.shape) for value, out in zip((best, last), node.outs, strict=True)]
