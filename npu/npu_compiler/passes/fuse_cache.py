"""New keys and values reach the cache of attention by one kernel, which rotates and rounds the keys."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from npu_compiler.target import Target
from torch_ir.ir import IR, Node, TensorSpec


def fuse_cache(ir: IR, target: Target) -> IR:
    """What writes rows of one attention node's keys and values becomes ``cache_rows``, which takes in the
    rotation of the keys, and casts from float32.

    Two ``scatter_along`` at the same places, whose results are attended to; or two ``insert`` at the first
    places of what is attended to: then ``cache_rows`` gives the rotated keys as well, as they were before
    the cache rounded them."""
    specs, users = ir.values(), ir.users()
    producers = {output: node for node in ir.nodes for output in node.outputs}
    order = {node.name: place for place, node in enumerate(ir.nodes)}
    inserted = _inserted(ir, producers, specs)
    made: dict[str, tuple[Node, ...]] = {}
    dropped: set[str] = set()
    for attention in (node for node in ir.nodes if node.op == "attention"):
        k, v = (str(value) for value in attention.inputs[1:3])
        prompt = k in inserted and v in inserted
        keys, values = (inserted[x] if prompt else producers.get(x) for x in (k, v))
        if keys is None or values is None or keys is values or {keys.name, values.name} & dropped:
            continue
        places, other = (None if prompt else _places(node, producers, specs) for node in (keys, values))
        if places != other or (places is None and not prompt):
            continue
        found = _cache_rows(keys, values, places, producers, specs)
        at = attention if prompt else max(keys, values, key=lambda node: order[node.name])
        readers = (*users.get(keys.outputs[0], ()), *users.get(values.outputs[0], ()))
        if found is None or any(order[user.name] < order[at.name] for user in readers):
            continue
        made[at.name] = _keeping(attention, found, specs) if prompt else (found,)
        dropped |= {keys.name, values.name}
    nodes: list[Node] = []
    for node in ir.nodes:
        nodes += made.get(node.name, () if node.name in dropped else (node,))
    return replace(ir, nodes=tuple(nodes))


def missed(ir: IR) -> list[str]:
    """Attention over what is written to a cache by two kernels."""
    producers = {output: node for node in ir.nodes for output in node.outputs}
    inserted = _inserted(ir, producers, ir.values())
    return [
        f"{node.name}: its cache is updated by two kernels: these are not rows of float32 at the same places"
        for node in ir.nodes
        if node.op == "attention"
        and any(
            v in inserted or ((made := producers.get(str(v))) and made.op == "scatter_along")
            for v in node.inputs[1:3]
        )
    ]


def _inserted(ir: IR, producers: Mapping[str, Node], specs: Mapping[str, TensorSpec]) -> dict[str, Node]:
    """Values of float32 by name, each with the node that writes it, perhaps rounded, to the first places of a
    state."""
    return {
        source: node
        for node in ir.nodes
        if node.op == "insert"
        and node.out.rank == 4
        and (node.attrs["dim"], node.attrs["start"], node.attrs["step"]) == (2, 0, 1)
        and node.inputs[0] in ir.states
        and specs[source := _wide(str(node.inputs[1]), producers, specs)].dtype == "float32"
    }


def _keeping(attention: Node, rows: Node, specs: Mapping[str, TensorSpec]) -> tuple[Node, Node]:
    """``rows`` and ``attention``, the one giving the other the keys that it rotates."""
    if len(rows.inputs) == 4:
        return rows, attention
    q, k, *rest = attention.inputs
    name = f"{k}:kept"
    rows = replace(
        rows, attrs={"kept": True}, outputs=(*rows.outputs, name), outs=(*rows.outs, specs[str(k)])
    )
    return rows, replace(attention, inputs=(q, name, *rest))


def _cache_rows(
    keys: Node,
    values: Node,
    places: str | None,
    producers: Mapping[str, Node],
    specs: Mapping[str, TensorSpec],
) -> Node | None:
    """The node that writes the rows of both to ``places``; without them, to the first ones."""
    k, v = (_wide(str(node.inputs[-1]), producers, specs) for node in (keys, values))
    if keys.out.shape[:3] != values.out.shape[:3] or specs[k].shape[:3] != specs[v].shape[:3]:
        return None
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
        inputs=(keys.inputs[0], values.inputs[0], k, v, *((places, *tables) if tables or places else ())),
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
    return vector if fits and specs[vector].dtype == "int64" else None


def _wide(value: str, producers: Mapping[str, Node], specs: Mapping[str, TensorSpec]) -> str:
    """What ``value`` rounds to 16 bits."""
    node = producers.get(value)
    source = node.inputs[0] if node is not None and node.op == "cast" else None
    return source if source is not None and specs[source].dtype == "float32" else value
