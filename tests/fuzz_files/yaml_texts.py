"""Mutations of YAML text."""

from __future__ import annotations

import random

from bytes_and_json import BYTES, Mutation


def yaml_line(rng: random.Random, data: bytes) -> bytes:
    """A line gone, twice, moved, indented or with another value."""
    lines = data.decode("utf-8", "replace").split("\n")
    at = rng.randrange(len(lines))
    kind = rng.randrange(6)
    if kind == 0:
        del lines[at]
    elif kind == 1:
        lines.insert(at, lines[at])
    elif kind == 2:
        lines.insert(rng.randrange(len(lines)), lines.pop(at))
    elif kind == 3:
        lines[at] = rng.choice(("  ", " ", "\t", "      ")) + lines[at]
    elif kind == 4:
        lines[at] = lines[at].lstrip()
    else:
        key, mark, _ = lines[at].partition(":")
        lines[at] = f"{key}{mark or ':'} {rng.choice(YAML_VALUES)}"
    return "\n".join(lines).encode()


def yaml_add(rng: random.Random, data: bytes) -> bytes:
    """A piece of YAML at the start, at the end or between lines."""
    lines = data.decode("utf-8", "replace").split("\n")
    lines.insert(rng.choice((0, len(lines), rng.randrange(len(lines) + 1))), rng.choice(YAML_PIECES))
    return "\n".join(lines).encode()


def yaml_word(rng: random.Random, data: bytes) -> bytes:
    """A word in the place of another, or misspelt."""
    words = sorted({word.strip(b"{}[],:") for word in data.split()} - {b""})
    old = rng.choice(words)
    new = rng.choice(
        (rng.choice(words), old[:-1], old + b"s", old.upper(), b'"' + old + b'"', b"0x10", b"no", b"1e400")
    )
    return data.replace(old, new, 1 if rng.random() < 0.8 else -1)


YAML_VALUES = (
    "", "~", "true", "yes", "0", "-1", "1.5", "1e400", ".nan", ".inf", "-.inf", "0x7fffffffffffffffff",
    "9" * 5000, "0o17", "1_000", "12:30:45", "2020-01-01", '""', "'x'", "[]", "{}", "[1, 2]", "{a: 1}",
    "[[[[]]]]", "&a [*a]", "*a", "!!python/object/apply:os.system ['true']", "!!binary aGk=", "!!float 3",
    "!x y", "|\n  text", ">-\n  text", '"\\ud800"', '"\\0"', '"\\U0010ffff"', '"\\x00"', "\u202ea", "é",
    "\ufeff", "a" * 30000, "[" * 50, "? [a]", "<<: 1", "resnet18", "_base", "../x", "/etc/passwd", "a/b",
    ".", "float32", "os:system", "torch:nope", "x y",
)  # fmt: skip
YAML_PIECES = (
    "extends: scorer", "extends: loop_a", "extends: ../../x", 'extends: "\\0"', "extends: ''",
    "extends: [a]", "unknown: 1", "factory: a:b", "---", "...", "%YAML 1.1", "%TAG ! x", "- a", "? a\n: b",
    "<<: {a: 1}", "a: b: c", "\tx: 1", "name: other", "default: maybe", "weights: {random: {seed: 1e3}}",
    "programs: {}", "\u2028x: 1",
    "bomb: &a [x, x, x]\nb: &b [*a, *a, *a, *a]\nc: &c [*b, *b, *b, *b]\nd: &d [*c, *c, *c, *c]\n"
    "e: &e [*d, *d, *d, *d]\nf: &f [*e, *e, *e, *e]\ng: &g [*f, *f, *f, *f]\nh: &h [*g, *g, *g, *g]\n"
    "i: &i [*h, *h, *h, *h]\nj: &j [*i, *i, *i, *i]\nk: [*j, *j, *j, *j]",
    "x: " + "[" * 3000 + "]" * 3000, "x: " + "[" * 300_000, "x: " + "{a: " * 20_000,
    "x: " + "- " * 20_000 + "a", "\n".join(" " * depth + "a:" for depth in range(3000)), "x: &a\n  y: *a",
    "&a a: *a", "1: x", "null: x", "[a]: x",
)  # fmt: skip
YAML: tuple[Mutation, ...] = (
    *BYTES[1:],
    yaml_line,
    yaml_line,
    yaml_line,
    yaml_line,
    yaml_add,
    yaml_add,
    yaml_word,
    yaml_word,
)
