"""Values that a model has in 16 bits and that lie on a GPU so between kernels: what only products of 16-bit
models read is rounded where it is made, as the model itself does, and moves half the bytes."""

from __future__ import annotations

from collections.abc import Container

from npu_compiler.ops import op_def
from npu_compiler.target import Target
from torch_ir.ir import IR, Node

#: Ops whose kernels for work-groups can write 16 bits.
WRITERS = frozenset(
    {"attention", "attention_step", "conv", "gated", "linear", "norm", "pointwise", "max_pool", "avg_pool"}
)
_PRODUCTS = ("conv", "linear", "gated")
#: Where products read a value that may be in 16 bits: the input and the residual.
_READ = (0, 3)


def half_values(ir: IR, target: Target, constants: Container[str]) -> dict[str, str]:
    """value -> dtype in memory, for values of float32 that may lie there in 16 bits.

    All that reads them (through views too) are products of one dtype of 16 bits, or pooling of such a value
    whose own result is one of them."""
    if target.group == 1:
        return {}
    found: dict[str, str] = {}
    users: dict[str, list[tuple[Node, int]]] = {}
    for node in ir.nodes:
        for at, value in enumerate(node.inputs):
            if value is not None:
                users.setdefault(value, []).append((node, at))
    results = ir.results()

    def packed(node: Node) -> bool:
        """Whether a product's weights are there before the run, as its kernels for 16 bits take them."""
        return all(weight is None or weight in constants for weight in node.inputs[1:3])

    def wanted(value: str) -> set[str]:
        """The dtypes in which the readers of ``value`` take it; "" for one that takes float32 alone."""
        if value in results:
            return {""}
        dtypes: set[str] = set()
        for node, at in users.get(value, ()):
            if op_def(node.op).alias is not None or node.op in ("max_pool", "avg_pool"):
                dtypes |= wanted(node.outputs[0])
            elif node.op in _PRODUCTS and at in _READ:
                whole = at == 0 and "norm_eps" in node.attrs  # rows that are normalised before
                dtypes.add(str(node.attrs.get("half", "")) if packed(node) and not whole else "")
            else:
                dtypes.add("")
        return dtypes

    for node in ir.nodes:
        for value, spec in zip(node.outputs, node.outs, strict=True):
            writes = packed(node) if node.op in _PRODUCTS else node.op in WRITERS
            if spec.dtype == "float32" and (writes or op_def(node.op).expr is not None):
                dtypes = wanted(value)
                if len(dtypes) == 1 and "" not in dtypes:
                    found[value] = dtypes.pop()
    return found
