"""What pydantic finds wrong, in a configuration's words: the text at fault and the nearest valid choice."""

from __future__ import annotations

import types
import typing
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails, PydanticCustomError

from pipelines.yaml_source import Key, Source, describe, dotted, quoted, suggest


def problem(message: str, key: Key = ()) -> PydanticCustomError:
    """What a validator raises: ``key`` is the place below the section that is being checked."""
    return PydanticCustomError("problem", "{text}", {"text": message, "key": key})


#: pydantic's error type -> what was expected.
_EXPECTED = {
    "int_type": "a whole number", "int_parsing": "a whole number", "int_from_float": "a whole number",
    "float_type": "a number", "string_type": "text", "bool_type": "true or false", "tuple_type": "a list",
    "list_type": "a list", "dict_type": "keys and values", "model_type": "keys and values",
    "model_attributes_type": "keys and values", "finite_number": "a finite number",
}

#: Field name -> what its pattern means.
_PATTERNS = {
    r"^[0-9a-f]{64}$": "64 lower-case hexadecimal digits",
    r"^[A-Za-z_][A-Za-z0-9_]*$": "a name of letters, digits and _",
    r"^[A-Za-z_][\w.]*:[A-Za-z_][\w.]*$": '"module:callable", as in "pipelines.zoo.resnet:resnet18"',
}


def problems_of(error: ValidationError, model: type[BaseModel], source: Source) -> Iterator[str]:
    """One line per problem: ``file:line: key: what is wrong; the remedy``."""
    seen: set[Key] = set()
    for detail in error.errors(include_url=False):
        key = _key_in(detail["loc"], source)
        text, key = _text(detail, key, model)
        if key not in seen:
            seen.add(key)
            shown = f"{dotted(key)}: " if key else ""
            yield f"{source.place(key)}: {shown}{text}"


def _text(detail: ErrorDetails, key: Key, model: type[BaseModel]) -> tuple[str, Key]:
    kind, value, context = detail["type"], detail.get("input"), detail.get("ctx", {})
    match kind:
        case "problem":
            return str(context["text"]), (*key, *context["key"])
        case "extra_forbidden":
            return f"unknown key {quoted(key[-1])}{suggest(key[-1], _fields(model, key[:-1]))}", key
        case "missing":
            return "this key is required", key
        case "literal_error":
            choices = [str(choice) for choice in typing.get_args(_annotation(model, key))]
            return f"unknown {key[-1]} {quoted(value)}{suggest(value, choices)}", key
        case "string_pattern_mismatch":
            return f"{quoted(value)} is not {_PATTERNS.get(str(context['pattern']), 'a valid name')}", key
        case "greater_than_equal":
            return f"{value} is too small; at least {context['ge']:g}", key
        case "greater_than":
            return f"{value} is too small; it must be above {context['gt']:g}", key
        case "less_than_equal":
            return f"{value} is too large; at most {context['le']:g}", key
        case "less_than":
            return f"{value} is too large; it must be below {context['lt']:g}", key
        case "too_short" | "too_long":
            return f"at least {context.get('min_length', context.get('max_length'))} is needed", key
    if kind in ("int_type", "int_from_float") and "shape" in key:
        return f"expected a whole number or the name of a symbol, found {describe(value)}", key
    if kind == "string_type" and isinstance(value, int | float):
        return f"expected text, found {describe(value)}; write it in quotes", key
    if kind in _EXPECTED:
        return f"expected {_EXPECTED[kind]}, found {describe(value)}", key
    return detail["msg"], key


def _key_in(location: tuple[int | str, ...], source: Source) -> Key:
    """pydantic's location without the parts that name members of a union or "[key]"."""
    key: Key = ()
    for index, part in enumerate(location):
        longer = (*key, part)
        last = index == len(location) - 1
        if longer in source.places or (last and _is_key(part)):
            key = longer
    return key


def _is_key(part: int | str) -> bool:
    return isinstance(part, str) and part.isidentifier() and part not in ("int", "str", "float", "bool")


def _fields(model: type[BaseModel], key: Key) -> list[str]:
    annotation = _annotation(model, key)
    is_section = isinstance(annotation, type) and issubclass(annotation, BaseModel)
    return [*annotation.model_fields] if is_section else []


def _annotation(annotation: Any, key: Key) -> Any:
    """The type that the schema has at ``key``."""
    annotation = _bare(annotation)
    if not key:
        return annotation
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        field = annotation.model_fields.get(str(key[0]))
        return _annotation(field.annotation, key[1:]) if field else None
    arguments = typing.get_args(annotation)
    if typing.get_origin(annotation) in (dict, tuple) and arguments:
        return _annotation(arguments[1 if typing.get_origin(annotation) is dict else 0], key[1:])
    return None


def _bare(annotation: Any) -> Any:
    """Without ``Annotated`` and ``| None``."""
    if typing.get_origin(annotation) is typing.Annotated:
        return _bare(typing.get_args(annotation)[0])
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        members = [member for member in typing.get_args(annotation) if member is not type(None)]
        return _bare(members[0])
    return annotation
