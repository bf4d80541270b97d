"""What is simulated: graphs of the registry's ops with inputs, weights and results."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import gpu_samples
import graphs
import torch
from gpu_samples import Block, Short
from torch import nn

from npu_compiler.emitted import Options
from npu_compiler.target import Target, load_target
from torch_ir import extract_ir
from torch_ir.ir import IR

if TYPE_CHECKING:
    import numpy as np
    from op_graphs import Sample

GPU = load_target("gpu")


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
    target: Target = graphs.CPU


def of_sample(sample: Sample, target: Target = graphs.CPU) -> Subject:
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
        target=target,
    )


def of_module(
    module: nn.Module,
    *example: torch.Tensor,
    options: Options | None = None,
    faulty: bool = False,
    target: Target = graphs.CPU,
) -> Subject:
    """A module's graph after all passes, with these inputs."""
    arrays = [graphs.array(tensor) for tensor in example]
    graph = graphs.passed(extract_ir(module.eval(), example, output_names=["y"]), target=target)

    def expected() -> dict[str, np.ndarray[Any, Any]]:
        with torch.no_grad():
            return {"y": graphs.array(module(*example))}

    weights = {key: graphs.array(value) for key, value in module.state_dict().items()}
    inputs = dict(zip(graph.inputs, arrays, strict=True))
    dtypes = {str(array.dtype) for array in (*arrays, *weights.values())}
    error = 5e-2 if "bfloat16" in dtypes else 1e-2 if "float16" in dtypes else None
    tolerance = () if error is None else (error, error)
    return Subject(
        graph, inputs, weights, expected, *tolerance, options=options, faulty=faulty, target=target
    )


def of_half(model: type[nn.Module], dtype: torch.dtype) -> Subject:
    """A model whose numbers are of 16 bits, for GPUs."""
    return of_module(model().to(dtype), torch.randn(2, 3, 7, 8).to(dtype), target=GPU)


class Indexing(nn.Module):
    """Reads and writes at computed positions."""

    def forward(self, x: torch.Tensor, i: torch.Tensor) -> torch.Tensor:
        read = x[i * 1, (i * 3) % 7]
        return torch.index_put(x, (i + 0,), (torch.gather(x, 1, i[:, None] - 0) + read[:, None]).expand(3, 7))


def around(inner: int, out: int) -> nn.Module:
    """A 3x3 convolution between two of one tap."""
    return nn.Sequential(nn.Conv2d(8, inner, 1), nn.Conv2d(inner, out, 3, padding=1), nn.Conv2d(out, 8, 1))


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
    "attention-capped-lanes": lambda: of_module(Capped(), torch.randn(2, 2, 67, 8)),
    "linear-float16-weight": lambda: of_module(Narrow(), torch.randn(3, 7)),
    "winograd-of-few-tiles": lambda: of_module(around(64, 24), torch.randn(1, 8, 64, 16)),
    "winograd-without-rest": lambda: of_module(around(72, 24), torch.randn(1, 8, 64, 24)),
    "pool-of-a-large-window": lambda: of_module(
        nn.Sequential(nn.Conv2d(8, 8, 1), nn.MaxPool2d(5, 2)), torch.randn(1, 8, 9, 11)
    ),
    "gpu-heads-bfloat16": lambda: of_module(Heads().bfloat16(), torch.randn(2, 9, 32).bfloat16(), target=GPU),
    "gpu-log-softmax": lambda: of_module(nn.LogSoftmax(-1), torch.randn(3, 300), target=GPU),
    "gpu-safe-softmax": lambda: of_module(SafeSoftmax(), torch.randn(3, 300), target=GPU),
    "gpu-layer-norm": lambda: of_module(nn.LayerNorm(72), torch.randn(3, 72), target=GPU),
    "gpu-norm-without-weight": lambda: of_module(
        nn.LayerNorm(72, elementwise_affine=False).half(), torch.randn(3, 72).half(), target=GPU
    ),
    "gpu-sum-of-two-dims": lambda: of_module(SumOfTwo(), torch.randn(3, 9, 4, 70), target=GPU),
    "gpu-linear-long": lambda: of_module(nn.Linear(4096, 6), torch.randn(1, 4096), target=GPU),
}


EXTRA |= {
    f"gpu-{model.__name__.lower()}-{dtype}": partial(of_half, model, getattr(torch, dtype))
    for model in (Block, Short)
    for dtype in gpu_samples.HALVES
}


class Heads(nn.Module):
    """Attention over its own input, rounded where it is normalised, and a product of what comes out."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.rand(32))
        self.mix, self.out = nn.Linear(32, 96), nn.Linear(32, 24)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        wide = x.float()
        normed = (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + 1e-5)).to(x.dtype)
        q, k, v = self.mix(self.weight * normed).view(2, 9, 3, 2, 16).permute(2, 0, 3, 1, 4)
        y = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.out(y.transpose(1, 2).flatten(2))


class SumOfTwo(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.sum((1, 3))


class SafeSoftmax(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch._safe_softmax(torch.where(x > 0, x, -torch.inf), -1)


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
