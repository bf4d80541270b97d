"""Some nodes of a graph as a graph of their own."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from torch_ir.expr import Dim, Expr, substitute, symbols_of
from torch_ir.ir import IR, Attr, Node, Output, State, TensorSpec


def subgraph(
    ir: IR,
    nodes: Sequence[Node],
    inputs: Iterable[str],
    outputs: Sequence[Output],
    states: Mapping[str, State],
) -> IR:
    """``nodes`` of ``ir`` with the values ``inputs`` as inputs. Weights, constants and symbols are those that
    it uses; inputs of ``ir`` are added where only they tell a symbol's value."""
    specs = ir.values()
    results = {output.value for output in outputs}
    results |= {state.update for state in states.values() if state.update is not None}
    used = {value for node in nodes for value in node.inputs if value is not None} | results
    mapping = {name: key for name, key in ir.weight_name_mapping.items() if name in used}
    keys = set(mapping.values()) | {state.key for state in states.values() if state.persistent}
    given = {name: specs[name] for name in inputs}
    needed = _symbols(nodes, given.values()).union(*(guard.symbols for guard in ir.guards))
    given.update(carriers(ir.inputs, needed, given))
    needed |= _symbols(nodes, given.values())
    return replace(
        ir,
        inputs=given,
        outputs=tuple(outputs),
        nodes=tuple(nodes),
        weights={key: spec for key, spec in ir.weights.items() if key in keys},
        weight_name_mapping=mapping,
        constants={name: constant for name, constant in ir.constants.items() if name in used},
        states=dict(states),
        symbols={name: bounds for name, bounds in ir.symbols.items() if name in needed},
    )


def carriers(
    available: Mapping[str, TensorSpec], needed: frozenset[str], given: Mapping[str, TensorSpec]
) -> dict[str, TensorSpec]:
    """The inputs among ``available`` that tell the ``needed`` symbols which ``given`` do not tell."""
    found: dict[str, TensorSpec] = {}
    while True:
        known = {**given, **found}
        missing = needed | _symbols((), found.values())
        missing -= {name for name in missing if any(_tells(spec, name) for spec in known.values())}
        rest = {name: spec for name, spec in available.items() if name not in known}
        chosen = next(
            (
                name
                for symbol in sorted(missing)
                for tells in (_tells, _mentions)
                for name, spec in rest.items()
                if tells(spec, symbol)
            ),
            None,
        )
        if chosen is None:
            return found
        found[chosen] = rest[chosen]


def _tells(spec: TensorSpec, name: str) -> bool:
    """Whether a dim is the symbol, or a multiple of it plus a number."""
    return any(_is_affine(dim, name) for dim in spec.shape)


def _mentions(spec: TensorSpec, name: str) -> bool:
    return any(name in symbols_of(dim) for dim in spec.shape)


def _is_affine(dim: Dim, name: str) -> bool:
    if symbols_of(dim) != {name}:
        return False
    at = [int(str(substitute(dim, {name: value}))) for value in (0, 1, 2, 1001)]
    factor = at[1] - at[0]
    return factor > 0 and at[2:] == [at[0] + 2 * factor, at[0] + 1001 * factor]


def _symbols(nodes: Iterable[Node], specs: Iterable[TensorSpec]) -> frozenset[str]:
    dims: list[Dim] = [dim for spec in specs for dim in spec.shape]
    for node in nodes:
        dims += [dim for spec in node.outs for dim in spec.shape]
        dims += [expr for attr in node.attrs.values() for expr in _exprs(attr)]
    return frozenset().union(*map(symbols_of, dims))


def _exprs(attr: Attr) -> Iterator[Expr]:
    if isinstance(attr, Expr):
        yield attr
    elif isinstance(attr, tuple):
        for item in attr:
            yield from _exprs(item)
