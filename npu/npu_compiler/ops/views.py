"""Ops that only look at memory differently: no kernel, unless a reshape must gather scattered elements."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from npu_compiler import views
from npu_compiler.dtypes import held
from npu_compiler.lowering import Builder, as_dim, as_dims, as_int, as_ints, as_number, unsupported, wrap_dim
from npu_compiler.ops import Attrs, Case, OpDef, Specs, lowers, register
from npu_compiler.ops.elementwise import cast
from npu_compiler.shapes import may_equal, require
from npu_compiler.view_shapes import check_view, expanded, first_spec, joined, permuted, regrouped, sliced
from npu_runtime.program import WeightExpr
from torch_ir.expr import Dim, ceil_div, is_static, maximum, minimum, product
from torch_ir.ir import Attr, Node, TensorSpec


def _reference_slice(torch: Any, x: Any, dim: int, start: int, step: int, length: int) -> Any:
    index = [slice(None)] * x.dim()
    index[dim] = slice(start, start + step * length, step) if length else slice(0, 0)
    return x[tuple(index)]


def _weight_slice(node: Node, exprs: Sequence[WeightExpr]) -> WeightExpr:
    dim, start, step = (as_int(node.attrs[name]) for name in ("dim", "start", "step"))
    parts = [[0, as_int(size), 1] for size in node.out.shape]
    parts[dim] = [start, start + step * as_int(node.out.shape[dim]), step]
    return ["slice", exprs[0], parts]


register(
    OpDef(
        "reshape",
        regrouped,
        reference=lambda torch, x, shape: x.reshape(shape),
        alias=lambda view, node: views.reshape(view, node.out.shape),
        weight_expr=lambda node, exprs: ["reshape", exprs[0], list(node.out.shape)],
        cases=(
            Case(((4, 6),), {"shape": (3, 8)}),
            Case(((2, 3, 5, 7),), {"shape": (2, 105)}, ("float32", "int64"), layouts=("row", "nhwc8")),
            Case(((6, 1),), {"shape": (2, 1, 3)}),
            Case(((0, 3),), {"shape": (0,)}),
        ),
    )
)

register(
    OpDef(
        "permute",
        permuted,
        reference=lambda torch, x, dims: x.permute(dims),
        alias=lambda view, node: views.permute(view, as_ints(node.attrs["dims"])),
        weight_expr=lambda node, exprs: ["permute", exprs[0], list(as_ints(node.attrs["dims"]))],
        cases=(
            Case(((3, 5),), {"dims": (1, 0)}),
            Case(((2, 3, 5, 7),), {"dims": (0, 2, 3, 1)}, ("float32", "int64")),
        ),
    )
)

register(
    OpDef(
        "expand",
        expanded,
        reference=lambda torch, x, shape: x.expand(shape),
        alias=lambda view, node: views.expand(view, node.out.shape),
        weight_expr=lambda node, exprs: ["broadcast", exprs[0], list(node.out.shape)],
        cases=(Case(((3, 1),), {"shape": (2, 3, 5)}), Case(((),), {"shape": (7,)})),
    )
)

register(
    OpDef(
        "slice",
        sliced,
        reference=_reference_slice,
        weight_expr=_weight_slice,
        alias=lambda view, node: views.slice_dim(
            view,
            as_int(node.attrs["dim"]),
            as_dim(node.attrs["start"]),
            as_int(node.attrs["step"]),
            node.out.shape[as_int(node.attrs["dim"])],
        ),
        cases=(
            Case(((7, 5),), {"dim": 0, "start": 1, "step": 2, "length": 3}, ("float32", "int64")),
            Case(((2, 9, 3, 3),), {"dim": 1, "start": 4, "step": 1, "length": 5}, layouts=("row", "nhwc8")),
        ),
    )
)


def reshape(b: Builder, value: str, shape: tuple[Dim, ...]) -> str:
    """``value`` in another shape, itself where it has that already."""
    return value if b.shape(value) == shape else b.emit("reshape", value, shape=shape)


def permute(b: Builder, value: str, dims: tuple[int, ...]) -> str:
    return value if dims == tuple(range(len(dims))) else b.emit("permute", value, dims=dims)


def slice_dim(b: Builder, value: str, dim: int, start: Dim, length: Dim, step: int = 1) -> str:
    """Elements ``start, start + step, ...`` of dimension ``dim``, ``length`` of them."""
    if b.shape(value)[dim] == length and start == 0 and step == 1:
        return value
    return b.emit("slice", value, dim=dim, start=start, step=step, length=length)


def tensor_input(node: Node, index: int = 0) -> str:
    """The node's input at this place, which must be there."""
    value = node.inputs[index] if index < len(node.inputs) else None
    if value is None:
        raise unsupported(f"input {index} is absent")
    return value


