"""Between which numbers a program's integer outputs lie, whatever its inputs: what takes them for indices
need not look at them."""

from __future__ import annotations

from npu_compiler.ops import op_def
from torch_ir.expr import bounds_of
from torch_ir.ir import IR


def output_bounds(ir: IR, value: str) -> tuple[int | None, int | None]:
    """The smallest and the largest number that ``value`` of a lowered graph can hold, by the record of the op
    that makes it; views are looked through. (None, None): nothing is known."""
    producers = {output: node for node in ir.nodes for output in node.outputs}
    specs = ir.values()
    dtype = specs[value].dtype
    while (node := producers.get(value)) is not None:
        op = op_def(node.op)
        if op.bounds is not None:
            inputs = [None if name is None else specs[name] for name in node.inputs]
            found = op.bounds(node, inputs)[node.outputs.index(value)]
            if found is None:
                break
            return bounds_of(found[0], ir.symbols)[0], bounds_of(found[1], ir.symbols)[1]
        if op.alias is None or not node.inputs or node.inputs[0] is None:
            break
        value = node.inputs[0]
        if specs[value].dtype != dtype:
            break
    return None, None
