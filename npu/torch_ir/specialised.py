"""Guards that exclude a few sizes for which the graph is right all the same.

PyTorch asks a module's sizes for more than its result depends on: attention that asks whether there is one
query excludes that length, also where both answers lead to the same operations. Whether they do is seen by
exporting the module once more, for the excluded size alone.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

from torch_ir.errors import IRError
from torch_ir.expr import Dim, Expr, evaluate, substitute
from torch_ir.ir import IR, Attr, Guard, Node, TensorSpec

Sizes = Mapping[str, int]

#: A guard of more excluded sizes is a condition of the module, and of more sizes is not looked through.
_MOST_EXCLUDED, _MOST_SIZES = 2, 1 << 16

#: They leave a tensor as it is where its shape and dtype stay.
_UNCHANGED = frozenset({
    "aten.slice.Tensor", "aten.narrow.default", "aten.expand.default", "aten.view.default",
    "aten.reshape.default", "aten.contiguous.default", "aten.clone.default", "aten.alias.default",
    "aten.to.dtype", "aten.to.dtype_layout"})

#: Their result's shape says all that their arguments do.
_SHAPED = frozenset({"aten.expand.default", "aten.view.default", "aten.reshape.default"})

_ATTENTION = "aten.scaled_dot_product_attention.default"


def without_needless_guards(ir: IR, export: Callable[[Sizes], IR]) -> IR:
    """``ir`` without the guards whose excluded sizes give the same graph. ``export`` makes the module's graph
    with symbols fixed to sizes, and raises ``IRError`` where it cannot."""
    known: dict[tuple[str, int], bool] = {}

    def right(name: str, size: int) -> bool:
        if (name, size) not in known:
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    known[name, size] = is_same_at(ir, export({name: size}), {name: size})
            except IRError:
                known[name, size] = False
        return known[name, size]

    def needless(guard: Guard) -> bool:
        excluded = _excluded(guard, ir.symbols)
        return excluded is not None and all(right(name, size) for name, size in excluded)

    return replace(ir, guards=tuple(guard for guard in ir.guards if not needless(guard)))


def _excluded(guard: Guard, bounds: Mapping[str, tuple[int, int]]) -> list[tuple[str, int]] | None:
    """The few sizes within the bounds that a guard of one symbol excludes; None for any other guard."""
    if len(guard.symbols) != 1:
        return None
    (name,) = guard.symbols
    low, high = bounds[name]
    if high - low > _MOST_SIZES:
        return None
    found = []
    for size in range(low, high + 1):
        if not _holds(guard, {name: size}):
            found.append((name, size))
            if len(found) > _MOST_EXCLUDED:
                return None
    return found


def _holds(guard: Guard, sizes: Sizes) -> bool:
    left, right = evaluate(guard.left, sizes), evaluate(guard.right, sizes)
    return left == right or (guard.relation == "<=" and left < right)


def is_same_at(general: IR, special: IR, sizes: Sizes) -> bool:
    """Whether ``general``, its symbols fixed to ``sizes``, computes what ``special`` does by the same
    operations, and under no less strict conditions than its own."""
    numbers: dict[object, int] = {}
    ours, theirs = _Meaning(numbers, sizes), _Meaning(numbers, {})
    allowed = {(ours.dim(g.left), g.relation, ours.dim(g.right)) for g in general.guards}
    asked = {(g.left, g.relation, g.right) for g in special.guards}
    return asked <= allowed and ours.of(general) == theirs.of(special)


class _Meaning:
    """Gives every value of a graph a number: equal ones for what equal operations make of equal inputs."""

    def __init__(self, numbers: dict[object, int], sizes: Sizes) -> None:
        self._numbers, self._sizes = numbers, sizes

    def of(self, ir: IR) -> object:
        """What the graph takes and gives."""
        values = {name: self._number(("input", name, self._spec(spec))) for name, spec in ir.inputs.items()}
        values |= {name: self._number(("weight", key)) for name, key in ir.weight_name_mapping.items()}
        values |= {name: self._number(("constant", self._spec(held.spec), held.data))
                   for name, held in ir.constants.items()}
        values |= {name: self._number(("state", held.key)) for name, held in ir.states.items()}
        specs = {name: self._spec(spec) for name, spec in ir.values().items()}
        for node in ir.nodes:
            values.update(self._results(node, values, specs))
        return (
            {name: self._spec(spec) for name, spec in ir.inputs.items()},
            [(output.name, values[output.value], specs[output.value]) for output in ir.outputs],
            {held.key: (self._spec(held.spec), None if held.update is None else values[held.update],
                        held.persistent, held.data) for held in ir.states.values()},
        )

    def _results(
        self, node: Node, values: Mapping[str, int], specs: Mapping[str, TensorSpec]
    ) -> Iterator[tuple[str, int]]:
        first = node.inputs[0] if node.inputs else None
        if node.op in _UNCHANGED and first is not None and specs[first] == specs[node.outputs[0]]:
            yield node.outputs[0], values[first]
            return
        inputs = tuple(None if name is None else values[name] for name in node.inputs)
        attrs = {} if node.op in _SHAPED else dict(node.attrs)
        if node.op == "aten.slice.Tensor":  # where it ends follows from its shape
            attrs = {key: attrs.get(key) or unless for key, unless in (("dim", 0), ("start", 0), ("step", 1))}
        if node.op == _ATTENTION:
            attrs = {key: value for key, value in attrs.items() if value}  # what is not given means no
            if all(name is not None and specs[name].shape[-2] == 1 for name in node.inputs[:2]):
                attrs.pop("is_causal", None)  # one token sees itself
        described = tuple(sorted((key, repr(self._attr(value))) for key, value in attrs.items()))
        number = self._number((node.op, inputs, described, tuple(specs[name] for name in node.outputs)))
        for index, name in enumerate(node.outputs):
            yield name, number if index == 0 else self._number((number, index))

    def _number(self, what: object) -> int:
        return self._numbers.setdefault(what, len(self._numbers))

    def dim(self, dim: Dim) -> Dim:
        return substitute(dim, self._sizes)

    def _spec(self, spec: TensorSpec) -> TensorSpec:
        return replace(spec, shape=tuple(map(self.dim, spec.shape)))

    def _attr(self, value: Attr) -> Attr:
        if isinstance(value, tuple):
            return tuple(map(self._attr, value))
        return self.dim(value) if isinstance(value, Expr) else value
