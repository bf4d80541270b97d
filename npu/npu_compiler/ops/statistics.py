"""Statistics and norms over dimensions, in terms of reductions and elementwise ops."""

from __future__ import annotations

import math

from npu_compiler.lowering import Builder, as_number, wrap_dim, wrap_dims
from npu_compiler.ops import lowers
from npu_compiler.ops.arithmetic import choose, size_value
from npu_compiler.ops.creation import full
from npu_compiler.ops.elementwise import cast
from npu_compiler.ops.views import reshape, tensor_input
from npu_compiler.shapes import broadcast
from torch_ir.expr import product
from torch_ir.ir import Node


@lowers(
    "aten.var.correction",
    "aten.var.dim",
    "aten.std.correction",
    "aten.std.dim",
    "aten.var_mean.correction",
    "aten.var_mean.dim",
    "aten.var_mean.default",
    "aten.std_mean.correction",
    "aten.std_mean.dim",
    "aten.std_mean.default",
    "aten.var.default",
    "aten.std.default",
)
def lower_var(b: Builder, node: Node) -> list[str]:
    """PyTorch computes these of float32 in double precision: here of numbers near 1, a power of two away."""
    x = reshape(b, tensor_input(node), b.shape(tensor_input(node)) or (1,))
    dims = wrap_dims(node.attrs.get("dim"), len(b.shape(x)))
    correction = node.attrs.get("correction")
    if correction is None:
        correction = 1 if node.attrs.get("unbiased", True) else 0
    count = product(b.shape(x)[dim] for dim in dims)
    back = None
    if b.spec(x).dtype == "float32" and all(b.bounds(b.shape(x)[dim])[0] > 0 for dim in dims):
        power = cast(b, b.emit("exponent", b.emit("reduce_amax", b.emit("abs", x), dims=dims)), "float32")
        power = b.emit("clamp_max", b.emit("clamp_min", power, None, scalar=-100.0), None, scalar=120.0)
        x, back = b.emit("mul", x, b.emit("exp2", b.emit("neg", power))), b.emit("exp2", power)
    mean = b.emit("reduce_mean", x, dims=dims)
    centred = b.emit("sub", x, mean)
    total = b.emit("reduce_sum", b.emit("mul", centred, centred), dims=dims)
    if isinstance(count, int):
        var = b.emit("div", total, None, scalar=max(count - float(as_number(correction)), 0.0))
    else:
        known = cast(b, size_value(b, count), b.spec(x).dtype)
        left = b.emit("sub", known, None, scalar=float(as_number(correction)))
        var = b.emit("div", total, b.emit("clamp_min", left, None, scalar=0.0))
    root = ".std" in node.op
    var = b.emit("sqrt", var) if root else var
    if back is not None:
        mean, var = b.emit("mul", mean, back), b.emit("mul", var, back)
        var = var if root else b.emit("mul", var, back)
    return [reshape(b, value, out.shape) for value, out in zip((var, mean), node.outs, strict=False)]


@lowers("aten.linalg_vector_norm.default", "aten.norm.ScalarOpt_dim", "aten.norm.Scalar")
def lower_norm(b: Builder, node: Node) -> str:
    x = cast(b, tensor_input(node), node.out.dtype)
    given = node.attrs.get("ord", node.attrs.get("p", 2))
    order = 2.0 if given is None else float(as_number(given))
    x = reshape(b, x, b.shape(x) or (1,))
    dims = wrap_dims(node.attrs.get("dim"), len(b.shape(x)))
    return reshape(b, vector_norm(b, x, dims, order), node.out.shape)


def vector_norm(b: Builder, x: str, dims: tuple[int, ...], order: float) -> str:
    """``sum(abs(x) ** order) ** (1 / order)`` over ``dims``, which stay as 1."""
    if order == 2:
        return b.emit("sqrt", b.emit("reduce_sum", b.emit("mul", x, x), dims=dims))
    size = b.emit("abs", x)
    if math.isinf(order):
        return b.emit("reduce_amax" if order > 0 else "reduce_amin", size, dims=dims)
    if order == 0:
        return b.emit("reduce_sum", cast(b, b.emit("ne", x, None, scalar=0), b.spec(x).dtype), dims=dims)
    if order == 1:
        return b.emit("reduce_sum", size, dims=dims)
    total = b.emit("reduce_sum", b.emit("pow", size, None, scalar=order), dims=dims)
    return b.emit("pow", total, None, scalar=1 / order)


@lowers("aten.cosine_similarity.default")
def lower_cosine(b: Builder, node: Node) -> str:
    x, y = (cast(b, tensor_input(node, index), node.out.dtype) for index in range(2))
    shape = broadcast([b.shape(x), b.shape(y)])
    wide = shape or (1,)
    x, y = (b.emit("expand", reshape(b, side, b.shape(side) or (1,)), shape=wide) for side in (x, y))
    dim = wrap_dim(node.attrs.get("dim", 1), len(wide))
    eps = float(as_number(node.attrs.get("eps", 1e-8)))
    sides = [b.emit("clamp_min", vector_norm(b, side, (dim,), 2.0), None, scalar=eps) for side in (x, y)]
    unit = [b.emit("div", side, length) for side, length in zip((x, y), sides, strict=True)]
    return reshape(b, b.emit("reduce_sum", b.emit("mul", *unit), dims=(dim,)), node.out.shape)


@lowers("aten.logsumexp.default")
def lower_logsumexp(b: Builder, node: Node) -> str:
    x = cast(b, tensor_input(node), node.out.dtype)
    if not b.shape(x):
        return x
    dims = wrap_dims(node.attrs.get("dim"), len(b.shape(x)))
    if any(b.shape(x)[dim] == 0 for dim in dims):
        return full(b, node.out.shape, -math.inf, node.out.dtype)
    top = b.emit("reduce_amax", x, dims=dims)
    infinite = b.emit("eq", b.emit("abs", top), None, scalar=math.inf)
    top = choose(b, infinite, 0.0, top, node.out.dtype)
    total = b.emit("reduce_sum", b.emit("exp", b.emit("sub", x, top)), dims=dims)
    return reshape(b, b.emit("add", b.emit("log", total), top), node.out.shape)


@lowers("aten.count_nonzero.default", "aten.count_nonzero.dim_IntList")
def lower_count(b: Builder, node: Node) -> str:
    x = tensor_input(node)
    dims = wrap_dims(node.attrs.get("dim"), len(b.shape(x))) if b.shape(x) else ()
    ones = cast(b, cast(b, x, "bool"), "int64")
    return reshape(b, b.emit("reduce_sum", ones, dims=dims) if dims else ones, node.out.shape)
