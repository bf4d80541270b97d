"""OpenCL C text of sizes, index expressions and elementwise steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, Union

from npu_compiler.dtypes import COMPUTE_TYPE, HALF, is_float, literal, reader, writer
from npu_compiler.ops import op_def
from torch_ir.expr import Atom, Dim
from torch_ir.ir import Attr, Node

#: An operand of a step: "i0" (input 0), "t1" (result of step 1), or a number.
Operand: TypeAlias = Union[str, int, float]


@dataclass(frozen=True)
class Step:
    """One elementwise op of a fused body. ``dtype`` is the result's."""

    op: str
    operands: tuple[Operand, ...]
    attrs: Mapping[str, Attr]
    dtype: str

    def pack(self) -> Attr:
        """As a node's attribute."""
        return (self.op, self.operands, tuple(sorted(self.attrs.items())), self.dtype)


def unpack_body(attr: Attr) -> tuple[Step, ...]:
    """What ``Step.pack`` packed, for all steps."""
    packed: Any = attr
    return tuple(Step(op, operands, dict(attrs), dtype) for op, operands, attrs, dtype in packed)


def steps_of(node: Node) -> list[str]:
    """The ops that a node computes: its own, and those of a fused body."""
    return [node.op, *(step.op for step in unpack_body(node.attrs.get("body", ())))]


def symbol_name(name: str) -> str:
    """The kernel parameter that carries a symbol."""
    return f"n_{name}"


def size_text(dim: Dim, cast: str = "") -> str:
    """A size as a C expression over the symbols' parameters. All sizes are at least 0, so // is C's /."""
    if isinstance(dim, int):
        return str(dim) if dim >= 0 else f"({dim})"
    terms = []
    for monomial, factor in dim.terms:
        factors = [cast + _atom(atom) for atom in monomial]
        if factor != 1 or not factors:
            factors.append(str(factor) if factor >= 0 else f"({factor})")
        terms.append(" * ".join(factors))
    return terms[0] if len(terms) == 1 else f"({' + '.join(terms)})"


def _atom(atom: Atom) -> str:
    if atom.op == "symbol":
        return symbol_name(atom.name)
    if atom.op in ("min", "max"):
        text = size_text(atom.args[0])
        for other in atom.args[1:]:
            text = f"{atom.op}((int)({text}), (int)({size_text(other)}))"
        return text
    operator = "/" if atom.op == "//" else "%"
    return f"(({size_text(atom.args[0])}) {operator} ({size_text(atom.args[1])}))"


def index_text(terms: Sequence[tuple[str, Dim]], offset: Dim, index_type: str) -> str:
    """``offset + sum(variable * stride)`` as C, with strides of 0 left out."""
    cast = "(long)" if index_type == "long" else ""
    parts = [] if offset == 0 else [size_text(offset, cast)]
    for name, stride in terms:
        if stride != 0:
            parts.append(f"{cast}{name}" if stride == 1 else f"{cast}{name} * {size_text(stride)}")
    return " + ".join(parts) or "0"


#: Whole numbers that floating point is converted to by way of a wider type.
_NARROW = {"int8": "int", "int16": "int", "uint8": "int", "uint16": "int", "uint32": "long"}


def step_text(step: Step, operand_dtypes: Sequence[str], names: Sequence[str], vector: int = 1) -> str:
    """A step as a C expression over ``names``; ``vector`` > 1 for OpenCL vectors of that many lanes."""
    dtype = next(
        (
            dtype
            for dtype, operand in zip(operand_dtypes, step.operands, strict=True)
            if isinstance(operand, str) and not (step.op == "where" and operand is step.operands[0])
        ),
        step.dtype,
    )
    ctype = COMPUTE_TYPE[dtype] + (str(vector) if vector > 1 else "")
    texts = [
        name if isinstance(operand, str) else f"(({ctype})({literal(operand, dtype)}))"
        for name, operand in zip(names, step.operands, strict=True)
    ]
    if step.op == "cast":
        target = COMPUTE_TYPE[step.dtype]
        if step.dtype == "bool":
            return f"({texts[0]} != 0 ? 1 : 0)"
        if step.dtype in HALF and dtype != step.dtype:
            return f"{reader(step.dtype)}({writer(step.dtype)}((float){texts[0]}))"
        if is_float(dtype) and step.dtype in _NARROW:  # what does not fit wraps, as in PyTorch
            return f"(({target})({_NARROW[step.dtype]}){texts[0]})"
        return f"(({target}){texts[0]})"
    op = op_def(step.op)
    assert op.expr is not None
    expr = op.expr if is_float(dtype) or op.int_expr is None else op.int_expr
    return expr.format(
        T=ctype,
        U="ulong" if dtype in ("int64", "uint64") else "uint",
        N=_Numbers(ctype, dtype),
        **dict(zip("xyz", texts, strict=False)),
        **{name: value for name, value in step.attrs.items() if name != "scalar"},
    )


@dataclass(frozen=True)
class _Numbers:
    """What ``{N[0.1]}`` stands for in an op's expression: the number in the precision of the operands."""

    ctype: str
    dtype: str

    def __getitem__(self, number: str) -> str:
        return f"(({self.ctype})({literal(float(number), self.dtype)}))"


def body_lines(body: Sequence[Step], input_dtypes: Sequence[str]) -> list[str]:
    """Scalar C statements that compute ``t0, t1, ...`` from the loaded inputs ``i0, i1, ...``."""
    lines, dtypes = [], {f"i{index}": dtype for index, dtype in enumerate(input_dtypes)}
    for index, step in enumerate(body):
        operand_dtypes = [dtypes[operand] if isinstance(operand, str) else "" for operand in step.operands]
        names = [str(operand) for operand in step.operands]
        lines.append(f"const {COMPUTE_TYPE[step.dtype]} t{index} = {step_text(step, operand_dtypes, names)};")
        dtypes[f"t{index}"] = step.dtype
    return lines
