"""YAML read with the place of every key and value, so that an error can name its line.

The YAML 1.2 core types are used: ``1e-4`` is a number, and ``on`` and ``no`` are text. Duplicate keys, keys
that are not text, and anchors that contain themselves are errors.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import yaml

Key: TypeAlias = tuple[str | int, ...]

MAX_NODES = 100_000
#: Levels of lists and mappings. libyaml overflows the stack where there are some ten thousand.
MAX_DEPTH = 50
MAX_DIGITS = 100


class ConfigError(ValueError):
    """A configuration is wrong. One line per problem: ``file:line: key: what is wrong; the remedy``."""


@dataclass(frozen=True)
class Place:
    """A line of a file, shown relative to ``root`` where it lies below it."""

    file: Path
    line: int
    root: Path

    def __str__(self) -> str:
        shown = self.file.relative_to(self.root) if self.file.is_relative_to(self.root) else self.file
        return f"{shown.as_posix()}:{self.line}"


@dataclass(frozen=True)
class Source:
    """What a YAML file says, and where: ``places`` has every key path, () being the file's start."""

    data: dict[str, Any]
    places: Mapping[Key, Place]

    def place(self, key: Key) -> Place:
        """The place of ``key``, or of the nearest thing around it that exists."""
        while key not in self.places:
            key = key[:-1]
        return self.places[key]


class _Resolver(yaml.resolver.BaseResolver):
    """The core schema of YAML 1.2."""


for _tag, _pattern, _first in (
    ("null", r"~|null|Null|NULL|", "~nN\0"),
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", "-+0123456789"),
    ("float", r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
     "-+.0123456789"),
):
    _Resolver.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_pattern})$"),
                                    [*_first.replace("\0", ""), *([""] if _tag == "null" else [])])

_Parser: Any = getattr(getattr(yaml, "cyaml", None), "CParser", None)


if _Parser is not None:
    class _Loader(_Parser, _Resolver):  # type: ignore[misc]
        """libyaml's parser with our types."""

        def __init__(self, stream: str) -> None:
            _Parser.__init__(self, stream)
            _Resolver.__init__(self)
else:
    class _Loader(yaml.reader.Reader, yaml.scanner.Scanner, yaml.parser.Parser,  # type: ignore[no-redef]
                  yaml.composer.Composer, _Resolver):
        """The parser in Python with our types."""

        def __init__(self, stream: str) -> None:
            yaml.reader.Reader.__init__(self, stream)
            yaml.scanner.Scanner.__init__(self)
            yaml.parser.Parser.__init__(self)
            yaml.composer.Composer.__init__(self)
            _Resolver.__init__(self)


def read_yaml(path: Path, root: Path) -> Source:
    """Reads the mapping in ``path``. Raises ``ConfigError`` naming the line."""
    start = Place(path, 1, root)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(f"{start}: there is no such file") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{start}: not UTF-8 text (byte {error.start})") from None
    except OSError as error:
        raise ConfigError(f"{start}: cannot be read: {error.strerror}") from None
    try:
        _check_depth(text, path, root)
        node = _Loader(text).get_single_node()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        lines = text.split("\n")
        line = min(mark.line + 1, len(lines)) if mark else 1  # what is missing is missed behind the end
        problem = f"{error.problem} ({error.context})" if error.context else error.problem
        if re.match(r" *\t", lines[line - 1]):
            problem = "the line begins with a tab; YAML wants spaces"
        raise ConfigError(f"{Place(path, line, root)}: not valid YAML: {problem}") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{start}: not valid YAML: {str(error).splitlines()[0]}") from None
    if node is None:
        raise ConfigError(f"{start}: the file is empty; a model needs at least `factory` and `programs`")
    places: dict[Key, Place] = {}
    data = _Reader(path, root, places).value(node, (), ())
    if not isinstance(data, dict):
        raise ConfigError(f"{start}: expected keys and values (`factory: ...`), found {describe(data)}")
    return Source(data, places)


def _check_depth(text: str, path: Path, root: Path) -> None:
    """Raises ``ConfigError`` where values are nested too deep to be read one inside the other."""
    parser, depth = _Loader(text), 0
    while not parser.check_event(yaml.StreamEndEvent):
        event = parser.get_event()
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH:
            raise _too_deep(Place(path, event.start_mark.line + 1, root))


def _too_deep(place: Place) -> ConfigError:
    return ConfigError(f"{place}: more than {MAX_DEPTH} lists and mappings one inside the other")


