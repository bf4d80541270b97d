"""Which stored tensors the computed part of a graph reads, and how often: one that is read once may be packed
together with others, one that is read in several places is to lie on the device once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from npu_compiler.weights import constant_exprs, keys_of
from npu_runtime.program import WeightExpr
from torch_ir.ir import IR


@dataclass(frozen=True)
class WeightReads:
    """``constants``: values that are computed when weights are loaded; ``reads``: how many operands of the
    other nodes are made of a stored tensor, by its key."""

    constants: Mapping[str, WeightExpr]
    reads: Mapping[str, int]

    @classmethod
    def of(cls, ir: IR) -> WeightReads:
        constants = constant_exprs(ir)
        reads = Counter(
            key
            for node in ir.nodes
            if not constants.keys() >= set(node.outputs)
            for value in node.inputs
            if value is not None and value in constants
            for key in set(keys_of(constants[value]))
        )
        return cls(constants, reads)

    def constant(self, values: Iterable[str | None]) -> bool:
        """Whether all of these values (absent ones do not count) are computed when weights are loaded."""
        return all(value is None or value in self.constants for value in values)

    def shared(self, values: Iterable[str]) -> str | None:
        """The key of a tensor behind these constants that more than one operand is made of; None where there
        is none."""
        keys = (key for value in values for key in keys_of(self.constants[value]))
        return min((key for key in keys if self.reads[key] > 1), default=None)