@lowers(
    "aten.view.default",
    "aten.reshape.default",
    "aten._unsafe_view.default",
    "aten.flatten.using_ints",
    "aten.unflatten.int",
    "aten.squeeze.default",
    "aten.squeeze.dim",
    "aten.squeeze.dims",
    "aten.unsqueeze.default",
    "aten.squeeze_.dim",
    "aten.unsqueeze_.default",
    "aten.view_as.default",
    "aten.reshape_as.default",
)
def lower_reshape(b: Builder, node: Node) -> str:
    x = tensor_input(node)
    check_view(node, b.shape(x))
    return reshape(b, x, node.out.shape)


@lowers("aten.permute.default")
def lower_permute(b: Builder, node: Node) -> str:
    x = tensor_input(node)
    dims = as_ints(node.attrs["dims"])
    return permute(b, x, tuple(wrap_dim(dim, len(dims)) for dim in dims))


@lowers("aten.transpose.int", "aten.t.default", "aten.numpy_T.default", "aten.mT.default")
def lower_transpose(b: Builder, node: Node) -> str:
    x = tensor_input(node)
    order = list(range(rank := len(b.shape(x))))
    if node.op in ("aten.t.default", "aten.mT.default"):
        first, second = (rank - 2, rank - 1) if rank >= 2 else (0, 0)
    elif node.op == "aten.numpy_T.default":
        return permute(b, x, tuple(reversed(order)))
    else:
        first, second = wrap_dim(node.attrs["dim0"], rank), wrap_dim(node.attrs["dim1"], rank)
    if rank:
        order[first], order[second] = order[second], order[first]
    return permute(b, x, tuple(order))


@lowers("aten.expand.default", "aten.expand_as.default", "aten.broadcast_to.default")
def lower_expand(b: Builder, node: Node) -> str:
    x, out = tensor_input(node), node.out.shape
    given = as_dims(node.attrs["size"]) if "size" in node.attrs else b.shape(tensor_input(node, 1))
    fits = len(given) == len(out) and all(
        size == -1 or may_equal(size, made) for size, made in zip(given, out, strict=True)
    )
    require(fits, f"arguments that give the shape {given} for a result of {out}")
    return x if b.shape(x) == out else b.emit("expand", x, shape=out)


def from_front(b: Builder, index: Dim, size: Dim) -> Dim:
    """An index that counts from the end where it is negative, counted from the front."""
    low, high = b.bounds(index)
    if high < 0:
        return size + index
    if low < 0:
        raise unsupported(f"the index {index}, which may be negative or not", "narrow the symbols' bounds")
    return index


def clamp_index(b: Builder, index: Dim, size: Dim) -> Dim:
    """A slice's bound as PyTorch takes it: from the end where negative, then within the dimension.

    What the symbols' bounds prove is not written out, so that equal sizes look alike."""
    index = from_front(b, index, size)
    if b.bounds(size - index)[0] < 0:
        index = size if b.bounds(size - index)[1] <= 0 else minimum(index, size)
    return maximum(index, 0) if b.bounds(index)[0] < 0 else index


