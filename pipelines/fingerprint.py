"""What a stage reads -> its key, and whether its last result still stands. Knows nothing of doit.

A key is a mapping from the name of every thing that shapes the output to its digest or value, so that two
keys can be compared line by line and a difference be explained. The record of a stage's last success holds
its key and the digests of its outputs; it is written when the outputs are in place, and is the only truth
about them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from pipelines.digests import MISSING, Digests, module_files, tree
from pipelines.job import Job, write_atomic
from pipelines.stages import Stage

RECORD_FORMAT = 1


@dataclass(frozen=True)
class Observed:
    """What only a run of the stage can tell about what it reads.

    ``templates``: files below templates/. ``modules``: source files that the model's factory imported
    (relative to the project where below it). ``libraries``: distributions that it imported.
    """

    templates: tuple[str, ...] = ()
    modules: tuple[str, ...] = ()
    libraries: tuple[str, ...] = ()


@dataclass(frozen=True)
class Record:
    """The last success of a stage: its key, and output path (relative to the project) -> digest."""

    key: Mapping[str, str]
    outputs: Mapping[str, str]
    observed: Observed = Observed()
    seconds: float = 0.0
    format: int = RECORD_FORMAT


@dataclass(frozen=True)
class Verdict:
    """Whether a stage's outputs stand; if not, ``reasons`` say what changed, one line each."""

    reasons: tuple[str, ...] = field(default=())

    @property
    def current(self) -> bool:
        return not self.reasons


def record_path(stage: Stage, job: Job) -> Path:
    """Where the record of ``stage`` lies."""
    target = f"@{job.target}" if stage.per_target else ""
    device = f".{job.device}" if stage.device else ""
    return job.folder / ".stages" / f"{stage.name}{target}{device}.json"


def read_record(stage: Stage, job: Job) -> Record | None:
    """The last success of ``stage``; None if there is none, or if its record is damaged or of another
    format."""
    try:
        data = json.loads(record_path(stage, job).read_text(encoding="utf-8"))
        if data["format"] != RECORD_FORMAT:
            return None
        lists = {name: tuple(map(str, values)) for name, values in data["observed"].items()}
        return Record(dict(data["key"]), dict(data["outputs"]), Observed(**lists), float(data["seconds"]))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def write_record(stage: Stage, job: Job, record: Record) -> None:
    """Makes ``record`` the last success of ``stage``."""
    write_atomic(record_path(stage, job), json.dumps(asdict(record), indent=1, sort_keys=True) + "\n")


def check(stage: Stage, job: Job, digests: Digests) -> Verdict:
    """Compares what ``stage`` would read now, and its outputs, with its last success."""
    record = read_record(stage, job)
    if record is None:
        return Verdict(("it has no finished run on record",))
    now = key_of(stage, job, digests, record.observed)
    reasons = tuple(_differences(record.key, now)) or tuple(_damages(stage, job, digests, record))
    return Verdict(reasons)


def key_of(stage: Stage, job: Job, digests: Digests, observed: Observed | None) -> dict[str, str]:
    """Everything that shapes the output of ``stage``; with ``observed`` None, all templates that it may
    include."""
    key: dict[str, str] = {"stage": f"{stage.run} {RECORD_FORMAT}"}
    builds = stage.builds_model(job.config)
    for artifact in stage.reads:
        for path in job.paths(artifact):
            key[f"input {shown(path, job)}"] = digests.of(path)
    for path in stage.files(job):
        key[f"file {shown(path, job)}"] = digests.of(path)
    for knob in (*stage.knobs, *(("factory", "factory_args") if builds else ())):
        key.update(_knob_lines(f"configuration {knob}", job.config.knob(knob)))
    for name in stage.code:
        for label, path in module_files(name).items():
            key[f"code {label}"] = digests.of(path)
    for name in stage.libraries:
        key[f"library {name}"] = library_version(name)
    for name, path in _template_files(stage, observed).items():
        key[f"template {name}"] = digests.of(path)
    if observed is not None and builds:
        for name in observed.modules:
            key[f"code {name}"] = digests.of(job.root / name)
        for name in observed.libraries:
            key[f"library {name}"] = library_version(name)
    if stage.per_target:
        key["target"] = job.target
    if stage.device:
        key["device"] = job.device_id
    return key


def outputs_of(stage: Stage, job: Job, digests: Digests) -> dict[str, str]:
    """Output path -> digest, with every file of a folder by itself."""
    found: dict[str, str] = {}
    for artifact in stage.makes:
        for path in job.paths(artifact):
            if path.is_dir():
                found[f"{shown(path, job)}/"] = ",".join(tree(path))
                found.update((shown(file, job), digests.of(file)) for file in tree(path).values())
            else:
                found[shown(path, job)] = digests.of(path)
    return found


def shown(path: Path, job: Job) -> str:
    """``path`` relative to the project where it lies below it."""
    return path.relative_to(job.root).as_posix() if path.is_relative_to(job.root) else path.as_posix()


@cache
def library_version(name: str) -> str:
    """The installed version of a distribution; ``MISSING`` if it is not installed."""
    try:
        return version(name)
    except PackageNotFoundError:
        return MISSING


def _knob_lines(name: str, value: object) -> Iterator[tuple[str, str]]:
    """A mapping is compared key by key, so that a difference names the innermost key."""
    if isinstance(value, dict) and value:
        for key, item in value.items():
            yield from _knob_lines(f"{name}.{key}", item)
    else:
        yield name, json.dumps(value, sort_keys=True)


def _template_files(stage: Stage, observed: Observed | None) -> dict[str, Path]:
    if not stage.templates:
        return {}
    from npu_compiler.resources import template_root
    root = Path(str(template_root()))
    if observed is not None and observed.templates:
        return {name: root / name for name in observed.templates}
    return {name: path for name, path in tree(root).items() if name.split("/")[0] in stage.templates}


def _differences(before: Mapping[str, str], now: Mapping[str, str]) -> Iterator[str]:
    for name in sorted(before.keys() | now.keys()):
        old, new = before.get(name), now.get(name)
        if old == new:
            continue
        if name.startswith(("configuration", "library", "target", "device", "stage")):
            yield f"{name}: {old or 'unset'} -> {new or 'unset'}"
        elif new == MISSING:
            yield f"{name} is missing"
        else:
            how = "is new" if old in (None, MISSING) else "changed" if new else "is no longer read"
            yield f"{name} {how}"


def _damages(stage: Stage, job: Job, digests: Digests, record: Record) -> Iterator[str]:
    now = outputs_of(stage, job, digests)
    for name in sorted(now.keys() | record.outputs.keys()):
        old, new = record.outputs.get(name), now.get(name)
        if old != new and not name.endswith("/"):
            missing = new in (None, MISSING)
            how = "is missing" if missing else "is not what was made" if old else "was not made by it"
            yield f"output {name} {how}"
