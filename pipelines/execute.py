"""Runs one stage for one job, here and now: inputs digested first, outputs staged, moved into place,
recorded."""

from __future__ import annotations

import contextlib
import fcntl
import importlib
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from pipelines.digests import MISSING, Digests
from pipelines.fingerprint import (
    Observed,
    Record,
    check,
    key_of,
    outputs_of,
    read_record,
    record_path,
    write_record,
)
from pipelines.job import ARTIFACTS, Job
from pipelines.stages import Stage


class StageError(ValueError):
    """A stage could not do its work, or did not make what it should have made."""


def execute(stage: Stage, job: Job, run: Callable[[Job], Observed | None] | None = None) -> None:
    """Runs ``stage`` (with ``run`` in place of its own function) and records its success.

    Another process that runs the same stage of the same job is waited for; if its result stands, nothing is
    done. An ``exclusive`` stage waits until no other runs in this project, and keeps others from starting.
    """
    name = record_path(stage, job).stem
    locks = job.root / "artifacts" / ".locks"
    with (_lock(locks / f"{job.config.name}.{name}") as waited,
          _lock(locks / "stages", shared=not stage.exclusive)):
        if waited and check(stage, job, Digests()).current:
            return
        staging = job.folder / ".staging" / name
        _remove(staging)
        staging.mkdir(parents=True)
        try:
            _execute(stage, job, staging, run or load(stage))
        finally:
            _remove(staging)


def load(stage: Stage) -> Callable[[Job], Observed | None]:
    """The function that ``stage.run`` names."""
    module, _, function = stage.run.partition(":")
    found: Callable[[Job], Observed | None] = getattr(importlib.import_module(module), function)
    return found


def clean(stage: Stage, job: Job, *, dryrun: bool = False) -> list[Path]:
    """Removes the outputs of ``stage`` and its record; of a stage with a device, those of every device.
    Returns what was (with ``dryrun``: would be) removed."""
    jobs = [job]
    if stage.device:
        pattern = record_path(stage, replace(job, device="*")).name
        prefix, suffix = pattern.split("*")
        names = [path.name for path in (job.folder / ".stages").glob(pattern)]
        jobs += [replace(job, device=name.removeprefix(prefix).removesuffix(suffix)) for name in names]
    paths = [path for each in jobs for artifact in stage.makes for path in each.paths(artifact)]
    found = [path for path in (*paths, *(record_path(stage, each) for each in jobs)) if path.exists()]
    for path in found if not dryrun else ():
        _remove(path)
    return found


def _execute(stage: Stage, job: Job, staging: Path, run: Callable[[Job], Observed | None]) -> None:
    digests, started = Digests(), time.time()
    previous = read_record(stage, job)
    modules = previous.observed.modules if previous else ()
    libraries = previous.observed.libraries if previous else ()
    before = key_of(stage, job, digests, Observed(modules=modules, libraries=libraries))
    absent = [name.partition(" ")[2] for name, digest in before.items()
              if digest == MISSING and name.startswith(("input ", "file "))]
    if absent:
        before_it = f"; run the stage that makes it first: {', '.join(stage.after)}" if stage.after else ""
        raise StageError(f"{stage.name}: {absent[0]} is missing{before_it}")
    observed = run(replace(job, staging=staging, staged=frozenset(stage.makes))) or Observed()
    staged = replace(job, staging=staging, staged=frozenset(stage.makes))
    for artifact in stage.makes:
        for path in staged.paths(artifact):
            if not path.exists():
                raise StageError(f"{stage.name}: it made no {path.relative_to(staging)}; "
                                 f"this is a defect of {stage.run}")
    _commit(stage, job, staged)
    key = {}
    for name, digest in key_of(stage, job, Digests(), observed).items():
        young = name not in before and name.startswith("code ") and _changed_since(name, job, started)
        key[name] = "changed while the stage ran" if young else before.get(name, digest)
    outputs = outputs_of(stage, job, Digests())
    write_record(stage, job, Record(key, outputs, observed, round(time.time() - started, 3)))


def _commit(stage: Stage, job: Job, staged: Job) -> None:
    """Moves the staged outputs into place; what an earlier configuration made there and this one does not,
    goes."""
    for artifact in stage.makes:
        wanted = dict(zip(job.paths(artifact), staged.paths(artifact), strict=True))
        if "{program}" in ARTIFACTS[artifact]:
            for path in job.path(artifact, "*").parent.glob(job.path(artifact, "*").name):
                if path not in wanted:
                    _remove(path)
        elif not wanted:
            _remove(job.path(artifact))
        for final, made in wanted.items():
            final.parent.mkdir(parents=True, exist_ok=True)
            if made.is_dir():
                _remove(final)
            made.replace(final)


def _changed_since(name: str, job: Job, started: float) -> bool:
    path = job.root / name.removeprefix("code ")
    return path.exists() and path.stat().st_mtime > started - 0.1


@contextlib.contextmanager
def _lock(path: Path, *, shared: bool = False) -> Iterator[bool]:
    """Holds a lock between processes, and says whether it had to be waited for."""
    path.parent.mkdir(parents=True, exist_ok=True)
    kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    with path.open("w") as file:
        waited = False
        try:
            fcntl.flock(file, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            waited = True
            fcntl.flock(file, kind)
        yield waited


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
