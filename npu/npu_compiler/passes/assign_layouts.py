"""Chooses how each value lies in memory: row-major, or channels last in blocks ("nhwc8", "nhwc8_spaced")."""

from __future__ import annotations

from dataclasses import replace

from npu_compiler.ops import op_def
from npu_compiler.target import Target
from torch_ir.ir import IR, ITEM_SIZE, Node, TensorSpec

#: Bytes: pixels that lie a multiple of this apart share few of a processor's cache sets, and few of a
#: memory's banks. One channel of many pixels after the other, read and written on two cores: 8.1 ns a line
#: with 4 KiB between pixels, 1.8 with 1 KiB, 1.4 with 64 bytes more.
CROWDED = 1024


def assign_layouts(ir: IR, target: Target) -> IR:
    """Convolutions and pooling write channels last; elementwise ops follow their inputs; all else is
    row-major.

    Kernels read any strides, so no conversion is inserted: a program output in another layout is copied at
    the end.
    """
    layouts = {name: spec.layout for name, spec in ir.values().items()}
    outputs = {output.value for output in ir.outputs}
    nodes: list[Node] = []
    for node in ir.nodes:
        op = op_def(node.op)
        given = [layouts[value] if value is not None else None for value in node.inputs]
        if op.alias is not None:
            kept = node.op == "slice" and given[0] is not None
            layouts[node.outputs[0]] = str(given[0]) if kept else "row"
            nodes.append(node)
            continue
        if op.layout is not None:
            layout = op.layout(node, given)
        elif op.expr is not None or node.op == "pointwise":
            blocked = node.out.rank == 4 and "nhwc8" in given and node.outputs[0] not in outputs
            layout = "nhwc8" if blocked else "row"
        else:
            layout = "row"
        outs = tuple(replace(spec, layout=layout if spec.rank == 4 else "row") for spec in node.outs)
        layouts.update((output, spec.layout) for output, spec in zip(node.outputs, outs, strict=True))
        if target.device_type == "cpu":
            outs = tuple(map(_spaced, outs))
        nodes.append(replace(node, outs=outs))
    return replace(ir, nodes=tuple(nodes))


def _spaced(spec: TensorSpec) -> TensorSpec:
    """``spec`` with space between pixels that would lie a multiple of CROWDED apart."""
    if spec.layout == "nhwc8" and spec.shape[1] * ITEM_SIZE[spec.dtype] % CROWDED == 0:
        return replace(spec, layout="nhwc8_spaced")
    return spec
