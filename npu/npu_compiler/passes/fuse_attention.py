"""Attention reads keys and values where they lie: a head that several query heads share once, and 16 bits as
they are stored."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from npu_compiler.dtypes import HALF
from npu_compiler.target import Target
from torch_ir.ir import IR, Node, TensorSpec


def fuse_attention(ir: IR, target: Target) -> IR:
    """Takes the copies of heads (expanded and reshaped, as ``repeat_kv`` of language models) and the casts
    from 16 bits off the keys and values of attention nodes."""
    producers = {output: node for node in ir.nodes for output in node.outputs}
    specs = ir.values()
    nodes = []
    for node in ir.nodes:
        if node.op == "attention":
            q, k, v, *mask = node.inputs
            k, v = (_bare(str(value), producers, specs) for value in (k, v))
            if specs[k].shape[1] == specs[v].shape[1]:
                node = replace(node, inputs=(q, k, v, *mask))
        nodes.append(node)
    return replace(ir, nodes=tuple(nodes))


def _bare(value: str, producers: Mapping[str, Node], specs: Mapping[str, TensorSpec]) -> str:
    """The tensor that ``value`` widens to float32 or repeats the heads of."""
    node = producers.get(value)
    if node is None or node.inputs[0] is None:
        return value
    source = node.inputs[0]
    if node.op == "cast" and specs[value].dtype == "float32" and specs[source].dtype in HALF:
        return _bare(source, producers, specs)
    wide = producers.get(source)
    split = producers.get(wide.inputs[0] or "") if wide is not None and wide.inputs else None
    if (node.op, wide and wide.op, split and split.op) != ("reshape", "expand", "reshape"):
        return value
    assert wide is not None and split is not None
    shared = str(split.inputs[0])
    batch, heads, *rest = specs[value].shape
    if specs[shared].rank != 4 or wide.out.rank != 5:
        return value
    groups = specs[shared].shape[1]
    repeated = (batch, groups, wide.out.shape[2], *rest)
    alone = (batch, groups, 1, *rest)
    fits = specs[shared].shape == (batch, groups, *rest) and heads == groups * wide.out.shape[2]
    if not fits or wide.out.shape != repeated or split.out.shape != alone:
        return value
    return _bare(shared, producers, specs)
