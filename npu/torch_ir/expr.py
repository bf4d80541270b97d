"""Symbolic sizes: ``Dim = int | Expr`` over named, non-negative symbols.

The grammar is closed: integers, symbols, ``+ - * // %``, ``min`` and ``max``. Every expression is kept in a
normal form (a polynomial with integer coefficients over *atoms*, where an atom is a symbol or a call of
``// % min max``), so that two ways of writing one size compare equal: ``(s0 + s0) * 2 == 4 * s0``. ``//`` and
``%`` round towards minus infinity, as in Python. A result without symbols is always a plain ``int``.
"""

from __future__ import annotations

import ast
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import reduce
from typing import TypeAlias, Union

Dim: TypeAlias = Union[int, "Expr"]
Bounds: TypeAlias = Mapping[str, tuple[int, int]]

#: A product of atoms, sorted; the empty product is the constant term.
Monomial: TypeAlias = tuple["Atom", ...]


@dataclass(frozen=True, slots=True)
class Atom:
    """What a polynomial cannot look into: a symbol (``op == "symbol"``), or a call of ``// % min max``."""

    op: str
    name: str = ""
    args: tuple[Dim, ...] = ()

    def __str__(self) -> str:
        if self.op == "symbol":
            return self.name
        if self.op in ("min", "max"):
            return f"{self.op}({', '.join(map(str, self.args))})"
        left, right = (str(arg) if _is_simple(arg) else f"({arg})" for arg in self.args)
        return f"({left} {self.op} {right})"

    def sort_key(self) -> tuple[str, str]:
        return ("" if self.op == "symbol" else "~", str(self))


@dataclass(frozen=True, slots=True)
class Expr:
    """A polynomial in normal form, built with ``symbol``, arithmetic, ``minimum``, ``maximum``, ``parse``."""

    terms: tuple[tuple[Monomial, int], ...]

    def __add__(self, other: Dim) -> Dim:
        terms = dict(self.terms)
        for monomial, factor in _terms(other):
            terms[monomial] = terms.get(monomial, 0) + factor
        return _normal(terms)

    def __mul__(self, other: Dim) -> Dim:
        terms: dict[Monomial, int] = {}
        for left, left_factor in self.terms:
            for right, right_factor in _terms(other):
                product = tuple(sorted(left + right, key=Atom.sort_key))
                terms[product] = terms.get(product, 0) + left_factor * right_factor
        return _normal(terms)

    def __neg__(self) -> Dim:
        return self * -1

    def __sub__(self, other: Dim) -> Dim:
        return self + other * -1

    def __rsub__(self, other: int) -> Dim:
        return self * -1 + other

    def __floordiv__(self, other: Dim) -> Dim:
        return _divide(self, other)[0]

    def __rfloordiv__(self, other: int) -> Dim:
        return _divide(other, self)[0]

    def __mod__(self, other: Dim) -> Dim:
        return _divide(self, other)[1]

    def __rmod__(self, other: int) -> Dim:
        return _divide(other, self)[1]

    __radd__ = __add__
    __rmul__ = __mul__

    def __str__(self) -> str:
        text = ""
        for monomial, factor in self.terms:
            names = "*".join(map(str, monomial))
            size = abs(factor)
            term = names if names and size == 1 else f"{size}*{names}" if names else str(size)
            text += (" - " if factor < 0 else " + ") + term if text else ("-" if factor < 0 else "") + term
        return text

    def __repr__(self) -> str:
        return f"Expr({self})"


def symbol(name: str) -> Expr:
    """The symbol ``name`` (an identifier), a whole number of at least 0."""
    if not name.isidentifier() or name in ("min", "max"):
        raise ValueError(f"{name!r} cannot name a symbol: it must be an identifier other than min and max")
    return Expr((((Atom("symbol", name),), 1),))


def minimum(*dims: Dim) -> Dim:
    """The smallest of ``dims``."""
    return _extreme("min", min, dims)


def maximum(*dims: Dim) -> Dim:
    """The largest of ``dims``."""
    return _extreme("max", max, dims)


def ceil_div(dim: Dim, divisor: Dim) -> Dim:
    """``dim / divisor`` rounded up."""
    return (dim + (divisor - 1)) // divisor


def product(dims: Iterable[Dim]) -> Dim:
    """The product of ``dims``; 1 for none."""
    one: Dim = 1
    return reduce(lambda left, right: left * right, dims, one)


def is_static(dim: Dim) -> bool:
    """Whether ``dim`` is a plain number."""
    return isinstance(dim, int)


