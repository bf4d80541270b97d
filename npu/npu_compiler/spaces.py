"""What may be chosen about a kernel: a declared space of knobs, the rule that chooses without measurements,
and what measured choices are looked up by.

A kernel family declares one ``Space`` beside its rule (``npu_compiler.tuning``, ``group_tuning``), and its
emitter asks ``Emitter.choose(SPACE, question)``. Nothing else has to know of it: the tuner
(``pipelines.tune``) searches whatever a model's programs ask.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache, partial
from types import MappingProxyType
from typing import TypeAlias

Value: TypeAlias = int | str | bool
#: What a choice depends on: op, sizes (upper bounds of dynamic ones), dtypes. Plain data of JSON.
Question: TypeAlias = Mapping[str, Value]
#: A value for each knob of a space.
Choice: TypeAlias = Mapping[str, Value]

_COMMENT = re.compile(r"{#.*?#}", re.DOTALL)


@dataclass(frozen=True)
class Space:
    """The choices that a kernel family leaves open.

    ``knobs``: name -> the values that are worth trying. ``rule`` gives the choice where nothing was measured;
    its values need not be among those. ``valid`` says whether a choice answers a question correctly: what it
    lets through must compute the same. ``templates`` are those whose text a measurement was taken with;
    with what they include they make the ``version`` of the kernels.

    ``leads``: its choice decides which other questions are asked; it is searched when those have been.
    """

    name: str
    knobs: Mapping[str, tuple[Value, ...]]
    rule: Callable[[Question], Choice]
    valid: Callable[[Choice, Question], bool]
    templates: tuple[str, ...]
    leads: bool = False

    def allows(self, choice: Choice, question: Question) -> bool:
        """Whether ``choice`` has exactly the knobs of this space, of the right types, and is valid."""
        same = choice.keys() == self.knobs.keys() and all(
            type(choice[name]) is type(values[0]) for name, values in self.knobs.items()
        )
        return same and self.valid(choice, question)

    def neighbours(self, choice: Choice, question: Question) -> Iterator[tuple[str, Choice]]:
        """The valid choices that differ from ``choice`` in one knob, each with the knob's name; knob by knob,
        numbers next to its own first."""
        for name, values in self.knobs.items():
            for value in sorted(values, key=partial(_distance, choice[name])):
                other = {**choice, name: value}
                if value != choice[name] and self.allows(other, question):
                    yield name, other


def _distance(old: Value, new: Value) -> float:
    """By which factor a number differs from another; 0 for what is no number."""
    if isinstance(old, str) or isinstance(new, str):
        return 0.0
    return max(old, new) / max(1, min(old, new))


_SPACES: dict[str, Space] = {}


def declare(
    name: str,
    knobs: Mapping[str, tuple[Value, ...]],
    rule: Callable[[Question], Choice],
    valid: Callable[[Choice, Question], bool],
    templates: tuple[str, ...],
    *,
    leads: bool = False,
) -> Space:
    """Adds a space. A second one of the same name fails."""
    if name in _SPACES:
        raise RuntimeError(f"two kernel families claim the space {name!r}")
    _SPACES[name] = Space(name, MappingProxyType(dict(knobs)), rule, valid, templates, leads)
    return _SPACES[name]


def spaces() -> Mapping[str, Space]:
    """Every declared space by name."""
    from npu_compiler.ops import load_all

    load_all()
    return MappingProxyType(_SPACES)


def key_of(space: str, question: Question) -> str:
    """A question as text: what entries are found by."""
    return f"{space} {json.dumps(dict(sorted(question.items())), separators=(',', ':'))}"


@cache
def version(templates: tuple[str, ...]) -> str:
    """The version of the kernels that ``templates`` give: a digest of their text and of what they include,
    comments left out."""
    from npu_compiler.render import PRELUDE, source, template_closure

    digest = hashlib.sha256()
    for name in template_closure((*templates, PRELUDE)):
        lines = [line.rstrip() for line in _COMMENT.sub("", source(name)).splitlines()]
        digest.update("\n".join([name, *filter(None, lines), ""]).encode())
    return digest.hexdigest()[:16]
