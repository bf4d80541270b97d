"""Measures two revisions' artifacts in turns, for the regression gate.

Each side is a process of its own that stays open while its program is measured, and uses the runtime of its
revision where that has one (a checkout), so a slower runtime is seen as well as slower kernels. Only one side
works at a time.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import msgspec

from npu_runtime.env import pin_threads
from npu_runtime.errors import NpubinError
from pipelines import devices, gate_worker
from pipelines.gate import Comparison, GateReport, Rounds, decide, fewest_rounds, look_confidence, status_of
from pipelines.inputs import made_up_inputs, upper_sizes
from pipelines.job import Job, jobs_of
from pipelines.locks import locked
from pipelines.results import file_digest
from pipelines.yaml_source import ConfigError

#: A turn lasts about this long (milliseconds), within the bounds of runs below.
TURN_MS, MIN_RUNS, MAX_RUNS = 100.0, 3, 50

#: Runs before anything counts, and at the start of each turn, when the other side has had the caches.
WARMUP, TURN_WARMUP = 5, 1


class GateError(NpubinError, ValueError):
    """The gate could not do its work."""


@dataclass(frozen=True)
class Settings:
    """``threshold`` is the slowdown that is let pass, as a share; ``rounds`` those of the first look."""

    threshold: float = 0.05
    confidence: float = 0.99
    rounds: int = 20


def run_gate(base: Path, head: Path, names: Sequence[str], settings: Settings) -> GateReport:
    """Compares the artifacts below two projects, for the models ``names`` ("model" or "model@target") of
    ``head``; none means its default models. Raises ``GateError``."""
    needed = fewest_rounds(look_confidence(settings.confidence))
    if settings.rounds < needed:
        raise GateError(f"{settings.rounds} rounds cannot give {settings.confidence:.2%} confidence: take "
                        f"{needed} or more")
    for folder in (base, head):
        if not folder.is_dir():
            raise GateError(f"there is no folder {folder}: give the two projects' folders, base first")
    comparisons: list[Comparison] = []
    shown = ""
    try:
        jobs = jobs_of(names, head)
    except ConfigError as error:
        raise GateError(f"{head}: {error}") from None
    with _alone(base, head):
        for job in jobs:
            found = devices.find(job.target)
            shown = found.identity
            job = devices.on(job, found)
            for program in job.programs:
                comparisons.append(_compared(replace(job, root=base), job, program, settings, bool(names)))
    return GateReport(str(base), str(head), settings.threshold, settings.confidence, shown,
                      status_of(comparisons), tuple(comparisons))


@contextlib.contextmanager
def _alone(*roots: Path) -> Iterator[None]:
    """Keeps the stages of these projects from running meanwhile."""
    with contextlib.ExitStack() as held:
        for root in sorted({root.resolve() for root in roots}):
            if (root / "artifacts").is_dir():
                held.enter_context(locked(root / "artifacts" / ".locks" / "stages"))
        yield


def _compared(base: Job, head: Job, program: str, settings: Settings, named: bool) -> Comparison:
    """One program on both sides; what goes wrong is its result, so that the others are still measured."""
    about = Comparison(head.label, program, "not compared")
    for side, job in (("head", head), ("base", base)):
        missing = [path for path in (job.program_file(program), job.prepared_weights) if not path.is_file()]
        if missing and side == "head" and named:
            return _with(about, verdict="error", reason=f"head has no {missing[0].relative_to(job.root)}; "
                                                        f"run doit weights:{head.label}")
        if missing:
            return _with(about, reason=f"{side} has no {missing[0].relative_to(job.root)}")
    about = _with(about, base_digest=file_digest(base.program_file(program)),
                  head_digest=file_digest(head.program_file(program)))
    try:
        with _inputs(head, program) as given, Side("base", base, program, given) as one, \
                Side("head", head, program, given) as other:
            return _measured(one, other, settings, about)
    except GateError as error:
        return _with(about, verdict="error", reason=str(error))


def _measured(base: Side, head: Side, settings: Settings, about: Comparison) -> Comparison:
    warm = [*base.runs(WARMUP), *head.runs(WARMUP)]
    runs = min(max(math.ceil(TURN_MS / max(median(warm), 1e-3)), MIN_RUNS), MAX_RUNS)

    def measure(rounds: int) -> tuple[Rounds, Rounds]:
        taken: dict[Side, list[list[float]]] = {base: [], head: []}
        for number in range(rounds):
            for side in (base, head) if number % 2 == 0 else (head, base):
                taken[side].append(side.runs(TURN_WARMUP + runs)[TURN_WARMUP:])
        return taken[base], taken[head]

    verdict, ratio, old, new = decide(measure, rounds=settings.rounds, threshold=settings.threshold,
                                      confidence=settings.confidence)
    return _with(about, verdict=verdict, ratio=ratio, rounds=len(old), runs=runs,
                 base_ms=median(map(median, old)), head_ms=median(map(median, new)))


def _with(comparison: Comparison, **changes: Any) -> Comparison:
    return msgspec.structs.replace(comparison, **changes)


@contextlib.contextmanager
def _inputs(job: Job, program: str) -> Iterator[dict[str, Any]]:
    """What both workers are told: made-up inputs, the same ones, and the device."""
    sizes = upper_sizes(job.config, job.config.bench.sizes)
    arrays = made_up_inputs(job.config.programs[program], sizes, (job.config.verify.seed,))
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "inputs"
        file.write_bytes(b"".join(array.tobytes() for array in arrays.values()))
        yield {"inputs": str(file), "selector": job.selector, "threads": job.config.bench.threads,
               "specs": [(name, array.shape, array.dtype.name) for name, array in arrays.items()]}


class Side:
    """A worker with one side's program open."""

    def __init__(self, name: str, job: Job, program: str, given: dict[str, Any]) -> None:
        self.name, self.what = name, f"{job.label} {program}"
        given = {**given, "program": str(job.program_file(program).resolve()),
                 "weights": str(job.prepared_weights.resolve())}
        self._errors = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115
        self._child = subprocess.Popen(
            [sys.executable, "-P", str(Path(gate_worker.__file__)), json.dumps(given)], text=True,
            cwd=job.root, env=_environment(job.root), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=self._errors)

    def __enter__(self) -> Side:
        try:
            self.about: dict[str, str] = self._answer()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._child.kill()
        self._child.communicate()
        self._errors.close()

    def runs(self, count: int) -> list[float]:
        """Milliseconds of ``count`` runs, one after the other."""
        assert self._child.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._child.stdin.write(f"{count}\n")
            self._child.stdin.flush()
        answer: list[float] = self._answer()
        return answer

    def _answer(self) -> Any:
        assert self._child.stdout is not None
        line = self._child.stdout.readline()
        if line:
            return json.loads(line)
        status = self._child.wait()
        self._errors.seek(0)
        said = self._errors.read().strip().splitlines()
        raise GateError(f"{self.name}: {self.what} cannot be run: {said[-1] if said else f'status {status}'}")


def _environment(root: Path) -> dict[str, str]:
    """The environment with the sources of the checkout in ``root`` first, where it is one."""
    sources = [root / "npu", root] if (root / "npu" / "npu_runtime").is_dir() else []
    paths = [*map(str, (path.resolve() for path in sources)), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    pin_threads(environment)
    return environment
