"""Elementwise ops after a matrix product or convolution move into its kernel, where the result is still in
registers."""

from __future__ import annotations

import re
from dataclasses import replace

from npu_compiler.ctext import Operand, Step, unpack_body
from npu_compiler.ops import op_def
from npu_compiler.target import Target
from npu_compiler.weights import constant_exprs
from torch_ir.ir import IR, Attr, Node

#: Where the residual operand stands in the inputs of every op that can have an epilogue.
RESIDUAL = 3
NOT_ON_VECTORS = frozenset({"where", "cast"})
#: Functions of templates/lib take scalars, but for these.
_ON_SCALARS = re.compile(r"npu_(?!erf_)")


def fuse_epilogue(ir: IR, target: Target) -> IR:
    """``relu(conv(x) + y)`` becomes one node: steps on the result, of which one may read another tensor of
    its shape.

    A result that something else reads, or that is an output, is not fused over.
    """
    constants = constant_exprs(ir)
    readers = {value: len(users) for value, users in ir.users().items()}
    results = ir.results()
    hosts: dict[str, Node] = {}
    order = {output: index for index, node in enumerate(ir.nodes) for output in node.outputs}
    nodes: dict[str, Node] = {}
    for node in ir.nodes:
        op = op_def(node.op)
        fused = None
        if (
            op.expr is not None
            and node.op not in NOT_ON_VECTORS
            and not _ON_SCALARS.search(op.expr)
            and node.out.dtype == "float32"
            and node.outputs[0] not in constants
        ):
            candidates = [
                value
                for value in node.inputs
                if value in hosts
                and value not in results
                and readers[value] == 1
                and hosts[value].out == node.out
            ]
            for value in sorted(candidates, key=lambda v: -order[v]):
                fused = _fuse(ir, node, hosts[value], value)
                if fused is not None:
                    nodes.pop(hosts[value].name)
                    break
        final = fused or node
        nodes[final.name] = final
        if op_def(final.op).epilogue and all(v is None or v in constants for v in final.inputs[1:RESIDUAL]):
            hosts[final.outputs[0]] = final
            order[final.outputs[0]] = order[node.outputs[0]]
    return replace(ir, nodes=tuple(nodes.values()))


def _fuse(ir: IR, node: Node, host: Node, value: str) -> Node | None:
    body = unpack_body(host.attrs.get("epilogue", ()))
    residual = host.inputs[RESIDUAL] if len(host.inputs) > RESIDUAL else None
    operands: list[Operand] = []
    for name in node.inputs:
        if name is None:
            operands.append(_scalar(node.attrs["scalar"]))
        elif name == value:
            operands.append(f"t{len(body) - 1}" if body else "i0")
        elif residual is None or name == residual:
            spec = ir.values()[name]
            if (spec.shape, spec.dtype) != (node.out.shape, node.out.dtype):
                return None
            residual = name
            operands.append("i1")
        else:
            return None
    step = Step(
        node.op, tuple(operands), {k: v for k, v in node.attrs.items() if k != "scalar"}, node.out.dtype
    )
    inputs = [*host.inputs, *(None for _ in range(RESIDUAL - len(host.inputs)))][:RESIDUAL]
    attrs = {**host.attrs, "epilogue": tuple(s.pack() for s in (*body, step))}
    return replace(
        host,
        name=node.name,
        outputs=node.outputs,
        inputs=(*inputs, *((residual,) if residual else ())),
        attrs=attrs,
        origin=(*host.origin, *node.origin),
    )


def _scalar(attr: Attr) -> float:
    assert isinstance(attr, (int, float))
    return attr
