"""Elementwise ops: a row each. Chains of them become one ``pointwise`` kernel or the epilogue of another
kernel.

In an expression ``{x} {y} {z}`` are operands, ``{T}`` is the type (a scalar or a vector: write constants as
``({T})(0)``), ``{U}`` a type without sign in which whole numbers wrap, and other names are attributes. A
node's operand that is a Python number is absent from its inputs and stands in ``attrs["scalar"]``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial, reduce
from typing import Any

from npu_compiler.dtypes import attr_dtype, is_float
from npu_compiler.lowering import Builder, unsupported
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


def _positional(function: str | Callable[..., Any]) -> Callable[..., Any]:
    """The torch function of this dotted name (or ``function(torch, ...)``), with a scalar in place of the
    absent operand, attributes by name."""

    def reference(torch: Any, *inputs: Any, scalar: Attr = None, **attrs: Any) -> Any:
        target = (
            partial(function, torch) if callable(function) else reduce(getattr, function.split("."), torch)
        )
        like = [x for x in inputs if x is not None][-1]
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
    weight: str | Callable[[Sequence[WeightExpr]], WeightExpr] | None = None,
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
        shapes += [((4, 1, 3), (5, 1), (3,)), ((3, 7), None, (7,))]
    given = dict(attrs or {})
    cases = tuple(
        Case(shape, {**given, **({"scalar": 2} if None in shape else {})}, dtypes, values) for shape in shapes
    )

    def weight_expr(node: Node, exprs: Sequence[WeightExpr]) -> WeightExpr:
        return weight(exprs) if callable(weight) else [weight, *exprs]

    register(
        OpDef(
            name,
            infer_bool if predicate else infer_same,
            expr=expr,
            int_expr=int_expr,
            reference=_positional(reference),
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
    whole: bool = False,
    **options: Any,
) -> None:
    """Registers an op of one operand and the lowering of ``aten`` (default: the overload of its own name).

    ``to_float``: whole numbers are converted first; ``whole``: they stay as they are.
    """
    row(name, expr, arity=1, reference=reference or name, **options)

    @lowers(*(aten or (f"aten.{name}.default", f"aten.{name}_.default")))
    def lower(b: Builder, node: Node) -> str:
        x = operand(b, node, 0)
        if whole and not is_float(b.spec(x).dtype):
            return x
        if to_float and not is_float(b.spec(x).dtype):
            x = cast(b, x, node.out.dtype)
        return b.emit(name, x)


unary("relu", "({x} < ({T})(0) ? ({T})(0) : {x})", dtypes=ARITHMETIC, to_float=False)
unary("neg", "(-{x})", int_expr="(({T})(0 - ({U}){x}))", dtypes=ARITHMETIC, to_float=False, weight="neg")
unary(
    "bitwise_not",
    "(~{x})",
    aten=("internal.bitwise_not",),
    dtypes=("int64", "int32", "uint8"),
    to_float=False,
)
unary("abs", "fabs({x})", int_expr="abs({x})", dtypes=ARITHMETIC, to_float=False, weight="abs")
unary("exp", "exp({x})", weight="exp")
unary("log", "log({x})", values="positive")
unary("sqrt", "sqrt({x})", values="positive", weight="sqrt")
unary("rsqrt", "(({T})(1) / sqrt({x}))", values="positive", weight="rsqrt")
unary("reciprocal", "(({T})(1) / {x})", values="positive")
unary("sin", "sin({x})")
unary("cos", "cos({x})")
unary("tanh", "tanh({x})")
unary("erf", "npu_erf_{T}({x})", rtol=1e-6)
unary("sigmoid", "(({T})(1) / (({T})(1) + exp(-{x})))")
unary("silu", "({x} / (({T})(1) + exp(-{x})))", reference="nn.functional.silu")
unary("floor", "floor({x})", whole=True)
unary("ceil", "ceil({x})", whole=True)
unary("round", "rint({x})", whole=True)
unary("trunc", "trunc({x})", whole=True)
unary(
    "sign",
    "({x} > ({T})(0) ? ({T})(1) : {x} < ({T})(0) ? ({T})(-1) : ({T})(0))",
    dtypes=ARITHMETIC,
    to_float=False,
)
unary("log1p", "log1p({x})", values="positive")
unary("expm1", "expm1({x})")
unary("log2", "log2({x})", values="positive")
unary("log10", "log10({x})", values="positive")
unary("exp2", "exp2({x})")
unary("tan", "tan({x})", rtol=5e-5)
unary("atan", "atan({x})")
unary("sinh", "sinh({x})")
unary("cosh", "cosh({x})")
unary("asin", "asin({x})", values="unit")
unary("acos", "acos({x})", values="unit")
unary("asinh", "asinh({x})")
unary("acosh", "acosh({x})", values="index:9")
unary("erfc", "erfc({x})")
unary("lgamma", "lgamma({x})", values="positive")
unary(
    "signbit",
    "(signbit({x}) ? 1 : 0)",
    int_expr="({x} < 0 ? 1 : 0)",
    predicate=True,
    dtypes=ARITHMETIC,
    to_float=False,
)
unary("atanh", "atanh({x})", values="unit")
_HARD = "({x} < ({T})(-3) ? ({T})(0) : {x} > ({T})(3) ? ({T})(6) : {x} + ({T})(3))"
unary("hardswish", f"({{x}} * {_HARD} / ({{T}})(6))", reference="nn.functional.hardswish")
unary("hardsigmoid", f"({_HARD} / ({{T}})(6))", reference="nn.functional.hardsigmoid")
unary(
    "gelu_erf",
    "(({T})(0.5f) * {x} * (({T})(1) + npu_erf_{T}({x} * {N[0.70710678118654752]})))",
    aten=("internal.gelu_erf",),
    reference="nn.functional.gelu",
)
unary(
    "gelu_tanh",
    # (1 + tanh(u)) / 2 is 1 / (1 + exp(-2 u)), which does not lose the small values where tanh is near -1
    "({x} / (({T})(1) + exp({N[-1.5957691216057308]} * ({x} + {N[0.044715]} * {x} * {x} * {x}))))",
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

# maximum and minimum, with NaN from either side
row(
    "clamp_min",
    "({x} < {y} || {y} != {y} ? {y} : {x})",
    int_expr="({x} < {y} ? {y} : {x})",
    arity=2,
    reference="maximum",
    dtypes=ARITHMETIC,
    weight="max",
)
row(
    "clamp_max",
    "({x} > {y} || {y} != {y} ? {y} : {x})",
    int_expr="({x} > {y} ? {y} : {x})",
    arity=2,
    reference="minimum",
    dtypes=ARITHMETIC,
    weight="min",
)
# Whole numbers wrap; in C only those without a sign do.
for _name, _symbol in (("add", "+"), ("sub", "-"), ("mul", "*")):
    row(
        _name,
        f"({{x}} {_symbol} {{y}})",
        int_expr=f"(({{T}})(({{U}}){{x}} {_symbol} ({{U}}){{y}}))",
        arity=2,
        reference=_name,
        dtypes=ARITHMETIC,
        weight=_name,
    )
row(  # rounded once, as where PyTorch adds a multiple: 2 * 3e38 - 3e38 is a number
    "fma",
    "fma({x}, {y}, {z})",
    arity=3,
    reference=lambda torch, x, y, z: (x.double() * y.double() + z.double()).to(x.dtype),
    weight=lambda exprs: ["add", ["mul", exprs[0], exprs[1]], exprs[2]],
)
row("div", "({x} / {y})", arity=2, reference="div", values="positive", weight="div")
row(
    "pow",
    "pow({x}, {y})",
    int_expr="(({T})npu_power({x}, {y}))",
    arity=2,
    reference="pow",
    dtypes=(*ARITHMETIC, "uint8"),
    values="positive",
    rtol=2e-5,
)
row("atan2", "atan2({x}, {y})", arity=2, reference="atan2")
row("hypot", "hypot({x}, {y})", arity=2, reference="hypot")
row("copysign", "copysign({x}, {y})", arity=2, reference="copysign")
row("nextafter", "nextafter({x}, {y})", arity=2, reference="nextafter")
row("fmax", "({x} >= {y} || {y} != {y} ? {x} : {y})", arity=2, reference="fmax", dtypes=ARITHMETIC)
row("fmin", "({x} <= {y} || {y} != {y} ? {x} : {y})", arity=2, reference="fmin", dtypes=ARITHMETIC)
# Dividing whole numbers by 0, or the smallest by -1, would end the process; PyTorch raises, here 0 comes out.
_QUOTIENT = "({y} == 0 ? 0 : {y} < 0 && {y} == -1 ? ({T})(0 - ({U}){x}) : {x} / {y})"
_REST = "({y} == 0 || ({y} < 0 && {y} == -1) ? 0 : {x} % {y})"
_FLOAT_REST = (
    "(fmod({x}, {y}) != ({T})(0) && ({y} < ({T})(0)) != (fmod({x}, {y}) < ({T})(0)) "
    "? fmod({x}, {y}) + {y} : fmod({x}, {y}))"
)
_DIVISION: dict[str, Any] = {"arity": 2, "dtypes": (*ARITHMETIC, "uint8"), "values": ("normal", "positive")}
row("fmod", "fmod({x}, {y})", int_expr=_REST, reference="fmod", **_DIVISION)
row(
    "remainder",
    _FLOAT_REST,
    int_expr=f"({_REST} != 0 && ({{y}} < 0) != ({_REST} < 0) ? {_REST} + {{y}} : {_REST})",
    reference="remainder",
    **_DIVISION,
)
row(
    "trunc_div",
    "trunc({x} / {y})",
    int_expr=_QUOTIENT,
    reference=lambda torch, x, y: torch.div(x, y, rounding_mode="trunc"),
    **_DIVISION,
)
row(
    "floor_div",
    "({y} == ({T})(0) ? {x} / {y} : rint(({x} - fmod({x}, {y})) / {y}) - "
    "(fmod({x}, {y}) != ({T})(0) && ({y} < ({T})(0)) != (fmod({x}, {y}) < ({T})(0)) ? ({T})(1) : ({T})(0)))",
    int_expr=f"({_QUOTIENT} - ({_REST} != 0 && ({{y}} < 0) != ({_REST} < 0) ? 1 : 0))",
    reference=lambda torch, x, y: torch.div(x, y, rounding_mode="floor"),
    **_DIVISION,
)
_BEYOND = "{y} < 0 || {y} >= (int)sizeof({T}) * 8"  # such a shift leaves no bit
for _name, _expr, _values in (
    ("bitwise_and", "({x} & {y})", "normal"),
    ("bitwise_or", "({x} | {y})", "normal"),
    ("bitwise_xor", "({x} ^ {y})", "normal"),
    ("bitwise_left_shift", f"({_BEYOND} ? 0 : {{x}} << {{y}})", ("normal", "positive")),
    ("bitwise_right_shift", f"({_BEYOND} ? ({{x}} < 0 ? -1 : 0) : {{x}} >> {{y}})", ("normal", "positive")),
):
    row(_name, _expr, arity=2, reference=_name, dtypes=("int64", "int32", "uint8"), values=_values)
for _name, _symbol in (("eq", "=="), ("ne", "!="), ("lt", "<"), ("le", "<="), ("gt", ">"), ("ge", ">=")):
    row(
        _name,
        f"({{x}} {_symbol} {{y}} ? 1 : 0)",
        arity=2,
        reference=_name,
        dtypes=("float32", "int64", "uint8"),
        values="index:4",
        predicate=True,
    )
for _name, _expr in (
    ("and", "{x} != 0 && {y} != 0"),
    ("or", "{x} != 0 || {y} != 0"),
    ("xor", "({x} != 0) != ({y} != 0)"),
):
    row(
        f"logical_{_name}",
        f"({_expr} ? 1 : 0)",
        arity=2,
        reference=f"logical_{_name}",
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
        stored=True,
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


def operand(b: Builder, node: Node, index: int) -> str:
    """The node's tensor at this place, which must be there."""
    value = node.inputs[index]
    if value is None:
        raise unsupported(f"input {index} is absent")
    return value