def symbols_of(dim: Dim) -> frozenset[str]:
    """The names of the symbols in ``dim``."""
    if isinstance(dim, int):
        return frozenset()
    names: frozenset[str] = frozenset()
    for monomial, _ in dim.terms:
        for atom in monomial:
            names |= {atom.name} if atom.op == "symbol" else frozenset().union(*map(symbols_of, atom.args))
    return names


def substitute(dim: Dim, values: Mapping[str, Dim]) -> Dim:
    """``dim`` with the symbols in ``values`` replaced; symbols that ``values`` does not name stay."""
    return _rebuilt(dim, lambda atom: _substitute_atom(atom, values))


def evaluate(dim: Dim, values: Mapping[str, int]) -> int:
    """``dim`` as a number. Raises ``KeyError`` naming a symbol that ``values`` lacks."""
    result = substitute(dim, values)
    if not isinstance(result, int):
        raise KeyError(f"no value for {', '.join(sorted(symbols_of(result)))} in {dim}")
    return result


def bounds_of(dim: Dim, bounds: Bounds) -> tuple[int, int]:
    """The smallest and largest value that ``dim`` can take (interval arithmetic: never too narrow)."""
    if isinstance(dim, int):
        return dim, dim
    low = high = 0
    for monomial, factor in dim.terms:
        term = (factor, factor)
        for atom in monomial:
            term = _corners(term, _atom_bounds(atom, bounds), lambda a, b: a * b)
        low, high = low + term[0], high + term[1]
    return low, high


def within(dim: Dim, bounds: Bounds) -> Dim:
    """``dim`` without the arguments of min and max that decide nothing within the bounds: min(s, 32) is s
    where s is 16 at most."""
    return _rebuilt(dim, lambda atom: _atom_within(atom, bounds))


def parse(text: str | int) -> Dim:
    """Reads what ``str(dim)`` writes; nothing is executed.

    Raises ``ValueError`` for anything outside the grammar.
    """
    if isinstance(text, int):
        return text
    if len(text) > 10_000:
        raise ValueError(f"a size of {len(text)} characters is not a size: {text[:40]!r}...")
    try:
        return _from_ast(ast.parse(text.strip(), mode="eval").body)
    except (SyntaxError, RecursionError, MemoryError, ZeroDivisionError) as error:
        raise ValueError(f"{text!r} is not a size expression: {error}") from None


def _is_simple(dim: Dim) -> bool:
    if isinstance(dim, int):
        return dim >= 0
    return len(dim.terms) == 1 and dim.terms[0][1] == 1 and len(dim.terms[0][0]) == 1


def _terms(dim: Dim) -> tuple[tuple[Monomial, int], ...]:
    if isinstance(dim, Expr):
        return dim.terms
    return (((), dim),) if dim else ()


def _normal(terms: Mapping[Monomial, int]) -> Dim:
    kept = {monomial: factor for monomial, factor in terms.items() if factor}
    if not kept:
        return 0
    if set(kept) == {()}:
        return kept[()]

    def order(item: tuple[Monomial, int]) -> tuple[int, list[tuple[str, str]]]:
        return -len(item[0]), [atom.sort_key() for atom in item[0]]

    return Expr(tuple(sorted(kept.items(), key=order)))


def _atom(op: str, *args: Dim) -> Expr:
    return Expr((((Atom(op, args=args),), 1),))


