"""Normalisations: rewritten into reductions and elementwise ops, which fold and fuse from there."""

from __future__ import annotations

from npu_compiler.lowering import Builder, as_int, as_number, unsupported
from npu_compiler.ops import lowers
from npu_compiler.ops.elementwise import cast
from npu_compiler.ops.views import reshape, tensor_input
from torch_ir.expr import Dim, product
from torch_ir.ir import Attr, Node


def optional_input(node: Node, index: int) -> str | None:
    """The node's input at this place, None where it is absent."""
    return node.inputs[index] if index < len(node.inputs) else None


@lowers(
    "aten.batch_norm.default",
    "aten._native_batch_norm_legit_no_training.default",
    "aten.cudnn_batch_norm.default",
)
def lower_batch_norm(b: Builder, node: Node) -> list[str]:
    """``x * s + t`` with ``s = weight / sqrt(var + eps)`` and ``t = bias - mean * s``, computed when weights
    are loaded."""
    x = tensor_input(node)
    _check_channels(b, node, x)
    weight, bias = optional_input(node, 1), optional_input(node, 2)
    if optional_input(node, 3) is None:
        return _by_own_statistics(b, node, x, weight, bias)
    if node.attrs.get("training"):
        raise unsupported(
            "batch normalisation in training mode", "call .eval() on the model before extraction"
        )
    mean, var = tensor_input(node, 3), tensor_input(node, 4)
    eps = as_number(node.attrs.get("eps", 1e-5))
    scale = b.emit("rsqrt", b.emit("add", var, None, scalar=float(eps)))
    if weight is not None:
        scale = b.emit("mul", scale, weight)
    shift = b.emit("mul", mean, scale)
    shift = b.emit("neg", shift) if bias is None else b.emit("sub", bias, shift)
    column = (b.shape(mean)[0], *(1 for _ in b.shape(x)[2:]))
    y = b.emit("mul", x, reshape(b, scale, column))
    y = b.emit("add", y, reshape(b, shift, column))
    empty = [b.emit("slice", mean, dim=0, start=0, step=1, length=0) for _ in node.outputs[1:]]
    return [y, *empty]


def _check_channels(b: Builder, node: Node, x: str) -> None:
    """Refuses weights and statistics that are not a number a channel: broadcasting would take them."""
    channels = b.shape(x)[1]
    for value in node.inputs[1:]:
        if value is not None and b.shape(value) != (channels,):
            raise unsupported(f"a normalisation of {channels} channels by {value} of shape {b.shape(value)}")


def _by_own_statistics(b: Builder, node: Node, x: str, weight: str | None, bias: str | None) -> list[str]:
    """A batch norm that tracks no statistics: those of its input, also in inference."""
    if len(node.outputs) > 1:
        raise unsupported("the statistics of a batch norm in training mode")
    dims = tuple(dim for dim in range(len(b.shape(x))) if dim != 1)
    y, _, _ = normalise(b, x, dims, as_number(node.attrs.get("eps", 1e-5)))
    for op, value in (("mul", weight), ("add", bias)):
        if value is not None:
            y = b.emit(op, y, reshape(b, value, (*b.shape(value), *(1 for _ in b.shape(x)[2:]))))
    return [y]


@lowers("aten._weight_norm.default", "aten._weight_norm_interface.default")
def lower_weight_norm(b: Builder, node: Node) -> list[str]:
    """``v * g / norm(v)``, the norm over all dimensions but one."""
    v, g = tensor_input(node), tensor_input(node, 1)
    rank, dim = len(b.shape(v)), as_int(node.attrs.get("dim", 0))
    dims = tuple(i for i in range(rank) if dim == -1 or i != dim)
    norm = b.emit("sqrt", b.emit("reduce_sum", b.emit("mul", v, v), dims=dims))
    y = b.emit("mul", v, b.emit("div", g, norm))
    return [y, norm][: len(node.outputs)]


@lowers("aten.layer_norm.default", "aten.native_layer_norm.default")
def lower_layer_norm(b: Builder, node: Node) -> list[str]:
    x, count, eps = tensor_input(node), _trailing(node), float(as_number(node.attrs.get("eps", 1e-5)))
    given = (optional_input(node, index) for index in (1, 2))
    affine = [None if value is None else cast(b, value, node.out.dtype) for value in given]
    _check_shapes(b, node, node.attrs["normalized_shape"], b.shape(x)[len(b.shape(x)) - count :])
    dims = tuple(range(len(b.shape(x)) - count, len(b.shape(x))))
    if node.out.dtype == "float32" and count:
        fused = b.emit("norm", x, *affine, count=count, eps=eps, centred=True)
        return [fused] if len(node.outputs) == 1 else [fused, *normalise(b, x, dims, eps)[1:]]
    y, mean, rstd = normalise(b, x, dims, eps)
    for op, value in zip(("mul", "add"), affine, strict=True):
        if value is not None:
            y = b.emit(op, y, value)
    return [y, mean, rstd][: len(node.outputs)]


