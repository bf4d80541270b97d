"""The stages of many models on a Dask cluster.

Every worker works in the folder that it was started in, a checkout of its own, and shares nothing with the
others but the cache that ``NPU_CACHE`` names: a stage takes what it reads from there if another worker has
made it, and puts there what it makes. So a fleet makes the bytes that a build on one machine makes; a worker
whose sources or libraries differ is refused.

Measurements (verify, bench, report) begin when all else is done everywhere. Those of a model stay on one
worker, and a host does one at a time, so that a benchmark never runs beside anything.
"""

from __future__ import annotations

import contextlib
import json
import socket
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from npu_runtime.errors import InputError, NpubinError
from pipelines import devices
from pipelines.cache import open_cache
from pipelines.config import ConfigError
from pipelines.digests import Digests, boot_id, text_digest
from pipelines.doit_ext.launch import launch_child
from pipelines.doit_ext.session import Running
from pipelines.execute import store_of
from pipelines.fingerprint import key_of
from pipelines.job import Job, job_of, jobs_of
from pipelines.records import check
from pipelines.stages import STAGES, Stage

if TYPE_CHECKING:
    from distributed import Client, Future

#: Outcomes of a task whose outputs stand.
MADE = ("ran", "restored", "up to date")

#: Seconds between looks at whether the workers are still there.
POLL = 5.0

_STAGES = {stage.name: stage for stage in STAGES}


class FleetError(NpubinError, ValueError):
    """A stage of a fleet has failed, or a worker is not fit for it."""


@dataclass(frozen=True)
class Task:
    """A stage of a job ("model" or "model@target"), and the names of the tasks that make what it reads."""

    stage: str
    job: str
    after: tuple[str, ...]

    @property
    def name(self) -> str:
        """As doit calls it, "compile:resnet18"."""
        return f"{self.stage}:{self.job}"

    @property
    def measures(self) -> bool:
        """Whether its result is of the machine that it runs on."""
        return not _STAGES[self.stage].shared


@dataclass(frozen=True)
class Project:
    """The client's project, which workers are to match: ``machine`` and ``root`` say where it is, ``sources``
    is a digest of all that shapes what is made for the jobs ``labels``, inputs apart."""

    machine: str
    root: str
    sources: str
    labels: tuple[str, ...]


@dataclass(frozen=True)
class Done:
    """How a task ended on ``worker``: "ran", "restored", "up to date", "failed" or "not run"; ``lines`` are
    what it said, or why."""

    name: str
    outcome: str
    worker: str = ""
    seconds: float = 0.0
    lines: tuple[str, ...] = ()


def graph_of(jobs: Iterable[Job], to: str) -> list[Task]:
    """The tasks that it takes to do the stage ``to`` for ``jobs``, makers first. Raises ``InputError``."""
    if to not in _STAGES:
        raise InputError(f"there is no stage {to}; choose from {', '.join(_STAGES)}")
    needed = _before(to)
    return [Task(stage.name, job.label, tuple(f"{name}:{job.label}" for name in stage.after))
            for job in jobs for stage in needed]


def run_fleet(client: Client, names: Sequence[str], to: str, root: Path) -> Iterator[Done]:
    """Does the stage ``to``, with all before it, for the models ``names`` (none: the default ones) on the
    workers of ``client``; yields how each task ended, as it ends. Raises ``ConfigError``, ``InputError``, and
    ``FleetError`` where there is no worker."""
    jobs = jobs_of(names, root)
    tasks = graph_of(jobs, to)
    labels = tuple(job.label for job in jobs)
    project = Project(machine(), str(root.resolve()), sources_of(jobs, root), labels)
    if not client.nthreads():
        raise FleetError("the cluster has no workers: start some in their checkouts, `dask worker ADDRESS`")
    unmade: set[str] = set()
    for done in _spread(client, [task for task in tasks if not task.measures], project):
        if done.outcome not in MADE:
            unmade.add(done.name.partition(":")[2])
        yield done
    chains: deque[tuple[Task, ...]] = deque()
    for label in project.labels:
        chain = tuple(task for task in tasks if task.measures and task.job == label)
        if label in unmade:
            yield from (Done(task.name, "not run", lines=("a stage before it failed",)) for task in chain)
        elif chain:
            chains.append(chain)
    yield from _one_by_one(client, chains, project)


def machine() -> str:
    """What tells this machine from others, whatever its containers are called."""
    return boot_id() or socket.gethostname()


def sources_of(jobs: Iterable[Job], root: Path) -> str:
    """One digest of the configurations, code and libraries that shape what all stages of ``jobs`` make."""
    digests = Digests(store_of(root))
    parts = {f"{stage.name}:{job.label} {name}": value for job in jobs for stage in STAGES
             for name, value in key_of(stage, job, digests, None).parts.items()
             if not name.startswith("input ")}
    digests.save()
    return text_digest(json.dumps(parts, sort_keys=True))


def run_task(task: Task, project: Project, *before: Done) -> Done:
    """On a worker, in its folder: does ``task``, and what of the stages before it is not there. Raises
    ``FleetError`` with the message and the task's name."""
    root, start = Path.cwd(), time.monotonic()
    try:
        _check_worker(root, project)
        job = job_of(task.job, root)
        for stage in _before(task.stage):
            running = _made(stage, job)
    except ValueError as error:
        raise FleetError(f"{_here()}: {error}", task.name) from None
    return Done(task.name, running.outcome, _here(), time.monotonic() - start, tuple(running.lines))


