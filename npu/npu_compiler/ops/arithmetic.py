"""Lowerings of arithmetic, comparisons and conversions to the elementwise records."""

from __future__ import annotations

from npu_compiler.dtypes import HALF, held, is_float, promote_scalar
from npu_compiler.half_operands import common_dtype
from npu_compiler.lowering import Builder, as_number, unsupported
from npu_compiler.ops import lowers
from npu_compiler.ops.elementwise import cast
from npu_compiler.ops.elementwise import operand as _operand
from npu_compiler.shapes import require
from torch_ir.expr import Expr
from torch_ir.ir import Attr, Node


def operands(
    b: Builder,
    node: Node,
    dtype: str | None = None,
    names: tuple[str, str] = ("self", "other"),
) -> tuple[str | None, str | None, dict[str, Attr]]:
    """The two operands of a binary op, cast to one dtype; a Python number stays out and comes back as
    ``scalar``."""
    tensors = [value for value in node.inputs if value is not None]
    if len(tensors) == 2:
        common = dtype or common_dtype([b.spec(value) for value in tensors])
        return cast(b, tensors[0], common), cast(b, tensors[1], common), {}
    if len(tensors) != 1:
        raise unsupported(f"expected one or two tensors, got {len(tensors)}")
    first = names[0] not in node.attrs
    given = node.attrs.get(names[1] if first else names[0])
    if isinstance(given, Expr):
        common = dtype or promote_scalar(b.spec(tensors[0]).dtype, 1)
        value, number = cast(b, tensors[0], common), cast(b, size_value(b, given), common)
        return (value, number, {}) if first else (number, value, {})
    scalar = as_number(given)
    common = dtype or promote_scalar(b.spec(tensors[0]).dtype, scalar)
    value = cast(b, tensors[0], common)
    scalar = float(scalar) if is_float(common) else int(scalar)
    return (value, None, {"scalar": scalar}) if first else (None, value, {"scalar": scalar})


def size_value(b: Builder, size: Expr) -> str:
    """A size that is known when the program runs, as an int64 of rank 0."""
    return b.emit("reshape", b.emit("sizes", values=(size,), dtype="torch.int64"), shape=())


def _scaled(
    b: Builder, value: str | None, attrs: dict[str, Attr], alpha: float
) -> tuple[str | None, dict[str, Attr]]:
    """The second operand times ``alpha``."""
    if alpha == 1:
        return value, attrs
    if value is None:
        return None, {"scalar": as_number(attrs["scalar"]) * alpha}
    return b.emit("mul", value, None, scalar=alpha), attrs


@lowers(
    "aten.add.Tensor",
    "aten.add.Scalar",
    "aten.add_.Tensor",
    "aten.sub.Tensor",
    "aten.sub.Scalar",
    "aten.sub_.Tensor",
)
def lower_add(b: Builder, node: Node) -> str:
    x, y, attrs = operands(b, node, node.out.dtype)
    name = node.op.split(".")[1].rstrip("_")
    alpha = as_number(node.attrs.get("alpha", 1))
    if alpha != 1 and x is not None and y is not None and is_float(node.out.dtype):
        return b.emit("fma", y, None, x, scalar=float(alpha if name == "add" else -alpha))
    y, attrs = _scaled(b, y, attrs, alpha)
    return b.emit("logical_or" if (name, node.out.dtype) == ("add", "bool") else name, x, y, **attrs)


@lowers("aten.rsub.Scalar", "aten.rsub.Tensor")
def lower_rsub(b: Builder, node: Node) -> str:
    x, y, attrs = operands(b, node, node.out.dtype)
    alpha = as_number(node.attrs.get("alpha", 1))
    if alpha != 1 and is_float(node.out.dtype):
        y = y or b.emit("full", shape=(), value=attrs["scalar"], dtype=f"torch.{node.out.dtype}")
        return b.emit("fma", x, None, y, scalar=-float(alpha))
    return b.emit("sub", y, x if alpha == 1 else b.emit("mul", x, None, scalar=alpha), **attrs)


@lowers(
    "aten.mul.Tensor",
    "aten.mul.Scalar",
    "aten.mul_.Tensor",
    "aten.maximum.default",
    "aten.minimum.default",
    "aten.atan2.default",
    "aten.hypot.default",
    "aten.copysign.Tensor",
    "aten.copysign.Scalar",
    "aten.nextafter.default",
    "aten.fmax.default",
    "aten.fmin.default",
)
def lower_binary(b: Builder, node: Node) -> str:
    if "nextafter" in node.op and b.node.out.dtype in HALF:
        raise unsupported(f"neighbours of numbers of dtype {b.node.out.dtype}", "convert to float32 before")
    x, y, attrs = operands(b, node, node.out.dtype)
    name = {"maximum": "clamp_min", "minimum": "clamp_max"}.get(
        kind := node.op.split(".")[1].rstrip("_"), kind
    )
    return b.emit(name, x, y, **attrs)


