"""The op registry. A file in this folder registers its records and lowerings when it is imported; nothing
lists them.

Two kinds of entries:

- an ``OpDef`` describes an op of the lowered graph: shape rule, meaning, how it runs, sample cases;
- a *lowering* rewrites one ATen operation into such ops (``@lowers("aten.silu.default")``).
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from torch_ir.expr import Dim
from torch_ir.ir import Attr, Node, TensorSpec

if TYPE_CHECKING:
    from npu_compiler.emit import Emitter
    from npu_compiler.lowering import Builder
    from npu_compiler.views import View
    from npu_runtime.program import WeightExpr

Attrs: TypeAlias = Mapping[str, Attr]
Specs: TypeAlias = Sequence[TensorSpec | None]
#: Rewrites an ATen node; returns the names of the values that stand for its outputs.
Lowering: TypeAlias = Callable[["Builder", Node], "str | Sequence[str]"]


@dataclass(frozen=True, slots=True)
class Cost:
    """Arithmetic operations, and bytes that must move at least."""

    flops: Dim = 0
    bytes_read: Dim = 0
    bytes_written: Dim = 0

    def times(self, count: Dim) -> Cost:
        """Of so many calls."""
        return Cost(self.flops * count, self.bytes_read * count, self.bytes_written * count)


@dataclass(frozen=True, slots=True)
class Case:
    """Sample inputs of an op, for its tests: ``shapes`` (None: an absent optional input), ``attrs``, and how
    to draw each input's values: "normal", "positive", "unit" (between -1 and 1), "index:N" (whole numbers
    below N), "around:N" (whole numbers from -N to N - 1), "ends:N" (whole numbers rising from 0 to N),
    "bool", "float16"; those of whole numbers and the last two have a dtype of their own."""

    shapes: tuple[tuple[int, ...] | None, ...]
    attrs: Attrs = field(default_factory=dict)
    dtypes: tuple[str, ...] = ("float32",)
    values: str | tuple[str, ...] = "normal"
    constant: tuple[int, ...] = ()
    """Inputs that are weights of the program instead of its inputs."""
    layouts: tuple[str, ...] = ("row",)


@dataclass(frozen=True, slots=True)
class OpDef:
    """An op of the lowered graph.

    ``infer(input specs, attrs)`` gives the output specs. ``reference(torch, *inputs, **attrs)`` is its
    meaning in PyTorch. Exactly one of the following says how it runs: ``expr`` (an elementwise C expression
    over ``{x} {y} {z}``, ``{T}`` and the attributes), ``alias`` (a view: from the input's view, or None where
    that takes a copy), ``emit`` (kernels). ``weight_expr`` computes it on weights when they are loaded.
    """

    name: str
    infer: Callable[[Specs, Attrs], tuple[TensorSpec, ...]]
    reference: Callable[..., Any]
    expr: str | None = None
    int_expr: str | None = None
    """Used for integer operands where it differs from ``expr``."""
    alias: Callable[[View, Node], View | None] | None = None
    emit: Callable[[Emitter, Node], None] | None = None
    weight_expr: Callable[[Node, Sequence[WeightExpr]], WeightExpr | None] | None = None
    """From a node and the expressions of its inputs (a Python number is one as well); None where it is not to
    be computed beforehand."""
    layout: Callable[[Node, Sequence[str | None]], str] | None = None
    """Layout of its output(s), given those of its inputs; None: as its first input for ``expr``, else
    "row"."""
    stored: bool = False
    """Whether its kernels move elements as they are stored, whatever the dtype (an ``alias`` always does)."""
    updates: int = 0
    """How many of its first inputs it changes in parts, leaving the others: ``Emitter.updated`` gives the
    outputs of as many memory, which may be those inputs' own."""
    bounds: Callable[[Node, Specs], Sequence[tuple[Dim, Dim] | None]] | None = None
    """The smallest and the largest value of each of its outputs, from the node and its inputs' specs, where
    they are whole numbers between sizes."""
    over: int | None = None
    """The input whose memory its output may have where nothing reads that input any more: its kernels read an
    element of it just before they write the output's at the same place, and write none twice."""
    half: bool = False
    """Whether it keeps the 16-bit dtype that the model computes it in as its attribute "half": tensor cores
    take operands of that dtype."""
    epilogue: bool = False
    """Whether its kernel can apply elementwise ops to its result before storing it."""
    cost: Callable[[Node], Cost] | None = None
    cases: tuple[Case, ...] = ()
    rtol: float = 1e-5
    atol: float = 1e-6


_OPS: dict[str, OpDef] = {}
_LOWERINGS: dict[str, Lowering] = {}
F = TypeVar("F", bound=Lowering)


def register(op: OpDef) -> OpDef:
    """Adds a record. A second record of one name fails."""
    if op.name in _OPS:
        raise RuntimeError(f"two records claim the op {op.name!r}")
    if sum(way is not None for way in (op.expr, op.alias, op.emit)) != 1:
        raise RuntimeError(f"{op.name}: exactly one of expr, alias and emit says how an op runs")
    _OPS[op.name] = op
    return op


def like_first(specs: Specs, attrs: Attrs) -> tuple[TensorSpec, ...]:
    """Shape rule: one output of the first input's shape and dtype, row-major."""
    assert specs[0] is not None
    return (TensorSpec(specs[0].shape, specs[0].dtype),)


def like_first_with_places(specs: Specs, attrs: Attrs) -> tuple[TensorSpec, ...]:
    """Shape rule: ``like_first``, and where each of its elements was found."""
    (values,) = like_first(specs, attrs)
    return values, TensorSpec(values.shape, "int64")


def lowers(*aten: str) -> Callable[[F], F]:
    """Registers a function as the lowering of these ATen overloads. A second claim on one overload fails."""

    def claim(function: F) -> F:
        for name in aten:
            if name in _LOWERINGS:
                raise RuntimeError(f"two lowerings claim {name!r}")
            _LOWERINGS[name] = function
        return function

    return claim


@cache
def load_all() -> tuple[Mapping[str, OpDef], Mapping[str, Lowering]]:
    """Imports every file of this folder and returns all records and lowerings by name."""
    for module in pkgutil.iter_modules(__path__):
        importlib.import_module(f"{__name__}.{module.name}")
    return _OPS, _LOWERINGS


def op_def(name: str) -> OpDef:
    """The record of ``name``. Raises ``KeyError`` for an op that nobody registered."""
    return load_all()[0][name]
