"""Products of one input become one product: queries, keys and values of attention, most of all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from npu_compiler.lowering import Builder
from npu_compiler.products import LANES
from npu_compiler.target import Target
from npu_compiler.weight_reads import WeightReads
from torch_ir.ir import IR, Node


def join_linear(ir: IR, target: Target) -> IR:
    """``linear(x, a)``, ``linear(x, b)`` become slices of ``linear(x, [a, b])`` where all have constant
    weights that nothing else reads (a shared one would lie on the device twice), and no epilogue."""
    reads = WeightReads.of(ir)
    groups = {members[0].name: members for members in _groups(ir) if _refusal(ir, reads, members) is None}
    if not groups:
        return ir
    joined = {node.name for members in groups.values() for node in members}
    specs, taken = ir.values(), set(ir.values()) | {node.name for node in ir.nodes}
    constant = [node for node in ir.nodes if reads.constant(node.outputs)]
    nodes: list[Node] = [*constant]  # first: a joined product needs the weights of its last member
    for node in ir.nodes:
        if node.name in groups:
            nodes += _joined(groups[node.name], Builder(node, specs, taken))
        elif node.name not in joined and not reads.constant(node.outputs):
            nodes.append(node)
    return replace(ir, nodes=tuple(nodes))


def missed(ir: IR) -> list[str]:
    """Products of one input that were left as they are, each group with the reason."""
    reads = WeightReads.of(ir)
    return [
        f"{', '.join(node.name for node in members)}: not one product: {reason}"
        for members in _groups(ir)
        if (reason := _refusal(ir, reads, members)) is not None
    ]


def _groups(ir: IR) -> list[list[Node]]:
    """The products without an epilogue, by their input, where there are several."""
    found: dict[str, list[Node]] = {}
    for node in ir.nodes:
        if node.op == "linear" and len(node.inputs) <= 3 and not node.attrs.get("epilogue"):
            found.setdefault(str(node.inputs[0]), []).append(node)
    return [members for members in found.values() if len(members) > 1]


def _refusal(ir: IR, reads: WeightReads, members: Sequence[Node]) -> str | None:
    weights = [str(node.inputs[1]) for node in members]
    biases = [node.inputs[2] if len(node.inputs) > 2 else None for node in members]
    if not reads.constant((*weights, *biases)):
        return "their weights are computed during the run"
    if any(node.out.dtype != "float32" for node in members):
        return "they are not of float32"
    if len({bias is None for bias in biases}) > 1:
        return "only some of them have a bias"
    if any(not isinstance(node.out.shape[-1], int) or node.out.shape[-1] % LANES for node in members):
        return f"their columns are no multiples of {LANES}"
    if len({node.attrs.get("half") for node in members}) > 1:
        return "they are of different dtypes in the model"
    if any(node.outputs[0] in ir.results() for node in members):
        return "one of them is a result of the program"
    shared = reads.shared(weights)
    return None if shared is None else f"something else reads {shared}"


def _joined(members: Sequence[Node], b: Builder) -> list[Node]:
    """The constant nodes that put the weights into one, the product, and each member as a slice of it."""
    first = members[0]
    weight = b.emit("concat", *(node.inputs[1] for node in members), dim=0)
    biases = [node.inputs[2] for node in members if len(node.inputs) > 2 and node.inputs[2] is not None]
    bias = b.emit("concat", *biases, dim=0) if biases else None
    product = b.emit("linear", first.inputs[0], weight, bias, **first.attrs)
    origin = tuple(dict.fromkeys(name for node in members for name in node.origin))
    made = [*b.nodes[:-1], replace(b.nodes[-1], origin=origin)]
    start, dim = 0, first.out.rank - 1
    for node in members:
        length = int(str(node.out.shape[-1]))
        attrs = {"dim": dim, "start": start, "step": 1, "length": length}
        made.append(replace(node, op="slice", inputs=(product,), attrs=attrs))
        start += length
    return made
