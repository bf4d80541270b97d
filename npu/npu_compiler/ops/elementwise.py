"""Elementwise ops: a row each. Chains of them become one ``pointwise`` kernel or the epilogue of another
kernel.

In an expression ``{x} {y} {z}`` are operands, ``{T}`` is the type (a scalar or a vector: write constants as
``({T})(0)``), and other names are attributes. A node's operand that is a Python number is absent from its
inputs and stands in ``attrs["scalar"]``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from npu_compiler.dtypes import attr_dtype, category, is_float, promote, promote_scalar
from npu_compiler.lowering import Builder, as_number, unsupported
from npu_compiler.ops import Attrs, Case, OpDef, Specs, lowers, register
from npu_compiler.shapes import broadcast
from npu_runtime.program import WeightExpr
from torch_ir.ir import Attr, Node, TensorSpec

FLOATS = ("float32", "float64")
ARITHMETIC = ("float32", "float64", "int32", "int64")


def infer_same(specs: Specs, attrs: Attrs) -> tuple[TensorSpec, ...]:
    """Broadcast shape, dtype of the operands (which the lowering has made equal)."""
    present = [spec for spec in specs if spec is not None]
    return (TensorSpec(broadcast([spec.shape for spec in present]), present[-1].dtype),)


def infer_bool(specs: Specs, attrs: Attrs) -> tuple[TensorSpec, ...]:
    return (TensorSpec(infer_same(specs, attrs)[0].shape, "bool"),)


def _positional(function: str) -> Callable[..., Any]:
    """The torch function of this dotted name, with a scalar in place of the absent operand, attributes by
    name."""

    def reference(torch: Any, *inputs: Any, scalar: Attr = None, **attrs: Any) -> Any:
        target = torch
        for part in function.split("."):
            target = getattr(target, part)
        like = next(x for x in inputs if x is not None)
        return target(
            *(torch.full((), scalar, dtype=like.dtype) if x is None else x for x in inputs), **attrs
        )

    return reference


def row(
    name: str,
    expr: str,
    *,
    arity: int,
    reference: str | Callable[..., Any],
    dtypes: tuple[str, ...] = FLOATS,
    values: str | tuple[str, ...] = "normal",
    attrs: Attrs | None = None,
    predicate: bool = False,
    weight: str | None = None,
    int_expr: str | None = None,
    rtol: float = 1e-5,
) -> None:
    """Registers an elementwise op of ``arity`` operands."""
    shapes: list[tuple[tuple[int, ...] | None, ...]] = [
        ((3, 7),) * arity,
        ((2, 8, 5, 5),) * arity,
        ((1,),) * arity,
    ]
    if arity == 2:
        shapes += [((4, 1, 3), (5, 1)), ((2, 3, 29), None), (None, (13,))]
    if arity == 3:
        shapes += [((4, 1, 3), (5, 1), (3,))]
    given = dict(attrs or {})
    cases = tuple(
        Case(shape, {**given, **({"scalar": 2} if None in shape else {})}, dtypes, values) for shape in shapes
    )

    def weight_expr(node: Node, exprs: Sequence[WeightExpr]) -> WeightExpr:
        return [weight, *exprs]

    register(
        OpDef(
            name,
            infer_bool if predicate else infer_same,
            expr=expr,
            int_expr=int_expr,
            reference=_positional(reference) if isinstance(reference, str) else reference,
            weight_expr=weight_expr if weight else None,
            cases=cases,
            rtol=rtol,
        )
    )


def unary(
    name: str,
    expr: str,
    *,
    aten: Sequence[str] = (),
    reference: str | Callable[..., Any] | None = None,
    to_float: bool = True,
    **options: Any,
) -> None:
    """Registers an op of one operand and the lowering of ``aten`` (default: the overload of its own name)."""
    row(name, expr, arity=1, reference=reference or name, **options)

    @lowers(*(aten or (f"aten.{name}.default", f"aten.{name}_.default")))
    def lower(b: Builder, node: Node) -> str:
        x = _operand(b, node, 0)
        if to_float and not is_float(b.spec(x).dtype):
            x = cast(b, x, node.out.dtype)
        return b.emit(name, x)


unary("relu", "({x} < ({T})(0) ? ({T})(0) : {x})", dtypes=ARITHMETIC, to_float=False)
unary("neg", "(-{x})", dtypes=ARITHMETIC, to_float=False, weight="neg")
unary("abs", "fabs({x})", int_expr="abs({x})", dtypes=ARITHMETIC, to_float=False, weight="abs")
unary("exp", "exp({x})", weight="exp")
unary("log", "log({x})", values="positive")
unary("sqrt", "sqrt({x})", values="positive", weight="sqrt")
unary("rsqrt", "(({T})(1) / sqrt({x}))", values="positive", weight="rsqrt")
unary("reciprocal", "(({T})(1) / {x})", values="positive")
unary("sin", "sin({x})")
unary("cos", "cos({x})")
unary("tanh", "tanh({x})")
unary("erf", "erf({x})")
unary("sigmoid", "(({T})(1) / (({T})(1) + exp(-{x})))")
unary("silu", "({x} / (({T})(1) + exp(-{x})))", reference="nn.functional.silu")
unary("floor", "floor({x})")
unary("ceil", "ceil({x})")
unary("round", "rint({x})")
unary("trunc", "trunc({x})")
unary(
    "hardswish",
    "({x} * clamp({x} + ({T})(3), ({T})(0), ({T})(6)) / ({T})(6))",
    reference="nn.functional.hardswish",
)
unary(
    "hardsigmoid",
    "(clamp({x} + ({T})(3), ({T})(0), ({T})(6)) / ({T})(6))",
    reference="nn.functional.hardsigmoid",
)
unary(
    "gelu_erf",
    "(({T})(0.5f) * {x} * (({T})(1) + erf({x} * ({T})(0.70710678118654752f))))",
    aten=("internal.gelu_erf",),
    reference="nn.functional.gelu",
)
unary(
    "gelu_tanh",
    "(({T})(0.5f) * {x} * (({T})(1) + tanh(({T})(0.79788456080286536f) * "
    "({x} + ({T})(0.044715f) * {x} * {x} * {x}))))",
    aten=("internal.gelu_tanh",),
    reference=lambda torch, x: torch.nn.functional.gelu(x, approximate="tanh"),
)
unary(
    "logical_not",
    "({x} == ({T})(0) ? 1 : 0)",
    predicate=True,
    dtypes=("float32", "int64", "bool"),
    to_float=False,
)

row("clamp_min", "({x} < {y} ? {y} : {x})", arity=2, reference="maximum", dtypes=ARITHMETIC, weight="max")
row("clamp_max", "({x} > {y} ? {y} : {x})", arity=2, reference="minimum", dtypes=ARITHMETIC, weight="min")
row("add", "({x} + {y})", arity=2, reference="add", dtypes=ARITHMETIC, weight="add")
row("sub", "({x} - {y})", arity=2, reference="sub", dtypes=ARITHMETIC, weight="sub")
row("mul", "({x} * {y})", arity=2, reference="mul", dtypes=ARITHMETIC, weight="mul")
row("div", "({x} / {y})", arity=2, reference="div", values="positive", weight="div")
row("pow", "pow({x}, {y})", arity=2, reference="pow", values="positive", rtol=2e-5)
row(
    "eq",
    "({x} == {y} ? 1 : 0)",
    arity=2,
    reference="eq",
    dtypes=("float32", "int64"),
    values="index:3",
    predicate=True,
)
row(
    "ne",
    "({x} != {y} ? 1 : 0)",
    arity=2,
    reference="ne",
    dtypes=("float32", "int64"),
    values="index:3",
    predicate=True,
)
row(
    "lt",
    "({x} < {y} ? 1 : 0)",
    arity=2,
    reference="lt",
    dtypes=("float32", "int64"),
    values="index:4",
    predicate=True,
)
row(
    "le",
    "({x} <= {y} ? 1 : 0)",
    arity=2,
    reference="le",
    dtypes=("float32", "int64"),
    values="index:4",
    predicate=True,
)
row(
    "gt",
    "({x} > {y} ? 1 : 0)",
    arity=2,
    reference="gt",
    dtypes=("float32", "int64"),
    values="index:4",
    predicate=True,
)
row(
    "ge",
    "({x} >= {y} ? 1 : 0)",
    arity=2,
    reference="ge",
    dtypes=("float32", "int64"),
    values="index:4",
    predicate=True,
)
row(
    "logical_and",
    "({x} != ({T})(0) && {y} != ({T})(0) ? 1 : 0)",
    arity=2,
    reference="logical_and",
    dtypes=("bool",),
    values="bool",
    predicate=True,
)
row(
    "logical_or",
    "({x} != ({T})(0) || {y} != ({T})(0) ? 1 : 0)",
    arity=2,
    reference="logical_or",
    dtypes=("bool",),
    values="bool",
    predicate=True,
)
row(
    "where",
    "({x} != 0 ? {y} : {z})",
    arity=3,
    reference=lambda torch, c, x, y: torch.where(c != 0, x, y),
    dtypes=ARITHMETIC,
    values="index:2",
)

register(
    OpDef(
        "cast",
        infer=lambda specs, attrs: (TensorSpec(specs[0].shape, attr_dtype(attrs["dtype"])),),  # type: ignore[union-attr]
        expr="{x}",
        reference=lambda torch, x, dtype: x.to(getattr(torch, attr_dtype(dtype))),
        weight_expr=lambda node, exprs: ["cast", exprs[0], attr_dtype(node.attrs["dtype"])],
        cases=tuple(
            Case(((3, 7),), {"dtype": f"torch.{to}"}, dtypes, "normal")
            for to, dtypes in (
                ("float32", ("float64", "int32", "int64", "bool", "uint8")),
                ("int64", ("float32", "int32", "bool")),
                ("int32", ("float32", "int64")),
                ("bool", ("float32", "int64")),
                ("float64", ("float32", "int64")),
                ("uint8", ("int64", "bool")),
            )
        ),
    )
)


def cast(b: Builder, value: str, dtype: str) -> str:
    """``value`` as ``dtype``, itself where it is that already."""
    return value if b.spec(value).dtype == dtype else b.emit("cast", value, dtype=f"torch.{dtype}")


def _operand(b: Builder, node: Node, index: int) -> str:
    value = node.inputs[index]
    if value is None:
        raise unsupported(f"input {index} is absent")
    return value


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
        common = dtype or _promote_tensors(b, tensors)
        return cast(b, tensors[0], common), cast(b, tensors[1], common), {}
    if len(tensors) != 1:
        raise unsupported(f"expected one or two tensors, got {len(tensors)}")
    first = names[0] not in node.attrs
    scalar = as_number(node.attrs.get(names[1] if first else names[0]))
    common = dtype or promote_scalar(b.spec(tensors[0]).dtype, scalar)
    value = cast(b, tensors[0], common)
    scalar = float(scalar) if is_float(common) else int(scalar)
    return (value, None, {"scalar": scalar}) if first else (None, value, {"scalar": scalar})


def _promote_tensors(b: Builder, tensors: Sequence[str]) -> str:
    """PyTorch's promotion: a tensor of rank 0 counts only where its category is higher."""
    specs = [b.spec(value) for value in tensors]
    ranked = [spec.dtype for spec in specs if spec.rank] or [spec.dtype for spec in specs]
    result = promote(ranked)
    scalars = [spec.dtype for spec in specs if not spec.rank and category(spec.dtype) > category(result)]
    return promote(scalars) if scalars else result


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
    y, attrs = _scaled(b, y, attrs, as_number(node.attrs.get("alpha", 1))) if x is not None else (y, attrs)
    return b.emit(node.op.split(".")[1].rstrip("_"), x, y, **attrs)


