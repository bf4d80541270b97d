"""Models small enough to be built from YAML to report within a test."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pipelines.zoo.randomize import randomize

__all__ = ["Counter", "Tiny", "randomize"]


class Tiny(nn.Module):
    """Two convolutions and a classifier, for any batch."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 16, 3, padding=1)
        self.second = nn.Conv2d(16, 16, 1)
        self.classify = nn.Linear(16, 12)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.first(x))
        y = torch.relu(self.second(y))
        return self.classify(y.mean((2, 3)))


class Counter(nn.Module):
    """What ``write`` puts into the buffer, ``read`` gives back, scaled."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(4))
        self.register_buffer("total", torch.zeros(2, 4))

    def write(self, x: Tensor) -> Tensor:
        self.total.add_(x)
        return self.total * 2

    def read(self, factor: Tensor) -> tuple[Tensor, Tensor]:
        return self.total * factor, self.total * self.scale
