"""The dynamic dimensions of a module's inputs: PyTorch's symbols under the names and in the bounds that were
declared. Never imports PyTorch: it looks at what it gets."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch_ir import example as examples
from torch_ir.errors import IRError
from torch_ir.expr import Dim, ceil_div, symbol


@dataclass(frozen=True)
class Size:
    """A size of an input: a number or a sympy expression, where it stands, and the ``Dim`` or hint that was
    declared for it."""

    value: Any
    input: str
    axis: int
    declared: Any

    @property
    def dim(self) -> Any:
        """The dimension that it was declared as, or is derived from; None for hints."""
        root = getattr(self.declared, "root", self.declared)
        return root if examples.is_named(root) else None

    @property
    def derived(self) -> bool:
        """Whether it was declared as an expression of another dimension."""
        return hasattr(self.declared, "root")

    @property
    def symbols(self) -> list[Any]:
        return [] if isinstance(self.value, int) else sorted(self.value.free_symbols, key=str)


@dataclass
class _Found:
    """One of PyTorch's symbols: where it stands, the names that it was declared under, and the bounds that
    these leave to it."""

    place: str
    names: list[str] = field(default_factory=list)
    lower: int | None = None
    upper: int | None = None

    def narrow(self, lower: int, upper: int | None) -> None:
        self.lower = lower if self.lower is None else max(lower, self.lower)
        if upper is not None:
            self.upper = upper if self.upper is None else min(upper, self.upper)


def declared_symbols(
    name: str, ranges: Mapping[Any, Any], sizes: Sequence[Size], conditions: Iterable[Any]
) -> tuple[dict[str, Dim], dict[str, tuple[int, int]]]:
    """PyTorch's symbols as ours, and the bounds of ours. What was declared as several dimensions, and must
    always be equal, is one symbol: the first, in the bounds that all of them allow.

    ``ranges`` are those that PyTorch found. They may be narrower where the module asks something of several
    dimensions together, which ``conditions`` say. Raises ``IRError`` for any other restriction, and where
    there is no upper bound.
    """
    found = _collect(name, sizes)
    together = [{str(free) for free in condition.free_symbols} for condition in conditions]
    joint = {item for names in together if len(names) > 1 for item in names}
    joint |= {str(free) for size in sizes if size.dim is not None for free in size.symbols
              if size.value != free and not size.derived}
    known = {str(key): value for key, value in ranges.items()}
    symbols: dict[str, Dim] = {}
    bounds: dict[str, tuple[int, int]] = {}
    for item, entry in found.items():
        public = entry.names[0] if entry.names else f"s{len(symbols)}"
        symbols[item] = symbol(public)
        entry.place += f" ({public})"
        bounds[public] = _bounds(entry, known.get(item), item in joint)
    return symbols, bounds


def _collect(name: str, sizes: Sequence[Size]) -> dict[str, _Found]:
    found: dict[str, _Found] = {}
    for size in sizes:
        place = f"{name}: dimension {size.axis} of input {size.input}"
        if size.dim is not None and not size.symbols:
            raise IRError(
                f"{place} ({size.dim.__name__}): the module does not work for all sizes that were declared, "
                f"but for {size.value} only; declare it static, or lift the restriction in the module"
            )
        for free in size.symbols:
            entry = found.setdefault(str(free), _Found(place))
            if size.dim is not None and (size.derived or size.value == free):
                if size.dim.__name__ not in entry.names:
                    entry.names.append(size.dim.__name__)
                entry.narrow(*examples.dim_bounds(size.dim))
    for size in sizes:
        if size.dim is not None and not size.derived:
            for free, lower, upper in _implied(size):
                found[str(free)].narrow(lower, upper)
    return found


def _implied(size: Size) -> Iterator[tuple[Any, int, int | None]]:
    """The bounds of a symbol for which ``a * symbol + b`` lies in those that were declared for it."""
    if len(size.symbols) != 1 or size.value == size.symbols[0]:
        return
    (free,) = size.symbols
    offset, at_one, at_two = (size.value.subs(free, number) for number in (0, 1, 2))
    factor = at_one - offset
    if at_two - at_one != factor or not getattr(factor, "is_Integer", False) or factor <= 0:
        return
    low, high = examples.dim_bounds(size.dim)
    yield (free, int(ceil_div(low - int(offset), int(factor))),  # type: ignore[arg-type]  # numbers only
           None if high is None else (high - int(offset)) // int(factor))


def _bounds(entry: _Found, range_: Any, joint: bool) -> tuple[int, int]:
    """The bounds of a symbol, checked: those declared, else those that PyTorch found."""
    lower = int(range_.lower)
    upper = int(range_.upper) if getattr(range_.upper, "is_Integer", False) else None
    low, high = entry.lower, entry.upper
    if low is not None:
        # PyTorch assumes a size of at least 2 where it does not say otherwise; a real restriction is an error
        # there.
        narrower = lower > max(low, 2) or (upper is not None and (high is None or upper < high))
        if narrower and not joint:
            raise IRError(
                f"{entry.place} is declared from {low} to {high}: the module does not work for all sizes "
                f"that were declared, but from {lower} to {upper} only; declare these bounds, or lift the "
                "restriction in the module"
            )
        lower, upper = low, high
    if upper is None:
        raise IRError(
            f"{entry.place} has no upper bound, and memory is planned for it; declare one, as in "
            '{"x": {0: ("batch", 1, 8)}}'
        )
    return lower, upper