@lowers("aten.rsub.Scalar", "aten.rsub.Tensor")
def lower_rsub(b: Builder, node: Node) -> str:
    x, y, attrs = operands(b, node, node.out.dtype)
    alpha = as_number(node.attrs.get("alpha", 1))
    return b.emit("sub", y, x if alpha == 1 else b.emit("mul", x, None, scalar=alpha), **attrs)


@lowers(
    "aten.mul.Tensor", "aten.mul.Scalar", "aten.mul_.Tensor", "aten.maximum.default", "aten.minimum.default"
)
def lower_binary(b: Builder, node: Node) -> str:
    x, y, attrs = operands(b, node, node.out.dtype)
    name = {"maximum": "clamp_min", "minimum": "clamp_max"}.get(
        kind := node.op.split(".")[1].rstrip("_"), kind
    )
    return b.emit(name, x, y, **attrs)


@lowers("aten.div.Tensor", "aten.div.Scalar", "aten.div_.Tensor")
def lower_div(b: Builder, node: Node) -> str:
    x, y, attrs = operands(b, node, node.out.dtype)
    return b.emit("div", x, y, **attrs)


@lowers("aten.pow.Tensor_Scalar", "aten.pow.Tensor_Tensor", "aten.pow.Scalar")
def lower_pow(b: Builder, node: Node) -> str:
    if not is_float(node.out.dtype):
        raise unsupported("powers of whole numbers", "convert to a floating point dtype before")
    x, y, attrs = operands(b, node, node.out.dtype, ("self", "exponent"))
    exponent = attrs.get("scalar") if y is None else None
    match exponent:
        case 0.5:
            return b.emit("sqrt", x)
        case 1:
            return str(x)
        case 2:
            return b.emit("mul", x, x)
        case 3:
            return b.emit("mul", b.emit("mul", x, x), x)
        case -1:
            return b.emit("reciprocal", x)
        case -0.5:
            return b.emit("rsqrt", x)
    return b.emit("pow", x, y, **attrs)


