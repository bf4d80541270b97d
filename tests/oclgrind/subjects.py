"""What is simulated: graphs of the registry's ops with inputs, weights and results."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import graphs
import numpy as np
import torch
from torch import nn

from npu_compiler.emit import Options
from torch_ir import extract_ir
from torch_ir.ir import IR

if TYPE_CHECKING:
    from op_graphs import Sample


@dataclass(frozen=True)
class Subject:
    """A lowered graph and what goes in. ``expected()`` gives its outputs by name; ``faulty``: some index is
    out of range, and the run must end with the error that says so."""

    graph: IR
    inputs: Mapping[str, np.ndarray[Any, Any]]
    weights: Mapping[str, np.ndarray[Any, Any]]
    expected: Callable[[], Mapping[str, np.ndarray[Any, Any]]]
    rtol: float = 1e-3
    atol: float = 1e-4
    faulty: bool = False
    options: Options | None = None


def of_sample(sample: Sample) -> Subject:
    """A sample case of an op's record."""
    arrays = sample.arrays()
    constant = sample.case.constant

    def expected() -> dict[str, np.ndarray[Any, Any]]:
        return {f"y{index}": value for index, value in enumerate(sample.reference(torch, arrays))}

    return Subject(
        sample.graph(),
        {f"x{position}": array for position, array in arrays.items() if position not in constant},
        {f"x{position}": array for position, array in arrays.items() if position in constant},
        expected,
        max(sample.op.rtol, 1e-3),
        max(sample.op.atol, 1e-4),
    )


def of_module(
    module: nn.Module, *example: torch.Tensor, options: Options | None = None, faulty: bool = False
) -> Subject:
    """A module's graph after all passes, with these inputs."""
    arrays = [tensor.numpy() for tensor in example]
    graph = graphs.passed(extract_ir(module.eval(), example, output_names=["y"]))

    def expected() -> dict[str, np.ndarray[Any, Any]]:
        with torch.no_grad():
            return {"y": module(*example).numpy()}

    weights = {key: value.numpy() for key, value in module.state_dict().items()}
    inputs = dict(zip(graph.inputs, arrays, strict=True))
    half = any(array.dtype == np.float16 for array in (*arrays, *weights.values()))
    return Subject(
        graph, inputs, weights, expected, *((1e-2, 1e-2) if half else ()), options=options, faulty=faulty
    )


class Indexing(nn.Module):
    """Reads and writes at computed positions."""

    def forward(self, x: torch.Tensor, i: torch.Tensor) -> torch.Tensor:
        read = x[i * 1, (i * 3) % 7]
        return torch.index_put(x, (i + 0,), (torch.gather(x, 1, i[:, None] - 0) + read[:, None]).expand(3, 7))


TABLE = torch.arange(35.0).reshape(5, 7)
#: What the records' cases do not reach: options of the compiler, faults, weights of 16 bits.
EXTRA: dict[str, Callable[[], Subject]] = {
    "unchecked-indices": lambda: of_module(
        Indexing(), TABLE, torch.tensor([0, 4, 2]), options=Options(check_indices=False)
    ),
    "checked-indices": lambda: of_module(Indexing(), TABLE, torch.tensor([1, 3, 0])),
    "faulty-indices": lambda: of_module(Indexing(), TABLE, torch.tensor([0, 5, -6]), faulty=True),
    "linear-float16": lambda: of_module(nn.Linear(7, 5).half(), torch.randn(3, 7).half()),
    "attention-capped": lambda: of_module(Capped(), torch.randn(1, 2, 3, 8)),
    "linear-float16-weight": lambda: of_module(Narrow(), torch.randn(3, 7)),
}


class Capped(nn.Module):
    """Attention whose scores are capped."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch._safe_softmax(torch.tanh(x @ x.mT * 0.5 / 2.0) * 2.0, -1) @ x


class Narrow(nn.Module):
    """A weight of 16 bits under float32 arithmetic."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(5, 7).half())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.linear(x, self.weight.float()).relu()
