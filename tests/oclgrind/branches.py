"""Which branches of the kernel templates were rendered: what "every variant" means.

The templates' ``{% if %}``, ``{% elif %}`` and inline conditions are read from their syntax trees, so nothing
lists them.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jinja2
from jinja2 import nodes

from npu_compiler import render

TEMPLATES = Path(__file__).resolve().parents[2] / "templates"


class _Recording(jinja2.Environment):
    """Notes what every condition gave. A condition is ``template:line:number``."""

    def __init__(self, like: jinja2.Environment) -> None:
        super().__init__(
            loader=like.loader,
            undefined=like.undefined,
            trim_blocks=like.trim_blocks,
            lstrip_blocks=like.lstrip_blocks,
            keep_trailing_newline=like.keep_trailing_newline,
            autoescape=like.autoescape,
        )
        self.globals.update(like.globals, seen_=self._note)
        self.conditions: dict[str, str] = {}
        self.taken: set[tuple[str, bool]] = set()

    def _note(self, value: Any, condition: str) -> Any:
        self.taken.add((condition, bool(value)))
        return value

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        tree = super()._parse(source, name, filename)
        lines = source.split("\n")
        for node in tree.find_all((nodes.If, nodes.CondExpr)):
            same = sum(key.startswith(f"{name}:{node.lineno}:") for key in self.conditions)
            condition = f"{name}:{node.lineno}:{same}"
            self.conditions[condition] = lines[node.lineno - 1].strip()
            call = nodes.Call(
                nodes.Name("seen_", "load"), [node.test, nodes.Const(condition)], [], None, None
            )
            node.test = call.set_lineno(node.lineno).set_environment(self)
        return tree


class Recorder:
    """While it lives, ``npu_compiler.render`` records the conditions that it meets."""

    def __init__(self) -> None:
        self._environment = _Recording(render._environment())
        render._environment = lambda: self._environment  # type: ignore[assignment]
        for path in sorted(TEMPLATES.rglob("*.cl.j2")):
            self._environment.get_template(path.relative_to(TEMPLATES).as_posix())

    @property
    def taken(self) -> list[tuple[str, bool]]:
        """What the conditions gave so far."""
        return sorted(self._environment.taken)

    def missing(self, taken: set[tuple[str, bool]], elsewhere: set[tuple[str, bool]]) -> Iterator[str]:
        """The branches outside ``taken`` and ``elsewhere``, as lines for a reader; none of templates and
        conditions met ``elsewhere`` alone."""
        met = {condition for condition, _ in taken}
        others = {condition for condition, _ in elsewhere} - met
        templates = {name.partition(":")[0] for name in others} - {name.partition(":")[0] for name in met}
        for condition, text in self._environment.conditions.items():
            if condition in others or condition.partition(":")[0] in templates:
                continue
            for value in (True, False):
                if (condition, value) not in taken | elsewhere:
                    yield f"templates/{condition.rsplit(':', 1)[0]}: never {str(value).lower()}: {text}"

    @property
    def count(self) -> int:
        """Branches of all templates."""
        return 2 * len(self._environment.conditions)
