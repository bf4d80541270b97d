"""Random weights of language models, by parameters' names, and the tables that no checkpoint holds."""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

#: A parameter with more numbers is made, for a trial, of fewer that lie on top of each other.
_DENSE = 1 << 21


def random_tensor(name: str, shape: Iterable[int], seed: int) -> Tensor:
    """The parameter ``name`` of a model with random weights, in float32: a scale near 1, or a matrix that
    keeps the size of what it is applied to."""
    generator = torch.Generator().manual_seed(zlib.crc32(name.encode(), seed))
    noise = torch.randn(tuple(shape), generator=generator)
    if noise.dim() > 1:
        return noise.mul_(noise.shape[1] ** -0.5)
    return noise.mul_(0.1).add_(1.0 if "norm" in name else 0.0)


def overlapping_tensor(name: str, shape: tuple[int, ...], seed: int) -> Tensor:
    """The same in little memory: an element is a number of its indices' sum (a Hankel matrix)."""
    row = random_tensor(name, (sum(shape) - len(shape) + 1,), seed)
    return row.mul_(10.0 * shape[1] ** -0.5 if len(shape) > 1 else 1.0).as_strided(shape, (1,) * len(shape))


def randomize(model: nn.Module, seed: int) -> nn.Module:
    """Fills every parameter from ``seed`` and its name."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(random_tensor(name, parameter.shape, seed))
    return model


def small_in_memory(model_class: Any, settings: Any, seed: int) -> Any:
    """A model of ``transformers`` on the CPU with random weights, in evaluation mode, that takes little
    memory however large its matrices are."""
    with torch.device("meta"):
        model = model_class._from_config(settings)
    if max(parameter.numel() for parameter in model.parameters()) <= _DENSE:
        return randomize(model_class._from_config(settings).eval(), seed)
    fill_tables(model)
    held: dict[int, nn.Parameter] = {}
    for prefix, module in model.named_modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                if id(parameter) not in held:
                    make = random_tensor if parameter.numel() <= _DENSE else overlapping_tensor
                    value = make(f"{prefix}.{name}", tuple(parameter.shape), seed)
                    held[id(parameter)] = nn.Parameter(value, requires_grad=False)
                module._parameters[name] = held[id(parameter)]
        for name, buffer in module._buffers.items():
            if buffer is not None and buffer.is_meta:
                value = random_tensor(f"{prefix}.{name}", tuple(buffer.shape), seed)
                module._buffers[name] = value.to(buffer.dtype)
    return model.eval()


def fill_tables(model: Any) -> None:
    """Computes what no checkpoint holds (rotary frequencies) where the model was built on the meta device, by
    the library's own initialisation: that of the innermost model around a module."""
    _fill(model, model)


def _fill(module: Any, owner: Any) -> None:
    for child in module.children():
        _fill(child, child if hasattr(child, "_init_weights") else owner)
    names = [name for name in module._non_persistent_buffers_set
             if module._buffers[name] is not None and module._buffers[name].is_meta]
    for name in names:
        shape, dtype = module._buffers[name].shape, module._buffers[name].dtype
        module._buffers[name] = torch.full(shape, float("nan")).to(dtype)
    if names:
        owner._init_weights(module)
    unknown = [name for name in names if module._buffers[name].isnan().any()]
    if unknown:
        raise ValueError(f"{type(owner).__name__}: how {', '.join(unknown)} of {type(module).__name__} "
                         "is computed is not known")
