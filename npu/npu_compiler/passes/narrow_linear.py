"""Rows of a linear layer that nothing reads are not computed: a language model's logits, of which a program
keeps those of the last position."""

from __future__ import annotations

from dataclasses import replace

from npu_compiler.lowering import as_int
from npu_compiler.target import Target
from torch_ir.ir import IR


def narrow_linear(ir: IR, target: Target) -> IR:
    """``slice(linear(x))`` becomes ``linear(slice(x))`` where the slice is the layer's only reader and does
    not cut its last dimension. Through a chain of layers it moves to the front."""
    while (moved := _move_one(ir)) is not None:
        ir = moved
    return ir


def _move_one(ir: IR) -> IR | None:
    users, results, values = ir.users(), ir.results(), ir.values()
    layers = {node.outputs[0]: at for at, node in enumerate(ir.nodes) if node.op == "linear"}
    for index, cut in enumerate(ir.nodes):
        name = cut.inputs[0] if cut.op == "slice" else None
        if name is None or name not in layers or name in results or len(users[name]) > 1:
            continue
        at, dim = layers[name], as_int(cut.attrs["dim"])
        layer, length = ir.nodes[at], cut.out.shape[dim]
        if dim == layer.out.rank - 1 or len(layer.inputs) > 3:
            continue
        x = values[str(layer.inputs[0])]
        narrow = replace(x, shape=(*x.shape[:dim], length, *x.shape[dim + 1 :]))
        nodes = list(ir.nodes)
        # the value between the two keeps its name, although it is now the layer's input
        nodes[at] = replace(cut, inputs=(layer.inputs[0],), outputs=(name,), outs=(narrow,))
        nodes[index] = replace(layer, inputs=(name, *layer.inputs[1:]), outputs=cut.outputs, outs=cut.outs)
        return replace(ir, nodes=tuple(nodes))
    return None
