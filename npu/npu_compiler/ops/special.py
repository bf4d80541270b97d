"""Special functions: rows of elementwise ops whose functions are in ``templates/lib/special.cl.j2``; divisors
of whole numbers, and the parts of a floating-point number."""

from __future__ import annotations

import math
from typing import Any

from npu_compiler.dtypes import is_float
from npu_compiler.lowering import Builder, as_int
from npu_compiler.ops import Attrs, Case, OpDef, Specs, lowers, register
from npu_compiler.ops.arithmetic import choose, operands
from npu_compiler.ops.elementwise import FLOATS, cast, operand, row, unary
from torch_ir.ir import Node, TensorSpec


def _special(name: str, aten: str = "", **options: Any) -> None:
    unary(
        name,
        f"npu_{{T}}_{name}({{x}})",
        aten=(f"aten.{aten or name}.default",),
        reference=options.pop("reference", f"special.{name}"),
        **options,
    )


_special("erfinv", values="unit")
_special("ndtri", "special_ndtri", values="unit")
_special("erfcx", "special_erfcx", rtol=2e-5)
_special("log_ndtr", "special_log_ndtr", rtol=2e-5)
_special("i0")
_special("i1", "special_i1")
_special("i0e", "special_i0e")
_special("i1e", "special_i1e")
for _order in "01":
    for _name in (f"modified_bessel_k{_order}", f"scaled_modified_bessel_k{_order}"):
        _special(_name, f"special_{_name}", values="positive", rtol=2e-5)
_special("digamma", values="positive", rtol=5e-5)
_special("trigamma", "internal.trigamma", values="positive", reference=lambda torch, x: torch.polygamma(1, x))
row(
    "zeta",
    "npu_{T}_zeta({x}, {y})",
    arity=2,
    reference=lambda torch, s, q: torch.special.zeta(s, q),
    values="positive",
    rtol=2e-5,
)


@lowers("aten.special_zeta.default", "aten.special_zeta.self_scalar", "aten.special_zeta.other_scalar")
def lower_zeta(b: Builder, node: Node) -> str:
    x, y, attrs = operands(b, node, node.out.dtype)
    return b.emit("zeta", x, y, **attrs)


@lowers("aten.special_modified_bessel_i0.default", "aten.special_modified_bessel_i1.default")
def lower_modified_bessel(b: Builder, node: Node) -> str:
    """PyTorch has two names for these."""
    return b.emit(node.op.split("_")[-1].split(".")[0], cast(b, operand(b, node, 0), node.out.dtype))


@lowers("aten.special_spherical_bessel_j0.default")
def lower_spherical_bessel(b: Builder, node: Node) -> str:
    """``sin(x) / x`` (https://dlmf.nist.gov/10.49.E3)."""
    x = cast(b, operand(b, node, 0), node.out.dtype)
    far = b.emit("eq", b.emit("abs", x), None, scalar=math.inf)
    y = choose(b, far, 0.0, b.emit("div", b.emit("sin", x), x), node.out.dtype)
    return choose(b, b.emit("eq", x, None, scalar=0.0), 1.0, y, node.out.dtype)


@lowers("aten.polygamma.default")
def lower_polygamma(b: Builder, node: Node) -> str:
    """``(-1) ** (n + 1) * n! * zeta(n + 1, x)`` (https://dlmf.nist.gov/25.11.E12)."""
    x, order = cast(b, operand(b, node, 0), node.out.dtype), as_int(node.attrs["n"])
    if order < 2:
        return b.emit(("digamma", "trigamma")[order], x)
    factor = float(math.factorial(order)) * (1 if order % 2 else -1)
    return b.emit("mul", b.emit("zeta", None, x, scalar=order + 1), None, scalar=factor)


#: The smallest number is its own absolute value.
_SIZE = "({0} < 0 ? ({{T}})(0 - ({{U}}){0}) : {0})"
for _name, _expr, _reference in (
    ("gcd", f"(({{T}})npu_gcd({_SIZE.format('{x}')}, {_SIZE.format('{y}')}))", "gcd"),
    ("lcm", "({x} == 0 || {y} == 0 ? 0 : ({T})abs({x} / ({T})npu_gcd({x}, {y}) * {y}))", "lcm"),
):
    row(
        _name,
        _expr,
        arity=2,
        reference=_reference,
        dtypes=("int64", "int32", "int16", "int8", "uint8"),
        values="index:60" if _name == "gcd" else "index:9",
    )


@lowers("aten.gcd.default", "aten.lcm.default")
def lower_divisor(b: Builder, node: Node) -> str:
    x, y, attrs = operands(b, node, node.out.dtype)
    return b.emit(node.op.split(".")[1], x, y, **attrs)


def _infer_exponent(specs: Specs, attrs: Attrs) -> tuple[TensorSpec, ...]:
    assert specs[0] is not None
    return (TensorSpec(specs[0].shape, "int32"),)


# x = mantissa * 2 ** exponent with a mantissa of 0.5 to 1; 0, infinities and NaN have the exponent 0
register(
    OpDef(
        "exponent",
        _infer_exponent,
        lambda torch, x: torch.frexp(x)[1],
        expr="({x} == 0 || !isfinite({x}) ? 0 : ilogb({x}) + 1)",
        cases=(Case(((3, 7),), dtypes=FLOATS), Case(((1,),)), Case(((113,),), values="positive")),
    )
)
unary(
    "mantissa",
    "({x} == 0 || !isfinite({x}) ? {x} : ldexp({x}, -1 - ilogb({x})))",
    aten=("internal.mantissa",),
    reference=lambda torch, x: torch.frexp(x)[0],
)


@lowers("aten.frexp.Tensor")
def lower_frexp(b: Builder, node: Node) -> list[str]:
    x = operand(b, node, 0)
    assert is_float(b.spec(x).dtype)
    return [b.emit("mantissa", x), b.emit("exponent", x)]
