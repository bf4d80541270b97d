"""Symbols that a guard says to be an expression of others: every size is written with the others alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from torch_ir.expr import Dim, Expr, bounds_of, substitute, symbols_of
from torch_ir.ir import IR, Attr, Guard, TensorSpec


def without_dependent_symbols(ir: IR) -> IR:
    """``ir`` without the symbols that must equal an expression: what runs it checks the sizes of inputs
    against that, and the symbol's own bounds become guards where the expression may leave them."""
    while (found := next(_dependent(ir), None)) is not None:
        name, expression = found
        low, high = ir.symbols[name]
        bounds = {key: value for key, value in ir.symbols.items() if key != name}
        guards = dict.fromkeys(_with(guard, {name: expression}) for guard in ir.guards)
        guards |= dict.fromkeys((Guard(low, expression, "<="), Guard(expression, high, "<=")))
        kept = tuple(guard for guard in guards if not _always(guard, bounds))
        ir = replace(_substituted(ir, {name: expression}), symbols=bounds, guards=kept)
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


def _with(guard: Guard, values: Mapping[str, Dim]) -> Guard:
    return replace(guard, left=substitute(guard.left, values), right=substitute(guard.right, values))


def _substituted(ir: IR, values: Mapping[str, Dim]) -> IR:
    def spec(old: TensorSpec) -> TensorSpec:
        return replace(old, shape=tuple(substitute(dim, values) for dim in old.shape))

    def attr(old: Attr) -> Attr:
        if isinstance(old, tuple):
            return tuple(map(attr, old))
        return substitute(old, values) if isinstance(old, Expr) else old

    nodes = tuple(
        replace(node, outs=tuple(map(spec, node.outs)), attrs={key: attr(v) for key, v in node.attrs.items()})
        for node in ir.nodes
    )
    return replace(ir, nodes=nodes, inputs={name: spec(old) for name, old in ir.inputs.items()})
