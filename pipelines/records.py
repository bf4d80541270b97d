"""The record of a stage's last success, and whether that still stands.

One small file for each stage of a job, written whole when the outputs are in place: the only truth about
them. A build that is killed leaves the record before or the one after; what it left of outputs without a
record is not what the record says, and is made again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from pipelines.digests import MISSING, Digests, tree
from pipelines.fingerprint import Key, Observed, key_of, shown
from pipelines.job import Job, write_atomic
from pipelines.locks import remove_leftovers
from pipelines.stages import Stage

RECORD_FORMAT = 5


@dataclass(frozen=True)
class Record:
    """The last success of a stage: its key; output path (relative to the project) -> digest, with the names
    in a folder under "path/"; how long it took, and the most memory (bytes) that its process had."""

    key: Key
    outputs: Mapping[str, str]
    observed: Observed
    seconds: float = 0.0
    memory: int = 0


@dataclass(frozen=True)
class Difference:
    """A part of a key, or an output, that is not what it was: ``what`` names it ("input PATH", "library
    torch", "output PATH"); ``old`` and ``new`` are its values, None where it was not there."""

    what: str
    old: str | None
    new: str | None


@dataclass(frozen=True)
class Verdict:
    """Whether a stage's outputs stand: they do if nothing differs and there is a record. ``previous`` is the
    record."""

    previous: Record | None
    differences: tuple[Difference, ...] = ()

    @property
    def current(self) -> bool:
        return self.previous is not None and not self.differences


def record_path(stage: Stage, job: Job) -> Path:
    """Where the record of ``stage`` lies."""
    target = f"@{job.target}" if stage.per_target else ""
    device = f".{job.device}" if stage.device else ""
    return job.folder / ".stages" / f"{stage.name}{target}{device}.json"


def read_record(stage: Stage, job: Job) -> Record | None:
    """The last success of ``stage``; None if there is none, or if its record is damaged or of another
    format."""
    try:
        found = msgspec.json.decode(record_path(stage, job).read_bytes(), type=_Stored)
    except (OSError, msgspec.DecodeError):
        return None
    if found.format != RECORD_FORMAT:
        return None
    observed = Observed(found.templates, found.modules, found.libraries, found.data, found.tuning)
    return Record(Key(found.key), found.outputs, observed, found.seconds, found.memory)


def write_record(stage: Stage, job: Job, record: Record) -> None:
    """Makes ``record`` the last success of ``stage``. Only for who holds the stage's lock."""
    seen = record.observed
    stored = _Stored(RECORD_FORMAT, dict(sorted(record.key.parts.items())), dict(record.outputs),
                     seen.templates, seen.modules, seen.libraries, seen.data, seen.tuning, record.seconds,
                     record.memory)
    path = record_path(stage, job)
    remove_leftovers(path)
    write_atomic(path, msgspec.json.format(msgspec.json.encode(stored), indent=1) + b"\n")


def check(stage: Stage, job: Job, digests: Digests) -> Verdict:
    """Compares what ``stage`` would read now, and its outputs, with its last success."""
    record = read_record(stage, job)
    if record is None:
        return Verdict(None)
    now = key_of(stage, job, digests, record.observed)
    changed = _differences("", record.key.parts, now.parts)
    return Verdict(record, (*changed, *changed_outputs(record.outputs, outputs_of(stage, job, digests))))


def changed_outputs(before: Mapping[str, str], now: Mapping[str, str]) -> tuple[Difference, ...]:
    """What of the outputs differs, file by file."""
    return tuple(item for item in _differences("output ", before, now)
                 if not item.what.endswith("/") or item.new is None)


def outputs_of(stage: Stage, job: Job, digests: Digests, staged: Job | None = None) -> dict[str, str]:
    """Output path -> digest, with every file of a folder by itself; with ``staged``, of what lies there."""
    found: dict[str, str] = {}
    for artifact in stage.makes:
        for final, path in zip(job.paths(artifact), (staged or job).paths(artifact), strict=True):
            name = shown(final, job)
            if path.is_dir():
                files = tree(path)
                found[f"{name}/"] = ",".join(files)
                found.update((f"{name}/{file}", digests.of(place)) for file, place in files.items())
            else:
                found[name] = digests.of(path)
    return found


def devices_on_record(stage: Stage, job: Job) -> list[Job]:
    """``job`` on every device that ``stage`` has a record for."""
    prefix, suffix = record_path(stage, replace(job, device="*")).name.split("*")
    names = [path.name for path in (job.folder / ".stages").glob(f"{prefix}*{suffix}")]
    return [replace(job, device=name.removeprefix(prefix).removesuffix(suffix)) for name in sorted(names)]


class _Stored(msgspec.Struct):
    format: int
    key: dict[str, str]
    outputs: dict[str, str]
    templates: tuple[str, ...]
    modules: tuple[str, ...]
    libraries: tuple[str, ...]
    data: tuple[str, ...]
    tuning: tuple[str, ...]
    seconds: float
    memory: int


def _differences(prefix: str, before: Mapping[str, str], now: Mapping[str, str]) -> Iterator[Difference]:
    if before == now:
        return
    for name in sorted(before.keys() | now.keys()):
        old, new = (None if side.get(name) == MISSING else side.get(name) for side in (before, now))
        if old != new:
            yield Difference(f"{prefix}{name}", old, new)
