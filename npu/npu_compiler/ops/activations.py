"""Lowerings of activations and tests of numbers, in terms of the elementwise records."""

from __future__ import annotations

import math

from npu_compiler.lowering import Builder, as_number, unsupported, wrap_dim
from npu_compiler.ops import lowers
from npu_compiler.ops.arithmetic import choose
from npu_compiler.ops.elementwise import cast
from npu_compiler.ops.elementwise import operand as _operand
from npu_compiler.ops.views import reshape, slice_dim
from torch_ir.ir import Node


@lowers("aten.leaky_relu.default", "aten.leaky_relu_.default")
def lower_leaky_relu(b: Builder, node: Node) -> str:
    x = _operand(b, node, 0)
    slope = float(as_number(node.attrs.get("negative_slope", 0.01)))
    negative = b.emit("mul", b.emit("clamp_max", x, None, scalar=0.0), None, scalar=slope)
    return b.emit("add", b.emit("relu", x), negative)


@lowers("aten.rrelu.default")
def lower_rrelu(b: Builder, node: Node) -> str:
    """Outside of training, the slope is the middle of its bounds."""
    if node.attrs.get("training"):
        raise unsupported("random slopes in training mode", "call .eval() on the model before extraction")
    x = _operand(b, node, 0)
    slope = (number(node, "lower", 0.125) + number(node, "upper", 1 / 3)) / 2
    return b.emit("where", b.emit("ge", x, None, scalar=0.0), x, scaled(b, x, slope))


@lowers("aten.angle.default")
def lower_angle(b: Builder, node: Node) -> str:
    """Of a real number: pi below 0, else 0; NaN stays."""
    x = cast(b, _operand(b, node, 0), node.out.dtype)
    turned = choose(
        b, b.emit("lt", x, None, scalar=0.0), math.pi, b.emit("mul", x, None, scalar=0.0), node.out.dtype
    )
    turned = choose(b, b.emit("eq", b.emit("abs", x), None, scalar=math.inf), 0.0, turned, node.out.dtype)
    return choose(b, b.emit("eq", x, None, scalar=-math.inf), math.pi, turned, node.out.dtype)


def number(node: Node, name: str, default: float) -> float:
    """A floating point attribute."""
    return float(as_number(node.attrs.get(name, default)))


def scaled(b: Builder, x: str, factor: float) -> str:
    return x if factor == 1 else b.emit("mul", x, None, scalar=factor)


@lowers("aten.softplus.default")
def lower_softplus(b: Builder, node: Node) -> str:
    x = _operand(b, node, 0)
    return softplus(b, x, number(node, "beta", 1.0), number(node, "threshold", 20.0))


def softplus(b: Builder, x: str, beta: float, threshold: float) -> str:
    """``log(1 + exp(beta * x)) / beta``, and ``x`` itself where ``beta * x`` is above the threshold."""
    grown = scaled(b, x, beta)
    smooth = scaled(b, b.emit("log1p", b.emit("exp", grown)), 1 / beta)
    return b.emit("where", b.emit("gt", grown, None, scalar=threshold), x, smooth)


@lowers("aten.mish.default", "aten.mish_.default")
def lower_mish(b: Builder, node: Node) -> str:
    x = _operand(b, node, 0)
    return b.emit("mul", x, b.emit("tanh", softplus(b, x, 1.0, 20.0)))


@lowers("aten.elu.default", "aten.elu_.default", "aten.selu.default", "aten.celu.default")
def lower_elu(b: Builder, node: Node) -> str:
    """``scale * x`` above 0, else ``scale * alpha * (exp(x * inner) - 1)``."""
    x, kind = _operand(b, node, 0), node.op.split(".")[1].rstrip("_")
    alpha, scale, inner = (
        number(node, "alpha", 1.0),
        number(node, "scale", 1.0),
        number(node, "input_scale", 1.0),
    )
    if kind == "selu":
        alpha, scale = 1.6732632423543772, 1.0507009873554805
    if kind == "celu":
        inner = 1 / alpha
    low = scaled(b, b.emit("expm1", scaled(b, x, inner)), alpha * scale)
    return b.emit("where", b.emit("gt", x, None, scalar=0.0), scaled(b, x, scale), low)