@lowers(
    *(f"aten.{name}.{kind}" for name in ("eq", "ne", "lt", "le", "gt", "ge") for kind in ("Tensor", "Scalar"))
)
def lower_compare(b: Builder, node: Node) -> str:
    x, y, attrs = operands(b, node)
    return b.emit(node.op.split(".")[1], x, y, **attrs)


@lowers(
    "aten.logical_and.default",
    "aten.logical_or.default",
    "aten.bitwise_and.Tensor",
    "aten.bitwise_or.Tensor",
    "aten.__and__.Tensor",
    "aten.__or__.Tensor",
)
def lower_logical(b: Builder, node: Node) -> str:
    tensors = [_operand(b, node, 0), _operand(b, node, 1)]
    if not node.op.startswith("aten.logical") and any(b.spec(value).dtype != "bool" for value in tensors):
        raise unsupported("bitwise logic on whole numbers")
    return b.emit(
        "logical_and" if "and" in node.op else "logical_or", *(cast(b, value, "bool") for value in tensors)
    )


@lowers("aten.bitwise_not.default")
def lower_not(b: Builder, node: Node) -> str:
    if node.out.dtype != "bool":
        raise unsupported("bitwise logic on whole numbers")
    return b.emit("logical_not", _operand(b, node, 0))


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
    x = cast(b, _operand(b, node, 0), node.out.dtype)
    number = float if is_float(node.out.dtype) else int
    if low is not None:
        x = b.emit("relu", x) if low == 0 else b.emit("clamp_min", x, None, scalar=number(as_number(low)))
    if high is not None:
        x = b.emit("clamp_max", x, None, scalar=number(as_number(high)))
    return x


@lowers("aten.where.self")
def lower_where(b: Builder, node: Node) -> str:
    condition, x, y = (_operand(b, node, index) for index in range(3))
    return b.emit("where", cast(b, condition, "bool"), cast(b, x, node.out.dtype), cast(b, y, node.out.dtype))


@lowers("aten.leaky_relu.default", "aten.leaky_relu_.default")
def lower_leaky_relu(b: Builder, node: Node) -> str:
    x = _operand(b, node, 0)
    slope = float(as_number(node.attrs.get("negative_slope", 0.01)))
    negative = b.emit("mul", b.emit("clamp_max", x, None, scalar=0.0), None, scalar=slope)
    return b.emit("add", b.emit("relu", x), negative)


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
