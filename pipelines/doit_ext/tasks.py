"""model x target x stage -> doit tasks.

Whether a task is up to date is decided by ``pipelines.records`` from contents alone; doit orders the
tasks and its own database stays in memory, so that there is one truth and a killed build cannot lose it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from doit.exceptions import InvalidDodoFile, TaskFailed
from doit.task import Task

from pipelines import devices
from pipelines.cache import open_cache
from pipelines.config import ConfigError, ModelConfig, families, load_configs, target_names
from pipelines.doit_ext.launch import launch, launch_child, rehearse_child
from pipelines.doit_ext.memory import first_need
from pipelines.doit_ext.reporter import Reporter
from pipelines.doit_ext.session import FindCache, FindDevice, Launcher, Running, Session
from pipelines.execute import clean, forget
from pipelines.explain import made, reasons
from pipelines.fingerprint import Key, Observed, shown
from pipelines.foresight import Foresight, Rehearse
from pipelines.job import Job
from pipelines.plan import State, Step, judged
from pipelines.records import Record, check, read_record
from pipelines.reproduce import NotReproducible, reproduce
from pipelines.stages import STAGES, Stage

_TUNE = "measures what kernels leave open, on the device that is here"


class Build:
    """The tasks of the project in ``root``, and doit's settings for them."""

    def __init__(self, root: Path, *, stages: Sequence[Stage] = STAGES, launch: Launcher = launch_child,
                 find_device: FindDevice = devices.ask, find_cache: FindCache = open_cache,
                 rehearse: Rehearse = rehearse_child) -> None:
        self.stages = tuple(stages)
        self.session = Session(root.resolve(), launch, find_device, find_cache, rehearse)

    @property
    def config(self) -> dict[str, Any]:
        """``DOIT_CONFIG``. Stages are processes of their own, so threads are all that ``-n`` needs."""
        reporter = type("BuildReporter", (Reporter,), {"session": self.session})
        return {"default_tasks": [self.stages[-1].name], "reporter": reporter, "backend": "sqlite3",
                "dep_file": ":memory:", "par_type": "thread", "verbosity": 2}

    def tasks(self) -> Iterator[Task]:
        """Every task. Raises doit's ``InvalidDodoFile`` with the message of a ``ConfigError``."""
        try:
            configs, targets = load_configs(self.session.root), target_names()
        except ConfigError as error:
            raise InvalidDodoFile(f"the configuration is not valid\n{error}") from None
        for stage in self.stages:
            default = [config for config in configs.values() if config.default]
            chosen = [task_name(stage, config, config.target) for config in default]
            yield Task(stage.name, None, task_dep=chosen, has_subtask=True,
                       doc=f"{stage.doc}, for the default models")
        for family, names in families(self.session.root, configs).items():
            for stage in self.stages:
                yield Task(f"{stage.name}:{family}", None, subtask_of=stage.name,
                           doc=f"{stage.doc}, for all variants",
                           task_dep=[task_name(stage, configs[name], configs[name].target) for name in names])
        yield Task("reproduce", None, has_subtask=True, doc="builds twice and compares the bytes, "
                   "for the default models", task_dep=[
                       f"reproduce:{config.name}" for config in configs.values() if config.default])
        yield Task("tune", None, has_subtask=True, doc=f"{_TUNE}, for the default models", task_dep=[
            f"tune:{config.name}" for config in configs.values() if config.default])
        for config in configs.values():
            for target in targets:
                yield self._reproduce(config, target)
                yield self._tune(config, target)
            yield Task(f"tune:{config.name}@{config.target}", None, subtask_of="tune", doc=_TUNE,
                       task_dep=[f"tune:{config.name}"])
            for stage in self.stages:
                yield self._task(stage, config, config.target)
                for target in targets if stage.per_target else ():
                    if target == config.target:
                        yield Task(f"{stage.name}:{config.name}@{target}", None, subtask_of=stage.name,
                                   task_dep=[task_name(stage, config, target)], doc=stage.doc)
                    else:
                        yield self._task(stage, config, target)

    def _reproduce(self, config: ModelConfig, target: str) -> Task:
        job = Job(self.session.root, config, target)

        def run() -> TaskFailed | None:
            running = self.session.running[name] = Running()

            def say(text: str) -> None:
                running.text = text

            try:
                with self.session.memory.taken(first_need(job.source_weights)):
                    same = reproduce(job, say)
            except NotReproducible as error:
                return TaskFailed(str(error))
            running.made = f"{same.files} files, {same.size / 1e6:.1f} MB, are the same bytes in two builds"
            return None

        name = f"reproduce:{job.label}"
        self.session.reasons[name] = ("it was asked for",)
        return Task(name, [(run,)], subtask_of="reproduce", uptodate=[False], io={"capture": False},
                    doc="builds twice, in different folders and settings, and compares the bytes")

    def _tune(self, config: ModelConfig, target: str) -> Task:
        """Always runs: what has been measured on this device, it passes over itself."""
        job = Job(self.session.root, config, target)

        def run() -> TaskFailed | None:
            running = self.session.running[name] = Running(text="waits for memory")
            with self.session.memory.taken(first_need(job.source_weights)):
                message = launch("tune", (), job, running)
            return TaskFailed(message) if message is not None else None

        name = f"tune:{job.label}"
        self.session.reasons[name] = ("it was asked for",)
        extracted = [f"{stage.name}:{config.name}" for stage in self.stages if stage.name == "extract"]
        return Task(name, [(run,)], subtask_of="tune", uptodate=[False], io={"capture": False},
                    task_dep=extracted, doc=_TUNE)

    def _task(self, stage: Stage, config: ModelConfig, target: str) -> Task:
        stages = {known.name: known for known in self.stages}
        work = Work(self.session, stage, config, target,
                    tuple(task_name(stages[name], config, target) for name in stage.after))
        return Task(work.name, [(work.run,)], task_dep=list(work.after), uptodate=[work],
                    clean=[(work.clean,)], subtask_of=stage.name, doc=stage.doc, io={"capture": False})


