"""Products and normalisations that follow each other row by row become one kernel, where a core works alone
on many rows: what one makes, the next finds in the core's cache, and threads meet less often."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field, replace

from npu_compiler.ctext import Step
from npu_compiler.ops.row_chain import ROWS
from npu_compiler.products import LANES, PANEL_TYPES
from npu_compiler.target import Target
from npu_compiler.tuning import panel_width
from npu_compiler.weights import constant_exprs
from torch_ir.expr import Bounds, Dim, bounds_of, product
from torch_ir.ir import IR, Node, TensorSpec

#: Fewer rows do not repay that both of two threads read all weights; wider ones leave the cache.
LEAST, WIDEST = 48, 2048


@dataclass
class _Group:
    """Nodes of one chain so far; ``rows``: how many. Closed once something else reads one of them."""

    rows: Dim
    members: list[Node] = field(default_factory=list)
    closed: bool = False


def chain_rows(ir: IR, target: Target) -> IR:
    """``linear(norm(linear(x)))`` and the like become one node, as far as nothing else comes between."""
    if target.group > 1:
        return ir
    constants, specs = constant_exprs(ir), ir.values()
    owner: dict[str, _Group] = {}
    groups: list[_Group] = []
    for node in ir.nodes:
        group = None
        if _fits(node, specs, constants, ir.symbols):
            rows = product(node.out.shape[:-1])
            group = owner.get(str(node.inputs[0]))
            if group is None or group.closed or group.rows != rows:
                group = _Group(rows)
                groups.append(group)
            group.members.append(node)
            owner[node.outputs[0]] = group
        for value in node.inputs:
            read = owner.get(str(value))
            if read is not None and read is not group:
                read.closed = True
    chains = [group.members for group in groups if _pays(group.members)]
    last = {members[-1].name: members for members in chains}
    dropped = {node.name for members in chains for node in members[:-1]}
    users, results = ir.users(), ir.results()
    nodes = [
        _chain(last[node.name], users, results) if node.name in last else node
        for node in ir.nodes
        if node.name not in dropped
    ]
    return replace(ir, nodes=tuple(nodes))


def _pays(members: list[Node]) -> bool:
    return len(members) > 1 and any(node.op == "linear" for node in members)


def _fits(node: Node, specs: Mapping[str, TensorSpec], constants: Container[str], symbols: Bounds) -> bool:
    """Whether the node can be a stage: its weights are known, and its rows many and not too wide."""
    if node.op not in ROWS or node.outputs[0] in constants or node.out.dtype != "float32":
        return False
    place = ROWS[node.op]
    weights = [value for i, value in enumerate(node.inputs) if value is not None and i not in place]
    x = specs[str(node.inputs[0])]
    widths = (x.shape[-1], node.out.shape[-1])
    if not all(isinstance(width, int) and width % LANES == 0 and 0 < width <= WIDEST for width in widths):
        return False
    if not all(value in constants for value in weights) or x.dtype != "float32":
        return False
    if bounds_of(product(node.out.shape[:-1]), symbols)[1] < LEAST:
        return False
    if node.op == "norm":
        return node.attrs["count"] == 1 and not node.attrs.get("rounded")
    out = int(str(widths[1]))
    packed = specs[str(node.inputs[1])].dtype in PANEL_TYPES and out % panel_width(out) == 0
    return packed and x.rank > 1 and len(node.inputs) <= 4 and "norm_eps" not in node.attrs


def _chain(members: list[Node], users: Mapping[str, Sequence[Node]], results: Container[str]) -> Node:
    """One node of what ``members`` do."""
    made = {node.outputs[0]: f"t{index}" for index, node in enumerate(members)}
    inside = {node.name for node in members}
    read = [
        value
        for value in made
        if value in results or any(user.name not in inside for user in users.get(value, ()))
    ]
    inputs: list[str] = []

    def operand(value: str | None) -> str:
        if value is None:
            return ""
        if value in made:
            return made[value]
        if value not in inputs:
            inputs.append(value)
        return f"i{inputs.index(value)}"

    stages = [
        Step(node.op, tuple(operand(value) for value in node.inputs), node.attrs, node.out.dtype)
        for node in members
    ]
    outs = {node.outputs[0]: node.out for node in members}
    return replace(
        members[-1],
        op="row_chain",
        inputs=tuple(inputs),
        outputs=tuple(read),
        outs=tuple(outs[value] for value in read),
        attrs={"stages": tuple(step.pack() for step in stages), "results": tuple(made[v] for v in read)},
        origin=tuple(dict.fromkeys(name for node in members for name in node.origin)),
    )
