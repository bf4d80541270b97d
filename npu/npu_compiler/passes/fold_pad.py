"""Zero padding in front of a convolution becomes the convolution's own: frameworks' "SAME" padding arrives
like this."""

from __future__ import annotations

from dataclasses import replace

from npu_compiler.lowering import as_ints
from npu_compiler.target import Target
from torch_ir.ir import IR, Node


def fold_pad(ir: IR, target: Target) -> IR:
    """``conv(pad(x))`` becomes ``conv(x)`` with larger padding. Only zeros around height and width
    qualify."""
    pads = {node.outputs[0]: node for node in ir.nodes if node.op == "pad" and _is_spatial_zero(node)}
    nodes = []
    for node in ir.nodes:
        pad = pads.get(node.inputs[0] or "") if node.op == "conv" else None
        if pad is not None:
            widths = as_ints(pad.attrs["pads"])[4:]
            padding = tuple(a + b for a, b in zip(as_ints(node.attrs["padding"]), widths, strict=True))
            node = replace(
                node,
                inputs=(pad.inputs[0], *node.inputs[1:]),
                attrs={**node.attrs, "padding": padding},
                origin=(*pad.origin, *node.origin),
            )
        nodes.append(node)
    return replace(ir, nodes=tuple(nodes))


def _is_spatial_zero(node: Node) -> bool:
    return node.out.rank == 4 and node.attrs["value"] == 0 and not any(as_ints(node.attrs["pads"])[:4])
