"""KernelCall -> OpenCL source. The only module that imports Jinja2."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from typing import Any

import jinja2

from npu_compiler.errors import CompileError
from npu_compiler.resources import template_root

PRELUDE = "lib/prelude.cl.j2"
_INCLUDE = re.compile(r"{%-?\s*(?:include|from|import|extends)\s+([^\s%]+)")


def _load(name: str) -> str | None:
    """A template's text. Line ends are "\\n" whatever the checkout made of them."""
    path = template_root()
    for part in name.split("/"):
        path = path / part
    return path.read_text(encoding="utf-8").replace("\r\n", "\n") if path.is_file() else None


def _check(condition: bool, message: str) -> str:
    """Called by templates to refuse parameters outside their contract."""
    if not condition:
        raise CompileError(f"template parameter out of range: {message}")
    return ""


@cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_load),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,
    )
    environment.globals["check"] = _check
    return environment


def render(template: str, params: Mapping[str, Any]) -> str:
    """The source that ``template`` gives with ``params``.

    Raises ``CompileError`` for an undefined name, a refused parameter or a template that does not exist.
    """
    try:
        text = _environment().get_template(template).render(params)
    except jinja2.TemplateNotFound as error:
        raise CompileError(f"templates/{error.name} does not exist") from None
    except jinja2.TemplateError as error:
        raise CompileError(f"templates/{template}: {error}") from None
    lines = [line.rstrip() for line in text.split("\n")]
    kept = [line for index, line in enumerate(lines) if line or (index and lines[index - 1])]
    return "\n".join(kept).strip("\n") + "\n"


def template_closure(templates: Iterable[str]) -> tuple[str, ...]:
    """The templates and everything they include, sorted; names relative to ``templates/``."""
    found: set[str] = set()
    todo = [*templates]
    while todo:
        name = todo.pop()
        if name in found:
            continue
        found.add(name)
        todo += includes(name)
    return tuple(sorted(found))


def source(template: str) -> str:
    """A template's own text. Raises ``CompileError`` where there is none."""
    text = _load(template)
    if text is None:
        raise CompileError(f"templates/{template} does not exist")
    return text


def includes(template: str) -> list[str]:
    """The names that a template includes or imports; each must be a literal."""
    names = []
    for match in _INCLUDE.finditer(source(template)):
        quoted = match[1]
        if quoted[0] not in "'\"":
            raise CompileError(
                f"templates/{template}: the name in {match[0]!r} must be a literal, so that it can be listed"
            )
        names.append(quoted.strip("'\""))
    return names


def renderer(cache_of: dict[str, str]) -> Callable[[str, str, Mapping[str, Any]], str]:
    """A function (entry, template, params) -> source that renders each entry once into ``cache_of``."""

    def once(entry: str, template: str, params: Mapping[str, Any]) -> str:
        if entry not in cache_of:
            cache_of[entry] = render(template, {"entry": entry, **params})
        return cache_of[entry]

    return once
