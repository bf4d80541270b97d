"""Drops nodes that nothing reads."""

from __future__ import annotations

from dataclasses import replace

from npu_compiler.target import Target
from torch_ir.ir import IR, Node


def eliminate_dead(ir: IR, target: Target) -> IR:
    """Keeps the nodes from which an output or a state update follows."""
    wanted = set(ir.results())
    kept: list[Node] = []
    for node in reversed(ir.nodes):
        if wanted.intersection(node.outputs):
            kept.append(node)
            wanted.update(value for value in node.inputs if value is not None)
    return replace(ir, nodes=tuple(reversed(kept)))
