"""Weight expressions: how a device tensor is made from a model's original weights, evaluated with numpy.

Grammar (nested lists, as in JSON; anything else is a ``FormatError``):

    ["tensor", key]                                    an original weight
    ["const", dtype, [shape], base64]                  little-endian data
    ["buffer", key, ["const", ..]]                     a buffer in no state_dict, as it was extracted
    ["add" | "sub" | "mul" | "div" | "max" | "min", a, b]     numpy broadcasting
    ["matmul", a, b]                                          numpy's rules, float64
    ["neg" | "sqrt" | "rsqrt" | "exp" | "abs", a]
    ["sum" | "mean", a, [axes]]                               over axes, which stay as 1
    ["reshape", a, [sizes]]  ["permute", a, [axes]]  ["broadcast", a, [sizes]]  ["cast", a, dtype]
    ["pad", a, [[low, high], ..]]  (zeros)   ["slice", a, [[start, stop, step], ..]]   ["concat", [a, ..],
    axis]

Arithmetic on floating point numbers is done in float64; the caller casts the result at the end.

A "tensor" or a "buffer" may be a state that another program of the model changes: whoever evaluates an
expression can give the present content of states by their keys.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from math import prod
from types import MappingProxyType
from typing import Any, TypeAlias

import msgspec
import numpy as np

from npu_runtime.dtypes import ITEM_SIZE, Array, nbytes, numpy_dtype
from npu_runtime.errors import FormatError
from npu_runtime.program import StateSpec, Transform, WeightExpr

Load = Callable[[str], Array]
States: TypeAlias = Mapping[str, Array]

_NO_STATES: States = MappingProxyType({})

MAX_DEPTH = 64
MAX_RANK = 16

_BINARY: Mapping[str, Callable[[Array, Array], Array]] = {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "div": np.true_divide,
    "max": np.maximum,
    "min": np.minimum,
    "matmul": np.matmul,
}
_UNARY: Mapping[str, Callable[[Array], Array]] = {
    "neg": np.negative,
    "sqrt": np.sqrt,
    "rsqrt": lambda a: 1.0 / np.sqrt(a),
    "exp": np.exp,
    "abs": np.abs,
}

_REDUCTIONS: Mapping[str, Callable[[Array, tuple[int, ...]], Array]] = {
    "sum": lambda a, axes: np.asarray(a.sum(axes, a.dtype, keepdims=True)),
    "mean": lambda a, axes: np.asarray(a.mean(axes, keepdims=True)),
}


def evaluate(expr: WeightExpr, load: Load, states: States = _NO_STATES) -> Array:
    """The value of ``expr``; ``load`` gives an original weight by its key, where ``states`` (key -> content)
    has none. Raises ``FormatError``."""
    check(expr)
    try:
        with np.errstate(all="ignore"):
            return _evaluate(expr, load, states)
    except (ValueError, TypeError, IndexError) as error:
        if isinstance(error, FormatError):
            raise
        raise FormatError(f"weight expression {brief(expr)}: {error}") from None


def materialise(
    spec: Transform | StateSpec, expr: WeightExpr, load: Load, states: States = _NO_STATES
) -> Array:
    """``expr``, evaluated as by ``evaluate``, as the dense array that ``spec`` describes. Raises
    ``FormatError`` if its shape is another."""
    value = evaluate(expr, load, states)
    if value.shape != spec.shape:
        raise FormatError(
            f"{spec.name}: its expression {brief(expr)} gives shape {list(value.shape)}, "
            f"the program expects {list(spec.shape)}"
        )
    with np.errstate(all="ignore"):
        return np.ascontiguousarray(value.astype(numpy_dtype(spec.dtype), copy=False)).reshape(spec.shape)


def digest(transforms: Iterable[Transform]) -> str:
    """sha256 (hex) over the canonical JSON of ``transforms``, whatever their order."""
    ordered = sorted(transforms, key=lambda transform: transform.name)
    return hashlib.sha256(msgspec.json.encode(ordered, order="sorted")).hexdigest()


def content_key(spec: Transform | StateSpec, expr: WeightExpr) -> str:
    """sha256 (hex) of what a prepared tensor is: its shape, dtype and expression, not its name."""
    return hashlib.sha256(msgspec.json.encode([spec.shape, spec.dtype, expr])).hexdigest()


def check(expr: object) -> None:
    """Raises ``FormatError`` if ``expr`` is not in the grammar, without evaluating it."""
    for _ in _leaves(expr, MAX_DEPTH):
        pass


def tensors_of(expr: WeightExpr) -> list[str]:
    """The keys of the original weights in ``expr``, each once, in the order of their first use."""
    return list(dict.fromkeys(key for kind, key in _leaves(expr, MAX_DEPTH) if kind == "tensor"))


def reads_of(expr: WeightExpr) -> frozenset[str]:
    """The keys of everything in ``expr`` that may be a state: original weights and buffers."""
    return frozenset(key for _, key in _leaves(expr, MAX_DEPTH))


def shape_of(expr: WeightExpr, shapes: Callable[[str], tuple[int, ...]]) -> tuple[int, ...]:
    """The shape of ``expr`` without computing it; ``shapes`` gives an original weight's. Raises
    ``FormatError``."""
    check(expr)
    try:
        return _shape(expr, shapes)
    except (ValueError, TypeError, IndexError) as error:
        raise FormatError(f"weight expression {brief(expr)}: {error}") from None


def brief(expr: object) -> str:
    """``expr`` for a message."""
    text = repr(expr)
    return text if len(text) < 120 else f"{text[:117]}..."


def _leaves(expr: object, depth: int) -> Iterator[tuple[str, str]]:
    """("tensor" or "buffer", key) of all that ``expr`` reads; it is checked on the way."""
    if depth == 0:
        raise FormatError(f"a weight expression is nested more than {MAX_DEPTH} levels deep")
    match expr:
        case ["tensor", str(key)]:
            yield "tensor", key
        case ["buffer", str(key), ["const", *_] as start]:
            yield "buffer", key
            yield from _leaves(start, depth - 1)
        case ["const", str(dtype), [*shape], str(data)] if dtype in ITEM_SIZE and _sizes(shape):
            _constant(dtype, shape, data)
        case [str(name), a, b] if name in _BINARY:
            yield from _leaves(a, depth - 1)
            yield from _leaves(b, depth - 1)
        case [str(name), a] if name in _UNARY:
            yield from _leaves(a, depth - 1)
        case [str(name), a, [*axes]] if name in _REDUCTIONS and _sizes(axes):
            yield from _leaves(a, depth - 1)
        case ["reshape" | "broadcast" | "permute", a, [*sizes]] if _sizes(sizes):
            yield from _leaves(a, depth - 1)
        case ["pad", a, [*pairs]] if all(isinstance(p, list) and len(p) == 2 and _sizes(p) for p in pairs):
            yield from _leaves(a, depth - 1)
        case ["slice", a, [*parts]] if all(
            isinstance(p, list) and len(p) == 3 and _sizes(p) and p[2] > 0 for p in parts
        ):
            yield from _leaves(a, depth - 1)
        case ["concat", [_, *_] as items, int(axis)] if 0 <= axis < MAX_RANK:
            for item in items:
                yield from _leaves(item, depth - 1)
        case ["cast", a, str(dtype)] if dtype in ITEM_SIZE:
            yield from _leaves(a, depth - 1)
        case _:
            raise FormatError(f"{brief(expr)} is not a weight expression; see npu_runtime.transforms")


def _sizes(values: list[Any]) -> bool:
    return len(values) <= MAX_RANK and all(
        isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 40 for value in values
    )


def _constant(dtype: str, shape: Sequence[Any], data: str) -> Array:
    try:
        raw = base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError) as error:
        raise FormatError(f"a constant's data is not base64: {error}") from None
    if len(raw) != nbytes(shape, dtype):
        raise FormatError(
            f"a constant {dtype}{shape} has {len(raw)} bytes of data, not {nbytes(shape, dtype)}"
        )
    return np.frombuffer(raw, dtype=numpy_dtype(dtype).newbyteorder("<")).reshape(shape)


def _wide(array: Array) -> Array:
    """``array`` in float64 where it holds floating point numbers (ml_dtypes' are of kind "V")."""
    return array.astype(np.float64) if array.dtype.kind in "fV" else array


def _evaluate(expr: WeightExpr, load: Load, states: States) -> Array:
    match expr:
        case ["tensor", str(key)]:
            return states[key] if key in states else load(key)
        case ["buffer", str(key), start]:
            return states[key] if key in states else _evaluate(start, load, states)
        case ["const", str(dtype), [*shape], str(data)]:
            return _constant(dtype, shape, data)
        case [str(name), a, b] if name in _BINARY:
            left, right = (_wide(_evaluate(item, load, states)) for item in (a, b))
            return np.asarray(_BINARY[name](left, right))
        case [str(name), a] if name in _UNARY:
            return np.asarray(_UNARY[name](_wide(_evaluate(a, load, states))))
        case [str(name), a, [*axes]] if name in _REDUCTIONS:
            return _REDUCTIONS[name](_wide(_evaluate(a, load, states)), tuple(axes))
        case ["reshape", a, [*sizes]]:
            return _evaluate(a, load, states).reshape(sizes)
        case ["permute", a, [*axes]]:
            return _evaluate(a, load, states).transpose(axes)
        case ["broadcast", a, [*sizes]]:
            return np.broadcast_to(_evaluate(a, load, states), sizes)
        case ["pad", a, [*pairs]]:
            return _pad(_evaluate(a, load, states), pairs)
        case ["slice", a, [*parts]]:
            value = _evaluate(a, load, states)
            if len(parts) != value.ndim:
                raise ValueError(f"{len(parts)} slices for {value.ndim} dims")
            return value[tuple(slice(*part) for part in parts)]
        case ["concat", [*items], int(axis)]:
            return np.concatenate([_evaluate(item, load, states) for item in items], axis)
        case ["cast", a, str(dtype)]:
            return _evaluate(a, load, states).astype(numpy_dtype(dtype))
    raise FormatError(f"{brief(expr)} is not a weight expression; see npu_runtime.transforms")


def _pad(value: Array, pairs: list[list[int]]) -> Array:
    if len(pairs) != value.ndim:
        raise ValueError(f"{len(pairs)} pads for {value.ndim} dims")
    padded = np.zeros(
        [low + size + high for size, (low, high) in zip(value.shape, pairs, strict=True)], value.dtype
    )
    inner = tuple(slice(low, low + size) for size, (low, _) in zip(value.shape, pairs, strict=True))
    padded[inner] = value
    return padded


def _shape(expr: WeightExpr, shapes: Callable[[str], tuple[int, ...]]) -> tuple[int, ...]:
    """Structure alone: numpy applies it to an array that repeats one byte."""

    def blank(of: WeightExpr) -> Array:
        return np.broadcast_to(np.zeros((), np.uint8), _shape(of, shapes))

    match expr:
        case ["tensor", key]:
            return shapes(key)
        case ["buffer", _, start]:
            return _shape(start, shapes)
        case ["const", _, shape, _]:
            return tuple(shape)
        case ["matmul", a, b]:
            left, right = _shape(a, shapes), _shape(b, shapes)
            if min(len(left), len(right)) < 2 or left[-1] != right[-2]:
                raise ValueError(f"matmul of shapes {left} and {right}")
            return (*np.broadcast_shapes(left[:-2], right[:-2]), left[-2], right[-1])
        case [name, a, b] if name in _BINARY:
            return np.broadcast_shapes(_shape(a, shapes), _shape(b, shapes))
        case [str(name), a, [*axes]] if name in _REDUCTIONS:
            return np.asarray(blank(a).max(tuple(axes), keepdims=True, initial=0)).shape
        case ["reshape", a, sizes]:
            if prod(_shape(a, shapes)) != prod(sizes):
                raise ValueError(f"{prod(_shape(a, shapes))} elements cannot have shape {sizes}")
            return tuple(sizes)
        case ["permute", a, [*axes]]:
            return blank(a).transpose(axes).shape
        case ["broadcast", a, [*sizes]]:
            return np.broadcast_to(blank(a), sizes).shape
        case ["pad", a, [*pairs]]:
            padded = zip(_shape(a, shapes), pairs, strict=True)
            return tuple(low + size + high for size, (low, high) in padded)
        case ["slice", a, [*parts]]:
            sliced = zip(_shape(a, shapes), parts, strict=True)
            return tuple(len(range(size)[slice(*part)]) for size, part in sliced)
        case ["concat", [*items], axis]:
            first, *others = (_shape(item, shapes) for item in items)
            if any(other[:axis] + other[axis + 1 :] != first[:axis] + first[axis + 1 :] for other in others):
                raise ValueError(f"cannot concatenate along {axis}: other dims differ")
            return (*first[:axis], sum(size[axis] for size in (first, *others)), *first[axis + 1 :])
        case [_, a, *_]:
            return _shape(a, shapes)
    raise FormatError(f"{brief(expr)} is not a weight expression; see npu_runtime.transforms")
