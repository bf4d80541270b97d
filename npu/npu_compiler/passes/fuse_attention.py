"""Attention reads keys and values where they lie: a head that several query heads share once, 16 bits as they
are stored, and no further than the mask lets be seen. It rotates queries itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from npu_compiler.dtypes import HALF
from npu_compiler.lowering import as_int
from npu_compiler.target import Target
from torch_ir.ir import IR, Node, TensorSpec


def fuse_attention(ir: IR, target: Target) -> IR:
    """Takes the copies of heads (expanded and reshaped, as ``repeat_kv`` of language models) and the casts
    from 16 bits off the keys and values of attention nodes, and rotations off their queries. Where there is a
    mask, ``seen_end`` of it becomes an input: one node for all that share the mask. Of keys and values that
    the model rounds to the 16 bits that it computes attention in, a GPU reads the rounded ones."""
    producers = {output: node for node in ir.nodes for output in node.outputs}
    specs = ir.values()
    ends: dict[str, str] = {}
    rounded: dict[tuple[str | None, str], str] = {}
    nodes: list[Node] = []
    for node in ir.nodes:
        if node.op == "attention":
            q, k, v, mask, end, *tables = (*node.inputs, *(None,) * 5)[: max(5, len(node.inputs))]
            k, v = (_bare(str(value), producers, specs) for value in (k, v))
            if specs[k].shape[1] != specs[v].shape[1]:
                k, v = node.inputs[1:3]
            if target.group > 1:
                half = str(node.attrs.get("half", ""))
                k, v = (rounded.get((value, half)) or value for value in (k, v))
            if mask is not None and end is None:
                if mask not in ends:
                    nodes.append(_seen_end(mask, node, specs))
                    ends[mask] = nodes[-1].outputs[0]
                end = ends[mask]
            turn = producers.get(str(q))
            if turn is not None and turn.op == "rotary" and not tables and _in_halves(turn):
                q, *tables = turn.inputs
                node = replace(node, origin=(*turn.origin, *node.origin))
            inputs = (q, k, v, mask, end, *tables)
            node = replace(node, inputs=inputs if tables or end is not None else inputs[: len(node.inputs)])
        elif node.op == "cast" and node.out.dtype in HALF and node.inputs[0] is not None:
            rounded[node.inputs[0], node.out.dtype] = node.outputs[0]
        nodes.append(node)
    return replace(ir, nodes=tuple(nodes))


def missed(ir: IR) -> list[str]:
    """Attention whose queries another kernel rotates, and such as is computed step by step, with the
    reason."""
    turned = {node.outputs[0] for node in ir.nodes if node.op == "rotary"}
    producers = {output: node for node in ir.nodes for output in node.outputs}
    return [
        f"{node.name}: attention by several kernels: one takes scores that are scaled and masked, no others, "
        "of float32 and heads of known size"
        for node in ir.nodes
        if node.op == "matmul" and _is_weighted(node, producers)
    ] + [
        f"{node.name}: its queries are rotated before: heads of {node.inputs[0]} are no multiple of 16 wide"
        for node in ir.nodes
        if node.op == "attention" and node.inputs[0] in turned
    ]


def _is_weighted(node: Node, producers: Mapping[str, Node]) -> bool:
    """Whether a product is that of a softmax, perhaps reshaped, of what comes from another product."""
    found = producers.get(str(node.inputs[0]))
    while found is not None and found.op in ("reshape", "expand", "cast"):
        found = producers.get(str(found.inputs[0]))
    if found is None or found.op not in ("softmax", "safe_softmax"):
        return False
    while found is not None and found.op != "matmul":
        found = producers.get(str(found.inputs[0])) if found.inputs else None
    return found is not None


def _in_halves(turn: Node) -> bool:
    """Whether vectors of 8 lie in one half of what is rotated."""
    return as_int(turn.out.shape[-1]) % 16 == 0


def _seen_end(mask: str, reader: Node, specs: Mapping[str, TensorSpec]) -> Node:
    name = f"{mask}:seen_end"
    out = TensorSpec((*specs[mask].shape[:-1], 1), "int64")
    return Node(name, "seen_end", (mask,), (name,), (out,), loc=reader.loc, origin=reader.origin)


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