@lowers(
    "aten.div.Tensor",
    "aten.div.Scalar",
    "aten.div.Tensor_mode",
    "aten.div.Scalar_mode",
    "aten.floor_divide.default",
    "aten.floor_divide.Scalar",
    "aten.remainder.Scalar",
    "aten.remainder.Tensor",
    "aten.remainder.Scalar_Tensor",
    "aten.fmod.Scalar",
    "aten.fmod.Tensor",
)
def lower_div(b: Builder, node: Node) -> str:
    x, y, attrs = operands(b, node, node.out.dtype)
    kind = node.op.split(".")[1]
    if kind == "div":
        kind = {"floor": "floor_div", "trunc": "trunc_div"}.get(str(node.attrs.get("rounding_mode")), "div")
    if not is_float(node.out.dtype) and y is None and attrs["scalar"] == 0:
        raise unsupported("whole numbers divided by 0", "divide by another number, or by 0.0")
    return b.emit({"floor_divide": "floor_div"}.get(kind, kind), x, y, **attrs)


@lowers("aten.pow.Tensor_Scalar", "aten.pow.Tensor_Tensor", "aten.pow.Scalar")
def lower_pow(b: Builder, node: Node) -> str:
    x, y, attrs = operands(b, node, node.out.dtype, ("self", "exponent"))
    exponent, floating = attrs.get("scalar") if y is None else None, is_float(node.out.dtype)
    if not floating and isinstance(exponent, int) and exponent < 0:
        raise unsupported(f"whole numbers to the power of {exponent}", f"give the exponent {exponent}.0")
    match exponent:
        case 0.5 if floating:
            return b.emit("sqrt", x)
        case 1:
            return str(x)
        case 2:
            return b.emit("mul", x, x)
        case 3:
            return b.emit("mul", b.emit("mul", x, x), x)
        case -1 if floating:
            return b.emit("reciprocal", x)
        case -0.5 if floating:
            return b.emit("rsqrt", x)
    return b.emit("pow", x, y, **attrs)


@lowers(
    *(f"aten.{name}.{kind}" for name in ("eq", "ne", "lt", "le", "gt", "ge") for kind in ("Tensor", "Scalar"))
)
def lower_compare(b: Builder, node: Node) -> str:
    x, y, attrs = operands(b, node)
    return b.emit(node.op.split(".")[1], x, y, **attrs)


@lowers("aten.logical_and.default", "aten.logical_or.default", "aten.logical_xor.default")
def lower_logical(b: Builder, node: Node) -> str:
    tensors = (cast(b, _operand(b, node, index), "bool") for index in range(2))
    return b.emit(node.op.split(".")[1], *tensors)


_BITWISE = {"and": "bitwise_and", "or": "bitwise_or", "xor": "bitwise_xor"}
_SHIFTS = {"lshift": "bitwise_left_shift", "rshift": "bitwise_right_shift"}


@lowers(
    *(f"aten.{name}.{kind}" for name in _BITWISE.values() for kind in ("Tensor", "Scalar")),
    *(f"aten.{name}.{kind}" for name in _SHIFTS.values() for kind in ("Tensor", "Tensor_Scalar")),
    *(f"aten.__{name}__.{kind}" for name in (*_BITWISE, *_SHIFTS) for kind in ("Tensor", "Scalar")),
)
def lower_bitwise(b: Builder, node: Node) -> str:
    short = node.op.split(".")[1].strip("_")
    name = {**_BITWISE, **_SHIFTS}.get(short, short)
    x, y, attrs = operands(b, node, node.out.dtype)
    if is_float(node.out.dtype):
        raise unsupported(f"{name} of dtype {node.out.dtype}")
    return b.emit(name.replace("bitwise", "logical") if node.out.dtype == "bool" else name, x, y, **attrs)


@lowers("aten.bitwise_not.default")
def lower_not(b: Builder, node: Node) -> str:
    return b.emit("logical_not" if node.out.dtype == "bool" else "bitwise_not", _operand(b, node, 0))


@lowers("aten.gelu.default")
def lower_gelu(b: Builder, node: Node) -> str:
    return b.emit(
        "gelu_tanh" if node.attrs.get("approximate", "none") == "tanh" else "gelu_erf", _operand(b, node, 0)
    )


@lowers(
    "aten.clamp.default",
    "aten.hardtanh.default",
    "aten.hardtanh_.default",
    "aten.relu6.default",
    "aten.relu6_.default",
    "aten.clamp_min.default",
    "aten.clamp_max.default",
    "aten.clamp_.default",
)
def lower_clamp(b: Builder, node: Node) -> str:
    kind = node.op.split(".")[1].rstrip("_")
    defaults: dict[str, tuple[Attr, Attr]] = {"hardtanh": (-1.0, 1.0), "relu6": (0.0, 6.0)}
    low, high = defaults.get(kind, (None, None))
    low = node.attrs.get("min_val", node.attrs.get("min", low))
    high = node.attrs.get("max_val", node.attrs.get("max", high))
    require(low is not None or high is not None, "neither a smallest nor a largest value")
    x = cast(b, _operand(b, node, 0), node.out.dtype)
    number = float if is_float(node.out.dtype) else int
    for name, bound in (("clamp_min", low), ("clamp_max", high)):
        if isinstance(bound, Expr):
            x = b.emit(name, x, cast(b, size_value(b, bound), node.out.dtype))
        elif name == "clamp_min" and bound == 0:
            x = b.emit("relu", x)
        elif bound is not None:
            x = b.emit(name, x, None, scalar=number(as_number(bound)))
    return x


