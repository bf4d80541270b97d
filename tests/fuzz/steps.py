"""The kinds of steps of random modules: what they read, how often they are drawn, how they are made."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from images import IMAGES
from random_graphs import Function, Maker, Rejected, apart
from torch import Tensor

Build = Callable[..., Function]


@dataclass(frozen=True)
class Kind:
    """A kind of step. ``types`` has one letter per value that it reads: "f" floating point, "i" whole
    numbers, "b" truth values, "n" numbers of both kinds, "a" any. ``ranks`` are those of the first value."""

    build: Build
    types: str
    ranks: tuple[int, ...] = (1, 2, 3, 4)
    weight: float = 1.0
    reals: tuple[torch.dtype, ...] = ()
    """The floating point dtypes that it takes; empty: all."""

    def fits(self, letter: str, x: Tensor) -> bool:
        if x.is_floating_point():
            return letter in "fna" and (not self.reals or x.dtype in self.reals)
        return letter in ("ba" if x.dtype == torch.bool else "ina")


def any_of(*functions: Callable[..., Any]) -> Build:
    """One of several functions of tensors alone."""

    def build(m: Maker, *_: Tensor) -> Function:
        chosen = m.choice(functions)
        return lambda _, *xs: chosen(*xs)

    return build


def jump(distance: Callable[..., Tensor], *functions: Callable[..., Any]) -> Build:
    """As ``any_of``, of functions that jump where ``distance`` of their operands is 0."""

    def build(m: Maker, *_: Tensor) -> Function:
        chosen = m.choice(functions)

        def step(module: Any, *xs: Tensor) -> Any:
            if not torch.compiler.is_exporting():
                apart(distance(*xs))
            return chosen(*xs)

        return step

    return build


_smooth = any_of(
    torch.relu, torch.sigmoid, torch.tanh, torch.neg, F.silu, F.relu6, F.gelu, F.hardswish, F.softplus,
    torch.square, torch.sin, torch.cos, torch.erf, torch.atan, torch.abs, F.mish, F.elu, F.selu, F.logsigmoid,
    F.softsign, F.hardsigmoid, torch.expm1, F.hardtanh, lambda t: F.leaky_relu(t, 0.1),
    lambda t: (t.abs() + 0.1).sqrt(), lambda t: (t.abs() + 0.1).rsqrt(), lambda t: (t.abs() + 0.1).log(),
    lambda t: torch.log1p(t.abs()), lambda t: torch.exp(-t.abs()), lambda t: 1 / (t.abs() + 0.5),
    lambda t: torch.clamp(t, -0.7, 1.1), lambda t: t.clamp(min=-0.5), lambda t: t * 0.5 + 1,
    lambda t: 1 - t, lambda t: t / 3, lambda t: torch.sub(t, 2, alpha=0.5), lambda t: t**3,
    lambda t: (t.abs() + 0.1) ** 0.7, lambda t: F.gelu(t, approximate="tanh"), lambda t: torch.exp2(t.tanh()),
    lambda t: F.threshold(t, -5.0, 0.5), lambda t: torch.nan_to_num(t), lambda t: F.softshrink(t, 0.3),
    lambda t: torch.asinh(t), lambda t: torch.sinh(t.tanh()), lambda t: (t.abs() + 1).log2(),
)  # fmt: skip
_jumping = jump(
    lambda t: t * 2 - (t * 2).round(),  # whole numbers for some, halves for others
    torch.floor, torch.ceil, torch.round, torch.trunc, torch.frac,
)  # fmt: skip
_signs = jump(
    lambda t: t, torch.sign, lambda t: F.hardshrink(t, 0.0), lambda t: torch.heaviside(t, t * 0 + 0.5)
)
_whole_unary = any_of(
    torch.abs, torch.neg, torch.sign, torch.bitwise_not, lambda t: t.clamp(-3, 5), lambda t: t * 3,
    lambda t: t + 7, lambda t: t // 3, lambda t: t % 5, lambda t: t % -4, lambda t: t & 6, lambda t: t | 3,
    lambda t: t ^ 5, lambda t: t >> 1, lambda t: (t & 7) << 2, lambda t: 10 - t, lambda t: t**2 % 97,
    lambda t: torch.div(t, 4, rounding_mode="trunc"), lambda t: torch.fmod(t, 3), lambda t: t.relu(),
)  # fmt: skip
_binary = any_of(
    torch.add, torch.sub, torch.mul, torch.maximum, torch.minimum, lambda a, b: a / (b.abs() + 1),
    lambda a, b: torch.add(a, b, alpha=-0.5), lambda a, b: torch.rsub(a, b, alpha=2),
    lambda a, b: torch.lerp(a, b, 0.3), lambda a, b: torch.addcmul(a, a, b, value=0.5),
    lambda a, b: torch.addcdiv(a, b, b.abs() + 1, value=-0.5), lambda a, b: torch.atan2(a, b.abs() + 0.5),
    lambda a, b: torch.hypot(a, b + 3), lambda a, b: torch.logaddexp(a, b),
    lambda a, b: torch.pow(a.abs() + 0.2, b.tanh()), lambda a, b: torch.clamp(a, max=b),
)  # fmt: skip
_mixed = any_of(torch.add, torch.mul, torch.sub, lambda a, b: a * 0.5 + b, torch.maximum)
_whole_binary = any_of(
    torch.add, torch.sub, lambda a, b: a * b % 101, torch.maximum, torch.minimum, torch.bitwise_and,
    torch.bitwise_or, torch.bitwise_xor, lambda a, b: a // (b.abs() + 1), lambda a, b: a % (b.abs() + 2),
    lambda a, b: a / (b.abs() + 1), lambda a, b: torch.where(a > b, a, b + 1),
    lambda a, b: torch.fmod(a, b.abs() + 1),
)  # fmt: skip
_compare_whole = any_of(torch.eq, torch.ne, torch.lt, torch.le, torch.gt, torch.ge, lambda a, b: a > b + 1)
_compare = jump(lambda a, b: a - b, torch.gt, torch.lt, torch.ge, torch.le, torch.ne)
_compare_number = jump(lambda t: t - 0.25, lambda t: t > 0.25, lambda t: t <= 0.25, lambda t: t.ge(0.25))
_logic = any_of(torch.logical_and, torch.logical_or, torch.logical_xor, torch.eq, lambda a, b: a & b,
                lambda a, b: a | b, lambda a, b: a ^ b)  # fmt: skip
_not = any_of(torch.logical_not, lambda t: ~t, lambda t: t.any(-1, keepdim=True), lambda t: t.all(-1))
_from_bool = any_of(lambda t: t.long(), lambda t: t.int() * 2, lambda t: t.sum(-1), lambda t: t.float() - 0.5)
_from_whole = any_of(
    lambda t: t.float() / 9, lambda t: t.double() / 7, lambda t: t.int(), lambda t: t.to(torch.int16) + 1,
    lambda t: t.to(torch.int8), lambda t: t.to(torch.uint8), lambda t: t != 0, lambda t: t.long(),
    lambda t: t.bool(), lambda t: t * 0.25, lambda t: t > 1.5,
)  # fmt: skip
_choose = any_of(
    lambda c, a, b: torch.where(c, a, b), lambda c, a, b: torch.where(c, a, b * 0.5),
    lambda c, a, b: torch.where(c.logical_not(), a, 0.5),
)  # fmt: skip
_fill = any_of(lambda c, a: a.masked_fill(c, 0.5), lambda c, a: a * c, lambda c, a: torch.where(c, a, -a))


def _to_whole(m: Maker, x: Tensor) -> Function:
    build = jump(lambda t: t * 3 - (t * 3).round(), lambda t: (t * 3).long(), lambda t: (t * 3).int())
    return build(m, x)


def _width(m: Maker, x: Tensor) -> Function:
    """To another floating point dtype and on."""
    wanted = m.choice([torch.float32, torch.float64])
    return lambda _, t: t.to(wanted) * 1.5


def _reduce(m: Maker, x: Tensor) -> Function:
    dims, keep = m.dims(x), m.chance(0.5)
    kind = m.choice(["sum", "mean", "amax", "amin", "logsumexp", "var", "norm", "prod", "std", "var_mean"])
    if kind == "prod":
        dim = m.dim(x)
        return lambda _, t: torch.prod(t.tanh() + 1.2, dim, keepdim=keep) * 0.1
    if kind in ("var", "std", "var_mean"):
        correction = m.choice([0, 1])
        if m.symbolic and 0 in dims:
            raise Rejected
        if kind == "std":
            return lambda _, t: torch.std(t, dims, correction=correction, keepdim=keep)
        if kind == "var_mean":
            return lambda _, t: torch.var_mean(t, dims, correction=correction, keepdim=keep)
        return lambda _, t: torch.var(t, dims, correction=correction, keepdim=keep)
    if kind == "norm":
        order = m.choice([1, 2, float("inf")])
        return lambda _, t: torch.linalg.vector_norm(t, order, dims, keep)
    return lambda _, t: getattr(torch, kind)(t, dims, keepdim=keep)


def _reduce_whole(m: Maker, x: Tensor) -> Function:
    dim, keep = m.dim(x), m.chance(0.5)
    kind = m.choice(["sum", "amax", "amin", "cumsum", "any", "all", "argmax", "max", "min", "mean"])
    if kind == "cumsum":
        return lambda _, t: torch.cumsum(t, dim)
    if kind == "mean":
        return lambda _, t: t.float().mean(dim, keepdim=keep)
    return lambda _, t: getattr(torch, kind)(t, dim, keepdim=keep)


def _extreme(m: Maker, x: Tensor) -> Function:
    """The place of the largest element, which must be the largest by far."""
    dim, keep = m.dim(x), m.chance(0.5)
    if x.shape[dim] < 2:
        raise Rejected
    kind = m.choice([torch.max, torch.min, torch.argmax, torch.argmin])
    largest = kind in (torch.max, torch.argmax)

    def step(_: Any, t: Tensor) -> Any:
        if not torch.compiler.is_exporting():
            two = torch.topk(t, 2, dim, largest=largest).values
            apart(two.select(dim, 0) - two.select(dim, 1))
        return kind(t, dim, keepdim=keep)

    return step


def _sort(m: Maker, x: Tensor) -> Function:
    dim, down = m.dim(x), m.chance(0.5)
    count = m.rng.randint(1, x.shape[dim])
    kind = m.choice(["sort", "topk", "argsort"])

    def step(_: Any, t: Tensor) -> Any:
        if not torch.compiler.is_exporting() and t.shape[dim] > 1:
            apart(torch.sort(t, dim).values.diff(dim=dim))
        if kind == "topk":
            return torch.topk(t, count, dim, largest=down)
        if kind == "argsort":
            return torch.argsort(t, dim, descending=down)
        return torch.sort(t, dim, descending=down)

    return step


def _along(m: Maker, x: Tensor) -> Function:
    dim = m.dim(x)
    kind = m.choice([F.softmax, F.log_softmax, torch.cumsum, F.softmin, torch.logcumsumexp, torch.cumprod])
    if kind is torch.cumprod:
        return lambda _, t: torch.cumprod(t.tanh(), dim)
    if kind is F.softmax and m.chance(0.3):
        return lambda _, t: F.normalize(t + 0.5, dim=dim, eps=1e-2)
    return lambda _, t: kind(t, dim)


def _norm(m: Maker, x: Tensor) -> Function:
    names = [m.weight(x.shape[-1]) for _ in range(2)]
    kind = m.choice(["layer", "layer", "rms"])
    if kind == "rms":
        return lambda s, t: F.rms_norm(t, t.shape[-1:], getattr(s, names[0]), 1e-3)
    bias = m.chance(0.5)
    return lambda s, t: F.layer_norm(
        t, t.shape[-1:], getattr(s, names[0]), getattr(s, names[1]) if bias else None, 1e-2
    )


def _linear(m: Maker, x: Tensor) -> Function:
    out = m.choice([1, 3, 8, 16, 29])
    w, b = m.weight(out, x.shape[-1]), m.weight(out)
    bias = m.chance(0.5)
    return lambda s, t: F.linear(t, getattr(s, w), getattr(s, b) if bias else None)


def _matmul(m: Maker, x: Tensor) -> Function:
    scale = 1 / x.shape[-1]
    return m.choice(
        [
            lambda _, t: (t @ t.transpose(-1, -2)) * scale,
            lambda _, t: torch.matmul(t.transpose(-1, -2), t) * 0.1,
            lambda _, t: torch.einsum("...ij,...kj->...ik", t, t) * scale,
        ]
    )


def _products(m: Maker, x: Tensor) -> Function:
    """Products with weights by other names."""
    w, b = m.weight(x.shape[-1], 5), m.weight(5)
    if x.dim() == 2:
        return m.choice(
            [
                lambda s, t: torch.addmm(getattr(s, b), t, getattr(s, w), beta=0.5, alpha=0.7),
                lambda s, t: torch.mm(t, getattr(s, w)) * 0.5,
                lambda s, t: torch.einsum("ij,jk->ki", t, getattr(s, w)),
                lambda s, t: torch.mv(t, getattr(s, w)[:, 0]),
            ]
        )
    return m.choice(
        [
            lambda s, t: torch.matmul(t, getattr(s, w)),
            lambda s, t: torch.bmm(t, t.transpose(1, 2)) * 0.1,
            lambda s, t: torch.baddbmm(t[:, :, :1], t, t.transpose(1, 2), beta=0.5, alpha=0.2),
            lambda s, t: torch.einsum("bij,jk->bki", t, getattr(s, w)),
        ]
    )


def _attention(m: Maker, x: Tensor) -> Function:
    causal = m.chance(0.4)
    return lambda _, t: F.scaled_dot_product_attention(t, t * 0.5, t, is_causal=causal)


def _table(m: Maker, ids: Tensor) -> Function:
    rows, width = m.rng.randint(3, 30), m.choice([1, 4, 9])
    w = m.weight(rows, width)
    return lambda s, i: F.embedding(i % rows, getattr(s, w) * 1.0)


KINDS: tuple[Kind, ...] = ()


def _kinds() -> tuple[Kind, ...]:
    from arrange import ARRANGING

    any_rank = (0, 1, 2, 3, 4, 5)
    single = (torch.float32,)
    return (
        Kind(_smooth, "f", any_rank, 9),
        Kind(_jumping, "f", any_rank, 0.7),
        Kind(_signs, "f", any_rank, 0.4),
        Kind(_whole_unary, "i", any_rank, 3),
        Kind(_binary, "ff", any_rank, 8),
        Kind(_mixed, "fn", any_rank, 1),
        Kind(_whole_binary, "ii", any_rank, 3),
        Kind(_compare_whole, "ii", any_rank, 1),
        Kind(_compare, "ff", any_rank, 1),
        Kind(_compare_number, "f", any_rank, 1),
        Kind(_logic, "bb", any_rank, 1.5),
        Kind(_not, "b", (1, 2, 3, 4), 1),
        Kind(_from_bool, "b", (1, 2, 3, 4), 1.5),
        Kind(_from_whole, "i", any_rank, 2),
        Kind(_to_whole, "f", any_rank, 1),
        Kind(_width, "f", any_rank, 0.7),
        Kind(_choose, "baa", any_rank, 2),
        Kind(_fill, "bf", any_rank, 1),
        Kind(_reduce, "f", (1, 2, 3, 4), 4),
        Kind(_reduce_whole, "i", (1, 2, 3, 4), 2),
        Kind(_extreme, "f", (1, 2, 3, 4), 1),
        Kind(_sort, "f", (1, 2, 3), 1),
        Kind(_along, "f", (1, 2, 3, 4), 2),
        Kind(_norm, "f", (2, 3, 4), 1.5),
        Kind(_linear, "f", (1, 2, 3, 4), 3, single),
        Kind(_matmul, "f", (2, 3, 4), 1.5),
        Kind(_products, "f", (2, 3), 1.5),
        Kind(_attention, "f", (3, 4), 1),
        Kind(_table, "i", (1, 2), 1.5),
        *(Kind(build, types, ranks, weight) for build, types, ranks, weight in ARRANGING),
        *(Kind(build, "f", ranks, weight, single) for build, ranks, weight in IMAGES),
    )


KINDS = _kinds()
