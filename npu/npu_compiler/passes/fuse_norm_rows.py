"""Normalisation by the root mean square moves into the product that reads it, where a GPU's work-groups each
read the few rows anyway: one kernel less per product."""

from __future__ import annotations

from dataclasses import replace

from npu_compiler.group_tuning import FEW_ROWS
from npu_compiler.target import Target
from npu_compiler.weights import constant_exprs
from torch_ir.expr import bounds_of, product
from torch_ir.ir import IR, Node

#: Most numbers that a work-group keeps in local memory, in normalised rows.
MOST_KEPT = 4096
#: Where the norm's weight stands in the inputs of a product.
SCALE = 4


def fuse_norm_rows(ir: IR, target: Target) -> IR:
    """``linear(norm(x, g), w)`` and ``gated`` likewise become one node with the attributes "norm_eps" and
    "norm_rounded" and the input ``g``, where nothing else reads the normalised rows and there are few."""
    if target.group == 1:
        return ir
    constants, users, results = constant_exprs(ir), ir.users(), ir.results()
    norms = {node.outputs[0]: node for node in ir.nodes if node.op == "norm" and _fits(ir, node)}
    fused: dict[str, Node] = {}
    dropped: set[str] = set()
    for node in ir.nodes:
        norm = norms.get(str(node.inputs[0])) if node.op in ("linear", "gated") else None
        if norm is None or len(users[norm.outputs[0]]) > 1 or norm.outputs[0] in results:
            continue
        if all(value is None or value in constants for value in (*node.inputs[1:3], norm.inputs[1])):
            fused[node.name] = _fused(node, norm)
            dropped.add(norm.name)
    return replace(ir, nodes=tuple(fused.get(n.name, n) for n in ir.nodes if n.name not in dropped))


def _fits(ir: IR, norm: Node) -> bool:
    *lead, width = norm.out.shape
    rows = bounds_of(product(lead), ir.symbols)[1]
    plain = norm.attrs["count"] == 1 and not norm.attrs["centred"] and all(v is None for v in norm.inputs[2:])
    if not plain or norm.out.dtype != "float32" or not isinstance(width, int):
        return False
    return width % 8 == 0 and rows <= FEW_ROWS and rows * width <= MOST_KEPT


def _fused(node: Node, norm: Node) -> Node:
    inputs = (*node.inputs, *(None,) * (SCALE - len(node.inputs)))
    attrs = {"norm_eps": norm.attrs["eps"], "norm_rounded": norm.attrs.get("rounded", "")}
    return replace(
        node,
        inputs=(norm.inputs[0], *inputs[1:], norm.inputs[1]),
        attrs={**node.attrs, **attrs},
        origin=tuple(dict.fromkeys((*norm.origin, *node.origin))),
    )