def _trailing(node: Node) -> int:
    """How many dimensions at the end are normalised together."""
    shape = node.attrs["normalized_shape"]
    return len(shape) if isinstance(shape, tuple) else 1


@lowers("aten.group_norm.default", "aten.native_group_norm.default")
def lower_group_norm(b: Builder, node: Node) -> list[str]:
    x = tensor_input(node)
    weight, bias = optional_input(node, 1), optional_input(node, 2)
    groups = as_int(node.attrs.get("num_groups", node.attrs.get("group")))
    n, channels, *spatial = b.shape(x)
    _check_shapes(b, node, (channels,), (channels,))
    grouped = reshape(b, x, (n, groups, product(b.shape(x)[1:]) // groups))
    y, mean, rstd = normalise(b, grouped, (2,), as_number(node.attrs.get("eps", 1e-5)))
    y = reshape(b, y, b.shape(x))
    for op, value in (("mul", weight), ("add", bias)):
        if value is not None:
            y = b.emit(op, y, reshape(b, value, (channels, *(1 for _ in spatial))))
    return [y, reshape(b, mean, (n, groups)), reshape(b, rstd, (n, groups))][: len(node.outputs)]


@lowers("aten.instance_norm.default")
def lower_instance_norm(b: Builder, node: Node) -> str:
    x = tensor_input(node)
    if not node.attrs.get("use_input_stats", True):
        raise unsupported("instance normalisation with running statistics")
    _check_channels(b, node, x)
    y, _, _ = normalise(b, x, tuple(range(2, len(b.shape(x)))), as_number(node.attrs.get("eps", 1e-5)))
    for op, value in (("mul", optional_input(node, 1)), ("add", optional_input(node, 2))):
        if value is not None:
            y = b.emit(op, y, reshape(b, value, (*b.shape(value), *(1 for _ in b.shape(x)[2:]))))
    return y


@lowers("aten.rms_norm.default")
def lower_rms_norm(b: Builder, node: Node) -> str:
    x, weight, count = tensor_input(node), optional_input(node, 1), _trailing(node)
    weight = None if weight is None else cast(b, weight, node.out.dtype)
    given, double = node.attrs.get("eps"), node.out.dtype == "float64"
    eps = float(as_number(given)) if given is not None else 2.0**-52 if double else 2.0**-23
    _check_shapes(b, node, node.attrs["normalized_shape"], b.shape(x)[len(b.shape(x)) - count :])
    if not double and count:
        return b.emit("norm", x, weight, None, count=count, eps=eps, centred=False)
    dims = tuple(range(len(b.shape(x)) - count, len(b.shape(x))))
    square = b.emit("reduce_mean", b.emit("mul", x, x), dims=dims)
    y = b.emit("mul", x, b.emit("rsqrt", b.emit("add", square, None, scalar=eps)))
    return y if weight is None else b.emit("mul", y, weight)


def _check_shapes(b: Builder, node: Node, shape: Attr, expected: tuple[Dim, ...]) -> None:
    """Refuses a normalised shape, a weight or a bias that is not as expected: broadcasting would take it."""
    given: list[object] = [shape if isinstance(shape, tuple) else (shape,)]
    given += [b.shape(value) for value in (optional_input(node, 1), optional_input(node, 2)) if value]
    for dims in given:
        if dims != expected:
            raise unsupported(f"a normalisation over {expected} with a shape of {dims}")


def normalise(b: Builder, x: str, dims: tuple[int, ...], eps: float) -> tuple[str, str, str]:
    """``(x - mean) / sqrt(var + eps)`` over ``dims``, the mean and the factor; the variance from centred
    values."""
    mean = b.emit("reduce_mean", x, dims=dims)
    centred = b.emit("sub", x, mean)
    var = b.emit("reduce_mean", b.emit("mul", centred, centred), dims=dims)
    rstd = b.emit("rsqrt", b.emit("add", var, None, scalar=float(eps)))
    return b.emit("mul", centred, rstd), mean, rstd
