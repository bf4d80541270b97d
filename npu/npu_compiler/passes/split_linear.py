"""A product whose halves are gated, as of models that keep both layers in one weight, becomes two products,
which ``fuse_gate`` takes together with their gate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from npu_compiler.lowering import Builder
from npu_compiler.ops import op_def
from npu_compiler.passes.fuse_epilogue import NOT_ON_VECTORS
from npu_compiler.products import LANES
from npu_compiler.target import Target
from npu_compiler.weight_reads import WeightReads
from torch_ir.ir import IR, Node


def split_linear(ir: IR, target: Target) -> IR:
    """``y = linear(x, w)``, ``act(y[.., :n]) * y[.., n:]`` (the halves in any order) becomes
    ``act(linear(x, w[:n])) * linear(x, w[n:])`` where nothing else reads ``y`` or ``w``."""
    users, reads, results = ir.users(), WeightReads.of(ir), ir.results()
    specs, taken = ir.values(), set(ir.values()) | {node.name for node in ir.nodes}
    made: dict[str, list[Node]] = {}
    for node in ir.nodes:
        halves = users.get(node.outputs[0], ())
        if (
            node.op == "linear"
            and len(node.inputs) <= 3
            and not node.attrs.get("epilogue")
            and reads.constant(node.inputs[1:])
            and reads.shared([str(node.inputs[1])]) is None
            and node.outputs[0] not in results
            and _are_halves(node, halves)
            and _are_gated(halves, users)
        ):
            made[node.name] = []
            for half in halves:
                b = Builder(half, specs, taken)
                rows = {key: half.attrs[key] for key in ("start", "step", "length")}
                parts = [value and b.emit("slice", value, dim=0, **rows) for value in node.inputs[1:]]
                origin = tuple(dict.fromkeys((*node.origin, *half.origin)))
                inputs = (node.inputs[0], *parts)
                part = replace(half, op="linear", inputs=inputs, attrs=node.attrs, origin=origin)
                made[half.name] = [*b.nodes, part]
    return replace(ir, nodes=tuple(new for node in ir.nodes for new in made.get(node.name, [node])))


def _are_halves(node: Node, parts: Sequence[Node]) -> bool:
    """Whether these are the two halves of a product's columns."""
    columns = node.out.shape[-1]
    if len(parts) != 2 or not isinstance(columns, int) or columns % (2 * LANES):
        return False
    wanted = {"dim": node.out.rank - 1, "step": 1, "length": columns // 2}
    starts = {part.attrs.get("start") for part in parts}
    return starts == {0, columns // 2} and all(
        part.op == "slice" and {**part.attrs, **wanted} == part.attrs for part in parts
    )


def _are_gated(halves: Sequence[Node], users: Mapping[str, Sequence[Node]]) -> bool:
    """Whether the one is multiplied with an elementwise op of the other, and that is all that reads them."""
    for straight, bent in (halves, halves[::-1]):
        first, second = (users.get(half.outputs[0], ()) for half in (straight, bent))
        if len(first) != 1 or len(second) != 1:
            continue
        act, product = second[0], first[0]
        vectors = op_def(act.op).expr is not None and act.op not in NOT_ON_VECTORS
        after = users.get(act.outputs[0], ())
        if product.op == "mul" and vectors and len(after) == 1 and after[0] is product:
            return True
    return False
