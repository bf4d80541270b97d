"""Discrete Fourier transforms as matrix products.

A transform of length n is a product with the matrix exp(s 2 pi i j k / n), s = -1 forward and 1 backward;
where n = p q, two shorter ones with a product between them do the same (Cooley and Tukey, "An algorithm for
the machine calculation of complex Fourier series", 1965): with j = j1 q + j2 and k = k1 + p k2,

    X[k1 + p k2] = sum over j2 of ( W_n^(j2 k1) * sum over j1 of x[j1 q + j2] W_p^(j1 k1) ) W_q^(j2 k2)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np

from npu_compiler.lowering import Builder, unsupported
from npu_compiler.ops.matmul import product_of
from npu_compiler.ops.views import permute, reshape, slice_dim
from torch_ir.expr import Dim

#: Lengths up to this are one product.
DIRECT = 64
#: Longer prime lengths are refused: their matrix would have more elements than a model's weights.
LONGEST_PRIME = 2048

#: Any numpy array.
Array: TypeAlias = np.ndarray[Any, Any]
#: (name of a kind of table, its values) -> a constant of the graph; equal ones are one.
Constant = Callable[[str, Array], str]
#: The real and the imaginary part; None where that is 0.
Parts = tuple[str, "str | None"]


def transform(b: Builder, constant: Constant, x: Parts, dim: int, forward: bool) -> tuple[str, str]:
    """The unscaled transform along ``dim``."""
    rank = len(b.shape(x[0]))
    order = (*(d for d in range(rank) if d != dim), dim)
    back = tuple(order.index(d) for d in range(rank))
    real = permute(b, x[0], order)
    imaginary = None if x[1] is None else permute(b, x[1], order)
    made = _last(b, constant, (real, imaginary), forward)
    return permute(b, made[0], back), permute(b, made[1], back)


def complete(b: Builder, x: tuple[str, str], dim: int, size: int) -> tuple[str, str]:
    """All ``size`` elements along ``dim`` of a spectrum whose second half mirrors its first, conjugated."""
    half = b.shape(x[0])[dim]
    assert half == size // 2 + 1
    parts = []
    for part, sign in zip(x, (1, -1), strict=True):
        tail = slice_dim(b, part, dim, 1, (size - 1) // 2)
        tail = b.emit("flip", tail, dims=(dim,))
        if sign < 0:
            tail = b.emit("neg", tail)
        parts.append(b.emit("concat", part, tail, dim=dim) if size > 2 else part)
    return parts[0], parts[1]


def factors(size: int) -> tuple[int, int]:
    """``size`` as a product of two numbers that are as close as can be, the smaller one first."""
    low = next(low for low in range(math.isqrt(size), 0, -1) if size % low == 0)
    return low, size // low


def _last(b: Builder, constant: Constant, x: Parts, forward: bool) -> tuple[str, str]:
    """The transform along the last dimension."""
    *outer, size = b.shape(x[0])
    if not isinstance(size, int):
        raise unsupported(f"a Fourier transform of symbolic length {size}", "fix the length")
    low, high = factors(size)
    if size <= DIRECT or low == 1:
        return _product(b, constant, x, size, forward)
    lead = tuple(outer)
    rank = len(lead) + 2
    swapped = (*range(rank - 2), rank - 1, rank - 2)
    split = _each(x, lambda part: permute(b, reshape(b, part, (*lead, low, high)), swapped))
    inner = _last(b, constant, split, forward)  # (..., j2, k1)
    turned = times(b, inner, _turns(b, constant, low, high, forward))
    done = _last(b, constant, _each(turned, lambda part: permute(b, part, swapped)), forward)  # (..., k1, k2)
    real, imaginary = _each(done, lambda part: reshape(b, permute(b, part, swapped), (*lead, size)))
    assert imaginary is not None
    return real, imaginary


def _each(x: Parts, change: Callable[[str], str]) -> Parts:
    return change(x[0]), None if x[1] is None else change(x[1])


def _product(b: Builder, constant: Constant, x: Parts, size: int, forward: bool) -> tuple[str, str]:
    """The transform as a product with its whole matrix."""
    if size > LONGEST_PRIME:
        raise unsupported(
            f"a Fourier transform of length {size}, a prime beyond {LONGEST_PRIME}",
            "pad to a length that is a product of small numbers",
        )
    j = np.arange(size)
    angles = np.outer(j, j) % size * (2 * np.pi / size) * (-1 if forward else 1)
    kind = f"fourier.{size}.{'forward' if forward else 'backward'}"
    cosine, sine = constant(f"{kind}.cos", np.cos(angles)), constant(f"{kind}.sin", np.sin(angles))
    real, imaginary = product_of(b, x[0], cosine), product_of(b, x[0], sine)
    if x[1] is not None:
        real = b.emit("sub", real, product_of(b, x[1], sine))
        imaginary = b.emit("add", imaginary, product_of(b, x[1], cosine))
    return real, imaginary


def _turns(b: Builder, constant: Constant, low: int, high: int, forward: bool) -> tuple[str, str]:
    """The factors between the two shorter transforms."""
    angles = np.outer(np.arange(high), np.arange(low)) * (2 * np.pi / (low * high)) * (-1 if forward else 1)
    kind = f"fourier.{low}x{high}.{'forward' if forward else 'backward'}"
    return constant(f"{kind}.cos", np.cos(angles)), constant(f"{kind}.sin", np.sin(angles))


def times(b: Builder, x: Parts, y: Parts) -> tuple[str, str]:
    """The product of complex numbers, elementwise."""
    (xr, xi), (yr, yi) = x, y
    if xi is None or yi is None:
        other = yi if xi is None else xi
        real = b.emit("mul", xr, yr)
        scale = xr if xi is None else yr
        return real, b.emit("mul", scale, other if other is not None else b.emit("sub", yr, yr))
    real = b.emit("sub", b.emit("mul", xr, yr), b.emit("mul", xi, yi))
    return real, b.emit("add", b.emit("mul", xr, yi), b.emit("mul", xi, yr))


def scaled(b: Builder, x: str, kind: int, sizes: Sequence[Dim]) -> str:
    """Divided by the square root of the number of elements (``kind`` 1) or by that itself (2)."""
    count = 1
    for size in sizes:
        if not isinstance(size, int):
            raise unsupported(f"a Fourier transform of symbolic length {size}", "fix the length")
        count *= size
    if kind == 0 or count == 1:
        return x
    return b.emit("mul", x, None, scalar=1 / (math.sqrt(count) if kind == 1 else count))
