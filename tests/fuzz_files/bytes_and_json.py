"""Mutations of bytes, and of JSON."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from typing import Any

Mutation = Callable[[random.Random, bytes], bytes]

#: What replaces a value of any type.
ODD: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2, 3, 7, 255, 1 << 31, -(1 << 31), (1 << 63) - 1, 1 << 63, -(1 << 63) - 1,
    1 << 200, 0.5, -0.0, 1e308, float("nan"), float("inf"), float("-inf"), "", "x", "1", "s0", "s0*0",
    "1//0", "torch.float16", "..", "../x", "\0", "\ud800", "\u202e", "é" * 50, "a" * 20000, [], [[]], [0],
    [1, 2, 3], {}, {"x": 1}, {"expr": "s0"}, {"expr": "1//0"}, {"expr": "-" * 300 + "1"},
)  # fmt: skip


def flip(rng: random.Random, data: bytes) -> bytes:
    """Some bits."""
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 8, 64))):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def truncate(rng: random.Random, data: bytes) -> bytes:
    return data[: rng.choice((0, 1, 7, 8, 9, rng.randrange(len(data)), len(data) - 1))]


def insert(rng: random.Random, data: bytes) -> bytes:
    at = rng.randrange(len(data) + 1)
    return data[:at] + rng.randbytes(rng.choice((1, 2, 4, 100, 5000))) + data[at:]


def _span(rng: random.Random, data: bytes) -> tuple[int, int]:
    start = rng.randrange(len(data))
    return start, min(len(data), start + rng.choice((1, 2, 4, 16, 300, 5000)))


def repeat(rng: random.Random, data: bytes) -> bytes:
    start, stop = _span(rng, data)
    return data[:stop] + data[start:stop] * rng.choice((1, 1, 3, 50)) + data[stop:]


def delete(rng: random.Random, data: bytes) -> bytes:
    start, stop = _span(rng, data)
    return data[:start] + data[stop:]


def fill(rng: random.Random, data: bytes) -> bytes:
    start, stop = _span(rng, data)
    return data[:start] + bytes([rng.choice((0, 0xFF, 0x20, 0x30))]) * (stop - start) + data[stop:]


def swap(rng: random.Random, data: bytes) -> bytes:
    """Two ranges of one length."""
    length = rng.choice((1, 2, 8, 64))
    if len(data) < 4 * length:
        return data[::-1]
    first, second = sorted(rng.sample(range(0, len(data) - length, length), 2))
    middle = data[first + length : second]
    return (
        data[:first]
        + data[second : second + length]
        + middle
        + data[first : first + length]
        + data[second + length :]
    )


BYTES: tuple[Mutation, ...] = (flip, flip, truncate, insert, repeat, delete, fill, swap)


def paths(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Where there is something in nested dicts and lists."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(found for key, item in items for found in paths(item, (*path, key)))]


def _at(value: Any, path: Sequence[Any]) -> Any:
    for key in path:
        value = value[key]
    return value


def _near(rng: random.Random, value: Any) -> Any:
    """Something like ``value``."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return rng.choice(
            (value + 1, value - 1, -value, value * 2, value // 2, 0, float(value), str(value), value + 8)
        )
    if isinstance(value, float):
        return rng.choice((value * 2, -value, int(value) if abs(value) < 1e18 else 0, str(value), 0.0))
    if isinstance(value, str) and value:
        at = rng.randrange(len(value))
        return rng.choice(
            (value[:at] + value[at + 1 :], value + value, value.upper(), value[:at] + "_" + value[at:])
        )
    if isinstance(value, list) and value:
        kept = list(value)
        at = rng.randrange(len(kept))
        return rng.choice(
            (kept[:at] + kept[at + 1 :], [*kept, kept[at]], kept[::-1], [kept], kept * 2, kept[at])
        )
    return rng.choice(ODD)


def edit(rng: random.Random, root: Any) -> Any:
    """One change somewhere in nested dicts and lists: ``root`` itself, or what takes its place."""
    places = paths(root)
    path = rng.choice(places)
    if not path:
        return rng.choice(ODD) if rng.random() < 0.1 else edit(rng, root) if len(places) > 1 else None
    parent, key = _at(root, path[:-1]), path[-1]
    kind = rng.randrange(10)
    if kind < 4:
        parent[key] = _near(rng, parent[key])
    elif kind < 6:
        parent[key] = rng.choice(ODD)
    elif kind == 6:
        del parent[key]
    elif kind == 7:  # the value of another place
        parent[key] = json.loads(json.dumps(_at(root, rng.choice(places))))
    elif kind == 8 and isinstance(parent, dict):
        value = parent.pop(key)
        parent[rng.choice((key + "_", key[:-1], "x", "__metadata__", "name", key.upper()))] = value
    elif isinstance(parent, list) and len(parent) > 1:
        other = rng.randrange(len(parent))
        parent[key], parent[other] = parent[other], parent[key]
    else:
        nested: Any = parent[key]
        for _ in range(rng.choice((1, 2, 70, 600, 3000))):
            nested = [nested]
        parent[key] = nested
    return root


def edit_json(rng: random.Random, data: bytes) -> bytes:
    root = json.loads(data)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        root = edit(rng, root)
        if not isinstance(root, (dict, list)) or not root:
            break
    try:
        return json.dumps(root, separators=rng.choice(((",", ":"), (", ", ": ")))).encode(
            "utf-8", "surrogatepass"
        )
    except RecursionError:
        return b"[" * 100_000


def duplicate_key(rng: random.Random, data: bytes) -> bytes:
    """A key of the outermost object once more, with an odd value."""
    root = json.loads(data)
    key = rng.choice(list(root))
    extra = f"{json.dumps(key)}: {json.dumps(rng.choice(ODD))}"
    text = data.decode().strip()
    return f"{{{extra}, {text[1:]}".encode() if rng.random() < 0.5 else f"{text[:-1]}, {extra}}}".encode()


def nest(rng: random.Random, data: bytes) -> bytes:
    """A value of many levels at a random comma."""
    depth = rng.choice((50, 500, 5000, 200_000))
    opening, closing = rng.choice(((b"[", b"]"), (b'{"a":', b"}")))
    at = data.find(b":", rng.randrange(len(data))) + 1
    return data[:at] + opening * depth + b"0" + closing * depth + data[at:]


JSON: tuple[Mutation, ...] = (edit_json, edit_json, edit_json, edit_json, duplicate_key, nest)
