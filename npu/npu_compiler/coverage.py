"""Which nodes of a graph a target can run, and why not the others: without rendering or writing anything."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from npu_compiler.emit import Emitter
from npu_compiler.emitted import Options
from npu_compiler.errors import Refusal, UnsupportedOpError
from npu_compiler.passes.lower import lower, lower_known
from npu_compiler.pipeline import PASSES
from npu_compiler.subgraph import subgraph
from npu_compiler.target import Target, load_target
from torch_ir.expr import Dim, bounds_of, product
from torch_ir.ir import IR, Node, Output, TensorSpec


@dataclass(frozen=True)
class Uncovered:
    """A node that the target cannot run. ``flops`` are arithmetic operations at the largest sizes, ``share``
    is their part of the model's (0 to 1)."""

    node: str
    op: str
    reason: str
    loc: str
    remedy: str
    flops: int
    share: float


@dataclass(frozen=True)
class Coverage:
    """What of a graph a target can run. ``flops`` as in ``Uncovered``, over all nodes."""

    model: str
    target: str
    nodes: int
    flops: int
    uncovered: tuple[Uncovered, ...]

    @property
    def complete(self) -> bool:
        """Whether the target can run every node."""
        return not self.uncovered

    @property
    def share(self) -> float:
        """The part of the operations that the target can run, 0 to 1."""
        return 1.0 - sum(item.share for item in self.uncovered)

    def to_dict(self) -> dict[str, Any]:
        """As JSON would hold it."""
        return {**asdict(self), "complete": self.complete, "share": self.share}

    def table(self) -> str:
        """For people: a line per node that is not covered, and the sum."""
        covered = self.nodes - len(self.uncovered)
        summary = (
            f"{self.model or 'graph'} on {self.target}: {covered} of {self.nodes} nodes are covered, "
            f"{self.share:.1%} of {self.flops:.3g} operations"
        )
        columns = ("node", "op", "operations", "line", "reason", "remedy")
        rows = [
            (item.node, item.op, f"{item.share:.1%}", item.loc or "-", item.reason, item.remedy or "-")
            for item in self.uncovered
        ]
        return "\n".join([*(_aligned([columns, *rows]) if rows else ()), summary])


def coverage(ir: IR, target: str = "cpu") -> Coverage:
    """What of an extracted graph ``target`` can run. Raises ``IRError`` for a malformed graph, and
    ``CompileError`` for an unknown target."""
    ir.verify()
    ir = ir.checked()
    specs = ir.values()
    counts = {node.name: _count(flops(node, specs), ir) for node in ir.nodes}
    total = sum(counts.values())
    uncovered = tuple(
        Uncovered(
            item.node,
            item.op,
            item.reason,
            item.loc,
            item.remedy,
            counts.get(item.node, 0),
            counts.get(item.node, 0) / total if total else 0.0,
        )
        for item in refusals(ir, load_target(target))
    )
    return Coverage(ir.name, target, len(ir.nodes), total, uncovered)


def refusals(ir: IR, target: Target) -> tuple[Refusal, ...]:
    """Why ``target`` cannot run nodes of an extracted graph: all of them, in the graph's order.

    What a refused node makes counts as an input of the program.
    """
    lowered, refused = lower_known(_extracted(ir, target))
    nodes = {node.name: node for node in ir.nodes}
    found: dict[str, Refusal] = {}
    for item in (*refused, *_emission_refusals(lowered, target)):
        for name in _blamed(ir, target, item, nodes):
            node = nodes.get(name) or Node(name, item.op, (), (), (), loc=item.loc)
            found.setdefault(name, Refusal(name, node.op, item.reason, node.loc, item.remedy))
    order = {name: index for index, name in enumerate(nodes)}
    return tuple(sorted(found.values(), key=lambda item: order.get(item.node, len(order))))


def _extracted(ir: IR, target: Target) -> IR:
    """The graph as ``lower`` gets it."""
    for step in PASSES[: PASSES.index(lower)]:
        ir = step(ir, target)
    return ir


def _emission_refusals(lowered: IR, target: Target) -> tuple[Refusal, ...]:
    for step in PASSES[PASSES.index(lower) + 1 :]:
        lowered = step(lowered, target)
    try:
        Emitter(lowered, target, Options()).run()
    except UnsupportedOpError as error:
        return error.refusals
    return ()


def _blamed(ir: IR, target: Target, item: Refusal, nodes: Mapping[str, Node]) -> tuple[str, ...]:
    """The extracted nodes that a refusal is about: of several that became one kernel, those that are refused
    alone as well."""
    origin = [name for name in item.origin if name in nodes]
    if len(origin) < 2:
        return tuple(origin) or (item.node,)
    alone = [name for name in origin if _refused_alone(ir, target, nodes[name])]
    return tuple(alone or origin)


def _refused_alone(ir: IR, target: Target, node: Node) -> bool:
    fixed = ir.weight_name_mapping.keys() | ir.constants.keys()
    inputs = [value for value in dict.fromkeys(node.inputs) if value is not None and value not in fixed]
    plain = replace(ir, inputs={name: spec for name, spec in ir.values().items() if name not in fixed})
    outputs = [Output(value, value) for value in node.outputs]
    lowered, refused = lower_known(_extracted(subgraph(plain, [node], inputs, outputs, {}), target))
    return bool(refused or _emission_refusals(lowered, target))


_PRODUCTS = {
    "linear": 0,
    "matmul": 0,
    "mm": 0,
    "bmm": 0,
    "mv": 0,
    "dot": 0,
    "addmm": 1,
    "baddbmm": 1,
    "addmv": 1,
}
_RECURRENT = ("lstm", "gru", "rnn_tanh", "rnn_relu")


def flops(node: Node, specs: Mapping[str, TensorSpec]) -> Dim:
    """An estimate of the arithmetic operations of an extracted node: two per multiply-add of convolutions,
    matrix products, attention and recurrent layers; else one per element of its result or first input,
    whichever has more."""
    given = [specs[value] for value in node.inputs if value is not None]
    base = node.op.split(".")[1] if node.op.count(".") else node.op
    if "conv" in base and len(given) > 1 and given[1].rank > 2:
        transposed = "transpose" in base or node.attrs.get("transposed") is True
        pixels = given[0].numel if transposed else node.out.numel
        return 2 * pixels * product(given[1].shape[1:])
    if base in _PRODUCTS and len(given) > _PRODUCTS[base] and given[_PRODUCTS[base]].rank:
        return 2 * node.out.numel * given[_PRODUCTS[base]].shape[-1]
    if "scaled_dot_product" in base and len(given) > 2:
        query, key, value = given[:3]
        return 2 * product(query.shape[:-1]) * key.shape[-2] * (query.shape[-1] + value.shape[-1])
    if base in _RECURRENT and given[0].rank > 1:
        matrices: Dim = 0
        for spec in given[1:]:
            matrices = matrices + (spec.numel if spec.rank == 2 else 0)
        return 2 * matrices * product(given[0].shape[:-1])
    made: Dim = 0
    for spec in node.outs:
        made = made + spec.numel
    read = given[0].numel if given else 0
    if isinstance(made, int) and isinstance(read, int):
        return max(made, read)
    return made


def _count(dim: Dim, ir: IR) -> int:
    return max(bounds_of(dim, ir.symbols)[1], 0)


def _aligned(rows: list[tuple[str, ...]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]
