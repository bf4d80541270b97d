"""New keys and values reach the cache of attention by one kernel, which rotates and rounds the keys."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from npu_compiler.target import Target
from torch_ir.ir import IR, Node, TensorSpec


def fuse_cache(ir: IR, target: Target) -> IR:
    """Two ``scatter_along`` of rows at the same places, into the keys and the values of one attention node,
    become ``cache_rows``; it takes in the rotation of the keys, and casts from float32."""
    specs, users = ir.values(), ir.users()
    producers = {output: node for node in ir.nodes for output in node.outputs}
    order = {node.name: place for place, node in enumerate(ir.nodes)}
    made: dict[str, Node] = {}
    dropped: set[str] = set()
    for attention in ir.nodes:
        if attention.op != "attention":
            continue
        pair = [producers.get(str(value)) for value in attention.inputs[1:3]]
        keys, values = pair
        if keys is None or values is None or keys is values or {keys.name, values.name} & dropped:
            continue
        found = _cache_rows(keys, values, producers, specs)
        first, last = sorted((keys, values), key=lambda node: order[node.name])
        early = any(order[user.name] < order[last.name] for user in users[first.outputs[0]])
        if found is not None and not early:
            made[last.name] = found
            dropped |= {keys.name, values.name}
    nodes = (made.get(node.name, node) for node in ir.nodes if node.name in made or node.name not in dropped)
    return replace(ir, nodes=tuple(nodes))


def missed(ir: IR) -> list[str]:
    """Attention over what was written to a cache row by row, by two kernels."""
    producers = {output: node for node in ir.nodes for output in node.outputs}
    return [
        f"{node.name}: its cache is updated by two kernels: these are not rows of float32 at the same places"
        for node in ir.nodes
        if node.op == "attention"
        and any((made := producers.get(str(v))) and made.op == "scatter_along" for v in node.inputs[1:3])
    ]


def _cache_rows(
    keys: Node, values: Node, producers: Mapping[str, Node], specs: Mapping[str, TensorSpec]
) -> Node | None:
    places = [_places(node, producers, specs) for node in (keys, values)]
    if places[0] is None or places[0] != places[1] or specs[places[0]].dtype != "int64":
        return None
    k, v = (_wide(str(node.inputs[2]), producers, specs) for node in (keys, values))
    if specs[k].dtype != "float32" or specs[v].dtype != "float32":
        return None
    turn = producers.get(k)
    tables: tuple[str | None, ...] = ()
    parts = [keys, values]
    if turn is not None and turn.op == "rotary":
        k, *rest = (str(value) for value in turn.inputs)
        tables, parts = tuple(rest), [turn, keys, values]
    origin = tuple(dict.fromkeys(name for part in parts for name in part.origin))
    return replace(
        values,
        op="cache_rows",
        inputs=(keys.inputs[0], values.inputs[0], k, v, places[0], *tables),
        outputs=(*keys.outputs, *values.outputs),
        outs=(*keys.outs, *values.outs),
        attrs={},
        origin=origin,
    )


def _places(node: Node, producers: Mapping[str, Node], specs: Mapping[str, TensorSpec]) -> str | None:
    """The vector of places that whole rows are written to, where the node writes such rows."""
    if node.op != "scatter_along" or node.attrs["dim"] != 2 or node.out.rank != 4:
        return None
    wide = producers.get(str(node.inputs[1]))
    line = producers.get(str(wide.inputs[0])) if wide is not None and wide.op == "expand" else None
    if wide is None or line is None or line.op != "reshape":
        return None
    vector = str(line.inputs[0])
    count = wide.out.shape[2]
    whole = (*node.out.shape[:2], count, node.out.shape[3])
    fits = wide.out.shape == whole and line.out.shape == (1, 1, count, 1) and specs[vector].shape == (count,)
    return vector if fits else None


def _wide(value: str, producers: Mapping[str, Node], specs: Mapping[str, TensorSpec]) -> str:
    """What ``value`` rounds to 16 bits."""
    node = producers.get(value)
    source = node.inputs[0] if node is not None and node.op == "cast" else None
    return source if source is not None and specs[source].dtype == "float32" else value