def task_name(stage: Stage, config: ModelConfig, target: str) -> str:
    """ "compile:resnet18", or "compile:resnet18@nvidia" where the target is not the model's own."""
    extra = f"@{target}" if stage.per_target and target != config.target else ""
    return f"{stage.name}:{config.name}{extra}"


class Work:
    """One task. Called, it says whether there is nothing to do: its outputs stand, or its device is absent
    and the command line does not name it. Its text says why there is."""

    def __init__(self, session: Session, stage: Stage, config: ModelConfig, target: str,
                 after: tuple[str, ...]) -> None:
        self.session, self.stage, self.after = session, stage, after
        self.name = task_name(stage, config, target)
        self._job = Job(session.root, config, target)
        self._reasons: tuple[str, ...] = ()

    def __call__(self) -> bool:
        absent = self._absence()
        if absent is not None:
            self._reasons = (absent,)
            if self.session.named is None or self.name in self.session.named:
                return False
            self.session.skipped[self.name] = absent
            return True
        verdict = check(self.stage, self.job, self.session.digests)
        self._reasons = reasons(verdict, self._job.config.name, self.session.root)
        self.session.reasons[self.name] = self._reasons
        return verdict.current

    def step(self, before: Mapping[str, Step], foresight: Foresight) -> Step:
        """What would become of the task, after the steps ``before``."""
        try:
            job = self.job
        except LookupError as error:
            return Step(self.name, State.CANNOT, (str(error),))
        unable = [before[name] for name in self.after
                  if name in before and before[name].state in (State.CANNOT, State.FAILS)]
        if unable:
            verb = "cannot" if unable[0].state is State.CANNOT else "would fail"
            return Step(self.name, State.CANNOT, (f"{unable[0].name} {verb}",))
        makers = {shown(path, job): maker for known in STAGES for artifact in known.makes
                  if artifact in self.stage.reads
                  and (maker := before.get(task_name(known, job.config, job.target)))
                  for path in job.paths(artifact)}
        verdict = check(self.stage, job, foresight.digests)
        state, own, because = judged(verdict, makers)
        if state is State.STANDS:
            return Step(self.name, state)
        causes = [before[name] for name in self.after if name in because]
        roots = {name for step in causes if not step.known
                 for name in (step.open if step.state is State.MAY_RUN else (step.name,))}
        unknown = tuple(name for name in before if name in roots)
        why = reasons(replace(verdict, differences=own), job.config.name, self.session.root)
        after = tuple(step.name for step in causes)
        if unknown:
            tell = state is State.MAY_RUN or self.stage.shared
            return Step(self.name, state, why, after, open=unknown if tell else (), known=False)
        outcome = foresight.of(self.stage, job, verdict)
        changes = outcome.problem
        if outcome.outputs is not None:
            changes = made(verdict.previous, Record(Key({}), outcome.outputs, Observed()))
        return Step(self.name, outcome.state, why, after, changes, known=outcome.outputs is not None)

    @property
    def has_run(self) -> bool:
        """Whether there is a finished run, on the device that is here where that matters."""
        try:
            return read_record(self.stage, self.job) is not None
        except LookupError:
            return False

    def forget(self) -> None:
        """Makes the task run again, whatever its state."""
        forget(self.stage, self._job)

    def __repr__(self) -> str:
        return "; ".join(self._reasons) or "up to date by content"

    def _absence(self) -> str | None:
        """Why the stage cannot run here: its device is absent, or a task before it was skipped for that."""
        found = self.session.device(self._job.target) if self.stage.device else None
        if isinstance(found, devices.Absent):
            return found.remedy
        return next((f"{name} was skipped" for name in self.after if name in self.session.skipped), None)

    @property
    def job(self) -> Job:
        """The job, on the device where the stage needs one. Raises ``LookupError`` where that is absent."""
        placed = devices.placed(self.stage, self._job, lambda: self.session.device(self._job.target))
        if isinstance(placed, devices.Absent):
            raise LookupError(placed.remedy)
        return placed

    def run(self) -> TaskFailed | None:
        """doit's action: runs the stage."""
        running = self.session.running[self.name] = Running(text="waits for memory")
        try:
            before = read_record(self.stage, self.job)
            need = before.memory if before else first_need(self._job.source_weights)
            with self.session.memory.taken(need):
                running.text = ""
                message = self.session.launch(self.stage, self.job, running)
            after = read_record(self.stage, self.job)
        except LookupError as error:
            message = str(error)
        else:
            if message is None and after is not None and running.outcome != "skipped":
                running.made = made(before, after)
        return TaskFailed(message) if message is not None else None

    def clean(self, dryrun: bool = False) -> None:
        """doit's clean action: removes outputs and record."""
        for path in clean(self.stage, self._job, dryrun=dryrun):
            print(f"{self.name}: {'would remove' if dryrun else 'removed'} "
                  f"{path.relative_to(self.session.root).as_posix()}")
