"""A conversation as the text that a model continues: the model's own Jinja template, in Jinja's sandbox.

Templates are written for ``transformers``; what they may use is what it gives them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from importlib import import_module
from typing import Any, TypeAlias

from npu_runtime.errors import InputError

#: Who speaks and what: {"role": "user", "content": "Hello"}.
Message: TypeAlias = Mapping[str, Any]


def render(
    template: str, messages: Sequence[Message], names: Mapping[str, Any], *, answer: bool = True
) -> str:
    """The text of a conversation; with ``answer`` it ends where the model's answer begins.

    ``names`` are further variables of the template, such as ``bos_token``. Raises ``InputError`` where the
    template refuses the conversation, or is none.
    """
    _check(messages)
    plain = [{key: value for key, value in message.items() if value is not None} for message in messages]
    jinja2 = _library()
    try:
        return str(_compiled(template).render(
            messages=plain, tools=None, documents=None, add_generation_prompt=answer, **names))
    except jinja2.exceptions.TemplateError as error:
        raise InputError(f"the model's chat template does not take this conversation: {error}") from None
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise InputError(f"the model's chat template fails on this conversation: {error}") from None


def _check(messages: Sequence[Message]) -> None:
    if not messages:
        raise InputError("the conversation is empty: give at least one message")
    for message in messages:
        if not isinstance(message, Mapping) or not isinstance(message.get("role"), str):
            raise InputError(f"{message!r} is no message: expected a mapping with role and content")


def _library() -> Any:
    try:
        return import_module("jinja2")
    except ImportError:
        raise InputError("chat templates need jinja2: pip install 'npubin[text]'") from None


@lru_cache(maxsize=8)
def _compiled(template: str) -> Any:
    jinja2 = _library()
    extensions = import_module("jinja2.ext")

    class Generation(extensions.Extension):  # type: ignore[name-defined,misc]  # jinja2 is loaded here alone
        """``{% generation %}`` marks what a model said, for training; here it is its content."""

        tags = frozenset({"generation"})

        def parse(self, parser: Any) -> Any:
            next(parser.stream)
            return parser.parse_statements(("name:endgeneration",), drop_needle=True)

    def refuse(message: str) -> None:
        raise jinja2.exceptions.TemplateError(message)

    environment = import_module("jinja2.sandbox").ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, extensions.loopcontrols])
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = refuse
    environment.globals["strftime_now"] = lambda pattern: datetime.now().strftime(pattern)
    return environment.from_string(template)


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Jinja's own filter escapes what HTML would; templates do not want that."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators,
                      sort_keys=sort_keys)
