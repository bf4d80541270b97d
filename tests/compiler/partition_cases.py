"""Modules with operations that the target cannot run, and how each is cut."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from npu_compiler import Partition
from torch_ir import extract_ir
from torch_ir.ir import IR, Node

if TYPE_CHECKING:
    import numpy as np


def unknown(x: torch.Tensor) -> torch.Tensor:
    """An operation that no target has, elementwise and not linear."""
    return torch.special.bessel_j1(x)


def refuse(*words: str) -> Callable[[Node], str | None]:
    """Refuses the operations that have one of ``words`` in their name."""
    return lambda node: "refused by the test" if any(word in node.op for word in words) else None


class Call(nn.Module):
    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: torch.Tensor) -> Any:
        return self.function(x)


class Net(nn.Module):
    """A refused operation between convolutions; the second one's weight is computed from parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.second = nn.Conv2d(8, 5, 3, stride=2)
        self.gain = nn.Parameter(torch.full((5, 1, 1, 1), 1.5))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = unknown(torch.relu(self.first(x)))
        return torch.relu(nn.functional.conv2d(y, self.second.weight * self.gain, self.second.bias))


class Counter(nn.Module):
    """A state that is changed by ``change(state, x)`` and read by ``give``."""

    def __init__(
        self, change: Callable[..., torch.Tensor], give: Callable[..., torch.Tensor], persistent: bool = True
    ) -> None:
        super().__init__()
        self.change, self.give = change, give
        self.register_buffer("total", torch.arange(3.0), persistent=persistent)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        before = self.give(self.total, x)
        self.total.copy_(self.change(self.total, x))
        return before


class Swap(nn.Module):
    """Two states that exchange their contents, one of them through a refused operation."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("a", torch.arange(3.0))
        self.register_buffer("b", torch.arange(3.0) + 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        a, b = self.a.clone(), self.b.clone()
        self.a.copy_(b)
        self.b.copy_(unknown(a) + x[0])
        return a + b


def branches(x: torch.Tensor) -> torch.Tensor:
    """Two branches that change places at different depths: a part that took all it could would be in a
    cycle."""
    left = unknown(x * 2) + 1
    right = unknown(torch.relu(x) - 3)
    return unknown(left * right) + left + torch.relu(x)


def crossing(x: torch.Tensor) -> torch.Tensor:
    """The trap: a reads F(b), c reads a, F(c), and d reads b and F(c)."""
    b = x + 1
    a = unknown(b) * x
    return torch.relu(a + b) + unknown(a - b)


@dataclass(frozen=True)
class Case:
    make: Callable[[], nn.Module]
    kinds: str
    """The parts' kinds in order, by their first letters."""
    shape: tuple[int, ...] = (2, 3)
    dynamic: bool = False
    supports: Callable[[Node], str | None] | None = None
    sizes: tuple[int, ...] = field(default=(1, 2, 5))


CASES = {
    "middle": Case(Net, "tft", (2, 3, 7, 9)),
    "middle-dynamic": Case(Net, "tft", (2, 3, 7, 9), dynamic=True),
    "start": Case(lambda: Call(lambda x: torch.relu(unknown(x) + 0.5)), "ft"),
    "end": Case(lambda: Call(lambda x: unknown(torch.relu(x - 0.5))), "tf"),
    "only": Case(lambda: Call(unknown), "f"),
    "none": Case(lambda: Call(lambda x: torch.relu(x) * 2), "t"),
    "several": Case(lambda: Call(lambda x: unknown(unknown(unknown(x) + 1) * 2) - 1), "ftftft"),
    "branches": Case(lambda: Call(branches), "tftft"),
    "crossing": Case(lambda: Call(crossing), "tftft"),
    "crossing-dynamic": Case(lambda: Call(crossing), "tftft", dynamic=True),
    "complex": Case(
        lambda: Call(lambda x: torch.fft.ifft(torch.fft.fft(x).tanh() * 2).real + x), "tft", (3, 8)
    ),
    "many-outputs": Case(
        lambda: Call(lambda x: [unknown(part) + part for part in torch.split(x * 2, [1, 2, 3], 1)]),
        "tft", (2, 6),
    ),
    "many-outputs-of-the-fallback": Case(
        lambda: Call(lambda x: torch.relu(x).topk(2).values + x.sort()[0][:, :2]), "tft", (4, 5),
        supports=refuse("topk", "sort"),
    ),
    "indices": Case(
        lambda: Call(lambda x: (x.argsort(1) + 1).float() * x), "ft", (4, 5), supports=refuse("argsort")
    ),
    "input-as-output": Case(lambda: Call(lambda x: (x, unknown(x), x * 2, x)), "tf"),
    "value-as-two-outputs": Case(lambda: Call(lambda x: ((y := unknown(x)), y, y + 1)), "ft"),
    "inner-value-as-output": Case(lambda: Call(lambda x: ((y := x + 1), unknown(y) * y)), "tft"),
    "constant-as-output": Case(lambda: Call(lambda x: (unknown(x), torch.full((3,), 2.0) * 3)), "f",
                               supports=refuse("bessel")),
    "size-that-no-border-tells": Case(
        lambda: Call(lambda x: unknown((x * 2).sum(0)).expand(x.shape[0], 3) * 2), "tft", dynamic=True
    ),
}  # fmt: skip

STATES = {
    "changed-on-the-target": Case(lambda: Counter(lambda s, x: s + x.sum(0), lambda s, x: unknown(x)), "tf"),
    "changed-in-the-fallback": Case(
        lambda: Counter(lambda s, x: unknown(s + x.sum(0)), lambda s, x: s * x), "tf"
    ),
    "read-before": Case(lambda: Counter(lambda s, x: unknown(x.sum(0)) + s, lambda s, x: s * x), "tft"),
    "read-after": Case(
        lambda: Counter(lambda s, x: s + x.sum(0), lambda s, x: unknown(torch.relu(x) + 1) * s), "tft"
    ),
    "read-after-in-the-fallback": Case(
        lambda: Counter(lambda s, x: s + x.sum(0), lambda s, x: unknown(x + s)), "tf"
    ),
    "takes-the-input": Case(lambda: Counter(lambda s, x: x[0], lambda s, x: unknown(x) + s), "ft"),
    "not-in-the-weights": Case(
        lambda: Counter(lambda s, x: unknown(s) + x.sum(0), lambda s, x: s * x, persistent=False), "ft"
    ),
    "two-that-swap": Case(Swap, "tft"),
}


def given(shape: tuple[int, ...], seed: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def extracted(case: Case, module: nn.Module) -> IR:
    dynamic = {"x": {0: torch.export.Dim("n", min=1, max=8)}} if case.dynamic else None
    return extract_ir(module, given(case.shape, 0), model_name="case", dynamic_shapes=dynamic)


def tensors(module: nn.Module) -> dict[str, np.ndarray]:
    return {key: value.clone().numpy() for key, value in module.state_dict().items()}


def expected(module: nn.Module, x: torch.Tensor) -> list[np.ndarray]:
    with torch.no_grad():
        found = module(x)
    return [item.numpy() for item in (found if isinstance(found, (tuple, list)) else [found])]


def kinds(parts: Partition) -> str:
    return "".join(part.kind[0] for part in parts)
