"""The shapes of results that an ATen operation's arguments alone decide, where its lowering would otherwise
take the shape that the graph says: a file whose arguments and shapes differ is refused, not guessed at."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil

from npu_compiler.lowering import as_dim, as_dims, as_int, as_ints, as_number, wrap_dim, wrap_dims
from npu_compiler.schemas import arguments
from npu_compiler.shapes import require, window_out
from torch_ir.expr import Dim
from torch_ir.ir import Node

Shape = tuple[Dim, ...]
#: A rule: from a node and the shapes of its operands to its results' shapes; None where it cannot tell.
Rule = Callable[[Node, Sequence[Shape]], Sequence[Shape] | None]


def shapes_by_arguments(node: Node, operands: Sequence[Shape]) -> Sequence[Shape] | None:
    """The results' shapes, or None where nothing but the lowering knows them.

    Raises ``Unsupported`` for arguments that fit no operand.
    """
    name = node.op.split(".")[1]
    if name in _RULES:
        return _RULES[name](node, operands)
    known = arguments(node.op) or ()
    names = {argument.name for argument in known}
    if {"dim", "keepdim"} <= names and operands:
        return _reduction(node, operands)
    if "size" in names and not any(argument.name == "self" for argument in known):
        return [as_dims(node.attrs["size"])]
    return None


def _reduction(node: Node, operands: Sequence[Shape]) -> Sequence[Shape]:
    shape = operands[0]
    given = node.attrs.get("dim", -1 if node.op.split(".")[1] in ("kthvalue", "mode") else None)
    dims = wrap_dims(given, len(shape)) if shape else ()
    kept = bool(node.attrs.get("keepdim", False))
    reduced = tuple(1 if at in dims else size for at, size in enumerate(shape) if kept or at not in dims)
    return [reduced] * len(node.outs)


def _split(node: Node, operands: Sequence[Shape]) -> Sequence[Shape] | None:
    shape = operands[0]
    dim = wrap_dim(node.attrs.get("dim", 0), len(shape))
    size, op = shape[dim], node.op.removeprefix("aten.").replace("unsafe_", "")
    lengths: Sequence[Dim]
    if op in ("split.sizes", "split_with_sizes.default"):
        lengths = as_dims(node.attrs["split_sizes" if "with" in op else "split_size"])
        total: Dim = 0
        for length in lengths:
            total = total + length
        if isinstance(total, int) and isinstance(size, int):
            require(total == size, f"pieces of {lengths} from {size} elements")
    elif op == "unbind.int":
        return [shape[:dim] + shape[dim + 1 :]] * len(node.outs)
    elif not isinstance(size, int):
        return None
    elif op == "tensor_split.sections":
        count = as_int(node.attrs["sections"])
        require(count > 0, f"{count} sections")
        lengths = [size // count + (at < size % count) for at in range(count)]
    else:
        step = as_int(node.attrs["chunks" if op == "chunk.default" else "split_size"])
        require(step > 0 or (step == size == 0), f"pieces of {step} from {size} elements")
        if op == "chunk.default":
            step = ceil(size / step)
        count = max(ceil(size / step), 1) if step else len(node.outs)
        lengths = [min(step, size - at * step) for at in range(count)]
    return [(*shape[:dim], length, *shape[dim + 1 :]) for length in lengths]


@dataclass(frozen=True)
class Windows:
    """The windows of a pooling operation over the last ``rank`` dimensions."""

    rank: int
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    rounded_up: bool


def pooled_dims(node: Node) -> int:
    """How many dimensions "aten.max_pool2d.default" pools over."""
    return int(node.op.split("d.")[0].split("d_with")[0][-1])


def windows_of(node: Node) -> Windows:
    """The windows that a node of max or average pooling names. Raises ``Unsupported`` for sizes that are not
    positive or too many."""
    rank, attrs = pooled_dims(node), node.attrs
    kernel = as_ints(attrs["kernel_size"], rank)
    given = attrs.get("stride")
    stride = kernel if given in (None, ()) else as_ints(given, rank)
    padding, dilation = (
        as_ints(attrs.get(name, default), rank) for name, default in (("padding", 0), ("dilation", 1))
    )
    require(min(*kernel, *stride, *dilation) > 0, "a window, a stride or a dilation that is not positive")
    return Windows(rank, kernel, stride, padding, dilation, bool(attrs.get("ceil_mode", False)))


def _pool(node: Node, operands: Sequence[Shape]) -> Sequence[Shape] | None:
    shape, windows = operands[0], windows_of(node)
    spatial = shape[-windows.rank :]
    if windows.rounded_up and not all(isinstance(size, int) for size in spatial):
        return None
    sizes = tuple(
        window_out(size, kernel, stride, (pad, pad), dilation, windows.rounded_up)
        for size, kernel, stride, pad, dilation in zip(
            spatial, windows.kernel, windows.stride, windows.padding, windows.dilation, strict=True
        )
    )
    return [(*shape[: -windows.rank], *sizes)] * len(node.outs)


def _adaptive_pool(node: Node, operands: Sequence[Shape]) -> Sequence[Shape]:
    shape = operands[0]
    rank = pooled_dims(node)
    wanted = as_dims(node.attrs["output_size"])
    wanted = wanted * rank if len(wanted) == 1 else wanted
    require(len(wanted) == rank, f"an output size of {wanted}")
    return [(*shape[:-rank], *wanted)] * len(node.outs)


def scales_of(node: Node, rank: int) -> tuple[float | None, ...]:
    """By which factors a node resizes its image's ``rank`` dimensions; None where it says sizes alone."""
    factors = node.attrs.get("scale_factors")
    names = {1: ("scales",), 2: ("scales_h", "scales_w"), 3: ("scales_d", "scales_h", "scales_w")}[rank]
    given = factors if isinstance(factors, tuple) else tuple(node.attrs.get(name) for name in names)
    require(len(given) == rank, f"the factors {given} for {rank} dimensions")
    return tuple(None if factor is None else float(as_number(factor)) for factor in given)


