"""One node of a lowered graph as a graph of its own, so that its kernels can be measured alone."""

from __future__ import annotations

from dataclasses import replace

from npu_compiler.subgraph import subgraph
from npu_compiler.weights import constant_exprs
from torch_ir.ir import IR, Node, Output, TensorSpec


def isolated(ir: IR, name: str) -> IR:
    """The node ``name`` of ``ir``, with the constants that it reads, between copies: its inputs come
    row-major from the graph's and take the layout that they have in ``ir``, and the 16 bits that they may lie
    in; its results go back to row-major.

    Raises ``KeyError`` for a name that no node has."""
    nodes = {node.name: node for node in ir.nodes}
    specs, constants = ir.values(), constant_exprs(ir)
    makers = {output: node for node in ir.nodes for output in node.outputs}
    node = nodes[name]
    kept: dict[str, Node] = {}
    waiting = [value for value in node.inputs if value in constants]
    while waiting:
        maker = makers.get(str(waiting.pop()))
        if maker is not None and maker.name not in kept:
            kept[maker.name] = maker
            waiting += [value for value in maker.inputs if value is not None]
    data = [value for value in dict.fromkeys(node.inputs) if value is not None and value not in constants]
    half = bool(node.attrs.get("half"))  # what such a node reads may lie in 16 bits, which a copy may write
    moved = {
        value: f"{value}.moved"
        for value in data
        if specs[value].layout != "row" or (half and specs[value].dtype == "float32")
    }
    arrivals = [_move(value, specs[value], moved[value], specs[value].layout) for value in moved]
    results = {value: f"{value}.row" for value in node.outputs if specs[value].layout != "row"}
    departures = [_move(value, specs[value], results[value], "row") for value in results]
    inputs = tuple(moved.get(str(value), value) if value is not None else None for value in node.inputs)
    part = subgraph(
        ir,
        [
            *(other for other in ir.nodes if other.name in kept),
            *arrivals,
            replace(node, inputs=inputs, origin=(name,)),
            *departures,
        ],
        data,
        [Output(value, results.get(value, value)) for value in node.outputs],
        {},
    )
    return replace(part, inputs={key: replace(spec, layout="row") for key, spec in part.inputs.items()})


def _move(value: str, spec: TensorSpec, name: str, layout: str) -> Node:
    out = replace(spec, layout=layout)
    return Node(name, "cast", (value,), (name,), (out,), {"dtype": f"torch.{spec.dtype}"})
