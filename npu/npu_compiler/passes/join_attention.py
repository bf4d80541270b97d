"""Attention that a model writes out, product by product, becomes one node: as where scores are capped."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

from npu_compiler.dtypes import HALF
from npu_compiler.ops.fused_attention import fits
from npu_compiler.target import Target
from torch_ir.ir import IR, Node, TensorSpec


def join_attention(ir: IR, target: Target) -> IR:
    """``safe_softmax(where(not seen, -inf, tanh(q @ k.T * scale / cap) * cap)) @ v`` becomes ``attention``,
    with or without capping and mask. Weights that are rounded to 16 bits before the last product no longer
    are.

    Machines of work-groups have no kernel with capping."""
    matcher = _Matcher(ir, target)
    return replace(ir, nodes=tuple(matcher.attention(node) or node for node in ir.nodes))


class _Matcher:
    def __init__(self, ir: IR, target: Target) -> None:
        self._producers = {output: node for node in ir.nodes for output in node.outputs}
        self._specs: Mapping[str, TensorSpec] = ir.values()
        self._caps = target.group == 1

    def made_by(self, value: str | None, op: str) -> Node | None:
        node = self._producers.get(value or "")
        return node if node is not None and node.op == op else None

    def attention(self, node: Node) -> Node | None:
        """The node as ``attention``, if it is the product that ends the pattern."""
        if node.op != "matmul" or node.out.dtype != "float32" or node.out.rank != 4:
            return None
        parts = [node]

        def step(value: str | None, op: str) -> Node | None:
            found = self.made_by(value, op)
            parts.extend([found] if found is not None else [])
            return found

        softmax = step(self._before_casts(node.inputs[0]), "safe_softmax")
        if softmax is None or softmax.attrs["dim"] != 3 or softmax.out.dtype != "float32":
            return None
        scores, mask = softmax.inputs[0], None
        hidden = step(scores, "where")
        if hidden is not None:
            unseen = self.made_by(hidden.inputs[0], "logical_not")
            if hidden.inputs[1] is not None or hidden.attrs.get("scalar") != -math.inf or unseen is None:
                return None
            scores, mask = hidden.inputs[2], unseen.inputs[0]
        cap = 0.0
        scaled = step(scores, "mul")
        tanh = step(scaled.inputs[0], "tanh") if scaled is not None else None
        if scaled is not None and tanh is not None:
            divided = step(tanh.inputs[0], "div")
            cap = _scalar(scaled)
            if divided is None or cap <= 0 or cap != _scalar(divided) or not self._caps:
                return None
            scores = divided.inputs[0]
            scaled = step(scores, "mul")
        scale = 1.0 if scaled is None else _scalar(scaled)
        product = step(scores if scaled is None else scaled.inputs[0], "matmul")
        turned = self.made_by(self._stored(product.inputs[1]), "permute") if product is not None else None
        if product is None or turned is None or turned.attrs["dims"] != (0, 1, 3, 2) or not scale:
            return None
        inputs = (product.inputs[0], turned.inputs[0], node.inputs[1], mask)
        q, k, v, seen = (self._specs[value] if value is not None else None for value in inputs)
        if q is None or k is None or v is None or not fits(q, k, v, seen):
            return None
        return replace(
            node,
            op="attention",
            inputs=inputs if mask is not None else inputs[:3],
            attrs={"scale": scale, "causal": False, **({"cap": cap} if cap else {})},
            origin=tuple(dict.fromkeys(name for part in reversed(parts) for name in part.origin)),
        )

    def _stored(self, value: str | None) -> str | None:
        """What a value widens to float32, or itself."""
        node = self.made_by(value, "cast")
        source = node.inputs[0] if node is not None and node.out.dtype == "float32" else None
        return source if source is not None and self._specs[source].dtype in HALF else value

    def _before_casts(self, value: str | None) -> str | None:
        """What a value was before it was rounded to 16 bits and widened."""
        node = self.made_by(value, "cast")
        while node is not None and (node.out.dtype == "float32" or node.out.dtype in HALF):
            value = node.inputs[0]
            node = self.made_by(value, "cast")
        return value


def _scalar(node: Node) -> float:
    """The number that a node of one operand works with; 0 where that is a tensor."""
    number = node.attrs.get("scalar")
    return float(number) if isinstance(number, (int, float)) and node.inputs[1] is None else 0.0
