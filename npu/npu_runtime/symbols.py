"""Sizes that depend on a program's symbols: texts of a closed grammar, read without eval.

Grammar: whole numbers, the program's symbols, ``+ - * // %`` (rounding towards minus infinity), unary minus,
``min`` and ``max``. A text becomes a closure once; evaluating it costs a few function calls.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import lru_cache

from npu_runtime.errors import FormatError, InputError
from npu_runtime.program import CompiledProgram, Dim, Guard, IOSpec, Symbol

Values = Mapping[str, int]
Closure = Callable[[Values], int]

#: No size, offset or argument may lie outside plus and minus this.
LIMIT = 1 << 62
MAX_TEXT = 10_000
MAX_DEPTH = 100

_OPERATORS: Mapping[type[ast.operator], Callable[[Closure, Closure], Closure]] = {
    ast.Add: lambda a, b: lambda values: a(values) + b(values),
    ast.Sub: lambda a, b: lambda values: a(values) - b(values),
    ast.Mult: lambda a, b: lambda values: a(values) * b(values),
    ast.FloorDiv: lambda a, b: lambda values: a(values) // b(values),
    ast.Mod: lambda a, b: lambda values: a(values) % b(values),
}
_EXTREMES: Mapping[str, Callable[[list[int]], int]] = {"min": min, "max": max}


def symbols_of(dim: Dim) -> frozenset[str]:
    """The names of the symbols in ``dim``. Raises ``FormatError`` for a text outside the grammar."""
    return frozenset() if isinstance(dim, int) else _compiled(dim)[1]


def evaluate(dim: Dim, values: Values) -> int:
    """``dim`` as a number.

    Raises ``FormatError`` if its text is outside the grammar, names a symbol that ``values`` lacks, divides
    by zero or gives an absurd number.
    """
    if isinstance(dim, int):
        return dim
    closure, names = _compiled(dim)
    try:
        number = closure(values)
    except KeyError:
        missing = ", ".join(sorted(names - values.keys()))
        raise FormatError(f"size {dim!r}: {missing} is not a symbol of the program") from None
    except ZeroDivisionError:
        raise FormatError(f"size {dim!r} divides by zero for {dict(values)}") from None
    if not -LIMIT < number < LIMIT:
        raise FormatError(f"size {dim!r} is absurdly large for {dict(values)}")
    return number


def evaluate_shape(shape: Sequence[Dim], values: Values) -> tuple[int, ...]:
    """``shape`` as numbers; raises as ``evaluate`` does."""
    return tuple(dim if isinstance(dim, int) else evaluate(dim, values) for dim in shape)


@lru_cache(maxsize=100_000)
def _compiled(text: str) -> tuple[Closure, frozenset[str]]:
    if len(text) > MAX_TEXT:
        raise FormatError(f"a size of {len(text)} characters is not a size: {text[:40]!r}...")
    names: set[str] = set()
    try:
        closure = _from_ast(ast.parse(text.strip(), mode="eval").body, names, MAX_DEPTH)
    except (SyntaxError, RecursionError, MemoryError, ValueError) as error:
        raise FormatError(f"{text[:80]!r} is not a size: {error}") from None
    return closure, frozenset(names)


def _from_ast(tree: ast.expr, names: set[str], depth: int) -> Closure:
    if depth == 0:
        raise ValueError(f"it is nested more than {MAX_DEPTH} levels deep")
    match tree:
        case ast.Constant(value=int(number)) if not isinstance(number, bool) and number < LIMIT:
            return lambda _: number
        case ast.Name(id=name):
            names.add(name)
            return lambda values: values[name]
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            inner = _from_ast(operand, names, depth - 1)
            return lambda values: -inner(values)
        case ast.BinOp(left=left, op=operator, right=right) if type(operator) in _OPERATORS:
            build = _OPERATORS[type(operator)]
            return build(_from_ast(left, names, depth - 1), _from_ast(right, names, depth - 1))
        case ast.Call(func=ast.Name(id="min" | "max" as name), args=args, keywords=[]) if args:
            pick = _EXTREMES[name]
            parts = [_from_ast(arg, names, depth - 1) for arg in args]
            return lambda values: pick([part(values) for part in parts])
    raise ValueError("sizes are whole numbers and symbols with + - * // % min max")


def affine(dim: Dim, name: str) -> tuple[int, int] | None:
    """``(factor, offset)`` where ``dim`` is ``factor * name + offset`` with a factor above 0; None
    otherwise."""
    if isinstance(dim, int) or symbols_of(dim) != {name}:
        return None
    try:
        at = [evaluate(dim, {name: value}) for value in (0, 1, 2, 1001)]
    except FormatError:
        return None
    factor = at[1] - at[0]
    return (factor, at[0]) if factor > 0 and at[2:] == [at[0] + 2 * factor, at[0] + 1001 * factor] else None


def unbound(symbols: Sequence[Symbol], specs: Sequence[IOSpec]) -> set[str]:
    """The symbols that no input's shape determines."""
    dims = [dim for spec in specs for dim in spec.shape]
    return {symbol.name for symbol in symbols if not any(affine(dim, symbol.name) for dim in dims)}


