"""What the sample calls of PyTorch are made of."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

Tensors = tuple[torch.Tensor, ...]
Call = tuple[Callable[..., Any], Tensors]


def n(*shape: int, seed: int = 0) -> torch.Tensor:
    """Normal numbers."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed + sum(shape) + len(shape)))


def p(*shape: int, seed: int = 0) -> torch.Tensor:
    """Positive numbers."""
    return n(*shape, seed=seed).abs() + 0.1


def i(high: int, *shape: int, low: int = 0, dtype: torch.dtype = torch.int64) -> torch.Tensor:
    """Whole numbers from ``low`` below ``high``."""
    return torch.randint(low, high, shape, generator=torch.Generator().manual_seed(high), dtype=dtype)


def special(*shape: int) -> torch.Tensor:
    """Normal numbers with NaN, infinities and zeros among them."""
    x = n(*shape)
    flat = x.view(-1)
    for index, value in enumerate((float("nan"), float("inf"), -float("inf"), 0.0, -0.0)):
        flat[index * 3 % flat.numel()] = value
    return x


class WithBuffers(nn.Module):
    """A module around ``function(x, ...)`` whose other arguments are buffers or parameters."""

    def __init__(self, function: Callable[..., Any], *tensors: torch.Tensor) -> None:
        super().__init__()
        self.function = function
        for index, tensor in enumerate(tensors):
            self.register_buffer(f"t{index}", tensor)
        self.count = len(tensors)

    def forward(self, *xs: torch.Tensor) -> Any:
        return self.function(*xs, *(getattr(self, f"t{k}") for k in range(self.count)))


def randomised(module: nn.Module) -> nn.Module:
    """The module with numbers that vary in every parameter and buffer, variances positive."""
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for name, tensor in module.state_dict().items():
            if tensor.is_floating_point():
                values = torch.randn(tensor.shape, generator=generator)
                tensor.copy_(values.abs() + 0.2 if name.endswith("var") else values)
    return module.eval()


def conv(*args: Any, **options: Any) -> nn.Module:
    return randomised(nn.Conv2d(*args, **options))
