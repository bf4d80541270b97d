"""What lowerings build graphs with: new nodes get their specs from the op records, names are never reused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from npu_compiler.errors import Unsupported
from npu_compiler.ops import op_def
from torch_ir.expr import Bounds, Dim, Expr, bounds_of
from torch_ir.ir import Attr, Node, TensorSpec


class Builder:
    """Collects the nodes that replace one extracted node.

    ``emit`` adds a node and returns the name of its (first) output; ``rename`` gives the final values the
    names that the rest of the graph knows.
    """

    def __init__(
        self, node: Node, specs: Mapping[str, TensorSpec], taken: set[str], symbols: Bounds | None = None
    ) -> None:
        self.node = node
        self.symbols = symbols or {}
        self.nodes: list[Node] = []
        self._specs = dict(specs)
        self._taken = taken

    def spec(self, value: str) -> TensorSpec:
        """Shape and dtype of a value that exists already or was emitted here."""
        return self._specs[value]

    def shape(self, value: str) -> tuple[Dim, ...]:
        return self._specs[value].shape

    def bounds(self, dim: Dim) -> tuple[int, int]:
        """The smallest and largest value of a size."""
        return bounds_of(dim, self.symbols)

    def emit(self, op: str, *inputs: str | None, **attrs: Attr) -> str:
        """Adds a node of a registered op; returns its first output."""
        return self.emit_multi(op, *inputs, **attrs)[0]

    def emit_multi(self, op: str, *inputs: str | None, **attrs: Attr) -> tuple[str, ...]:
        """Adds a node of a registered op; returns all its outputs."""
        specs = [None if value is None else self._specs[value] for value in inputs]
        outs = op_def(op).infer(specs, attrs)
        name = self._fresh(f"{self.node.name}.{op}")
        outputs = (name,) if len(outs) == 1 else tuple(self._fresh(f"{name}.{i}") for i in range(len(outs)))
        self._specs.update(zip(outputs, outs, strict=True))
        self.nodes.append(
            Node(name, op, inputs, outputs, outs, attrs, self.node.loc, self.node.origin or (self.node.name,))
        )
        return outputs

    def _fresh(self, base: str) -> str:
        name, count = base, 1
        while name in self._taken:
            count += 1
            name = f"{base}.{count}"
        self._taken.add(name)
        return name

    def finish(self, results: Sequence[str]) -> tuple[tuple[Node, ...], dict[str, str]]:
        """The nodes, with results made here renamed to the original outputs; and original -> result for all
        others."""
        made = {output for node in self.nodes for output in node.outputs}
        rename: dict[str, str] = {}
        aliases: dict[str, str] = {}
        for original, result in zip(self.node.outputs, results, strict=True):
            if result in made and result not in rename:
                rename[result] = original
            else:
                aliases[original] = rename.get(result, result)
        nodes = []
        for node in self.nodes:
            outputs = tuple(rename.get(output, output) for output in node.outputs)
            nodes.append(
                replace(
                    node,
                    name=outputs[0] if len(outputs) == 1 else node.name,
                    outputs=outputs,
                    inputs=tuple(rename.get(v, v) if v is not None else None for v in node.inputs),
                )
            )
        return tuple(nodes), aliases


def unsupported(reason: str, remedy: str = "") -> Unsupported:
    """To be raised where a lowering meets something that it does not cover."""
    return Unsupported(reason, remedy)


def as_int(attr: Attr) -> int:
    """An attribute that must be a plain whole number."""
    if isinstance(attr, bool) or not isinstance(attr, int):
        raise Unsupported(f"expected a whole number, got {attr!r}")
    return attr


def as_number(attr: Attr) -> int | float:
    """An attribute that must be a plain number (bool counts as 0 or 1)."""
    if not isinstance(attr, (int, float)):
        raise Unsupported(f"expected a number, got {attr!r}")
    return attr


def as_dim(attr: Attr) -> Dim:
    """An attribute that must be a size: a number or an expression over symbols."""
    if isinstance(attr, bool) or not isinstance(attr, (int, Expr)):
        raise Unsupported(f"expected a size, got {attr!r}")
    return attr


def as_ints(attr: Attr, count: int | None = None) -> tuple[int, ...]:
    """A list of whole numbers; a single one (or a list of one) stands for ``count`` equal ones."""
    items = tuple(as_int(item) for item in attr) if isinstance(attr, tuple) else (as_int(attr),)
    if count is not None and len(items) == 1:
        items *= count
    if count is not None and len(items) != count:
        raise Unsupported(f"expected {count} whole numbers, got {items}")
    return items


def as_dims(attr: Attr) -> tuple[Dim, ...]:
    """A list of sizes."""
    return tuple(as_dim(item) for item in attr) if isinstance(attr, tuple) else (as_dim(attr),)


def wrap_dim(attr: Attr, rank: int) -> int:
    """A dimension's index, counted from the end where negative."""
    dim = as_int(attr)
    if not -max(rank, 1) <= dim < max(rank, 1):
        raise Unsupported(f"dimension {dim} of a tensor of rank {rank}")
    return dim % max(rank, 1)


def wrap_dims(attr: Attr, rank: int) -> tuple[int, ...]:
    """Indices of different dimensions, counted from the end where negative; None or () mean all."""
    if attr is None or attr == ():
        return tuple(range(rank))
    dims = [wrap_dim(dim, rank) for dim in (attr if isinstance(attr, tuple) else (attr,))]
    if len(set(dims)) < len(dims):
        raise Unsupported(f"a dimension twice in {attr}")
    return tuple(sorted(dims))