@lowers("aten.slice.Tensor")
def lower_slice(b: Builder, node: Node) -> str:
    x = tensor_input(node)
    dim = wrap_dim(node.attrs.get("dim", 0), len(b.shape(x)))
    start, end, step = node.attrs.get("start"), node.attrs.get("end"), as_int(node.attrs.get("step", 1))
    size = b.shape(x)[dim]
    first = clamp_index(b, 0 if start is None else as_dim(start), size)
    last = clamp_index(b, size if end is None else as_dim(end), size)
    length = ceil_div(last - first, step)
    return slice_dim(
        b, x, dim, first, max(length, 0) if isinstance(length, int) else node.out.shape[dim], step
    )


@lowers("aten.narrow.default")
def lower_narrow(b: Builder, node: Node) -> str:
    x = tensor_input(node)
    dim = wrap_dim(node.attrs["dim"], len(b.shape(x)))
    return slice_dim(
        b, x, dim, clamp_index(b, as_dim(node.attrs["start"]), b.shape(x)[dim]), node.out.shape[dim]
    )


@lowers("aten.select.int")
def lower_select(b: Builder, node: Node) -> str:
    x = tensor_input(node)
    dim = wrap_dim(node.attrs["dim"], len(b.shape(x)))
    index = from_front(b, as_dim(node.attrs["index"]), b.shape(x)[dim])
    return reshape(b, slice_dim(b, x, dim, index, 1), node.out.shape)


@lowers(
    "aten.split.Tensor",
    "aten.split.sizes",
    "aten.split_with_sizes.default",
    "aten.chunk.default",
    "aten.unbind.int",
    "aten.tensor_split.sections",
    "aten.unsafe_split.Tensor",
    "aten.unsafe_chunk.default",
)
def lower_split(b: Builder, node: Node) -> list[str]:
    x = tensor_input(node)
    dim = wrap_dim(node.attrs.get("dim", 0), len(b.shape(x)))
    results, start = [], 0
    for out in node.outs:
        length = 1 if node.op == "aten.unbind.int" else out.shape[dim]
        results.append(reshape(b, slice_dim(b, x, dim, start, length), out.shape))
        start = start + length  # type: ignore[assignment]
    return results


def _emit_concat(e: Any, node: Node) -> None:
    out, start, dim = e.output(node), 0, as_int(node.attrs["dim"])
    for value in node.inputs:
        view = e.view(value)
        length = view.shape[dim]
        e.copy(view, views.slice_dim(out, dim, start, 1, length), node)
        start = start + length


register(
    OpDef(
        "concat",
        joined,
        emit=_emit_concat,
        stored=True,
        reference=lambda torch, *xs, dim: torch.cat(xs, dim),
        layout=lambda node, layouts: "nhwc8" if node.out.rank == 4 and set(layouts) == {"nhwc8"} else "row",
        weight_expr=lambda node, exprs: ["concat", list(exprs), as_int(node.attrs["dim"])],
        cases=(
            Case(((2, 3), (2, 5), (2, 1)), {"dim": 1}, ("float32", "int64")),
            Case(((1, 7), (3, 7)), {"dim": 0}),
            Case(((2, 3, 5, 5), (2, 9, 5, 5)), {"dim": 1}, layouts=("row", "nhwc8")),
        ),
    )
)


@lowers("aten.cat.default", "aten.concat.default", "aten.concatenate.default")
def lower_cat(b: Builder, node: Node) -> str:
    values = [value for value in node.inputs if value is not None and b.shape(value) != (0,)]
    if not values:
        return tensor_input(node)
    dim = wrap_dim(node.attrs.get("dim", 0), node.out.rank)
    values = [value for value in values if b.shape(value)[dim] != 0] or values[:1]
    values = [cast(b, value, node.out.dtype) for value in values]
    return values[0] if len(values) == 1 else b.emit("concat", *values, dim=dim)


