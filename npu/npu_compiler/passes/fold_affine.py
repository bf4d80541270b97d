"""Folds per-channel scales and shifts into the convolution or linear layer before them: batch-norm in
inference is one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from npu_compiler.lowering import Builder
from npu_compiler.target import Target
from npu_compiler.weights import constant_exprs
from torch_ir.ir import IR, Node, TensorSpec

#: The ops that have a weight with output channels first, and which of their output's dimensions are the
#: channels.
CHANNEL_DIM: Mapping[str, int] = {"conv": 1, "linear": -1}


def fold_affine(ir: IR, target: Target) -> IR:
    """``conv(x, w, b) * s + t`` becomes ``conv(x, w * s, b * s + t)`` where ``s`` and ``t`` are constants per
    channel.

    A convolution whose result something else reads keeps its own weights and is not folded; what depends on
    weights alone stays as it is, since others count on its being a constant.
    """
    constants = set(constant_exprs(ir))
    specs = ir.values()
    taken = set(specs) | {node.name for node in ir.nodes}
    readers = {value: len(users) for value, users in ir.users().items()}
    results = ir.results()
    made: dict[str, Node] = {}
    nodes: list[Node] = []
    for node in ir.nodes:
        folded = None
        if node.op in ("mul", "add") and node.outputs[0] not in constants:
            for value, other in (node.inputs, node.inputs[::-1]):
                host = made.get(value or "")
                if (
                    host is None
                    or other not in constants
                    or readers.get(str(value), 0) != 1
                    or value in results
                ):
                    continue
                if node.out == host.out and is_per_channel(specs[str(other)], host):
                    folded = _fold(node, host, str(other), specs, taken)
                    break
        if folded is None:
            nodes.append(node)
        else:
            *extra, host_node = folded
            nodes = [other for other in nodes if other.name != host.name]  # type: ignore[union-attr]
            nodes += [*extra, host_node]
            specs.update((n.outputs[0], n.out) for n in extra)
            constants.update(n.outputs[0] for n in extra)
        last = nodes[-1]
        if (
            last.op in CHANNEL_DIM
            and last.inputs[1] in constants
            and (len(last.inputs) < 3 or last.inputs[2] is None or last.inputs[2] in constants)
        ):
            made[last.outputs[0]] = last
    return replace(ir, nodes=tuple(nodes))


def is_per_channel(spec: TensorSpec, host: Node) -> bool:
    """Whether a tensor broadcasts against the host's output along its channels only."""
    channel = CHANNEL_DIM[host.op] % host.out.rank
    lead = host.out.rank - spec.rank
    return lead >= 0 and all(
        size == 1 or (lead + i == channel and size == host.out.shape[channel])
        for i, size in enumerate(spec.shape)
    )


def _fold(
    node: Node, host: Node, constant: str, specs: Mapping[str, TensorSpec], taken: set[str]
) -> list[Node]:
    """The constant nodes that compute the new weight and bias, then the host with them under the node's
    name."""
    channels = host.out.shape[CHANNEL_DIM[host.op]]
    b = Builder(host, specs, taken)
    weight, bias = str(host.inputs[1]), host.inputs[2] if len(host.inputs) > 2 else None
    vector = constant
    if specs[constant].numel != channels:
        vector = b.emit("expand", b.emit("reshape", constant, shape=(1,)), shape=(channels,))
    elif specs[constant].shape != (channels,):
        vector = b.emit("reshape", constant, shape=(channels,))
    if node.op == "mul":
        column = b.emit("reshape", vector, shape=(channels, *(1 for _ in specs[weight].shape[1:])))
        weight = b.emit("mul", weight, column)
        bias = None if bias is None else b.emit("mul", bias, vector)
    else:
        bias = vector if bias is None else b.emit("add", bias, vector)
    return [
        *b.nodes,
        replace(
            host,
            name=node.name,
            outputs=node.outputs,
            inputs=(host.inputs[0], weight, bias),
            origin=(*host.origin, *node.origin),
        ),
    ]
