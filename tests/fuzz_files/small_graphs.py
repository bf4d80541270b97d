"""Small modules whose files are mutated: together they use many kinds of operations, and all of a file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from torch_ir import extract_ir
from torch_ir.ir import IR


class Images(nn.Module):
    """Convolutions with their norm, pools, padding and resizing."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(8)
        self.depth, self.out = nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu6(self.norm(self.first(x)))
        x = F.max_pool2d(F.pad(self.depth(x), (1, 1, 0, 0)), 2, ceil_mode=True)
        return self.out(F.interpolate(x, scale_factor=2.0).mean((2, 3))).softmax(-1)


class Words(nn.Module):
    """An attention layer over words, of any number."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.norm, self.joint = nn.Embedding(11, 8), nn.LayerNorm(8), nn.Linear(8, 24)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        x = self.norm(self.table(ids) + torch.arange(ids.shape[1]).unsqueeze(-1) * 0.1)
        q, k, v = self.joint(x).chunk(3, -1)
        scores = (q @ k.transpose(1, 2) / 8**0.5).masked_fill(mask.unsqueeze(1) == 0, -1e9)
        return F.gelu(scores.softmax(-1) @ v)


class Moves(nn.Module):
    """Views, joins, choices and reductions, of floats and whole numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("order", torch.tensor([2, 0, 1]), persistent=False)

    def forward(self, x: Tensor, i: Tensor) -> tuple[Tensor, ...]:
        a, b = x.split([2, 3], 1)
        joined = torch.cat([a[:, ::2], b.flip(1), x[:, 1:2].expand(3, 2, 7)], 1)
        return (
            joined.permute(1, 0, 2).reshape(6, 21)[1:5].t(),
            torch.where(x > 0, x, x.cumsum(2)).amax((0, 2)),
            torch.gather(x, 2, (i % 7).abs().unsqueeze(-1).expand(3, 5, 2)) + x[self.order, :, :2],
            (i // 3 - i % 4).sum(1),
            x.argmax(-1),
            torch.stack([x.std(2), x.norm(dim=2)]).squeeze(0),
        )


class Counter(nn.Module):
    """A state that changes, and one that does not."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("total", torch.zeros(3, 4))
        self.weight = nn.Parameter(torch.ones(4))

    def forward(self, x: Tensor) -> Tensor:
        self.total.add_(x * self.weight)
        return self.total.clamp(-1, 1).round().to(torch.float64)


def graphs() -> dict[str, IR]:
    """The modules' graphs by name."""
    torch.manual_seed(0)
    words = torch.export.Dim("words", min=2, max=13)
    every: Mapping[str, tuple[nn.Module, tuple[Any, ...], Any]] = {
        "images": (Images(), (torch.randn(1, 3, 11, 13),), None),
        "words": (
            Words(),
            (torch.zeros(1, 5, dtype=torch.int64), torch.ones(1, 5)),
            ({1: words}, {1: words}),
        ),
        "moves": (Moves(), (torch.randn(3, 5, 7), torch.arange(15).reshape(3, 5)), None),
        "counter": (Counter(), (torch.randn(3, 4),), None),
    }
    return {
        name: extract_ir(module.eval(), example, model_name=name, dynamic_shapes=shapes)
        for name, (module, example, shapes) in every.items()
    }