@lowers("aten.stack.default")
def lower_stack(b: Builder, node: Node) -> str:
    dim = wrap_dim(node.attrs.get("dim", 0), node.out.rank)
    shape = (*node.out.shape[:dim], 1, *node.out.shape[dim + 1 :])
    values = [reshape(b, cast(b, value, node.out.dtype), shape) for value in node.inputs if value is not None]
    return values[0] if len(values) == 1 else b.emit("concat", *values, dim=dim)


def _emit_pad(e: Any, node: Node) -> None:
    view, out = e.view(node.inputs[0]), e.output(node)
    inner = out
    for dim, (low, _) in enumerate(_pairs(node.attrs["pads"])):
        inner = views.slice_dim(inner, dim, low, 1, view.shape[dim])
    e.fill(out, node.attrs["value"], node)
    e.copy(view, inner, node)


def _pairs(attr: Attr) -> list[tuple[int, int]]:
    flat = as_ints(attr)
    return list(zip(flat[::2], flat[1::2], strict=True))


def _padded(specs: Specs, attrs: Attrs) -> tuple[TensorSpec, ...]:
    spec = first_spec(specs, attrs)
    return (
        TensorSpec(
            tuple(
                size + low + high for size, (low, high) in zip(spec.shape, _pairs(attrs["pads"]), strict=True)
            ),
            spec.dtype,
        ),
    )


def _reference_pad(torch: Any, x: Any, pads: tuple[int, ...], value: float) -> Any:
    pairs = list(zip(pads[::2], pads[1::2], strict=True))
    return torch.nn.functional.pad(x, [size for pair in reversed(pairs) for size in pair], value=value)


register(
    OpDef(
        "pad",
        _padded,
        emit=_emit_pad,
        stored=True,
        reference=_reference_pad,
        layout=lambda node, layouts: layouts[0] or "row",
        cases=(
            Case(((3, 5),), {"pads": (1, 2, 0, 3), "value": 0.0}),
            Case(
                ((2, 3, 5, 5),), {"pads": (0, 0, 0, 0, 1, 1, 2, 0), "value": -1.5}, layouts=("row", "nhwc8")
            ),
        ),
    )
)


@lowers("aten.pad.default", "aten.constant_pad_nd.default")
def lower_pad(b: Builder, node: Node) -> str:
    x = tensor_input(node)
    widths = as_ints(node.attrs["pad"])
    if node.attrs.get("mode", "constant") != "constant":
        from npu_compiler.ops.resize import pad_with_copies

        return pad_with_copies(b, x, node.attrs["mode"], widths)
    if not widths or not any(widths):
        return x
    rank = len(b.shape(x))
    pairs = [(0, 0)] * (rank - len(widths) // 2) + [
        (widths[i], widths[i + 1]) for i in range(len(widths) - 2, -2, -2)
    ]
    for dim, (low, high) in enumerate(pairs):  # a negative width cuts
        if low < 0 or high < 0:
            x = slice_dim(b, x, dim, max(-low, 0), b.shape(x)[dim] + min(low, 0) + min(high, 0))
    flat = tuple(max(width, 0) for pair in pairs for width in pair)
    value = held(as_number(node.attrs.get("value") or 0), node.out.dtype)
    return b.emit("pad", x, pads=flat, value=value) if any(flat) else x


@lowers("aten.repeat.default")
def lower_repeat(b: Builder, node: Node) -> str:
    x = tensor_input(node)
    times = as_dims(node.attrs["repeats"])
    lead = len(times) - len(b.shape(x))
    shape = (*(1 for _ in range(lead)), *b.shape(x))
    if not all(is_static(size) for size in times):
        raise unsupported("a symbolic number of repetitions")
    split: list[Dim] = []
    wide: list[Dim] = []
    for size, count in zip(shape, times, strict=True):
        split += [1, size]
        wide += [count, size]
    repeated = b.emit("expand", reshape(b, x, tuple(split)), shape=tuple(wide))
    return reshape(b, repeated, tuple(product(wide[i : i + 2]) for i in range(0, len(wide), 2)))
