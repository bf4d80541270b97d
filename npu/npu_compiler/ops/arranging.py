"""Ops that put elements elsewhere: mirrored, rolled, repeated, interleaved, written into a part."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from npu_compiler import views
from npu_compiler.lowering import Builder, as_dim, as_dims, as_int, as_ints, unsupported, wrap_dim
from npu_compiler.ops import Attrs, Case, OpDef, Specs, like_first, lowers, register
from npu_compiler.ops.creation import positions
from npu_compiler.ops.elementwise import cast
from npu_compiler.ops.views import clamp_index, from_front, permute, reshape, slice_dim, tensor_input
from npu_compiler.shapes import require
from npu_compiler.views import View
from npu_runtime.program import WeightExpr
from torch_ir.expr import ceil_div, product
from torch_ir.ir import Node, TensorSpec

#: Longer dimensions are not mirrored in weight expressions, which would list their every element.
MIRRORED_WEIGHTS = 64


def _flip_view(view: View, node: Node) -> View:
    for dim in as_ints(node.attrs["dims"]):
        strides = list(view.strides)
        last = view.shape[dim] - 1
        offset = view.offset if view.shape[dim] == 0 else view.offset + last * strides[dim]
        strides[dim] = strides[dim] * -1
        view = replace(view, strides=tuple(strides), offset=offset)
    return view


def _flip_weight(node: Node, exprs: Sequence[WeightExpr]) -> WeightExpr | None:
    expr, shape = exprs[0], [as_int(size) for size in node.out.shape]
    for dim in as_ints(node.attrs["dims"]):
        if shape[dim] > MIRRORED_WEIGHTS or 0 in shape:
            return None
        parts = [[[0, size, 1] for size in shape] for _ in range(shape[dim])]
        for i, part in enumerate(reversed(parts)):
            part[dim] = [i, i + 1, 1]
        expr = ["concat", [["slice", expr, part] for part in parts], dim]
    return expr


register(
    OpDef(
        "flip",
        like_first,
        reference=lambda torch, x, dims: torch.flip(x, dims),
        alias=_flip_view,
        weight_expr=_flip_weight,
        cases=(
            Case(((3, 7),), {"dims": (1,)}, ("float32", "int64")),
            Case(((2, 5, 3, 7),), {"dims": (0, 1, 3)}, layouts=("row", "nhwc8")),
        ),
    )
)


@lowers("aten.flip.default")
def lower_flip(b: Builder, node: Node) -> str:
    x = tensor_input(node)
    dims = tuple(wrap_dim(dim, len(b.shape(x))) for dim in as_ints(node.attrs["dims"])) if b.shape(x) else ()
    return b.emit("flip", x, dims=dims) if dims else x


@lowers("aten.roll.default")
def lower_roll(b: Builder, node: Node) -> str:
    x, shifts, dims = tensor_input(node), as_ints(node.attrs["shifts"]), node.attrs.get("dims", ())
    if dims in ((), None):
        x, dims = reshape(b, x, (product(b.shape(x)),)), (0,)
    for shift, given in zip(shifts, as_ints(dims), strict=True):
        dim = wrap_dim(given, len(b.shape(x)))
        size = b.shape(x)[dim]
        if not isinstance(size, int):
            raise unsupported("rolling a dimension of symbolic size")
        shift = shift % size if size else 0
        if shift:
            parts = slice_dim(b, x, dim, size - shift, shift), slice_dim(b, x, dim, 0, size - shift)
            x = b.emit("concat", *parts, dim=dim)
    return reshape(b, x, node.out.shape)


@lowers("aten.pixel_shuffle.default", "aten.pixel_unshuffle.default")
def lower_pixels(b: Builder, node: Node) -> str:
    x = tensor_input(node)
    *lead, channels, height, width = b.shape(x)
    count = len(lead)
    if "unshuffle" in node.op:
        r = as_int(node.attrs["downscale_factor"])
        require(r > 0, f"a factor of {r}")
        x = reshape(b, x, (*lead, channels, height // r, r, width // r, r))
        order = (0, 2, 4, 1, 3)
    else:
        r = as_int(node.attrs["upscale_factor"])
        require(r > 0, f"a factor of {r}")
        x = reshape(b, x, (*lead, channels // (r * r), r, r, height, width))
        order = (0, 3, 1, 4, 2)
    return reshape(b, permute(b, x, (*range(count), *(count + i for i in order))), node.out.shape)


@lowers("aten.repeat_interleave.self_int", "aten.tile.default")
def lower_repeats(b: Builder, node: Node) -> str:
    x = tensor_input(node)
    if "tile" in node.op:
        times = as_dims(node.attrs["dims"])
        times = (*(1 for _ in range(len(b.shape(x)) - len(times))), *times)
        shape = (*(1 for _ in range(len(times) - len(b.shape(x)))), *b.shape(x))
        split = [size for pair in zip((1,) * len(shape), shape, strict=True) for size in pair]
        wide = [size for pair in zip(times, shape, strict=True) for size in pair]
        x = b.emit("expand", reshape(b, x, tuple(split)), shape=tuple(wide))
        return reshape(b, x, node.out.shape)
    if node.attrs.get("dim") is None:
        x = reshape(b, x, (product(b.shape(x)),))
    dim, times_one = wrap_dim(node.attrs.get("dim", 0), len(b.shape(x))), as_dim(node.attrs["repeats"])
    lead, tail = b.shape(x)[: dim + 1], b.shape(x)[dim + 1 :]
    wide_one = b.emit("expand", reshape(b, x, (*lead, 1, *tail)), shape=(*lead, times_one, *tail))
    return reshape(b, wide_one, node.out.shape)


@lowers("aten.movedim.int", "aten.movedim.intlist", "aten.moveaxis.int", "aten.moveaxis.intlist")
def lower_movedim(b: Builder, node: Node) -> str:
    x = tensor_input(node)
    rank = len(b.shape(x))
    sources = [wrap_dim(dim, rank) for dim in as_ints(node.attrs["source"])]
    targets = [wrap_dim(dim, rank) for dim in as_ints(node.attrs["destination"])]
    rest = iter(dim for dim in range(rank) if dim not in sources)
    order = [sources[targets.index(i)] if i in targets else next(rest) for i in range(rank)]
    return permute(b, x, tuple(order))


@lowers("aten.swapaxes.default", "aten.swapdims.default")
def lower_swap(b: Builder, node: Node) -> str:
    x = tensor_input(node)
    order = list(range(rank := len(b.shape(x))))
    first, second = (wrap_dim(node.attrs.get(f"axis{i}", node.attrs.get(f"dim{i}")), rank) for i in (0, 1))
    order[first], order[second] = order[second], order[first]
    return permute(b, x, tuple(order))


@lowers("aten.hstack.default", "aten.vstack.default", "aten.column_stack.default")
def lower_stacks(b: Builder, node: Node) -> str:
    values = []
    for value in node.inputs:
        shape = b.shape(str(value))
        if len(shape) < 2 and "vstack" in node.op:
            shape = (1, *(shape or (1,)))
        elif len(shape) < 2 and "column" in node.op:
            shape = (*(shape or (1,)), 1)
        values.append(reshape(b, cast(b, str(value), node.out.dtype), shape or (1,)))
    dim = 0 if "vstack" in node.op or node.out.rank == 1 else 1
    return values[0] if len(values) == 1 else b.emit("concat", *values, dim=dim)


@lowers("aten.meshgrid.default", "aten.meshgrid.indexing")
def lower_meshgrid(b: Builder, node: Node) -> list[str]:
    results, rank = [], len(node.inputs)
    for i, (value, out) in enumerate(zip(node.inputs, node.outs, strict=True)):
        dim = 1 - i if node.attrs.get("indexing") == "xy" and i < 2 and rank > 1 else i
        column = reshape(b, str(value), tuple(size if j == dim else 1 for j, size in enumerate(out.shape)))
        results.append(b.emit("expand", column, shape=out.shape))
    return results


def _windows(specs: Specs, attrs: Attrs) -> tuple[TensorSpec, ...]:
    (spec,) = like_first(specs, attrs)
    dim, size, step = (as_int(attrs[name]) for name in ("dim", "size", "step"))
    count = (spec.shape[dim] - size) // step + 1
    return (TensorSpec((*spec.shape[:dim], count, *spec.shape[dim + 1 :], size), spec.dtype),)


def _windows_view(view: View, node: Node) -> View:
    dim, step = as_int(node.attrs["dim"]), as_int(node.attrs["step"])
    strides = (
        *view.strides[:dim],
        view.strides[dim] * step,
        *view.strides[dim + 1 :],
        view.strides[dim],
    )
    return replace(view, shape=node.out.shape, strides=strides)


register(
    OpDef(
        "windows",
        _windows,
        reference=lambda torch, x, dim, size, step: x.unfold(dim, size, step),
        alias=_windows_view,
        cases=(Case(((2, 11),), {"dim": 1, "size": 3, "step": 2}, ("float32", "int64")),),
    )
)


@lowers("aten.unfold.default", "aten.unfold_copy.default")
def lower_unfold(b: Builder, node: Node) -> str:
    x = tensor_input(node)
    x = reshape(b, x, b.shape(x) or (1,))
    dim = wrap_dim(node.attrs["dimension"], len(b.shape(x)))
    windows = b.emit("windows", x, dim=dim, size=as_int(node.attrs["size"]), step=as_int(node.attrs["step"]))
    return windows if node.out.rank > 1 else reshape(b, windows, node.out.shape)


@lowers("aten.diagonal.default")
def lower_diagonal(b: Builder, node: Node) -> str:
    """Steps along both dimensions at once, in the flattened matrix."""
    x, rank = tensor_input(node), len(b.shape(tensor_input(node)))
    offset = as_int(node.attrs.get("offset", 0))
    first, second = wrap_dim(node.attrs.get("dim1", 0), rank), wrap_dim(node.attrs.get("dim2", 1), rank)
    x = permute(b, x, (*(i for i in range(rank) if i not in (first, second)), first, second))
    *lead, rows, columns = b.shape(x)
    length = node.out.shape[-1]
    if not all(isinstance(size, int) for size in (rows, columns, length)):
        raise unsupported("a diagonal of a dynamic size")
    start = offset if offset >= 0 else -offset * as_int(columns)
    flat = reshape(b, x, (*lead, rows * columns))
    return slice_dim(b, flat, len(lead), start, length, as_int(columns) + 1)


def _emit_insert(e: Any, node: Node) -> None:
    source, out = e.view(node.inputs[1]), e.updated(node)
    dim = as_int(node.attrs["dim"])
    part = views.slice_dim(
        out, dim, as_dim(node.attrs["start"]), as_int(node.attrs["step"]), source.shape[dim]
    )
    e.copy(source, part, node)


def _reference_insert(torch: Any, x: Any, source: Any, dim: int, start: int, step: int) -> Any:
    # NOTE: of a view whose elements overlap (unfold), PyTorch keeps the overlap and writes into neighbours
    return x.contiguous().slice_scatter(source, dim, start, start + step * source.shape[dim], step)


register(
    OpDef(
        "insert",
        like_first,
        _reference_insert,
        emit=_emit_insert,
        updates=1,
        stored=True,
        cases=(
            Case(((5, 7), (5, 3)), {"dim": 1, "start": 1, "step": 2}, ("float32", "int64")),
            Case(((3, 7), (2, 7)), {"dim": 0, "start": 0, "step": 1}),
        ),
    )
)


@lowers("aten.slice_scatter.default")
def lower_slice_scatter(b: Builder, node: Node) -> str:
    x, source = tensor_input(node), cast(b, tensor_input(node, 1), node.out.dtype)
    dim = wrap_dim(node.attrs.get("dim", 0), len(b.shape(x)))
    size, step = b.shape(x)[dim], as_int(node.attrs.get("step", 1))
    require(step > 0, f"a slice by {step}")
    start, end = node.attrs.get("start"), node.attrs.get("end")
    first = clamp_index(b, 0 if start is None else as_dim(start), size)
    last = clamp_index(b, size if end is None else as_dim(end), size)
    length = ceil_div(last - first, step)
    shape = (*b.shape(x)[:dim], length, *b.shape(x)[dim + 1 :])
    if shape == b.shape(x):
        return source if b.shape(source) == shape else b.emit("expand", source, shape=shape)
    if b.shape(source) != shape:
        source = b.emit("expand", source, shape=shape)
    return b.emit("insert", x, source, dim=dim, start=first, step=step)


@lowers("aten.select_scatter.default")
def lower_select_scatter(b: Builder, node: Node) -> str:
    x, source = tensor_input(node), cast(b, tensor_input(node, 1), node.out.dtype)
    dim = wrap_dim(node.attrs["dim"], len(b.shape(x)))
    index = from_front(b, as_dim(node.attrs["index"]), b.shape(x)[dim])
    row = reshape(b, source, (*b.shape(x)[:dim], 1, *b.shape(x)[dim + 1 :]))
    return b.emit("insert", x, row, dim=dim, start=index, step=1)


@lowers("aten.diagonal_scatter.default")
def lower_diagonal_scatter(b: Builder, node: Node) -> str:
    """The source, one element per row, where a row's position is a column's."""
    x, source = tensor_input(node), cast(b, tensor_input(node, 1), node.out.dtype)
    rank, shift = len(b.shape(x)), as_int(node.attrs.get("offset", 0))
    sides = [wrap_dim(node.attrs.get(f"dim{i + 1}", i), rank) for i in range(2)]
    order = (*(dim for dim in range(rank) if dim not in sides), *sides)
    rows, columns = (as_int(b.shape(x)[dim]) for dim in sides)
    before = max(-shift, 0)
    length = max(min(rows - before, columns - max(shift, 0)), 0)
    wanted = (*(b.shape(x)[dim] for dim in order[:-2]), length)
    require(b.shape(source) == wanted, f"{b.shape(source)} written to a diagonal of {wanted}")
    if length == 0:
        return x
    after = rows - before - length
    if before or after:
        source = b.emit("pad", source, pads=(*(0 for _ in order[2:] for _ in "ab"), before, after), value=0)
    source = reshape(b, source, (*b.shape(source), 1))
    places = [positions(b, (rows, columns), dim) for dim in range(2)]
    row = places[0] if shift == 0 else b.emit("add", places[0], None, scalar=shift)
    mixed = b.emit("where", b.emit("eq", row, places[1]), source, permute(b, x, order))
    return permute(b, mixed, tuple(order.index(dim) for dim in range(rank)))