def run_chain(chain: Sequence[Task], project: Project) -> tuple[Done, ...]:
    """Like ``run_task``, one after the other; what needs a task that failed is not run."""
    ends: dict[str, Done] = {}
    for task in chain:
        failed = [name for name in task.after if name in ends and ends[name].outcome not in MADE]
        try:
            ends[task.name] = (Done(task.name, "not run", _here(), lines=(f"{failed[0]} failed",)) if failed
                               else run_task(task, project))
        except FleetError as error:
            ends[task.name] = _failure(task.name, error)
    return tuple(ends.values())


def _made(stage: Stage, job: Job) -> Running:
    """Makes the outputs of ``stage`` stand. Raises ``FleetError``."""
    running = Running(outcome="up to date")
    placed = devices.placed(stage, job, lambda: devices.ask(job.target, job.root))
    if isinstance(placed, devices.Absent):
        raise FleetError(f"{stage.name}: {placed.remedy}")
    job = placed
    if not check(stage, job, Digests(store_of(job.root))).current:
        running.outcome = "ran"
        message = launch_child(stage, job, running)
        if message is not None:
            raise FleetError(f"{stage.name}: {message}")
    return running


def _before(name: str) -> list[Stage]:
    """A stage with all that make what it reads, makers first."""
    needed = {name}
    for stage in reversed(STAGES):
        needed |= set(stage.after) if stage.name in needed else set()
    return [stage for stage in STAGES if stage.name in needed]


def _check_worker(root: Path, project: Project) -> None:
    if (machine(), str(root)) == (project.machine, project.root):
        return
    cache = open_cache(root)
    if cache is None or not cache.write:
        raise FleetError("a worker needs a cache that it may write to: set NPU_CACHE to the one that all "
                         "share")
    if sources_of(jobs_of(project.labels, root), root) != project.sources:
        raise FleetError("its configurations, sources or libraries are not those of the client; check out "
                         "and install the same there")


def _here() -> str:
    return f"{socket.gethostname()}:{Path.cwd()}"


def _spread(client: Client, tasks: Sequence[Task], project: Project) -> Iterator[Done]:
    """Every task as soon as those before it are done, on any worker."""
    from distributed import as_completed
    futures: dict[str, Future] = {}
    for task in tasks:
        futures[task.name] = client.submit(run_task, task, project, *(futures[name] for name in task.after),
                                           key=f"{task.name} {uuid4().hex}", pure=False)
    names = {future: name for name, future in futures.items()}
    for future in as_completed(list(names)):
        yield future.result() if future.status == "finished" else _failure(names[future], future.exception())


def _one_by_one(client: Client, chains: deque[tuple[Task, ...]], project: Project) -> Iterator[Done]:
    """Every chain of tasks on one worker, and one chain at a time on each host."""
    from distributed import wait
    hosts: dict[str, str] = {}
    if chains:
        for address, host in client.run(machine).items():
            hosts[host] = min(address, hosts.get(host, address))
    idle, busy = list(hosts.values()), dict[Any, tuple[str, tuple[Task, ...]]]()
    while chains or busy:
        while idle and chains:
            address, chain = idle.pop(), chains.popleft()
            future = client.submit(run_chain, chain, project, key=f"{chain[0].name}... {uuid4().hex}",
                                   pure=False, workers=address, allow_other_workers=False)
            busy[future] = address, chain
        with contextlib.suppress(TimeoutError):
            wait(list(busy), timeout=POLL, return_when="FIRST_COMPLETED")
        there = client.nthreads()
        for future, (address, chain) in list(busy.items()):
            if future.done():
                del busy[future]
                idle += [address] if address in there else []
                yield from future.result() if future.status == "finished" else (
                    _failure(task.name, future.exception()) for task in chain)
            elif address not in there:
                del busy[future]
                yield from (Done(task.name, "failed", address, lines=("its worker is gone",))
                            for task in chain)
        if not busy and not idle:
            yield from (Done(task.name, "not run", lines=("no worker is left",))
                        for chain in chains for task in chain)
            return


def _failure(name: str, error: BaseException | None) -> Done:
    """dask gives the error of a task to all that depend on it."""
    if isinstance(error, FleetError) and len(error.args) == 2 and error.args[1] != name:
        return Done(name, "not run", lines=(f"{error.args[1]} failed",))
    return Done(name, "failed", lines=tuple(str(error.args[0] if isinstance(error, FleetError) else error)
                                            .splitlines()))


def command(names: Sequence[str], to: str, scheduler: str | None, workers: int,
            say: Callable[[str], None]) -> int:
    """``npubin fleet``: on the cluster of ``scheduler``, or on ``workers`` new processes in this folder.
    Tells how every task ended; returns the exit status. Raises ``FleetError``."""
    try:
        from distributed import Client, LocalCluster
    except ImportError:
        raise FleetError('a fleet needs dask.distributed: pip install "npubin[fleet]"') from None
    counts: Counter[str] = Counter()
    try:
        with contextlib.ExitStack() as open_:
            cluster = scheduler or open_.enter_context(LocalCluster(
                n_workers=workers, threads_per_worker=1, processes=True, dashboard_address=None))
            client = open_.enter_context(Client(cluster))
            for done in run_fleet(client, names, to, Path.cwd()):
                counts[done.outcome] += 1
                where = f" in {done.seconds:.1f} s on {done.worker}" if done.outcome in MADE else ""
                say(f"{done.name}: {done.outcome}{where}")
                for line in done.lines:
                    say(f"    {line}")
    except (ConfigError, OSError) as error:
        raise FleetError(str(error)) from None
    say(", ".join(f"{count} {outcome}" for outcome, count in counts.items()) or "nothing to do")
    return 0 if counts.keys() <= set(MADE) else 1
