"""What PyTorch assumed of the sizes when it traced a module, as conditions between symbols. Never imports
PyTorch: it looks at what it gets."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from torch_ir.errors import IRError
from torch_ir.expr import Bounds, Dim, bounds_of, symbol
from torch_ir.fx_reader import convert
from torch_ir.ir import IR, Guard

#: Sympy's relation -> ours, whether the sides change places, and what is added to the left one.
_RELATIONS: Mapping[str, tuple[str, bool, int]] = {
    "Equality": ("==", False, 0),
    "LessThan": ("<=", False, 0),
    "StrictLessThan": ("<=", False, 1),
    "GreaterThan": ("<=", True, 0),
    "StrictGreaterThan": ("<=", True, 1),
}


def guards_of(
    name: str, assumed: Iterable[Any], symbols: Mapping[str, Dim], bounds: Bounds
) -> tuple[Guard, ...]:
    """Those of ``conditions`` that the bounds do not already say. ``symbols`` gives the size of each of
    PyTorch's symbols. Raises ``IRError`` for one that cannot be checked, or that no sizes
    fulfil."""
    found: dict[Guard, None] = {}
    for condition in assumed:
        for guard in _guards(name, condition, symbols):
            low, high = _range(guard, bounds)
            if low > 0 or (guard.relation == "==" and high < 0):
                raise IRError(
                    f"{name}: the module works only where {guard.text}, which no sizes within the bounds "
                    "fulfil; declare other bounds"
                )
            if high > 0 or (guard.relation == "==" and low < 0):
                found[guard] = None
    return tuple(found)


def with_least_sizes(ir: IR, least: int) -> IR:
    """``ir`` with guards for the symbols whose bounds allow less than ``least``."""
    below = [Guard(least, symbol(name), "<=") for name, (low, _) in ir.symbols.items() if low < least]
    return replace(ir, guards=tuple(dict.fromkeys((*ir.guards, *below))))


def conditions(program: Any) -> Iterator[Any]:
    """What an ``ExportedProgram`` assumes: sympy expressions over the sizes of the inputs. Those over values
    of tensors are the business of the graph."""
    values = (node.meta.get("val") for node in program.graph.nodes if node.op == "placeholder")
    environments = [value.fake_mode.shape_env for value in values if hasattr(value, "fake_mode")]
    environment = next((item for item in environments if item is not None), None)
    if environment is None:
        return
    deferred = [item for items in environment.deferred_runtime_asserts.values() for item in items]
    for item in (*environment.guards, *deferred):
        condition = environment.replace(item.expr)
        if not condition.is_Boolean and not condition.is_Relational:
            continue
        names = [str(free) for free in condition.free_symbols]
        if names and not any(name.startswith(("u", "zuf")) for name in names):
            yield condition


def _guards(name: str, condition: Any, symbols: Mapping[str, Dim]) -> Iterator[Guard]:
    kind = type(condition).__name__
    if kind == "And":
        for part in condition.args:
            yield from _guards(name, part, symbols)
        return
    try:
        left, right = (convert(side, symbols, name) for side in condition.args)
        if kind == "Unequality":  # a difference's square is at least 1
            yield Guard(1, (left - right) * (left - right), "<=")
            return
        relation, swapped, more = _RELATIONS[kind]
    except (IRError, KeyError, ValueError):
        raise IRError(
            f"{name}: the module works only where {condition} holds of the sizes, which a program cannot "
            "check; lift this restriction in the module, or make the dimensions static"
        ) from None
    left, right = (right, left) if swapped else (left, right)
    yield Guard(left + more, right, relation)


def _range(guard: Guard, bounds: Bounds) -> tuple[int, int]:
    """The smallest and largest value of left minus right; any where that is not known."""
    try:
        return bounds_of(guard.left - guard.right, bounds)
    except ValueError:
        return -1, 1