class _Reader:
    def __init__(self, path: Path, root: Path, places: dict[Key, Place]) -> None:
        self.path, self.root, self.places, self.count = path, root, places, 0

    def value(self, node: Any, key: Key, around: tuple[int, ...]) -> Any:
        here = Place(self.path, node.start_mark.line + 1, self.root)
        self.places.setdefault(key, here)
        self.count += 1
        if id(node) in around:
            raise ConfigError(f"{here}: {dotted(key)}: an anchor contains itself")
        if self.count > MAX_NODES:
            raise ConfigError(f"{here}: more than {MAX_NODES} values; aliases expand to too much")
        around = (*around, id(node))
        if len(around) > MAX_DEPTH + 2:  # by aliases
            raise _too_deep(here)
        if isinstance(node, yaml.SequenceNode):
            return [self.value(item, (*key, index), around) for index, item in enumerate(node.value)]
        if isinstance(node, yaml.MappingNode):
            return self.mapping(node, key, around)
        return self.scalar(node, here, key)

    def mapping(self, node: Any, key: Key, around: tuple[int, ...]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key_node, value_node in node.value:
            place = Place(self.path, key_node.start_mark.line + 1, self.root)
            if not isinstance(key_node, yaml.ScalarNode) or key_node.tag != "tag:yaml.org,2002:str":
                text = getattr(key_node, "value", "")
                shown = text if isinstance(text, str) else "a list or mapping"
                raise ConfigError(f"{place}: the key {shown} is not text; write it in quotes")
            name = key_node.value
            if name in found:
                first = self.places[(*key, name)].line
                raise ConfigError(f"{place}: the key {quoted(dotted((*key, name)))} appears twice; "
                                  f"it is already on line {first}")
            self.places[(*key, name)] = place
            found[name] = self.value(value_node, (*key, name), around)
        return found

    def scalar(self, node: Any, place: Place, key: Key) -> Any:
        kind, text = node.tag.rpartition(":")[2], node.value
        match kind:
            case "null":
                return None
            case "bool":
                return text.lower() == "true"
            case "int" if len(text) > MAX_DIGITS:
                raise ConfigError(f"{place}: {dotted(key)}: a number of too many digits ({len(text)})")
            case "int":
                return int(text, 0) if text[:2] in ("0o", "0x") else int(text)
            case "float":
                return float(text.replace(".inf", "inf").replace(".Inf", "inf").replace(".INF", "inf")
                             .replace(".nan", "nan").replace(".NaN", "nan").replace(".NAN", "nan"))
            case "str" if "\0" in text:
                raise ConfigError(f"{place}: {dotted(key)}: a text with a NUL character")
            case "str":
                return text
        raise ConfigError(f"{place}: {dotted(key)}: the YAML tag {node.tag} is not used here")


def merge(base: Source, over: Source, whole: frozenset[Key]) -> Source:
    """``over`` laid on ``base``: mappings key by key; all else (and the keys in ``whole``) replaced."""
    places = dict(base.places)

    def replace(key: Key) -> None:
        for known in [known for known in places if known[:len(key)] == key]:
            del places[known]
        places.update((known, place) for known, place in over.places.items() if known[:len(key)] == key)

    def lay(below: dict[str, Any], above: dict[str, Any], key: Key) -> dict[str, Any]:
        merged = dict(below)
        for name, value in above.items():
            path = (*key, name)
            old = merged.get(name)
            if isinstance(value, dict) and isinstance(old, dict) and path not in whole:
                merged[name] = lay(old, value, path)
            else:
                merged[name] = value
                replace(path)
        places[key] = over.places[key]
        return merged

    return Source(lay(base.data, over.data, ()), places)


def dotted(key: Iterable[str | int]) -> str:
    """A key path as people write it: ``programs.main.inputs.x.shape[0]``."""
    text = ""
    for part in key:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def quoted(value: object) -> str:
    """``value`` as it would stand in JSON: texts in double quotes."""
    match value:
        case str():
            return f'"{value}"'
        case None:
            return "nothing"
        case bool():
            return str(value).lower()
        case dict() | list():
            return describe(value)
    return str(value)


def describe(value: object) -> str:
    """The kind of ``value`` in words."""
    match value:
        case dict():
            return "a mapping"
        case list():
            return "a list"
        case str():
            return f'the text "{value}"'
        case None:
            return "nothing"
        case bool():
            return f"{str(value).lower()}"
    return f"the number {value}"


def suggest(word: object, choices: Iterable[str]) -> str:
    """``; did you mean "x"?`` for the choice nearest to ``word``, else the list of choices."""
    known = list(choices)
    near = difflib.get_close_matches(str(word), known, n=1, cutoff=0.6)
    if near:
        return f'; did you mean "{near[0]}"?'
    return f"; choose from {', '.join(known)}" if known else ""
