"""Symbols that a guard says to be an expression of others: every size is written with the others alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial

from torch_ir.expr import Dim, bounds_of, substitute, symbols_of
from torch_ir.ir import IR, Guard, with_sizes


def without_dependent_symbols(ir: IR) -> IR:
    """``ir`` without the symbols that must equal an expression: what runs it checks the sizes of inputs
    against that, and the symbol's own bounds become guards where the expression may leave them."""
    while (found := next(_dependent(ir), None)) is not None:
        name, expression = found
        low, high = ir.symbols[name]
        bounds = {key: value for key, value in ir.symbols.items() if key != name}
        ir = with_sizes(ir, partial(substitute, values={name: expression}))
        guards = dict.fromkeys((*ir.guards, Guard(low, expression, "<="), Guard(expression, high, "<=")))
        kept = tuple(guard for guard in guards if not _always(guard, bounds))
        ir = replace(ir, symbols=bounds, guards=kept)
    return ir


def _dependent(ir: IR) -> Iterator[tuple[str, Dim]]:
    """Symbols with the expressions that they equal."""
    for guard in ir.guards:
        for one, other in ((guard.left, guard.right), (guard.right, guard.left)):
            names = symbols_of(one)
            if guard.relation == "==" and len(names) == 1 and str(one) in names - symbols_of(other):
                yield str(one), other


def _always(guard: Guard, bounds: Mapping[str, tuple[int, int]]) -> bool:
    if guard.left == guard.right:
        return True
    try:
        low, high = bounds_of(guard.left - guard.right, bounds)
    except ValueError:
        return False
    return high <= 0 and (guard.relation == "<=" or low == 0)
