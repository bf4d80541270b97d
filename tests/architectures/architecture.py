"""What an architecture of the table is, its weights, and how it is compared with eager PyTorch."""

from __future__ import annotations

import re
import time
import warnings
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from npu_compiler import compile_ir
from npu_compiler.errors import UnsupportedOpError
from npu_runtime.device import Device
from npu_runtime.executor import Executor
from npu_runtime.weight_loader import load_weights
from torch_ir import IRError, extract_ir
from torch_ir.returned import plain

Inputs: TypeAlias = dict[str, Tensor]
Sizes: TypeAlias = Mapping[str, int]
#: Largest difference from eager float32 over the largest magnitude of the expected output.
TOLERANCE = 1e-3


@dataclass(frozen=True)
class Architecture:
    """A small model of random weights.

    ``make()`` builds the module, ``inputs(generator, sizes)`` draws the keyword inputs of its ``forward``.
    ``dynamic`` is what ``extract_ir`` takes as ``dynamic_shapes``; ``sizes`` are the symbols' values to run
    at, the first one being the example's. ``quick``: whether it belongs to the default tier. ``refused``: a
    pattern of the reason for which it cannot be compiled; what depends on values cannot. ``called_before``:
    whether it must run once before its extraction, to fill a cache.
    """

    name: str
    make: Callable[[], nn.Module]
    inputs: Callable[[torch.Generator, Sizes], Inputs]
    dynamic: Mapping[str, Mapping[int, tuple[str, int, int]]] | None = None
    sizes: tuple[Sizes, ...] = ({},)
    quick: bool = False
    refused: str = ""
    called_before: bool = False


@dataclass(frozen=True)
class Outcome:
    """The worst error over all outputs and sizes, relative to an output's largest magnitude; the nodes of the
    graph, the kernels and steps of the program, and the seconds that it all took. Or why it was refused."""

    error: float = 0.0
    where: str = ""
    nodes: int = 0
    kernels: int = 0
    steps: int = 0
    seconds: float = 0.0
    refusal: str = ""


class NotEqualError(AssertionError):
    """An output differs from eager PyTorch's, or says nothing."""


def perturbed(model: nn.Module, name: str) -> nn.Module:
    """Weights that show what a compiler drops: matrices of gain 1, every vector moved away from its initial
    value, batch norms with statistics of their own. The same for a name on every machine."""
    generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))

    def normal(tensor: Tensor) -> Tensor:
        return torch.randn(tensor.shape, generator=generator)

    with torch.no_grad():
        for key, parameter in model.named_parameters():
            initial = torch.nan_to_num(parameter)
            if parameter.dim() < 2 or key.endswith(("A_log", "log_sigma")):
                parameter.copy_(initial + 0.1 * normal(parameter))
            else:
                fan_in = parameter[0].numel()
                parameter.copy_(normal(parameter) / max(fan_in, 1) ** 0.5)
        for key, buffer in model.named_buffers():
            if key.endswith("running_mean"):
                buffer.copy_(0.3 * normal(buffer))
            elif key.endswith("running_var"):
                buffer.copy_(0.5 + torch.rand(buffer.shape, generator=generator))
    return model.eval()


def check(architecture: Architecture, device: Device) -> Outcome:
    """Extracts, compiles and runs an architecture at all its sizes. Raises ``NotEqualError`` past the
    tolerance, and where it is not refused as the table says; and what extraction, compilation and running
    raise."""
    if not architecture.refused:
        return _compare(architecture, device)
    try:
        _compare(architecture, device)
    except (IRError, UnsupportedOpError) as error:
        text = " ".join(str(error).split())
        if not re.search(architecture.refused, text):
            raise
        return Outcome(refusal=text[:160])
    raise NotEqualError(f"{architecture.name} is not refused any more; change the table")


def _compare(architecture: Architecture, device: Device) -> Outcome:
    began = time.perf_counter()
    torch.manual_seed(zlib.crc32(architecture.name.encode()))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = perturbed(architecture.make(), architecture.name)
        generator = torch.Generator().manual_seed(1)
        cases = [architecture.inputs(generator, sizes) for sizes in architecture.sizes]
        if architecture.called_before:
            eager(model, cases[0])
        ir = extract_ir(model, cases[0], model_name=architecture.name, dynamic_shapes=architecture.dynamic)
    program = compile_ir(ir)
    weights = load_weights(
        {key: tensor.numpy() for key, tensor in model.state_dict().items()}, program, device
    )
    executor = Executor(program, device)
    worst, where = -1.0, ""
    for sizes, inputs in zip(architecture.sizes, cases, strict=True):
        expected = eager(model, inputs)
        given = {key: tensor.numpy() for key, tensor in inputs.items() if key in ir.inputs}
        found = executor.run(given, weights)
        if len(found) != len(expected):
            raise NotEqualError(f"{len(found)} outputs instead of {len(expected)}")
        for (key, buffer), tensor in zip(found.items(), expected, strict=True):
            place = f"{key} at {dict(sizes)}" if sizes else key
            error = difference(buffer.to_numpy(), tensor, place)
            if error > worst:
                worst, where = error, place
    if worst > TOLERANCE:
        raise NotEqualError(f"{where} differs by {worst:.2e} of its largest value")
    return Outcome(
        worst, where, len(ir.nodes), len(program.kernels), len(program.steps), time.perf_counter() - began
    )


def eager(model: nn.Module, inputs: Inputs) -> list[Tensor]:
    """The tensors that the module returns, flattened as ``torch.export`` does."""
    with torch.no_grad():
        result = model(**{key: tensor.clone() for key, tensor in inputs.items()})
    leaves = torch.utils._pytree.tree_leaves(plain(torch, result))
    return [leaf for leaf in leaves if isinstance(leaf, Tensor)]


def difference(found: np.ndarray[Any, Any], expected: Tensor, place: str) -> float:
    """The largest difference over the largest expected magnitude. Raises ``NotEqualError`` where shapes or
    dtypes differ, and where the expectation is constant or not finite, which would prove nothing."""
    wanted = expected.numpy()
    if (found.shape, found.dtype) != (wanted.shape, wanted.dtype):
        raise NotEqualError(f"{place}: {found.dtype}{found.shape} instead of {wanted.dtype}{wanted.shape}")
    if not np.isfinite(wanted).all() or (wanted.size > 1 and not wanted.std() > 0):
        raise NotEqualError(f"{place}: eager PyTorch gives values that are constant or not finite")
    gap = np.abs(found.astype(np.float64) - wanted.astype(np.float64)).max()
    return float("inf") if np.isnan(gap) else float(gap / max(np.abs(wanted).max(), 1e-30))
