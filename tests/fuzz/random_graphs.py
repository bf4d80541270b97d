"""Random small modules from a seed: the same seed gives the same module, inputs and weights, always."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

#: A step: the values it reads and what it computes from them (and the module, for weights).
Step = tuple[tuple[int, ...], Callable[..., Any]]
MAX_NUMEL = 20_000


class RandomModule(nn.Module):
    """Steps that read earlier values; the last values that nothing reads, and some others, are outputs."""

    def __init__(self, steps: list[Step], weights: dict[str, torch.Tensor], outputs: list[int]) -> None:
        super().__init__()
        self.steps, self.outputs = steps, outputs
        for name, tensor in weights.items():
            self.register_buffer(name, tensor)

    def forward(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        values = list(inputs)
        for reads, function in self.steps:
            values.append(function(self, *(values[i] for i in reads)))
        return tuple(values[i] for i in self.outputs)


@dataclass
class Maker:
    """Draws steps whose shapes fit, running them as it goes."""

    rng: random.Random
    values: list[torch.Tensor] = field(default_factory=list)
    weights: dict[str, torch.Tensor] = field(default_factory=dict)

    def normal(self, *shape: int) -> torch.Tensor:
        generator = torch.Generator().manual_seed(self.rng.randrange(1 << 30))
        return torch.randn(*shape, generator=generator)

    def weight(self, *shape: int, positive: bool = False) -> str:
        """A new weight, small enough for products to keep their size."""
        inner = max(1, int(torch.tensor(shape[1:]).prod())) if len(shape) > 1 else 1
        name = f"w{len(self.weights)}"
        tensor = self.normal(*shape) / inner**0.5
        self.weights[name] = tensor.abs() + 0.3 if positive else tensor
        return name

    def dim(self, x: torch.Tensor) -> int:
        return self.rng.randrange(x.dim())


def _unary(m: Maker, x: torch.Tensor) -> Any:
    functions: list[Callable[[torch.Tensor], torch.Tensor]] = [
        torch.relu,
        torch.sigmoid,
        torch.tanh,
        torch.neg,
        F.silu,
        F.relu6,
        F.gelu,
        F.hardswish,
        F.softplus,
        torch.square,
        lambda t: t.abs().sqrt(),
        lambda t: torch.clamp(t, -0.7, 1.1),
        lambda t: t * 0.5 + 1,
        lambda t: 1 - t,
        lambda t: F.leaky_relu(t, 0.1),
    ]
    function = m.rng.choice(functions)
    return lambda _, t: function(t)


def _binary(m: Maker, x: torch.Tensor, y: torch.Tensor) -> Any:
    functions: list[Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = [
        torch.add,
        torch.sub,
        torch.mul,
        torch.maximum,
        torch.minimum,
        lambda a, b: torch.where(a > b, a, b * 0.5),
        lambda a, b: a / (b.abs() + 1),
        lambda a, b: torch.add(a, b, alpha=-0.5),
    ]
    function = m.rng.choice(functions)
    return lambda _, a, b: function(a, b)


def _reduce(m: Maker, x: torch.Tensor) -> Any:
    dims = sorted(m.rng.sample(range(x.dim()), m.rng.randint(1, x.dim())))
    keep = m.rng.random() < 0.5
    kind = m.rng.choice(["sum", "mean", "amax", "amin"])
    scale = 0.1 if kind == "sum" else 1.0
    return lambda _, t: getattr(torch, kind)(t, dims, keepdim=keep) * scale


def _softmax(m: Maker, x: torch.Tensor) -> Any:
    dim = m.dim(x)
    kind = m.rng.choice([F.softmax, F.log_softmax, torch.cumsum])
    return lambda _, t: kind(t, dim)


def _permute(m: Maker, x: torch.Tensor) -> Any:
    order = m.rng.sample(range(x.dim()), x.dim())
    return lambda _, t: t.permute(order)


def _reshape(m: Maker, x: torch.Tensor) -> Any:
    dim = m.dim(x)
    if x.dim() > 1 and m.rng.random() < 0.5:
        start = m.rng.randrange(x.dim() - 1)
        return lambda _, t: t.flatten(start, start + 1)
    sizes = [d for d in range(1, x.shape[dim] + 1) if x.shape[dim] % d == 0] or [1]
    first = m.rng.choice(sizes)
    return lambda _, t: t.unflatten(dim, (first, -1)) if t.shape[dim] else t


def _slice(m: Maker, x: torch.Tensor) -> Any:
    dim = m.dim(x)
    start, step = m.rng.randrange(x.shape[dim]), m.rng.randint(1, 2)
    cut = tuple([slice(None)] * dim + [slice(start, None, step)])
    return lambda _, t: t[cut]


def _flip(m: Maker, x: torch.Tensor) -> Any:
    dim = m.dim(x)
    return lambda _, t: torch.flip(t, (dim,))


def _select(m: Maker, x: torch.Tensor) -> Any:
    dim, index = m.dim(x), m.rng.randrange(2)
    return lambda _, t: t.select(dim, -1 if index else 0)


def _cat(m: Maker, x: torch.Tensor, y: torch.Tensor) -> Any:
    dim = m.dim(x)
    return lambda _, a, b: torch.cat([a, b, a], dim)


def _pad(m: Maker, x: torch.Tensor) -> Any:
    widths = [m.rng.randint(-1 if size > 2 else 0, 2) for size in reversed(x.shape[-2:]) for _ in range(2)]
    value = m.rng.choice([0.0, 0.0, 0.5])
    return lambda _, t: F.pad(t, widths, value=value)


def _norm(m: Maker, x: torch.Tensor) -> Any:
    names = [m.weight(x.shape[-1]) for _ in range(2)]
    return lambda s, t: F.layer_norm(t, t.shape[-1:], getattr(s, names[0]), getattr(s, names[1]))


def _linear(m: Maker, x: torch.Tensor) -> Any:
    out = m.rng.choice([1, 3, 8, 16, 29])
    w, b = m.weight(out, x.shape[-1]), m.weight(out)
    bias = m.rng.random() < 0.5
    return lambda s, t: F.linear(t, getattr(s, w), getattr(s, b) if bias else None)


def _matmul(m: Maker, x: torch.Tensor) -> Any:
    scale = 1 / x.shape[-1]
    return lambda _, t: (t @ t.transpose(-1, -2)) * scale


def _conv(m: Maker, x: torch.Tensor) -> Any:
    channels = x.shape[1]
    groups = m.rng.choice([g for g in (1, 1, 2, channels) if channels % g == 0])
    out = groups * m.rng.choice([1, 2, 5, 8]) if groups > 1 else m.rng.choice([1, 5, 8, 13, 16, 24])
    size = m.rng.choice([1, 2, 3, 3, 5])
    stride, padding, dilation = m.rng.choice([1, 1, 2]), m.rng.randint(0, 2), m.rng.choice([1, 1, 2])
    w, b = m.weight(out, channels // groups, size, size), m.weight(out)
    bias = m.rng.random() < 0.5
    return lambda s, t: F.conv2d(
        t, getattr(s, w), getattr(s, b) if bias else None, stride, padding, dilation, groups
    )


def _conv_residual(m: Maker, x: torch.Tensor) -> Any:
    w = m.weight(x.shape[1], x.shape[1], 3, 3)
    relu = m.rng.choice([F.relu, torch.tanh])
    return lambda s, t: relu(F.conv2d(t, getattr(s, w), padding=1) + t)


def _batch_norm(m: Maker, x: torch.Tensor) -> Any:
    names = [m.weight(x.shape[1], positive=i == 1) for i in range(4)]
    return lambda s, t: F.batch_norm(t, *(getattr(s, name) for name in names), False, 0.1, 1e-3)


def _pool(m: Maker, x: torch.Tensor) -> Any:
    size, stride, ceil = m.rng.choice([2, 3]), m.rng.choice([1, 2]), m.rng.random() < 0.3
    kind = m.rng.choice([F.max_pool2d, F.avg_pool2d])
    return lambda _, t: kind(t, size, stride, m_padding(size), ceil_mode=ceil)


def m_padding(size: int) -> int:
    return size // 2 if size == 3 else 0


def _adaptive(m: Maker, x: torch.Tensor) -> Any:
    out = m.rng.choice([1, (2, 3), 3])
    return lambda _, t: F.adaptive_avg_pool2d(t, out)


#: How many values a step reads, the ranks that it takes, how often it is drawn, and how it is made.
KINDS: tuple[tuple[int, tuple[int, ...], int, Callable[..., Any]], ...] = (
    (1, (0, 1, 2, 3, 4, 5), 8, _unary),
    (2, (0, 1, 2, 3, 4, 5), 8, _binary),
    (1, (1, 2, 3, 4), 3, _reduce),
    (1, (1, 2, 3, 4), 2, _softmax),
    (1, (2, 3, 4), 3, _permute),
    (1, (1, 2, 3, 4), 3, _reshape),
    (1, (1, 2, 3, 4), 3, _slice),
    (1, (1, 2, 3, 4), 1, _flip),
    (1, (2, 3, 4), 1, _select),
    (2, (1, 2, 3, 4), 2, _cat),
    (1, (2, 3, 4), 2, _pad),
    (1, (1, 2, 3, 4), 1, _norm),
    (1, (1, 2, 3, 4), 3, _linear),
    (1, (2, 3, 4), 1, _matmul),
    (1, (4,), 8, _conv),
    (1, (4,), 3, _conv_residual),
    (1, (4,), 3, _batch_norm),
    (1, (4,), 3, _pool),
    (1, (4,), 1, _adaptive),
)


def make(seed: int) -> tuple[RandomModule, tuple[torch.Tensor, ...]]:
    """A module of 3 to 12 steps, and inputs for it."""
    m = Maker(random.Random(seed))
    shape = m.rng.choice([(2, 3, 7, 9), (1, 8, 5, 5), (1, 5, 6, 6), (3, 13), (2, 5, 8), (1, 16, 9, 8)])
    m.values = [m.normal(*shape)]
    if m.rng.random() < 0.4:
        m.values.append(m.normal(*m.rng.choice([shape, shape[-1:], (*shape[:-1], 1)])))
    inputs = tuple(m.values)
    steps: list[Step] = []
    wanted = m.rng.randint(3, 12)
    for _ in range(wanted * 20):
        if len(steps) == wanted:
            break
        count, ranks, _, build = m.rng.choices(KINDS, [kind[2] for kind in KINDS])[0]
        recent = range(max(0, len(m.values) - 4), len(m.values))
        reads = tuple(m.rng.choice(recent) for _ in range(count))
        operands = [m.values[i] for i in reads]
        if any(x.dim() not in ranks or 0 in x.shape for x in operands):
            continue
        kept = dict(m.weights)
        function = build(m, *operands)
        holder = RandomModule([], m.weights, [])
        try:
            result = function(holder, *operands)
        except (RuntimeError, IndexError, ValueError):
            m.weights = kept  # shapes that do not fit
            continue
        if result.numel() > MAX_NUMEL or 0 in result.shape or not bool(torch.isfinite(result).all()):
            m.weights = kept
            continue
        steps.append((reads, function))
        m.values.append(result)
    read = {i for reads, _ in steps for i in reads}
    outputs = [i for i in range(len(m.values)) if i not in read and i >= len(inputs)]
    outputs += [i for i in range(len(inputs), len(m.values)) if i in read and m.rng.random() < 0.15]
    return RandomModule(steps, m.weights, outputs).eval(), inputs