@lowers("aten.clamp.Tensor", "aten.clamp_min.Tensor", "aten.clamp_max.Tensor")
def lower_clamp_tensor(b: Builder, node: Node) -> str:
    x = cast(b, _operand(b, node, 0), node.out.dtype)
    bounds = (*node.inputs[1:], None)
    low, high = (None, bounds[0]) if "max" in node.op else bounds[:2]
    for name, bound in (("clamp_min", low), ("clamp_max", high)):
        if bound is not None:
            x = b.emit(name, x, cast(b, bound, node.out.dtype))
    return x


def _number_or_size(b: Builder, attr: Attr) -> str | float:
    """A number as it is, a size as a tensor of rank 0."""
    return size_value(b, attr) if isinstance(attr, Expr) else as_number(attr)


def choose(b: Builder, condition: str, x: str | float, y: str | float, dtype: str) -> str:
    """``x`` where the condition holds, else ``y``; at most one of the two is a number."""
    number = next((value for value in (x, y) if not isinstance(value, str)), None)
    attrs: dict[str, Attr] = {} if number is None else {"scalar": held(number, dtype)}
    sides = (cast(b, value, dtype) if isinstance(value, str) else None for value in (x, y))
    return b.emit("where", cast(b, condition, "bool"), *sides, **attrs)


@lowers("aten.where.self", "aten.where.ScalarOther", "aten.where.ScalarSelf", "aten.where.Scalar")
def lower_where(b: Builder, node: Node) -> str:
    tensors = iter(_operand(b, node, index) for index in range(len(node.inputs)))
    condition = next(tensors)
    x, y = (
        _number_or_size(b, node.attrs[name]) if name in node.attrs else next(tensors)
        for name in ("self", "other")
    )
    if not isinstance(x, str) and not isinstance(y, str):
        y = b.emit("full", shape=(), value=y, dtype=f"torch.{node.out.dtype}")
    return choose(b, condition, x, y, node.out.dtype)


@lowers("aten.masked_fill.Scalar", "aten.masked_fill.Tensor")
def lower_masked_fill(b: Builder, node: Node) -> str:
    mask = b.spec(_operand(b, node, 1))
    if mask.dtype != "bool":
        raise unsupported(f"its mask is {mask.dtype}", "compare first: a mask is bool")
    value = _number_or_size(b, node.attrs["value"]) if "value" in node.attrs else _operand(b, node, 2)
    return choose(b, _operand(b, node, 1), value, _operand(b, node, 0), node.out.dtype)


@lowers("aten.addcmul.default", "aten.addcdiv.default")
def lower_addc(b: Builder, node: Node) -> str:
    x, y, z = (cast(b, _operand(b, node, index), node.out.dtype) for index in range(3))
    scale = as_number(node.attrs.get("value", 1))
    y = y if scale == 1 else b.emit("mul", y, None, scalar=scale)
    return b.emit("add", x, b.emit("mul" if "mul" in node.op else "div", y, z))


@lowers("aten.lerp.Scalar", "aten.lerp.Tensor")
def lower_lerp(b: Builder, node: Node) -> str:
    x, y = _operand(b, node, 0), _operand(b, node, 1)
    step = b.emit("sub", y, x)
    if "weight" in node.attrs:
        return b.emit("add", x, b.emit("mul", step, None, scalar=float(as_number(node.attrs["weight"]))))
    return b.emit("add", x, b.emit("mul", step, _operand(b, node, 2)))


@lowers(
    "aten.to.dtype",
    "aten._to_copy.default",
    "aten.to.dtype_layout",
    "aten.to.device",
    "aten.type_as.default",
    "aten.to.other",
)
def lower_cast(b: Builder, node: Node) -> str:
    return cast(b, _operand(b, node, 0), node.out.dtype)


@lowers(
    "aten.clone.default",
    "aten.contiguous.default",
    "aten.detach.default",
    "aten.detach_.default",
    "aten.alias.default",
    "aten.dropout.default",
    "aten.dropout_.default",
    "aten.feature_dropout.default",
    "aten.alpha_dropout.default",
    "aten.feature_alpha_dropout.default",
    "aten.lift_fresh_copy.default",
    "aten.native_dropout.default",
    "aten.copy.default",
)
def lower_identity(b: Builder, node: Node) -> str:
    if "dropout" in node.op and node.attrs.get("train"):
        raise unsupported("dropout in training mode", "call .eval() on the model before extraction")
    if node.op == "aten.copy.default":
        value = cast(b, _operand(b, node, 1), node.out.dtype)
        return value if b.shape(value) == node.out.shape else b.emit("expand", value, shape=node.out.shape)
    return _operand(b, node, 0)
