"""Measured choices: the files of ``configs/tuning``, and the lookup exact device -> family -> rule.

A file is the result of ``doit tune`` on one device; it is reviewed like code. Files of a family stand for
every device of that kind that has none of its own. An entry counts only for the kernels that it was measured
with, and, where the device is known, for its driver.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import msgspec

from npu_compiler.errors import CompileError
from npu_compiler.spaces import Choice, Question, Space, Value, key_of, version

FORMAT = 1
_Microseconds = Annotated[float, msgspec.Meta(ge=0)]
_Values = dict[str, Value]


class Failure(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A choice that could not be measured, and why: it hung, crashed, was refused or computed otherwise."""

    params: _Values
    reason: str


class Entry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The best choice found for a question, with what was measured: the median of ``repeats`` runs in
    microseconds, the quartiles around it, the rule's own choice and its median in the same minutes, and how
    many choices were tried. ``kernel`` is the version of the templates, ``driver`` the OpenCL driver.
    ``program`` is the time of the whole program that the search was for, with the choice, over that with the
    rule's; None where the rule's choice stayed, or programs were not compared."""

    space: str
    question: _Values
    params: _Values
    kernel: str
    driver: str
    threads: int
    repeats: int
    median_us: _Microseconds
    low_us: _Microseconds
    high_us: _Microseconds
    default: _Values
    default_us: _Microseconds
    tried: int
    failed: tuple[Failure, ...] = ()
    program: Annotated[float, msgspec.Meta(gt=0)] | None = None

    @property
    def key(self) -> str:
        return key_of(self.space, self.question)


class TuningFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``configs/tuning/<device>.json``: a device's name, or a family's, and its entries by key."""

    format: int
    device: str
    entries: tuple[Entry, ...] = ()


@dataclass(frozen=True)
class DeviceKey:
    """What entries are looked up for: the names of the device's own file and of its family's (without
    ".json"), the driver (None: unknown, and not compared)."""

    exact: str | None
    family: str
    driver: str | None = None


@dataclass(frozen=True)
class Found:
    """An entry, and the name of its file."""

    entry: Entry
    file: str


@dataclass(frozen=True)
class Answer:
    """What a question was answered with, and by whom: "rule", or the name of a file; ``ignored`` says which
    entries there were that do not count, and why. ``nodes`` are those that asked."""

    space: str
    question: Question
    choice: Choice
    source: str = "rule"
    ignored: tuple[str, ...] = ()
    nodes: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        return key_of(self.space, self.question)

    def __str__(self) -> str:
        text = " ".join(f"{name}={value}" for name, value in self.choice.items())
        by = "by rule" if self.source == "rule" else f"measured, {self.source}"
        return f"{self.key}: {text} ({'; '.join((by, *self.ignored))})"


@dataclass(frozen=True)
class Tuning:
    """Entries by key, those of the exact device before those of the family. ``forced`` choices come before
    all entries: what the tuner tries."""

    layers: tuple[Mapping[str, Found], ...] = ()
    driver: str | None = None
    any_driver: bool = False
    forced: tuple[tuple[str, Choice], ...] = ()

    def candidates(self, key: str) -> Iterable[Found]:
        """The entries for a question, the nearest first."""
        return (layer[key] for layer in self.layers if key in layer)

    def foreign(self, entry: Entry) -> bool:
        """Whether the entry is of another driver than the device's, and that matters."""
        return not self.any_driver and self.driver is not None and entry.driver != self.driver

    def answer(self, space: Space, question: Question) -> Answer:
        """The choice for ``question``: the nearest entry that counts, else the rule's."""
        key = key_of(space.name, question)
        for name, choice in self.forced:
            if name == key and space.allows(choice, question):
                return Answer(space.name, question, choice, "the tuner")
        ignored = []
        for found in self.candidates(key):
            entry = found.entry
            if self.foreign(entry):
                ignored.append(f"{found.file} is of the driver {entry.driver}, this is {self.driver}")
            elif entry.kernel != version(space.templates):
                ignored.append(f"{found.file} is of other kernels")
            elif not space.allows(entry.params, question):
                ignored.append(f"{found.file} has a choice that is not valid")
            else:
                return Answer(space.name, question, entry.params, found.file, tuple(ignored))
        return Answer(space.name, question, space.rule(question), "rule", tuple(ignored))

    def state(self, key: str) -> str:
        """All that this table has to say about a question, as text that is equal where the answer is."""
        told = [
            [found.file, found.entry.params, found.entry.kernel, self.foreign(found.entry)]
            for found in self.candidates(key)
        ]
        return msgspec.json.encode(told, order="deterministic").decode() if told else "rule"


def file_name(text: str) -> str:
    """A device's name as the name of its file: lower case, words joined by "-"."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def family_of(vendor: str, profile: str) -> str:
    """The family of a vendor's devices under a target's profile: "intel-avx2" for Intel's runtime under
    "pocl-avx2"."""
    first, _, rest = profile.partition("-")
    return f"{vendor}-{rest}" if rest else first


def read_file(path: Path) -> TuningFile:
    """Raises ``CompileError`` for what is no file of tuned entries, and for one of another format."""
    try:
        found = msgspec.json.decode(path.read_bytes(), type=TuningFile)
    except (msgspec.DecodeError, OSError) as error:
        raise CompileError(
            f"configs/tuning/{path.name}: {error}: mend it, or remove it and run doit tune"
        ) from None
    if found.format != FORMAT:
        raise CompileError(
            f"configs/tuning/{path.name}: has format {found.format}, this version reads {FORMAT}: "
            "remove it and run doit tune"
        )
    return found


def file_bytes(file: TuningFile) -> bytes:
    """The file's content: entries sorted by key, so that the same entries are the same bytes."""
    entries = tuple(sorted(file.entries, key=lambda entry: entry.key))
    data = msgspec.json.encode(msgspec.structs.replace(file, entries=entries), order="deterministic")
    return msgspec.json.format(data, indent=1) + b"\n"


def load_tuning(folders: Sequence[Path], device: DeviceKey, *, any_driver: bool = False) -> Tuning:
    """The entries for ``device`` in ``folders``, earlier folders first. Raises ``CompileError`` for a
    malformed file."""
    layers: list[Mapping[str, Found]] = []
    for name in dict.fromkeys(name for name in (device.exact, device.family) if name is not None):
        for path in dict.fromkeys(folder / f"{name}.json" for folder in folders):
            if path.is_file():
                layers.append({entry.key: Found(entry, name) for entry in read_file(path).entries})
    return Tuning(tuple(layers), device.driver, any_driver)
