"""Rotary embedding, written out as transformers does, becomes one op, which attention and the cache's update
take in."""

from __future__ import annotations

from dataclasses import replace

from npu_compiler.ctext import steps_of
from npu_compiler.dtypes import HALF
from npu_compiler.target import Target
from torch_ir.ir import IR, Node


def fuse_rotary(ir: IR, target: Target) -> IR:
    """``x * cos + cat(-x[.., half:], x[.., :half]) * sin`` becomes ``rotary(x, cos, sin)``; tables that are
    only widened to float32 for it are read as they are stored."""
    matcher = _Matcher(ir)
    return replace(ir, nodes=tuple(matcher.rotary(node) or node for node in ir.nodes))


def missed(ir: IR) -> list[str]:
    """Graphs that compute both sines and cosines for attention, and rotate nothing."""
    ops = {step for node in ir.nodes for step in steps_of(node)}
    if {"sin", "cos", "attention"} <= ops and not any(_rotates(node) for node in ir.nodes):
        return ["rotary embedding: not found as x * cos + cat(-x2, x1) * sin of two halves x1 and x2 of x"]
    return []


def _rotates(node: Node) -> bool:
    tables = {"attention": 5, "attention_step": 8}.get(node.op)
    return node.op in ("rotary", "cache_rows") or (tables is not None and len(node.inputs) > tables)


class _Matcher:
    def __init__(self, ir: IR) -> None:
        self._producers = {output: node for node in ir.nodes for output in node.outputs}
        self._specs = ir.values()

    def made_by(self, value: str | None, op: str) -> Node | None:
        node = self._producers.get(value or "")
        return node if node is not None and node.op == op else None

    def rotary(self, node: Node) -> Node | None:
        """The node as ``rotary``, if it is the sum that ends the pattern."""
        if node.op != "add" or node.out.dtype != "float32" or None in node.inputs:
            return None
        for straight, crossed in (node.inputs, node.inputs[::-1]):
            plain, turned = self.made_by(straight, "mul"), self.made_by(crossed, "mul")
            if plain is None or turned is None or None in (*plain.inputs, *turned.inputs):
                continue
            for halves, sin in (turned.inputs, turned.inputs[::-1]):
                x = self._turned(halves)
                if x is None or x not in plain.inputs or self._specs[x] != node.out:
                    continue
                cos = plain.inputs[1] if plain.inputs[0] == x else plain.inputs[0]
                if not (self._is_table(cos, x) and self._is_table(sin, x)):
                    continue
                origin = tuple(dict.fromkeys((*plain.origin, *turned.origin, *node.origin)))
                inputs = (x, self._stored(str(cos)), self._stored(str(sin)))
                return replace(node, op="rotary", inputs=inputs, attrs={}, origin=origin)
        return None

    def _turned(self, value: str | None) -> str | None:
        """``x`` of ``cat(-x[.., half:], x[.., :half])``."""
        joined = self.made_by(value, "concat")
        if joined is None or len(joined.inputs) != 2 or joined.attrs["dim"] != joined.out.rank - 1:
            return None
        negated = self.made_by(joined.inputs[0], "neg")
        second = self.made_by(negated.inputs[0], "slice") if negated else None
        first = self.made_by(joined.inputs[1], "slice")
        if first is None or second is None or first.inputs != second.inputs:
            return None
        width = joined.out.shape[-1]
        if not isinstance(width, int) or width % 2:
            return None
        wanted = {"dim": joined.out.rank - 1, "step": 1, "length": width // 2}
        fits = all(
            part.attrs == {**wanted, "start": start} for part, start in ((first, 0), (second, width // 2))
        )
        return first.inputs[0] if fits else None

    def _is_table(self, value: str | None, x: str) -> bool:
        """Whether a value has the width of ``x`` and repeats over its other dimensions."""
        spec, rows = self._specs[str(value)], self._specs[x]
        lead = rows.rank - spec.rank
        return (
            spec.rank >= 1
            and lead >= 0
            and spec.shape[-1] == rows.shape[-1]
            and all(size in (1, whole) for size, whole in zip(spec.shape, rows.shape[lead:], strict=True))
        )

    def _stored(self, value: str) -> str:
        node = self.made_by(value, "cast")
        source = node.inputs[0] if node is not None else None
        return source if source is not None and self._specs[source].dtype in HALF else value
