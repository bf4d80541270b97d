"""Gated layers of language models (SwiGLU and its relatives) as one product: both halves are in registers
when they meet."""

from __future__ import annotations

from dataclasses import replace

from npu_compiler.lowering import Builder
from npu_compiler.products import LANES
from npu_compiler.target import Target
from npu_compiler.weight_reads import WeightReads
from npu_compiler.weights import keys_of, stored_bytes
from torch_ir.ir import IR, Node


def fuse_gate(ir: IR, target: Target) -> IR:
    """``linear(x, u) * silu(linear(x, g))`` becomes ``gated(x, [g, u])`` where nothing else reads the two
    products, nothing else their weights, and these fit into one buffer of the target. Any elementwise steps
    do: they are the products' epilogues."""
    reads, most = WeightReads.of(ir), target.max_alloc_bytes
    gates = {
        node.name: gate
        for node, gate in _pairs(ir)
        if _refusal(ir, reads, node, gate) is None and _nbytes(ir, reads, node, gate) <= most
    }
    specs, taken = ir.values(), set(ir.values()) | {node.name for node in ir.nodes}
    dropped = {gate.name for gate in gates.values()}
    nodes: list[Node] = []
    for node in ir.nodes:
        if node.name in gates:
            nodes += _gated(node, gates[node.name], Builder(node, specs, taken))
        elif node.name not in dropped:
            nodes.append(node)
    return replace(ir, nodes=tuple(nodes))


def missed(ir: IR) -> list[str]:
    """Pairs of products that look gated and were left, each with the reason."""
    reads = WeightReads.of(ir)
    return [
        f"{node.name}: not one product with {gate.name}: {reason}"
        for node, gate in _pairs(ir)
        if (reason := _refusal(ir, reads, node, gate)) is not None
    ]


def _pairs(ir: IR) -> list[tuple[Node, Node]]:
    """A product whose epilogue reads another product of the same input, and that one."""
    layers = {node.outputs[0]: node for node in ir.nodes if node.op == "linear"}
    found = []
    for node in layers.values():
        gate = layers.get(str(node.inputs[3])) if len(node.inputs) > 3 else None
        if gate is not None and gate.inputs[0] == node.inputs[0]:
            found.append((node, gate))
    return found


def _refusal(ir: IR, reads: WeightReads, node: Node, gate: Node) -> str | None:
    if not reads.constant((*node.inputs[1:3], *gate.inputs[1:3])):
        return "their weights are computed during the run"
    if node.attrs.get("half") != gate.attrs.get("half"):
        return "they are of different dtypes in the model"
    if node.out != gate.out or node.out.dtype != "float32":
        return "they differ in shape, or are not of float32"
    if not isinstance(node.out.shape[-1], int) or node.out.shape[-1] % LANES:
        return f"{node.out.shape[-1]} columns are no multiple of {LANES}"
    if (_bias(node) is None) != (_bias(gate) is None):
        return "only one of them has a bias"
    if len(gate.inputs) > 3 or gate.outputs[0] in ir.results() or len(ir.users()[gate.outputs[0]]) > 1:
        return f"something else reads {gate.name}, or it reads something else"
    shared = reads.shared((str(node.inputs[1]), str(gate.inputs[1])))
    return None if shared is None or _are_parts(ir, reads, node, gate) else f"something else reads {shared}"


def _nbytes(ir: IR, reads: WeightReads, node: Node, gate: Node) -> int:
    specs, weights = ir.values(), (str(node.inputs[1]), str(gate.inputs[1]))
    return sum(stored_bytes(reads.constants[weight], specs[weight], ir) for weight in weights)


def _are_parts(ir: IR, reads: WeightReads, node: Node, gate: Node) -> bool:
    """Whether the weights are different rows of one tensor that nothing but these two reads."""
    made = {made.outputs[0]: made for made in ir.nodes if made.op == "slice"}
    parts = [made.get(str(product.inputs[1])) for product in (gate, node)]
    first, second = parts
    if first is None or second is None or first.inputs != second.inputs:
        return False
    keys = set(keys_of(reads.constants[first.outputs[0]]))
    starts = {part.attrs["start"] for part in (first, second)}
    same = first.attrs["dim"] == second.attrs["dim"] == 0 and len(starts) == 2
    return same and all(reads.reads[key] == 2 for key in keys)


def _bias(node: Node) -> str | None:
    return node.inputs[2] if len(node.inputs) > 2 else None


def _gated(node: Node, gate: Node, b: Builder) -> list[Node]:
    """The constant nodes that put the two weights into one, then the node."""
    columns = node.out.shape[-1]
    assert isinstance(columns, int)
    joined: list[str | None] = []
    for first, second in ((gate.inputs[1], node.inputs[1]), (_bias(gate), _bias(node))):
        if first is None or second is None:
            joined.append(None)
            continue
        rest = b.shape(first)[1:]
        split = (columns // LANES, LANES, *rest)
        together = b.emit("concat", *(b.emit("reshape", v, shape=split) for v in (first, second)), dim=1)
        joined.append(b.emit("reshape", together, shape=(2 * columns, *rest)))
    attrs = {"gate": gate.attrs.get("epilogue", ()), **node.attrs}
    origin = tuple(dict.fromkeys((*gate.origin, *node.origin)))
    inputs = (node.inputs[0], *joined)
    return [*b.nodes, replace(node, op="gated", inputs=inputs, attrs=attrs, origin=origin)]
