"""Small modules, one per thing that extraction must get right, with inputs that vary."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as functional
from torch import nn


@dataclass(frozen=True)
class Case:
    """``inputs`` are what the graph is run with, by name; ``example`` what it is extracted with (else the
    same)."""

    make: Callable[[], nn.Module]
    inputs: dict[str, torch.Tensor]
    example: Any = None
    dynamic_shapes: Any = None
    ops: tuple[str, ...] = ()
    """Operations that the graph must have."""
    outputs: tuple[str, ...] = ("output",)
    states: tuple[str, ...] = ()
    tolerance: float = 0.0
    """Absolute; above 0 only where PyTorch picks another kernel for a module than for its operation."""


def values(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed + sum(shape)))


def whole(high: int, *shape: int) -> torch.Tensor:
    return torch.randint(0, high, shape, generator=torch.Generator().manual_seed(high))


class Call(nn.Module):
    """A module around a function of the inputs."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: torch.Tensor) -> Any:
        return self.function(x)


class ConvBlock(nn.Module):
    def __init__(self, bias: bool = False, affine: bool = True) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, stride=2, padding=1, bias=bias)
        self.norm = nn.BatchNorm2d(4, affine=affine)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.norm(self.conv(x))
        y += 0.5
        return self.relu(y)


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, 6)
        self.head = nn.Linear(6, 11, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.head(self.embed(ids))


class Cache(nn.Module):
    """A buffer written by ``how``."""

    def __init__(
        self, how: Callable[[torch.Tensor, torch.Tensor], Any], persistent: bool = True, fill: float = 0.25
    ) -> None:
        super().__init__()
        self.how = how
        self.register_buffer("cache", torch.full((4, 3), fill), persistent=persistent)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.how(self.cache, x)
        return self.cache * 2 + x.sum()


class IndexCopy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("cache", torch.zeros(1, 8, 3), persistent=False)

    def forward(self, x: torch.Tensor, at: torch.Tensor) -> torch.Tensor:
        self.cache.index_copy_(1, at, x)
        return self.cache.sum(1) + self.cache[:, 0]


class Point(NamedTuple):
    first: torch.Tensor
    second: torch.Tensor


class Keywords(nn.Module):
    def forward(
        self, left: torch.Tensor, right: torch.Tensor, scale: torch.Tensor | None = None
    ) -> dict[str, Any]:
        total = left + right if scale is None else (left + right) * scale
        return {"total": total, "nothing": None, "parts": (left - right, right * 2)}


class Constants(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("table", torch.arange(3.0) + 0.1, persistent=False)
        self.register_buffer("unused", torch.arange(5.0), persistent=False)
        self.offset = torch.tensor([[1, 2, 3]])
        self.weight = nn.Parameter(values(3))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        half = torch.tensor([0.5, float("inf"), -2.0])
        brain = torch.tensor([0.1, 1.0, -3.0]).to(torch.bfloat16)
        return x * self.table + self.offset, torch.minimum(x, half), self.table, self.weight, brain


class Norms(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.bias = nn.Parameter(values(6))
        self.group = nn.GroupNorm(3, 6, affine=False)
        self.norm = nn.BatchNorm1d(6, affine=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.group(functional.layer_norm(x, (6,), None, self.bias)) + self.norm(x)


class NoGrad(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.enable_grad():
            y = x.sin() + 1
        with torch.no_grad(), torch.autocast("cpu", enabled=False):
            z = y.cos() * 2
        return y + z


class Autocast(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return self.linear(x)


class Deep(nn.Module):
    """In-place operations on a batch-norm's result and on views of it: PyTorch must untangle them."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.norm(self.conv(x)).relu_()
        y[:, 1].mul_(3)
        y[:, :, 0] = 7.0
        return y


def heads(x: torch.Tensor) -> torch.Tensor:
    query = x.unflatten(-1, (2, 4)).transpose(1, 2)
    return functional.scaled_dot_product_attention(query, query, query, is_causal=True)


def views(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    y = x * 2
    flat = y.view(-1)
    flat.add_(1)
    y.relu_()
    return y, flat[:3]


def sizes(x: torch.Tensor) -> torch.Tensor:
    batch, length = x.shape[0], x.shape[1]
    return x.reshape(batch * length, 2)[: batch * 2 + length // 2 - 1] * length


def detached(x: torch.Tensor) -> torch.Tensor:
    y = x.detach().clone()
    y.clamp_(min=-0.5)
    y.zero_().add_(x).fill_diagonal_(3.0)
    return y


BATCH = {"x": {0: ("batch", 1, 8)}}
IMAGE = {"x": values(2, 3, 7, 5)}
ROWS = {"x": values(4, 3)}

CASES: dict[str, Case] = {
    "conv_bn_relu": Case(
        ConvBlock,
        IMAGE,
        ops=("aten.conv2d.default", "aten.batch_norm.default", "aten.add.Tensor", "aten.relu.default"),
    ),
    "conv_bias_affine_false": Case(lambda: ConvBlock(True, False), IMAGE, ops=("aten.batch_norm.default",)),
    "dynamic_batch_example_1": Case(ConvBlock, {"x": values(3, 3, 7, 5)}, values(1, 3, 7, 5), BATCH),
    "dynamic_batch_run_1": Case(ConvBlock, {"x": values(1, 3, 7, 5)}, values(2, 3, 7, 5), BATCH),
    "split": Case(lambda: Call(lambda x: x.split([1, 2], dim=1)), ROWS, outputs=("output_0", "output_1")),
    "chunk_uses_one": Case(lambda: Call(lambda x: x.chunk(3, dim=1)[2] + 1), ROWS),
    "topk": Case(lambda: Call(lambda x: Point(*x.topk(2, dim=1))), ROWS, outputs=("first", "second")),
    "max_dim": Case(lambda: Call(lambda x: x.max(1)), ROWS, outputs=("output_0", "output_1")),
    "tied": Case(Tied, {"ids": whole(11, 2, 5)}, ops=("aten.embedding.default", "aten.linear.default")),
    "state_copy": Case(lambda: Cache(lambda c, x: c.copy_(x)), ROWS, states=("cache",)),
    "state_copy_cast": Case(
        lambda: Cache(lambda c, x: c.copy_(x[0].double())),
        ROWS,
        states=("cache",),
        ops=("aten.expand.default",),
    ),
    "state_add": Case(lambda: Cache(lambda c, x: c.add_(x, alpha=2)), ROWS, states=("cache",)),
    "state_slice": Case(
        lambda: Cache(lambda c, x: c[1:3].copy_(x[:2])),
        ROWS,
        states=("cache",),
        ops=("aten.slice_scatter.default",),
    ),
    "state_fill": Case(lambda: Cache(lambda c, x: c.fill_(1.5).mul_(x)), ROWS, states=("cache",)),
    "state_not_persistent": Case(lambda: Cache(lambda c, x: c.mul_(x), False), ROWS, states=("cache",)),
    "state_zeros": Case(lambda: Cache(lambda c, x: c.add_(x), False, 0.0), ROWS, states=("cache",)),
    "index_copy": Case(IndexCopy, {"x": values(1, 2, 3), "at": torch.tensor([5, 2])}, states=("cache",)),
    "views_in_place": Case(lambda: Call(views), ROWS, outputs=("output_0", "output_1")),
    "deep_in_place": Case(Deep, IMAGE, ops=("aten.batch_norm.default", "aten.conv2d.default")),
    "detached": Case(lambda: Call(detached), {"x": values(3, 3)}),
    "keywords": Case(
        Keywords,
        {"left": values(2, 3), "right": values(2, 3, seed=1)},
        {"right": values(2, 3), "left": values(2, 3)},
        outputs=("total", "parts_0", "parts_1"),
    ),
    "keywords_dynamic": Case(
        Keywords,
        {"left": values(5, 3), "right": values(5, 3, seed=1), "scale": values(1)},
        {"left": values(1, 3), "right": values(1, 3), "scale": values(1)},
        {"left": {0: ("n", 1, 9)}, "right": {0: ("n", 1, 9)}},
        outputs=("total", "parts_0", "parts_1"),
    ),
    "output_is_input": Case(
        lambda: Call(lambda x: (x, x, x + 1)), ROWS, outputs=("output_0", "output_1", "output_2")
    ),
    "constants": Case(Constants, ROWS, outputs=tuple(f"output_{index}" for index in range(5))),
    "scalars": Case(
        lambda: Call(lambda x: (2 - x) / 3 * x.pow(2).add(1e-6) + torch.where(x > 0, x, 0.5)), ROWS
    ),
    "attributes": Case(lambda: Call(lambda x: x.masked_fill(x > 0, float("-inf")).to(torch.float16)), ROWS),
    "norms": Case(Norms, {"x": values(4, 6)}, ops=("aten.layer_norm.default", "aten.group_norm.default")),
    "cat_stack": Case(
        lambda: Call(lambda x: torch.stack([torch.cat([x, x * 2, x], 1), torch.cat([x] * 3, 1)])), ROWS
    ),
    "indexing": Case(
        lambda: Call(lambda x: x[:, torch.tensor([2, 0])] + x[torch.tensor([1])][:, 1:]),
        ROWS,
        ops=("aten.index.Tensor",),
    ),
    "sdpa": Case(
        lambda: Call(heads), {"x": values(2, 5, 8)}, ops=("aten.scaled_dot_product_attention.default",)
    ),
    "sizes": Case(
        lambda: Call(sizes),
        {"x": values(3, 6, 2)},
        values(2, 4, 2),
        {"x": {0: ("batch", 1, 8), 1: ("length", 2, 64)}},
    ),
    "no_grad": Case(NoGrad, ROWS, ops=("aten.sin.default", "aten.cos.default")),
    "autocast": Case(Autocast, {"x": values(2, 4)}, ops=("aten.linear.default",)),
    "factories": Case(lambda: Call(lambda x: x + torch.arange(3, dtype=x.dtype) + torch.ones_like(x)), ROWS),
    "recurrent": Case(
        lambda: nn.GRU(3, 4, batch_first=True),
        {"input": values(2, 5, 3)},
        ops=("aten.gru.input",),
        outputs=("output_0", "output_1"),
        tolerance=1e-6,
    ),
    "dead_code": Case(lambda: Call(lambda x: (x.exp(), x + 1)[1]), ROWS),
    "sequential": Case(
        lambda: nn.Sequential(nn.Linear(3, 4), nn.GELU(), nn.Dropout(), nn.Linear(4, 2)),
        {"input": values(4, 3)},
    ),
}
