"""Runs one stage for one job, here and now: inputs digested first, outputs staged, moved into place,
recorded."""

from __future__ import annotations

import contextlib
import importlib
import json
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from pipelines.cache import Cache
from pipelines.config import place_of
from pipelines.digests import Digests
from pipelines.fingerprint import Key, Observed, all_templates, key_of
from pipelines.job import ARTIFACTS, Job
from pipelines.locks import locked
from pipelines.records import (
    Record,
    check,
    devices_on_record,
    outputs_of,
    read_record,
    record_path,
    write_record,
)
from pipelines.stages import STAGES, Stage


class StageError(ValueError):
    """A stage could not do its work, or did not make what it should have made."""


def execute(stage: Stage, job: Job, run: Callable[[Job], Observed | None] | None = None, *,
            cache: Cache | None = None, anew: bool = False) -> None:
    """Runs ``stage`` (with ``run`` in place of its own function) and records its success. With a ``cache``,
    takes the result from there if it has it, and stores it there if not.

    Another process that runs the same stage of the same job, or one that makes what this reads, is waited
    for. If the last result stands then, as when another build has made it since this one was decided on,
    nothing is done unless ``anew``. An ``exclusive`` stage waits until no other runs in this project, and
    keeps others from starting.
    """
    with _held(stage, job, writes=True):
        digests = Digests(store_of(job.root))
        if not anew and check(stage, job, digests).current:
            job.say_outcome("skipped", "made by another build meanwhile")
            return
        staging = job.folder / f".staging.{record_path(stage, job).stem}"
        _remove(staging)
        staging.mkdir(parents=True)
        try:
            if cache is not None and _restore(stage, job, staging, digests, cache):
                return
            record = _execute(stage, job, staging, digests, run or load(stage))
        finally:
            _remove(staging)
        if cache is not None:
            cache.save(stage, job, record, digests)


def rehearse(stage: Stage, job: Job, run: Callable[[Job], Observed | None] | None = None) -> dict[str, str]:
    """Runs ``stage`` in a scratch folder. Returns what its outputs would be (see ``Record.outputs``); those
    in place, and its record, are left as they are."""
    with _held(stage, job, writes=False), tempfile.TemporaryDirectory(prefix="npubin-") as folder:
        staged = replace(job, staging=Path(folder), staged=frozenset(stage.makes))
        (run or load(stage))(staged)
        return outputs_of(stage, job, Digests(), staged)


def store_of(root: Path) -> Path:
    """Where the digests of a project's files are remembered."""
    return root / "artifacts" / ".digests.json"


def load(stage: Stage) -> Callable[[Job], Observed | None]:
    """The function that ``stage.run`` names."""
    module, _, function = stage.run.partition(":")
    found: Callable[[Job], Observed | None] = getattr(importlib.import_module(module), function)
    return found


def clean(stage: Stage, job: Job, *, dryrun: bool = False) -> list[Path]:
    """Removes the outputs of ``stage`` and its record; of a stage with a device, those of every device.
    Returns what was (with ``dryrun``: would be) removed."""
    jobs = [job, *(devices_on_record(stage, job) if stage.device else ())]
    paths = [path for each in jobs for artifact in stage.makes for path in each.paths(artifact)]
    found = [path for path in (*paths, *(record_path(stage, each) for each in jobs)) if path.exists()]
    for path in found if not dryrun else ():
        _remove(path)
    return found


def forget(stage: Stage, job: Job) -> None:
    """Removes the record of ``stage``, on every device, so that it runs again."""
    for each in (job, *(devices_on_record(stage, job) if stage.device else ())):
        record_path(stage, each).unlink(missing_ok=True)


@contextlib.contextmanager
def _held(stage: Stage, job: Job, *, writes: bool) -> Iterator[None]:
    """Holds what keeps others from changing what ``stage`` reads; with ``writes``, also from its outputs."""
    locks = job.root / "artifacts" / ".locks"
    with contextlib.ExitStack() as held:
        def hold(path: Path, shared: bool) -> None:
            held.enter_context(locked(path, shared=shared, waiting=lambda: job.progress(
                "waits for another build in this folder")))

        # always in the order of the stages, and the lock of all stages last: nobody waits in a circle
        for before in (known for known in STAGES if known.name in stage.after):
            hold(locks / _lock_name(before, job), shared=True)
        if writes:
            hold(locks / _lock_name(stage, job), shared=False)
        hold(locks / "stages", shared=not stage.exclusive)
        yield


def _execute(stage: Stage, job: Job, staging: Path, digests: Digests,
             run: Callable[[Job], Observed | None]) -> Record:
    started = time.time()
    before = _everything(stage, job, digests)
    absent = before.missing()
    if absent:
        remedy = f"; run the stage that makes it first: {', '.join(stage.after)}" if stage.after else ""
        places = [place_of(job.root, job.config.name, tuple(knob.split("."))) for knob in stage.knobs
                  if json.dumps(absent[0]) in json.dumps(job.config.knob(knob))]
        raise StageError(f"{': '.join(places[:1] or [stage.name])}: {absent[0]} is missing{remedy}")
    digests.save()
    staged = replace(job, staging=staging, staged=frozenset(stage.makes))
    observed = run(staged) or Observed()
    for artifact in stage.makes:
        for path in staged.paths(artifact):
            if not path.exists():
                raise StageError(f"{stage.name}: it made no {path.relative_to(staging)}; "
                                 f"this is a defect of {stage.run}")
    _commit(stage, job, staged)
    after = key_of(stage, job, Digests(store_of(job.root)), observed)
    key = Key({name: before.parts.get(name, digest) for name, digest in after.parts.items()} | {
        name: digest for kind in ("code", "data") for item, digest in observed.as_read.items()
        if digest and (name := f"{kind} {item}") in after.parts})
    outputs = outputs_of(stage, job, digests)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    record = Record(key, outputs, observed, round(time.time() - started, 3), memory)
    write_record(stage, job, record)
    digests.save()
    return record


def _restore(stage: Stage, job: Job, staging: Path, digests: Digests, cache: Cache) -> bool:
    """Whether the outputs of ``stage`` were in the cache, and now are in place."""
    record = cache.restore(stage, job, staging, digests)
    if record is None:
        _remove(staging)
        staging.mkdir()
        return False
    _commit(stage, job, replace(job, staging=staging, staged=frozenset(stage.makes)))
    write_record(stage, job, replace(record, outputs=outputs_of(stage, job, digests)))
    digests.save()
    job.say_outcome("restored", f"restored from the cache, made in {record.seconds:.1f} s")
    return True


def _everything(stage: Stage, job: Job, digests: Digests) -> Key:
    """The key before a run, with all that the run may turn out to read as far as that can be known."""
    previous = read_record(stage, job)
    seen = previous.observed if previous else Observed()
    return key_of(stage, job, digests, replace(seen, templates=all_templates(stage)))


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
            if made.is_dir() or final.is_dir():
                _remove(final)
            made.replace(final)
    if staged.staging is not None:  # before there is a record: who finds one need not look for leftovers
        _remove(staged.staging)


def _lock_name(stage: Stage, job: Job) -> str:
    return f"{job.config.name}.{record_path(stage, job).stem}"


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
