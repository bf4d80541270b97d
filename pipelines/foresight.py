"""What a stage would make, without making it. Knows nothing of doit."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from pipelines.cache import Cache
from pipelines.cache_store import CacheError, DamagedError
from pipelines.digests import Digests, Expected
from pipelines.job import Job
from pipelines.plan import State
from pipelines.records import Verdict
from pipelines.stages import Stage


class RehearsalError(ValueError):
    """A stage that was rehearsed has failed."""


#: Runs a stage in a scratch folder, and returns what its outputs would be. Raises ``RehearsalError``.
Rehearse: TypeAlias = Callable[[Stage, Job], Mapping[str, str]]


@dataclass(frozen=True)
class Outcome:
    """What would become of a stage that does not stand: its outputs as in ``Record.outputs``, None if they
    cannot be foreseen; ``problem``: why it would fail."""

    state: State
    outputs: Mapping[str, str] | None = None
    problem: str = ""


@dataclass
class Foresight:
    """Tells what stages would make, in the order of a build. ``digests`` are those that files will have then;
    ``notes`` say what a build would say of the cache. Without ``rehearse``, nothing is rehearsed."""

    real: Digests
    cache: Cache | None
    rehearse: Rehearse | None
    notes: dict[str, None] = field(default_factory=dict)
    digests: Expected = field(init=False)

    def __post_init__(self) -> None:
        self.digests = Expected(self.real)
        if self.cache is not None and (since := self.cache.resting) is not None:
            self._set_aside(f"not asked, since it did not serve {since:.0f} s ago")

    def of(self, stage: Stage, job: Job, verdict: Verdict) -> Outcome:
        """What would become of ``stage``, whose inputs are known and whose last success does not stand."""
        outcome = self._outcome(stage, job, verdict)
        if outcome.outputs is not None:
            self.digests.expect(outcome.outputs, job.root)
        return outcome

    def _outcome(self, stage: Stage, job: Job, verdict: Verdict) -> Outcome:
        if not stage.shared:
            return Outcome(State.RUNS)
        stored = self._stored(stage, job)
        if stored is not None:
            return Outcome(State.RESTORED, stored)
        if verdict.previous is not None and all(item.what.startswith("output ")
                                                for item in verdict.differences):
            return Outcome(State.RUNS, verdict.previous.outputs)  # same key, same bytes
        in_place = all(self.digests.is_in_place(path) for artifact in stage.reads
                       for path in job.paths(artifact))
        if self.rehearse is not None and stage.quick and in_place:
            try:
                return Outcome(State.RUNS, self.rehearse(stage, job))
            except RehearsalError as error:
                return Outcome(State.FAILS, problem=str(error))
        return Outcome(State.RUNS)

    def _stored(self, stage: Stage, job: Job) -> Mapping[str, str] | None:
        if self.cache is None:
            return None
        try:
            found = self.cache.look_up(stage, job, self.digests)
        except DamagedError as error:
            self.notes[f"cache: {error}; it would be left aside"] = None
        except CacheError as error:
            self._set_aside(f"{error}; a build would go on without it")
        else:
            return None if found is None else found.record.outputs
        return None

    def _set_aside(self, why: str) -> None:
        self.notes[f"cache: {why}"] = None
        self.cache = None
