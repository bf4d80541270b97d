"""A decoder's step on a GPU: the new key and value are rotated, kept and attended to by one kernel."""

from __future__ import annotations

from dataclasses import replace

from npu_compiler.target import Target
from torch_ir.ir import IR, Node


def fuse_step(ir: IR, target: Target) -> IR:
    """``attention`` of one query over what ``cache_rows`` of one row has just made becomes
    ``attention_step``, where nothing else reads the cache's new content and both rotate by the same
    tables."""
    if target.group == 1:
        return ir
    users, values = ir.users(), ir.values()
    rows = {node.outputs: node for node in ir.nodes if node.op == "cache_rows"}
    fused: dict[str, Node] = {}
    dropped: set[str] = set()
    for node in ir.nodes:
        cache = rows.get((str(node.inputs[1]), str(node.inputs[2]))) if node.op == "attention" else None
        if cache is None or any(len(users[value]) > 1 for value in cache.outputs):
            continue
        one = values[str(node.inputs[0])].shape[2] == values[str(cache.inputs[2])].shape[2] == 1
        tables = (*node.inputs, *(None,) * 5)[5:7]
        if one and not node.attrs["causal"] and tables == (*cache.inputs, None, None)[5:7]:
            fused[node.name] = _step(node, cache)
            dropped.add(cache.name)
    return replace(ir, nodes=tuple(fused.get(n.name, n) for n in ir.nodes if n.name not in dropped))


def _step(node: Node, cache: Node) -> Node:
    mask, end = (*node.inputs, None, None)[3:5]
    return replace(
        node,
        op="attention_step",
        inputs=(*cache.inputs[:5], node.inputs[0], mask, end, *cache.inputs[5:]),
        outputs=(*cache.outputs, *node.outputs),
        outs=(*cache.outs, *node.outs),
        attrs={name: value for name, value in node.attrs.items() if name != "causal"},
        origin=tuple(dict.fromkeys((*cache.origin, *node.origin))),
    )