def bind(program: CompiledProgram, shapes: Mapping[str, Sequence[int]]) -> dict[str, int]:
    """The values of ``program``'s symbols for inputs of these shapes (input name -> dims; every input is
    there).

    A dim that is a symbol, or a whole multiple of one plus a number, determines it; every other dim is
    checked against what follows. Bounds and guards are checked. Raises ``InputError`` naming input, dim and
    expectation.
    """
    values: dict[str, int] = {}
    setters: dict[str, str] = {}
    bounds = {symbol.name: symbol for symbol in program.symbols}
    for spec in program.input_specs:
        shape = shapes[spec.name]
        if len(shape) != len(spec.shape):
            raise InputError(
                f"input {spec.name!r} has shape {list(shape)}: expected the {len(spec.shape)} dims "
                f"[{', '.join(map(str, spec.shape))}]"
            )
        for axis, (dim, size) in enumerate(zip(spec.shape, shape, strict=True)):
            for name in symbols_of(dim) - values.keys():
                if found := affine(dim, name):
                    value, rest = divmod(size - found[1], found[0])
                    place = f"input {spec.name!r} dim {axis}"
                    if rest:
                        raise InputError(f"{place} is {size}: expected a number of the form {dim}")
                    values[name], setters[name] = value, place
                    low, high = bounds[name].lower, bounds[name].upper
                    if not low <= value <= high:
                        raise InputError(f"{place} is {size}: {_range(dim, found, low, high)}")
    for spec in program.input_specs:
        for axis, (dim, size) in enumerate(zip(spec.shape, shapes[spec.name], strict=True)):
            expected = evaluate(dim, values)
            if size != expected:
                because = "".join(
                    f", with {name} = {values[name]} from {setters[name]}" for name in sorted(symbols_of(dim))
                )
                formula = "" if isinstance(dim, int) else f" ({dim}{because})"
                raise InputError(f"input {spec.name!r} dim {axis} is {size}: expected {expected}{formula}")
    _check_guards(program.guards, values, setters)
    return values


def _range(dim: Dim, found: tuple[int, int], low: int, high: int) -> str:
    factor, offset = found
    return f"this program takes {factor * low + offset} to {factor * high + offset} there ({dim})"


def _check_guards(guards: Collection[Guard], values: Values, setters: Mapping[str, str]) -> None:
    for guard in guards:
        left, right = evaluate(guard.left, values), evaluate(guard.right, values)
        if left > right or (guard.relation == "==" and left != right):
            named = sorted(symbols_of(guard.left) | symbols_of(guard.right))
            sizes = ", ".join(f"{name} = {values[name]} from {setters[name]}" for name in named)
            says = guard.message or f"{guard.left} {guard.relation} {guard.right} must hold"
            raise InputError(
                f"the input shapes ({sizes}) do not fit this program: {says} (here {left} and {right})"
            )
