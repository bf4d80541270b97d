"""Chains and trees of elementwise ops of one shape become one kernel."""

from __future__ import annotations

from dataclasses import replace

from npu_compiler.ctext import Operand, Step, unpack_body
from npu_compiler.ops import op_def
from npu_compiler.target import Target
from npu_compiler.weights import constant_exprs
from torch_ir.ir import IR, Node

#: OpenCL devices take at least 8 constant and many more global arguments; beyond this a kernel is only harder
#: to read.
MAX_INPUTS = 12
MAX_STEPS = 48


def fuse_pointwise(ir: IR, target: Target) -> IR:
    """Each elementwise node takes in the elementwise producers of its inputs that nothing else reads."""
    constants = constant_exprs(ir)
    readers = {value: len(users) for value, users in ir.users().items()}
    results = ir.results()
    groups: dict[str, Node] = {}
    nodes: dict[str, Node] = {}
    for node in ir.nodes:
        final = node
        if op_def(node.op).expr is not None and node.outputs[0] not in constants:
            absorbed: list[str] = []
            for value in dict.fromkeys(node.inputs):
                producer = groups.get(value or "")
                if (
                    producer is None
                    or value in results
                    or readers[str(value)] != 1
                    or producer.out.shape != node.out.shape
                ):
                    continue
                merged = _merge(node, [groups[name] for name in (*absorbed, str(value))])
                if len(merged.inputs) <= MAX_INPUTS and len(unpack_body(merged.attrs["body"])) <= MAX_STEPS:
                    absorbed.append(str(value))
            if absorbed:
                final = _merge(node, [groups[name] for name in absorbed])
                for name in absorbed:
                    nodes.pop(groups[name].name)
            groups[final.outputs[0]] = final
        nodes[final.name] = final
    return replace(ir, nodes=tuple(nodes.values()))


def as_body(node: Node) -> tuple[tuple[Step, ...], tuple[str, ...]]:
    """An elementwise node as a body and its inputs."""
    inputs = tuple(value for value in node.inputs if value is not None)
    if node.op == "pointwise":
        return unpack_body(node.attrs["body"]), inputs
    unique = tuple(dict.fromkeys(inputs))
    operands: tuple[Operand, ...] = tuple(
        f"i{unique.index(value)}" if value is not None else node.attrs["scalar"]  # type: ignore[misc]
        for value in node.inputs
    )
    attrs = {name: value for name, value in node.attrs.items() if name != "scalar"}
    return (Step(node.op, operands, attrs, node.out.dtype),), unique


def _merge(node: Node, producers: list[Node]) -> Node:
    inputs: list[str] = []
    steps: list[Step] = []
    results: dict[str, str] = {}

    def add(body: tuple[Step, ...], sources: tuple[str, ...]) -> str:
        names: dict[Operand, Operand] = {}
        for index, value in enumerate(sources):
            if value in results:
                names[f"i{index}"] = results[value]
            else:
                if value not in inputs:
                    inputs.append(value)
                names[f"i{index}"] = f"i{inputs.index(value)}"
        base = len(steps)
        for index, step in enumerate(body):
            steps.append(
                replace(
                    step, operands=tuple(names.get(o, o) if isinstance(o, str) else o for o in step.operands)
                )
            )
            names[f"t{index}"] = f"t{base + index}"
        return f"t{len(steps) - 1}"

    for producer in producers:
        results[producer.outputs[0]] = add(*as_body(producer))
    add(*as_body(node))
    origin = tuple(dict.fromkeys(name for part in (*producers, node) for name in part.origin))
    return replace(
        node,
        op="pointwise",
        inputs=tuple(inputs),
        attrs={"body": tuple(step.pack() for step in steps)},
        origin=origin,
    )