@lowers("aten.prelu.default")
def lower_prelu(b: Builder, node: Node) -> str:
    x, weight = _operand(b, node, 0), _operand(b, node, 1)
    rank = len(b.shape(x))
    weight = reshape(b, weight, (*b.shape(weight), *(1 for _ in range(rank - 2))) if rank > 1 else ())
    return b.emit("where", b.emit("gt", x, None, scalar=0.0), x, b.emit("mul", x, weight))


@lowers("aten.hardshrink.default", "aten.softshrink.default")
def lower_shrink(b: Builder, node: Node) -> str:
    x, edge = _operand(b, node, 0), number(node, "lambd", 0.5)
    shifted = x
    if "soft" in node.op:
        shifted = b.emit("sub", x, b.emit("mul", b.emit("sign", x), None, scalar=edge))
    return b.emit("where", b.emit("le", b.emit("abs", x), None, scalar=edge), None, shifted, scalar=0.0)


@lowers("aten.threshold.default", "aten.threshold_.default")
def lower_threshold(b: Builder, node: Node) -> str:
    x, dtype = _operand(b, node, 0), node.out.dtype
    low = b.emit("le", x, None, scalar=as_number(node.attrs["threshold"]))
    return choose(b, low, as_number(node.attrs["value"]), x, dtype)


@lowers("aten.log_sigmoid.default")
def lower_log_sigmoid(b: Builder, node: Node) -> str:
    x = _operand(b, node, 0)
    tail = b.emit("log1p", b.emit("exp", b.emit("neg", b.emit("abs", x))))
    return b.emit("sub", b.emit("clamp_max", x, None, scalar=0.0), tail)


@lowers("aten.glu.default")
def lower_glu(b: Builder, node: Node) -> str:
    x = _operand(b, node, 0)
    dim = wrap_dim(node.attrs.get("dim", -1), len(b.shape(x)))
    half = node.out.shape[dim]
    gate = b.emit("sigmoid", slice_dim(b, x, dim, half, half))
    return b.emit("mul", slice_dim(b, x, dim, 0, half), gate)


@lowers("aten.square.default", "aten.square_.default")
def lower_square(b: Builder, node: Node) -> str:
    x = _operand(b, node, 0)
    return b.emit("mul", x, x)


@lowers("aten.frac.default")
def lower_frac(b: Builder, node: Node) -> str:
    x = _operand(b, node, 0)
    return b.emit("sub", x, b.emit("trunc", x))


@lowers("aten.isnan.default", "aten.isinf.default", "aten.isfinite.default")
def lower_is(b: Builder, node: Node) -> str:
    x = (
        cast(b, _operand(b, node, 0), "float32")
        if b.spec(_operand(b, node, 0)).dtype != "float64"
        else _operand(b, node, 0)
    )
    if "nan" in node.op:
        return b.emit("ne", x, x)
    return b.emit("eq" if "isinf" in node.op else "lt", b.emit("abs", x), None, scalar=math.inf)


@lowers("aten.nan_to_num.default")
def lower_nan_to_num(b: Builder, node: Node) -> str:
    x = _operand(b, node, 0)
    if node.out.dtype not in _LARGEST:
        return x
    largest = _LARGEST[b.node.out.dtype]  # of the dtype that is stored, not of the one computed in
    top, low = number(node, "posinf", largest), number(node, "neginf", -largest)
    y = choose(b, b.emit("eq", x, None, scalar=math.inf), top, x, node.out.dtype)
    y = choose(b, b.emit("eq", x, None, scalar=-math.inf), low, y, node.out.dtype)
    return choose(b, b.emit("ne", x, x), number(node, "nan", 0.0), y, node.out.dtype)


_LARGEST = {
    "float16": 65504.0,
    "bfloat16": 3.3895313892515355e38,
    "float32": 3.4028234663852886e38,
    "float64": 1.7976931348623157e308,
}
