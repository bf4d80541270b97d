"""What a stage reads -> its key. Knows nothing of doit.

A ``Key`` has a part for every thing that shapes the output: "input artifacts/m/main.ir.json" -> digest,
"configuration compile.options.fast" -> value... Two keys can be compared part by part, so that a difference
is explained by what it is a difference of; equal digests of keys mean equal outputs.

Some of what a stage reads only a run can tell (``Observed``): the templates that it includes, the modules
that a factory imports. ``key_of(..., None)`` is the question without these, for who has seen no run;
``key_of(..., observed)`` with what a run of that question has told is the whole key.
"""

from __future__ import annotations

import json
import platform
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from pipelines.digests import MISSING, Digests, module_files, text_digest, tree
from pipelines.job import Job
from pipelines.stages import Stage
from pipelines.tuning_files import tuning_of

#: Part of every key: another number makes all keys differ.
KEY_FORMAT = 3

#: How the names of files begin that lie outside of the project.
_OUTSIDE = ".../"


@dataclass(frozen=True)
class Key:
    """Everything that shapes the output of a stage: "kind name" -> digest, version or JSON value."""

    parts: Mapping[str, str]

    @property
    def digest(self) -> str:
        """One digest of all parts (64 hexadecimal digits)."""
        return text_digest(json.dumps(dict(sorted(self.parts.items()))))

    def missing(self) -> tuple[str, ...]:
        """The inputs and files that do not exist."""
        return tuple(name.partition(" ")[2] for name, digest in self.parts.items()
                     if digest == MISSING and name.startswith(("input ", "file ")))


@dataclass(frozen=True)
class Observed:
    """What only a run of the stage can tell about what it reads.

    ``templates``: files below templates/. ``modules``: source files that the model's factory imported, by
    their names below the project, or below a folder that Python imports from. ``libraries``: distributions
    that it imported. ``data``: other files that it opened, named like modules. ``tuning``: the questions that
    it looked up in configs/tuning. ``as_read``: module or data file -> digest of what was executed or read,
    where that is known.
    """

    templates: tuple[str, ...] = ()
    modules: tuple[str, ...] = ()
    libraries: tuple[str, ...] = ()
    data: tuple[str, ...] = ()
    tuning: tuple[str, ...] = ()
    as_read: Mapping[str, str] = field(default_factory=dict, compare=False, repr=False)


def key_of(stage: Stage, job: Job, digests: Digests, observed: Observed | None) -> Key:
    """The key of ``stage`` now. With ``observed`` None: without templates and the factory's modules."""
    parts: dict[str, str] = {"stage": f"{stage.run} {KEY_FORMAT}", "model": job.config.name}
    builds = stage.builds_model(job.config)
    for artifact in stage.reads:
        for path in job.paths(artifact):
            parts[f"input {shown(path, job)}"] = digests.of(path)
    for path in stage.files(job):
        parts[f"file {module_name(path, job.root)}"] = digests.source(path)
    for knob in (*stage.knobs, *(("factory", "factory_args") if builds else ())):
        parts.update(_knob_lines(f"configuration {knob}", job.config.knob(knob)))
    for name in stage.code:
        for label, place in module_files(name).items():
            parts[f"code {label}"] = digests.source(place)
    for name in stage.libraries:
        parts[f"library {name}"] = library_version(name)
    if builds:
        parts["library python"] = ".".join(platform.python_version_tuple()[:2])
    if stage.per_target:
        parts["target"] = job.target
    if stage.device:
        parts["device"] = job.device_id
    if observed is not None:
        for name in observed.templates or all_templates(stage):
            parts[f"template {name}"] = digests.source(_template_root() / name)
        for kind, names in (("code", observed.modules), ("data", observed.data)) if builds else ():
            for name in names:
                parts[f"{kind} {name}"] = (
                    observed.as_read.get(name) or digests.source(module_path(name, job.root)))
        for name in observed.libraries if builds else ():
            parts[f"library {name}"] = library_version(name)
        if observed.tuning:
            entries = tuning_of(job)
            parts.update((f"tuning {question}", entries.state(question)) for question in observed.tuning)
    return Key(parts)


def all_templates(stage: Stage) -> tuple[str, ...]:
    """The templates that ``stage`` may include."""
    names = tree(_template_root()) if stage.templates else ()
    return tuple(name for name in names if name.split("/")[0] in stage.templates)


def shown(path: Path, job: Job) -> str:
    """``path`` relative to the project where it lies below it."""
    return path.relative_to(job.root).as_posix() if path.is_relative_to(job.root) else path.as_posix()


def module_name(path: Path, root: Path) -> str:
    """How keys name a source file or a data file: below the project, or as ".../NAME" below the innermost
    folder that Python imports from; the same on all machines wherever that leads back to the file."""
    if path.is_relative_to(root):
        return path.relative_to(root).as_posix()
    folders = [folder for folder in source_folders() if path.is_relative_to(folder)]
    for folder in sorted(folders, key=lambda folder: -len(folder.parts)):
        name = _OUTSIDE + path.relative_to(folder).as_posix()
        if module_path(name, root) == path:
            return name
    return path.as_posix()


def module_path(name: str, root: Path) -> Path:
    """The file that ``module_name`` has named, or where it would be if there is none."""
    if not name.startswith(_OUTSIDE):
        return root / name
    places = [folder / name.removeprefix(_OUTSIDE) for folder in source_folders()]
    return next((place for place in places if place.exists()), root / name)


def source_folders() -> tuple[Path, ...]:
    """The folders that Python imports from, in their order."""
    return tuple(folder for folder in map(Path, sys.path) if folder.is_absolute() and folder.is_dir())


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


def _template_root() -> Path:
    from npu_compiler import resources
    return Path(str(resources.template_root()))
