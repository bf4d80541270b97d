"""Steps that arrange values: views, joins, splits, positions."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from random_graphs import Function, Maker, Rejected
from torch import Tensor


def _permute(m: Maker, x: Tensor) -> Function:
    if m.symbolic:  # the first dimension stays
        order = [0, *m.rng.sample(range(1, x.dim()), x.dim() - 1)]
    else:
        order = m.rng.sample(range(x.dim()), x.dim())
    if m.chance(0.3):
        a, b = m.dim(x), m.dim(x) - x.dim()
        return lambda _, t: t.transpose(a, b)
    return lambda _, t: t.permute(order)


def _reshape(m: Maker, x: Tensor) -> Function:
    dim = m.dim(x)
    kind = m.choice(["flatten", "unflatten", "unsqueeze", "squeeze", "rows", "view"])
    if kind == "flatten" and dim < x.dim() - 1:
        return lambda _, t: t.flatten(dim, dim + 1)
    if kind == "unsqueeze" and x.dim() < 5:
        return lambda _, t: t.unsqueeze(dim)
    if kind == "squeeze" and x.shape[dim] == 1:
        return lambda _, t: t.squeeze(dim)
    if kind == "rows" and x.dim() > 1:
        return lambda _, t: t.reshape(t.shape[0], -1)
    if kind == "view":
        return lambda _, t: t.contiguous().view(t.shape[0], -1, 1)
    sizes = [d for d in range(1, x.shape[dim] + 1) if x.shape[dim] % d == 0]
    first = m.choice(sizes)
    return lambda _, t: t.unflatten(dim, (first, -1))


def _slice(m: Maker, x: Tensor) -> Function:
    dim = m.dim(x)
    size = x.shape[dim]
    start, step = m.rng.randrange(size), m.rng.randint(1, 2)
    stop = m.choice([None, None, m.rng.randint(start + 1, size), -1 if start < size - 1 else None])
    start = m.choice([start, start - size])
    if m.chance(0.2):
        length = m.rng.randint(1, size)
        return lambda _, t: t.narrow(dim, 0, length)
    cut = tuple([slice(None)] * dim + [slice(start, stop, step)])
    return lambda _, t: t[cut]


def _turn(m: Maker, x: Tensor) -> Function:
    dim, by = m.dim(x), m.rng.randint(-3, 3)
    return m.choice([lambda _, t: torch.flip(t, (dim,)), lambda _, t: torch.roll(t, by, dim)])


def _select(m: Maker, x: Tensor) -> Function:
    dim, index = m.dim(x), m.choice([0, -1, x.shape[m.dim(x)] // 2])
    return lambda _, t: t.select(dim, index)


def _split(m: Maker, x: Tensor) -> Function:
    dim = m.dim(x)
    size = x.shape[dim]
    if size < 2:
        raise Rejected
    first = m.rng.randint(1, size - 1)
    return m.choice(
        [
            lambda _, t: torch.split(t, [first, size - first], dim),
            lambda _, t: torch.chunk(t, 2, dim),
            lambda _, t: torch.unbind(t, dim)[:3],
            lambda _, t: torch.tensor_split(t, 2, dim),
        ]
    )


def _join(m: Maker, x: Tensor, y: Tensor) -> Function:
    dim = m.dim(x)
    if m.chance(0.3):
        return lambda _, a, b: torch.stack([a, b, a], dim)
    return m.choice(
        [lambda _, a, b: torch.cat([a, b, a], dim), lambda _, a, b: torch.cat([b, a, b, a], dim - a.dim())]
    )


def _pad(m: Maker, x: Tensor) -> Function:
    dims = x.shape[max(1 if m.symbolic else 0, x.dim() - 2) :]
    widths = [m.rng.randint(-1 if size > 2 else 0, 2) for size in reversed(dims) for _ in range(2)]
    value = m.choice([0.0, 0.0, 0.5])
    return lambda _, t: F.pad(t, widths, value=value)


def _repeat(m: Maker, x: Tensor) -> Function:
    dim = m.dim(x)
    times = [2 if i == dim else 1 for i in range(x.dim())]
    shape = [-1 if i != dim else 3 for i in range(x.dim())]
    kinds = [
        lambda _, t: t.repeat(times),
        lambda _, t: torch.repeat_interleave(t, 2, dim),
        lambda _, t: t.tile(times),
    ]
    if x.shape[dim] == 1:
        kinds.append(lambda _, t: t.expand(shape))
    return m.choice(kinds)


def _triangle(m: Maker, x: Tensor) -> Function:
    diagonal = m.rng.randint(-2, 2)
    kinds = [lambda _, t: torch.tril(t, diagonal), lambda _, t: torch.triu(t, diagonal)]
    if not m.symbolic or x.dim() > 2:
        kinds.append(lambda _, t: torch.diagonal(t, 0, -2, -1))
    return m.choice(kinds)


def _unfold(m: Maker, x: Tensor) -> Function:
    """Windows, in memory of their own: PyTorch's ``select_scatter`` keeps the overlap of a view's elements,
    and then changes those that it should not."""
    dim, size, step = m.dim(x), m.rng.randint(1, 3), m.rng.randint(1, 2)
    return lambda _, t: t.unfold(dim, size, step).contiguous()


def _pick(m: Maker, x: Tensor) -> Function:
    """Elements at positions that are a constant of the module."""
    dim = m.dim(x)
    size = x.shape[dim]
    name = m.keep(m.whole(0, size, m.rng.randint(1, 5)))
    before = tuple([slice(None)] * dim)
    return m.choice(
        [
            lambda s, t: torch.index_select(t, dim, getattr(s, name)),
            lambda s, t: t[(*before, getattr(s, name))],
            lambda s, t: t[(*before, getattr(s, name)[:, None])] if t.dim() < 4 else t * 1.5,
        ]
    )


def _gather(m: Maker, x: Tensor) -> Function:
    if m.symbolic:
        raise Rejected
    dim = m.dim(x)
    name = m.keep(m.whole(0, x.shape[dim], *x.shape))
    kind = m.choice(["gather", "take_along", "scatter", "scatter_add", "index_add"])
    if kind == "scatter_add":
        return lambda s, t: torch.scatter_add(t * 0.5, dim, getattr(s, name), t)
    if kind == "index_add":
        ids = m.keep(m.whole(0, x.shape[dim], x.shape[dim]))
        return lambda s, t: torch.index_add(t, dim, getattr(s, ids), t * 0.5)
    if kind == "scatter":
        return lambda s, t: torch.scatter(t, dim, getattr(s, name), 0.5)
    if kind == "take_along":
        return lambda s, t: torch.take_along_dim(t, getattr(s, name), dim)
    return lambda s, t: torch.gather(t, dim, getattr(s, name))


def _put(m: Maker, x: Tensor) -> Function:
    dim = m.dim(x)
    if m.symbolic:
        raise Rejected
    size = x.shape[dim]
    ids = m.rng.sample(range(size), m.rng.randint(1, size))
    name, accumulate = m.keep(torch.tensor(ids)), m.chance(0.3)
    before = [None] * dim
    index_copy = m.chance(0.3)

    def step(s: Any, t: Tensor) -> Tensor:
        index = getattr(s, name)
        new = t.index_select(dim, index) * 0.5
        if index_copy:
            return torch.index_copy(t, dim, index, new)
        return torch.ops.aten.index_put(t, [*before, index], new, accumulate)

    return step


def _assign(m: Maker, x: Tensor) -> Function:
    """A copy of which a part is overwritten in place."""
    dim = m.dim(x)
    at = m.rng.randrange(x.shape[dim])

    def step(_: Any, t: Tensor) -> Tensor:
        y = t.clone()
        y.select(dim, at).mul_(2).add_(1)
        return y

    return m.choice(
        [
            step,
            lambda _, t: torch.select_scatter(t, t.select(dim, 0) * 0 + 1, dim, at),
            lambda _, t: torch.slice_scatter(t, t.narrow(dim, at, 1) * 2, dim, at, at + 1),
        ]
    )


def _positions(m: Maker, x: Tensor) -> Function:
    return m.choice(
        [
            lambda _, t: t * torch.arange(t.shape[-1]),
            lambda _, t: t + torch.full_like(t, 0.5),
            lambda _, t: torch.ones_like(t) - t,
            lambda _, t: t + t.new_zeros(t.shape[-1]),
            lambda _, t: t * torch.linspace(-1, 1, t.shape[-1], dtype=t.dtype),
            lambda s, t: torch.meshgrid(t.flatten()[:3], t.flatten()[:2], indexing="ij"),
        ]
    )


#: How each is made, the types that it reads, the ranks of the first, and how often it is drawn.
ARRANGING = (
    (_permute, "a", (2, 3, 4), 3),
    (_reshape, "a", (1, 2, 3, 4), 3),
    (_slice, "a", (1, 2, 3, 4), 3),
    (_turn, "a", (1, 2, 3, 4), 1),
    (_select, "a", (2, 3, 4), 1),
    (_split, "a", (1, 2, 3, 4), 2),
    (_join, "aa", (1, 2, 3, 4), 2),
    (_pad, "n", (1, 2, 3, 4), 2),
    (_repeat, "a", (1, 2, 3), 1),
    (_triangle, "a", (2, 3, 4), 1),
    (_unfold, "a", (1, 2, 3), 0.5),
    (_pick, "a", (1, 2, 3, 4), 1.5),
    (_gather, "f", (1, 2, 3), 1),
    (_put, "f", (1, 2, 3), 1),
    (_assign, "f", (1, 2, 3, 4), 1),
    (_positions, "f", (1, 2, 3), 1),
)
