"""Shape rules that several op records share."""

from __future__ import annotations

from collections.abc import Sequence

from npu_compiler.errors import Unsupported
from torch_ir.expr import Dim, evaluate, product, symbols_of


def broadcast(shapes: Sequence[tuple[Dim, ...]]) -> tuple[Dim, ...]:
    """The shape that tensors of these shapes have together, aligned at the right."""
    rank = max(len(shape) for shape in shapes)
    result: list[Dim] = []
    for position in range(rank):
        sizes = {shape[position - rank + len(shape)] for shape in shapes if position - rank + len(shape) >= 0}
        sizes.discard(1)
        if len(sizes) > 1:
            raise Unsupported(f"shapes {', '.join(map(str, shapes))} do not broadcast")
        result.append(sizes.pop() if sizes else 1)
    return tuple(result)


def window_out(
    size: Dim, kernel: int, stride: int, padding: tuple[int, int], dilation: int, ceil: bool = False
) -> Dim:
    """How many windows fit: the output size of a convolution or pooling dimension.

    With ``ceil`` a last window that starts inside the input or its left padding may hang over the end (as
    PyTorch).
    """
    span = size + (sum(padding) - dilation * (kernel - 1) - 1)
    if not ceil:
        return span // stride + 1
    out = (span + (stride - 1)) // stride + 1
    if isinstance(out, int) and isinstance(size, int) and (out - 1) * stride >= size + padding[0]:
        out -= 1
    return out


def require(condition: bool, reason: str) -> None:
    """Refuses operands or attributes that PyTorch refuses too, as a kernel would read or write what
    is not its own."""
    if not condition:
        raise Unsupported(reason)


def may_equal(left: Dim, right: Dim) -> bool:
    """Whether sizes can be equal: False where they differ whatever the symbols are."""
    difference = left - right
    return not isinstance(difference, int) or difference == 0


def may_expand(size: Dim, wanted: Dim) -> bool:
    """Whether a dimension of ``size`` can be broadcast to ``wanted``."""
    return size == 1 or may_equal(size, wanted)


def same_count(left: Sequence[Dim], right: Sequence[Dim]) -> bool:
    """Whether shapes have as many elements; with symbols, where these are numbers that many others divide."""
    counts = product(left), product(right)
    names = sorted(symbols_of(counts[0]) | symbols_of(counts[1]))
    values = {name: 720_720 * (index + 1) for index, name in enumerate(names)}
    return evaluate(counts[0], values) == evaluate(counts[1], values)