def _divide(dividend: Dim, divisor: Dim) -> tuple[Dim, Dim]:
    """Quotient and remainder. With a number as divisor, whole multiples leave: (8*s0 + 3) // 8 = s0."""
    if isinstance(divisor, int):
        if divisor == 0:
            raise ZeroDivisionError(f"{dividend} // 0")
        if isinstance(dividend, int):
            return dividend // divisor, dividend % divisor
        whole: dict[Monomial, int] = {}
        rest: dict[Monomial, int] = {}
        for monomial, factor in _terms(dividend):
            split = (factor // divisor, factor % divisor) if divisor > 0 else (0, factor)
            whole[monomial], rest[monomial] = split
        quotient, remainder = _normal(whole), _normal(rest)
        if isinstance(remainder, int):
            return quotient + remainder // divisor, remainder % divisor
        return quotient + _atom("//", remainder, divisor), _atom("%", remainder, divisor)
    if dividend == divisor:
        return 1, 0
    exact = _exact(dividend, divisor)
    if exact is not None:
        return exact, 0
    return _atom("//", dividend, divisor), _atom("%", dividend, divisor)


def _exact(dividend: Dim, divisor: Expr) -> Dim | None:
    """``dividend / divisor`` where the divisor is one product that divides every term; None otherwise."""
    if len(divisor.terms) != 1:
        return None
    ((atoms, scale),) = divisor.terms
    terms: dict[Monomial, int] = {}
    for monomial, factor in _terms(dividend):
        left = list(monomial)
        if factor % scale or any(left.count(atom) < atoms.count(atom) for atom in atoms):
            return None
        for atom in atoms:
            left.remove(atom)
        terms[tuple(left)] = factor // scale
    return _normal(terms)


def _extreme(name: str, function: Callable[[Iterable[int]], int], dims: tuple[Dim, ...]) -> Dim:
    numbers = [dim for dim in dims if isinstance(dim, int)]
    others = sorted({dim for dim in dims if not isinstance(dim, int)}, key=str)
    if not others:
        return function(numbers)
    args: tuple[Dim, ...] = (*others, *([function(numbers)] if numbers else ()))
    return args[0] if len(args) == 1 else _atom(name, *args)


def _rebuilt(dim: Dim, change: Callable[[Atom], Dim]) -> Dim:
    """``dim`` with ``change`` applied to the atoms of its products."""
    if isinstance(dim, int):
        return dim
    total: Dim = 0
    for monomial, factor in dim.terms:
        term: Dim = factor
        for atom in monomial:
            term = term * change(atom)
        total = total + term
    return total


def _substitute_atom(atom: Atom, values: Mapping[str, Dim]) -> Dim:
    if atom.op == "symbol":
        return values.get(atom.name, symbol(atom.name))
    return _APPLY[atom.op](*(substitute(arg, values) for arg in atom.args))


def _atom_within(atom: Atom, bounds: Bounds) -> Dim:
    if atom.op == "symbol":
        return symbol(atom.name)
    args = [within(arg, bounds) for arg in atom.args]
    if atom.op not in ("min", "max"):
        return _APPLY[atom.op](*args)

    def decides_nothing(arg: Dim, other: Dim) -> bool:
        try:
            low, high = bounds_of(other - arg, bounds)
        except ValueError:
            return False
        return high <= 0 if atom.op == "min" else low >= 0

    kept = list(args)
    for index in reversed(range(len(args))):
        others = kept[:index] + kept[index + 1 :]
        if any(decides_nothing(kept[index], other) for other in others):
            kept = others
    return _APPLY[atom.op](*kept)


def _atom_bounds(atom: Atom, bounds: Bounds) -> tuple[int, int]:
    if atom.op == "symbol":
        return bounds[atom.name]
    args = [bounds_of(arg, bounds) for arg in atom.args]
    if atom.op in ("min", "max"):
        function = min if atom.op == "min" else max
        return function(low for low, _ in args), function(high for _, high in args)
    if args[1][0] <= 0 <= args[1][1]:
        raise ValueError(f"{atom} may divide by zero")
    if atom.op == "//":
        return _corners(args[0], args[1], lambda a, b: a // b)
    low, high = args[1]
    return (0, min(high - 1, args[0][1]) if args[0][0] >= 0 else high - 1) if low > 0 else (low + 1, 0)


def _corners(
    left: tuple[int, int], right: tuple[int, int], apply: Callable[[int, int], int]
) -> tuple[int, int]:
    values = [apply(a, b) for a in left for b in right]
    return min(values), max(values)


_APPLY: Mapping[str, Callable[..., Dim]] = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "//": lambda a, b: a // b,
    "%": lambda a, b: a % b,
    "min": minimum,
    "max": maximum,
}
_OPERATORS: Mapping[type, str] = {ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.FloorDiv: "//", ast.Mod: "%"}


def _from_ast(tree: ast.expr) -> Dim:
    match tree:
        case ast.Constant(value=int(value)) if not isinstance(value, bool) and abs(value) < 1 << 63:
            return value
        case ast.Name(id=name):
            return symbol(name)
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return _from_ast(operand) * -1
        case ast.BinOp(left=left, op=operator, right=right) if type(operator) in _OPERATORS:
            return _APPLY[_OPERATORS[type(operator)]](_from_ast(left), _from_ast(right))
        case ast.Call(func=ast.Name(id="min" | "max" as name), args=args, keywords=[]) if args:
            return _APPLY[name](*map(_from_ast, args))
    raise ValueError(f"{ast.unparse(tree)!r} is outside the grammar of sizes (+ - * // % min max)")


def gcd_of(dim: Dim) -> int:
    """The largest number known to divide ``dim`` whatever its symbols are."""
    return abs(dim) if isinstance(dim, int) else math.gcd(*(factor for _, factor in dim.terms))
