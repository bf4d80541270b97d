"""``matrix:`` in a model's YAML: one file, a model for every combination of the values it lists.

    matrix:
      precision: [float32, bfloat16]                      # resnet18+precision-float32+...
      compile.options.winograd: [true, false]             # ...+winograd-on, ...+winograd-off
      programs.main.inputs.x.shape: {small: [1, 3, 96, 96], large: [1, 3, 224, 224]}    # ...+shape-small

A key is a dotted path of the configuration, a value is laid over what the file says there as ``extends``
does. Values that cannot stand in a name are given names, as in the last line.
"""

from __future__ import annotations

import itertools
import json
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pipelines.yaml_source import ConfigError, Key, Place, Source, describe, merge, quoted

MAX_VARIANTS = 1000
#: A name is a folder's; file systems take 255 bytes.
MAX_NAME = 200
_LABEL = re.compile(r"[A-Za-z0-9_.-]+")
#: Keys that are not of the model but of its file.
_FIXED = ("name", "extends", "matrix", "default")


@dataclass(frozen=True)
class _Choice:
    """A value of an axis, what it is called, and where it stands in the file."""

    label: str
    value: Any
    key: Key


@dataclass(frozen=True)
class _Axis:
    path: tuple[str, ...]
    choices: tuple[_Choice, ...]


def variants(source: Source, name: str, whole: frozenset[Key]) -> dict[str, Source]:
    """What the file of the model ``name`` stands for: itself, or its variants by name. ``whole`` are the keys
    that are replaced and not merged. Raises ``ConfigError``."""
    if "matrix" not in source.data:
        return {name: source}
    place = source.place(("matrix",))
    axes = tuple(_axes(source, place))
    count = math.prod(len(axis.choices) for axis in axes)
    if count > MAX_VARIANTS:
        raise ConfigError(f"{place}: matrix: {count} variants are more than {MAX_VARIANTS}")
    last = Counter(axis.path[-1] for axis in axes)
    names = [axis.path[-1] if last[axis.path[-1]] == 1 else ".".join(axis.path) for axis in axes]
    base = Source({key: value for key, value in source.data.items() if key not in ("matrix", "name")},
                  source.places)
    found: dict[str, Source] = {}
    for choices in itertools.product(*(axis.choices for axis in axes)):
        labels = "".join(f"+{axis}-{choice.label}" for axis, choice in zip(names, choices, strict=True))
        if len(name + labels) > MAX_NAME:
            raise ConfigError(f"{place}: matrix: the name {quoted(name + labels)} is longer than {MAX_NAME} "
                              "characters; give the values short names ({name: value})")
        found[name + labels] = merge(base, _overlay(source, axes, choices), whole)
    return found


def _axes(source: Source, place: Place) -> Iterator[_Axis]:
    matrix = source.data["matrix"]
    if not isinstance(matrix, dict) or not matrix:
        raise ConfigError(f"{place}: matrix: expected keys of the configuration, each with a list of values, "
                          f"found {describe(matrix) if matrix else 'nothing'}")
    paths = {key: tuple(key.split(".")) for key in matrix}
    for key, values in matrix.items():
        here, path = source.place(("matrix", key)), paths[key]
        if not all(path):
            raise ConfigError(f"{here}: matrix: {quoted(key)} is no key; write one as in bench.repeats")
        if path[0] in _FIXED:
            raise ConfigError(f"{here}: matrix: {path[0]} cannot differ between variants")
        for other, around in paths.items():
            if other != key and path[:len(around)] == around:
                raise ConfigError(f"{here}: matrix: {key} lies inside {other}, which the matrix sets as "
                                  "well; keep one of the two")
        yield _Axis(path, tuple(_choices(source, key, values)))


def _choices(source: Source, key: str, values: Any) -> Iterator[_Choice]:
    if not isinstance(values, list | dict) or not values:
        raise ConfigError(f"{source.place(('matrix', key))}: matrix.{key}: expected a list of values, or "
                          f"names with values, found {describe(values) if values else 'nothing'}")
    items: Mapping[str | int, Any] = dict(enumerate(values)) if isinstance(values, list) else values
    labels: set[str] = set()
    contents: set[str] = set()
    for name, value in items.items():
        place = source.place(("matrix", key, name))
        label = _label(value) if isinstance(name, int) else name
        if label is None or not _LABEL.fullmatch(label):
            shown = quoted(value if isinstance(name, int) else name)
            raise ConfigError(f"{place}: matrix.{key}: {shown} cannot be part of a model's name; write "
                              "{name: value} with names of letters, digits and _ . -")
        content = json.dumps(value, sort_keys=True)
        if label in labels or content in contents:
            raise ConfigError(f"{place}: matrix.{key}: {quoted(label)} is there twice")
        labels.add(label)
        contents.add(content)
        yield _Choice(label, value, ("matrix", key, name))


def _label(value: Any) -> str | None:
    """A plain value as part of a name."""
    match value:
        case bool():
            return "on" if value else "off"
        case str():
            return value
        case int() | float():
            return json.dumps(value)
    return None


def _overlay(source: Source, axes: tuple[_Axis, ...], choices: tuple[_Choice, ...]) -> Source:
    """The chosen values as a file of their own would say them, each at its place in the matrix."""
    data: dict[str, Any] = {}
    places: dict[Key, Place] = {(): source.place(())}
    for axis, choice in zip(axes, choices, strict=True):
        inside = data
        for length in range(1, len(axis.path)):
            inside = inside.setdefault(axis.path[length - 1], {})
            around: Key = axis.path[:length]
            places[around] = source.places.get(around, source.place(choice.key))
        inside[axis.path[-1]] = choice.value
        depth = len(choice.key)
        places.update({(*axis.path, *key[depth:]): place for key, place in source.places.items()
                       if key[:depth] == choice.key})
    return Source(data, places)