def _resized(node: Node, operands: Sequence[Shape]) -> Sequence[Shape] | None:
    shape, sizes, factors = operands[0], node.attrs.get("output_size"), node.attrs.get("scale_factors")
    require(3 <= len(shape) <= 5, f"an image of shape {shape}")
    require((sizes is None) != (factors is None), "an output size and scale factors, or neither of them")
    if factors is None:
        wanted = as_dims(sizes)
    else:
        sides, scales = shape[2:], scales_of(node, len(shape) - 2)
        if not all(isinstance(size, int) for size in sides):
            return None
        wanted = tuple(
            int(as_int(size) * float(factor or 0)) for size, factor in zip(sides, scales, strict=True)
        )
    require(len(wanted) == len(shape) - 2, f"sizes {sizes} or factors {factors} for {shape}")
    require(
        all(not isinstance(size, int) or size > 0 for size in (*wanted, *shape[2:])),
        f"an image of {shape} resized to {wanted}",
    )
    return [(*shape[:2], *wanted)]


def _range(node: Node, operands: Sequence[Shape]) -> Sequence[Shape] | None:
    start, end = node.attrs.get("start", 0), node.attrs["end"]
    if node.attrs.get("step", 1) != 1 or isinstance(start, float) or isinstance(end, float):
        return None
    return [(as_dim(end) - as_dim(start),)]


_RULES: dict[str, Rule] = {
    **dict.fromkeys(
        ("split", "split_with_sizes", "chunk", "unbind", "tensor_split", "unsafe_split", "unsafe_chunk"),
        _split,
    ),
    **{f"{kind}_pool{rank}d": _pool for kind in ("max", "avg") for rank in (1, 2, 3)},
    **{f"max_pool{rank}d_with_indices": _pool for rank in (1, 2, 3)},
    **{f"adaptive_{kind}_pool{rank}d": _adaptive_pool for kind in ("max", "avg") for rank in (1, 2, 3)},
    **{
        f"{name}{rank}d": _resized
        for name in ("upsample_nearest", "_upsample_nearest_exact")
        for rank in (1, 2, 3)
    },
    **dict.fromkeys(
        (
            *("upsample_linear1d", "upsample_bilinear2d", "upsample_trilinear3d", "upsample_bicubic2d"),
            *("_upsample_bilinear2d_aa", "_upsample_bicubic2d_aa"),
        ),
        _resized,
    ),
    "arange": _range,
}
