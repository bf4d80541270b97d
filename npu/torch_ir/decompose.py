"""Lets PyTorch make a graph functional, where renaming values is not enough; composite operations stay."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from torch_ir.ir import Node


def make_functional(program: Any) -> Any:
    """The ``ExportedProgram`` without in-place operations, the casts of autocast regions written out."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return program.run_decompositions({})


def restore_composites(nodes: Sequence[Node], outputs: Sequence[str | None]) -> list[Node]:
    """Batch-norm as the one-output operation that it was before ``make_functional``."""
    read = {name for node in nodes for name in node.inputs} | set(outputs)
    restored = []
    for node in nodes:
        if node.op == "aten._native_batch_norm_legit_no_training.default" and not read & set(
            node.outputs[1:]
        ):
            attrs = {
                "training": False,
                "momentum": node.attrs["momentum"],
                "eps": node.attrs["eps"],
                "cudnn_enabled": False,
            }
            node = replace(
                node, op="aten.batch_norm.default", attrs=attrs, outputs=node.outputs[:1], outs=node.outs[:1]
            )
        restored.append(node)
    return restored
