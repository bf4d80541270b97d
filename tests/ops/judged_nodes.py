"""What becomes of graphs with one change, and what PyTorch says of them."""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from aten_cases import CALLS, Calling
from changed_nodes import alone, changed

from npu_compiler import compile_ir
from npu_compiler.errors import CompileError
from npu_compiler.interpret import interpret
from torch_ir import IRError, extract_ir
from torch_ir.check_results import check_results
from torch_ir.ir import IR, TensorSpec
from torch_ir.printer import node_text

#: Elements that a value may have to be computed.
LIMIT = 1 << 20


@dataclass(frozen=True)
class Judged:
    """``outcome``: refused, "as PyTorch", another result, an internal error, or PyTorch refuses."""

    outcome: str
    graph: IR
    detail: str = ""

    def __str__(self) -> str:
        (node,) = self.graph.nodes
        operands = ", ".join(f"{spec.dtype}{list(spec.shape)}" for spec in self.graph.inputs.values())
        return f"{self.outcome}: {node_text(node)} of {operands}: {self.detail}"


def single_nodes(calls: Iterable[str]) -> list[IR]:
    """The nodes of sample calls, static ones that differ."""
    found: dict[str, IR] = {}
    for name in calls:
        function, inputs = CALLS[name]
        for graph in alone(extract_ir(Calling(function).eval(), inputs, model_name=name)):
            text = node_text(graph.nodes[0]).split("#")[0].split("=", 1)[-1]
            found.setdefault(f"{text} {list(graph.inputs.values())}", graph)
    return [graph for graph in found.values() if not graph.symbols]


def judge(graph: IR, seed: int) -> Judged:
    """One change in the graph, as the seed draws it: compiled, and held against PyTorch."""
    made = changed(graph, random.Random(seed))
    if any(int(str(spec.numel)) > LIMIT for spec in (*made.inputs.values(), *made.nodes[0].outs)):
        return Judged("too large", made)
    try:
        made.verify()
        check_results(made)
        compile_ir(made)
    except (IRError, CompileError) as error:
        return Judged("internal" if ": internal: " in str(error) else "refused", made, str(error))
    drawn = {name: _drawn(spec) for name, spec in made.inputs.items()}
    try:
        results = interpret(made, drawn).outputs.values()
    except Exception as error:  # whatever PyTorch's operations raise
        return Judged("PyTorch refuses", made, str(error).split("\n")[0])
    found = [(tuple(tensor.shape), str(tensor.dtype).removeprefix("torch.")) for tensor in results]
    says = [(spec.shape, spec.dtype) for spec in made.nodes[0].outs]
    return Judged("as PyTorch" if found == says else "another result", made, f"PyTorch makes {found}")


def _drawn(spec: TensorSpec) -> torch.Tensor:
    dtype, shape = getattr(torch, spec.dtype), [int(str(size)) for size in spec.shape]
    return torch.rand(shape).to(dtype) if dtype.is_floating_point else torch.zeros(shape, dtype=dtype)
