"""ATen operations that no lowering takes -> simpler ones, by PyTorch's own decomposition tables."""

from __future__ import annotations

from npu_compiler.dtypes import is_float
from npu_compiler.ops import load_all
from npu_compiler.passes.lower import lower_known
from npu_compiler.schemas import problem
from npu_compiler.target import Target
from torch_ir.functionalize import is_in_place
from torch_ir.ir import IR, Node


def decompose(ir: IR, target: Target) -> IR:
    """Replaces nodes that ``lower`` would refuse, each as a whole or not at all: what it becomes is lowered
    without a refusal.

    Without PyTorch, and for a node of which its tables say nothing, the node stays and is refused.
    """
    blamed = _refused(ir)
    refused = {
        node.name: node
        for node in ir.nodes
        if node.name in blamed and not _is_inexact(node) and problem(node) is None
    }
    known = load_all()[1].keys()
    try:
        while refused:
            simpler = ir.decomposed(known, refused.keys())
            blamed = _refused(simpler)
            still = [name for name, node in refused.items() if not blamed.isdisjoint((name, *node.origin))]
            if not still:
                return simpler
            refused = {name: node for name, node in refused.items() if name not in still}
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
    return ir


def _is_inexact(node: Node) -> bool:
    """Whether PyTorch's table gives other numbers than its kernel: images of whole numbers are interpolated
    with weights of few bits there."""
    return "upsample" in node.op and "nearest" not in node.op and not is_float(node.out.dtype)


def _refused(ir: IR) -> frozenset[str]:
    """The nodes that ``lower`` refuses and what they stand for, without those that work in place: the tables
    would give their results without their effects."""
    refusals = [item for item in lower_known(ir)[1] if not is_in_place(item.op)]
    return frozenset(name for item in refusals for name in (item.node, *item.origin))
