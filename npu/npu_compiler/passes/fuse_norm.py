"""Normalisation by the root mean square, written out as language models do, becomes one kernel."""

from __future__ import annotations

from dataclasses import replace

from npu_compiler.ctext import steps_of
from npu_compiler.dtypes import HALF
from npu_compiler.target import Target
from npu_compiler.weights import constant_exprs
from torch_ir.ir import IR, Node


def fuse_norm(ir: IR, target: Target) -> IR:
    """``x * rsqrt(mean(x * x) + eps)`` over the last dimension becomes ``norm``, and takes in a vector that
    its result, perhaps rounded to 16 bits and widened again, is multiplied by. A step that something else
    reads, or that is a result, stays as it is."""
    matcher = _Matcher(ir)
    constants = constant_exprs(ir)
    nodes = []
    for node in ir.nodes:
        if node.op == "mul" and node.out.dtype == "float32" and node.outputs[0] not in constants:
            node = matcher.normalised(node) or matcher.weighted(node) or node
            matcher.producers[node.outputs[0]] = node
        nodes.append(node)
    return replace(ir, nodes=tuple(nodes))


def missed(ir: IR) -> list[str]:
    """Scales by the root of a mean that are computed apart from what they scale."""
    means = {node.outputs[0] for node in ir.nodes if node.op == "reduce_mean"}
    return [
        f"{node.name}: normalised by several kernels: this is not x * rsqrt(mean(x * x) + eps) over the last "
        "dimension, or a step of it is a result or read elsewhere"
        for node in ir.nodes
        if "rsqrt" in steps_of(node) and means.intersection(filter(None, node.inputs))
    ]


class _Matcher:
    """Looks at what makes a value, where that value has one reader."""

    def __init__(self, ir: IR) -> None:
        self.producers = {output: node for node in ir.nodes for output in node.outputs}
        self._readers = {value: len(users) for value, users in ir.users().items()}
        self._results, self._specs = ir.results(), ir.values()

    def made_by(self, value: str | None, op: str) -> Node | None:
        node = self.producers.get(value or "")
        if node is None or node.op != op or value in self._results or self._readers[str(value)] != 1:
            return None
        return node

    def normalised(self, node: Node) -> Node | None:
        """The node as ``norm`` of one of its operands, if the other is that operand's scale."""
        for x, scale in (node.inputs, node.inputs[::-1]):
            root = self.made_by(scale, "rsqrt")
            shifted = self.made_by(root.inputs[0], "add") if root else None
            mean = self.made_by(shifted.inputs[0], "reduce_mean") if shifted else None
            square = self.made_by(mean.inputs[0], "mul") if mean else None
            if x is None or not (root and shifted and mean and square) or square.inputs != (x, x):
                continue
            eps, last = shifted.attrs.get("scalar"), node.out.rank - 1
            if eps is None or mean.attrs["dims"] != (last,) or self._specs[x] != node.out:
                continue
            origin = (*square.origin, *mean.origin, *shifted.origin, *root.origin, *node.origin)
            return replace(
                node,
                op="norm",
                inputs=(x, None, None),
                attrs={"count": 1, "eps": eps, "centred": False},
                origin=tuple(dict.fromkeys(origin)),
            )
        return None

    def weighted(self, node: Node) -> Node | None:
        """The node as ``norm`` with a weight, if it multiplies one without by a vector."""
        for value, weight in (node.inputs, node.inputs[::-1]):
            wide = self.made_by(value, "cast")
            narrow = self.made_by(wide.inputs[0], "cast") if wide else None
            rounded = narrow.out.dtype if narrow and narrow.out.dtype in HALF else ""
            norm = self.made_by(narrow.inputs[0] if narrow and rounded else value, "norm")
            if norm is None or weight is None or any(v is not None for v in norm.inputs[1:]):
                continue
            if norm.attrs["count"] == 1 and self._specs[weight].shape == node.out.shape[-1:]:
                between = narrow.origin if narrow and rounded else ()
                origin = tuple(dict.fromkeys((*norm.origin, *between, *node.origin)))
                return replace(
                    norm,
                    name=node.name,
                    outputs=node.outputs,
                    origin=origin,
                    inputs=(norm.inputs[0], weight, None),
                    attrs={**norm.attrs, "rounded": rounded} if rounded else norm.attrs,
                    loc=node.loc,
                )
        return None
