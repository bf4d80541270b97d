"""``doit tune:MODEL``: measures what the kernels of a model leave open, on the device that is here, and keeps
the best in ``configs/tuning/<device>.json``.

Every choice runs in a process that may be killed (``pipelines.tune_worker``). The file is written after every
question, so that a search that was stopped goes on from there.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from npu_compiler.compiler import compile_with_report, load_graph
from npu_compiler.partitioning import partition
from npu_compiler.spaces import Choice, spaces, version
from npu_compiler.tuned import FORMAT, Answer, Entry, Failure, Tuning, TuningFile, file_bytes, read_file
from pipelines import devices
from pipelines.inputs import upper_sizes
from pipelines.job import Job, write_atomic
from pipelines.locks import locked
from pipelines.search import Best, Budget, search
from pipelines.tuning_files import folder_of
from pipelines.workshop import Workshop


class TuneError(ValueError):
    """There is nothing to tune, or no way to do it."""


@dataclass(frozen=True)
class Asked:
    """A question of a program, by the node that asks it; ``forced`` are the choices that led to it."""

    program: str
    answer: Answer
    forced: tuple[tuple[str, Choice], ...] = ()

    @property
    def text(self) -> str:
        """For people: "product of conv1"."""
        return f"{self.answer.space} of {self.answer.nodes[0]}"


#: The share of a program below which kernels are not searched: no run would show what they gain.
SMALL = 0.005

Show = Callable[[str, int, int], None]


def tune(job: Job, show: Show, *, seconds: float | None = None, candidates: int | None = None,
         prepare: bool = False) -> None:
    """Searches what has no entry yet. ``show`` is told what is being done, and how much of how much is.

    ``prepare``: only builds the kernels that the search begins with, which a busy machine can do as well, so
    that the driver has them in its cache. Raises ``TuneError``, and ``NoDeviceError``."""
    knobs = job.config.tune
    with ExitStack() as held:
        held.enter_context(locked(job.root / "artifacts" / ".locks" / "stages", shared=prepare,
                                  waiting=lambda: show("waits for other work in this folder", 0, 0)))
        folder = held.enter_context(_folder(job))
        device = devices.find(job.target)
        job = devices.tuned_for(devices.on(job, device), device)
        graphs = graphs_of(job, folder)
        options = dict(job.config.compile.options)
        asked = questions(graphs, job.target, options)
        if not asked:
            raise TuneError(f"{job.label}: none of its kernels on {job.target} leaves anything open")
        workshop = held.enter_context(Workshop({
            "graphs": {name: str(path) for name, path in graphs.items()}, "target": job.target,
            "programs": {name: program.model_dump_json()
                         for name, program in job.config.programs.items()},
            "options": options, "sizes": upper_sizes(job.config, job.config.bench.sizes),
            "selector": job.selector, "threads": job.config.bench.threads}, knobs.patience, job.root))
        if prepare:
            _prepare(asked, workshop, show)
            return
        budget = Budget(seconds or knobs.seconds, candidates or knobs.candidates, time.monotonic)
        _search_all(job, asked, workshop, budget, show)


def _search_all(job: Job, asked: list[Asked], workshop: Workshop, budget: Budget, show: Show) -> None:
    assert job.tuned_for is not None and job.tuned_for.driver is not None
    path = folder_of(job.root) / f"{job.tuned_for.exact}.json"
    known = read_file(path) if path.is_file() else TuningFile(FORMAT, str(job.tuned_for.exact))
    entries = {entry.key: entry for entry in known.entries if is_current(entry)}
    workshop.start()
    driver, threads = job.tuned_for.driver, workshop.threads
    show("times every kernel", 0, len(asked))
    asked, small = heaviest_first(asked, {name: workshop.profile(name) for name in
                                          {item.program for item in asked}})
    if small:
        job.say(f"{small} questions are about kernels that take less than {SMALL:.1%} of the time: by rule")
    done = searched = better = 0

    def counts(entry: Entry) -> bool:
        return is_current(entry) and (entry.driver, entry.threads) == (driver, threads)

    for item in asked:
        space, question = spaces()[item.answer.space], item.answer.question
        old = entries.get(item.answer.key)
        if old is not None and counts(old):
            done += 1
            continue
        if budget.over:
            break

        def tell(tried: int, trial: object, item: Asked = item, done: int = done) -> None:
            show(f"{item.text}: {tried} choices tried", done, len(asked))

        show(item.text, done, len(asked))
        try:
            lab = workshop.open(item.program, item.answer, space.rule(question),
                                [*item.forced, *((entry.key, entry.params)
                                                 for entry in entries.values() if counts(entry))])
            best = search(space, question, lab, budget, job.config.tune.repeats, tell)
        except ValueError as error:
            job.say(f"{item.text}: cannot be measured: {error}")
            continue
        if not best.complete:
            break
        entry = _entry(item.answer, best, space.rule(question), version(space.templates), driver, threads)
        entries[entry.key] = entry
        write_atomic(path, file_bytes(TuningFile(FORMAT, known.device, tuple(entries.values()))))
        done, searched, better = done + 1, searched + 1, better + (entry.params != entry.default)
        job.say(_line(item, entry))
    place = path.relative_to(job.root)
    job.say(f"{searched} searched, {better} with another choice than the rule's; {done} of {len(asked)} have "
            f"entries in {place}")
    if budget.over and done < len(asked):
        job.say(f"the time is up: doit tune:{job.label} goes on with the other {len(asked) - done}")


def heaviest_first(asked: list[Asked], times: Mapping[str, Mapping[str, float]]) -> tuple[list[Asked], int]:
    """``asked`` by the time that the nodes take which ask, those that lead to others last, without those
    that take less than ``SMALL`` of their program's; how many these are. ``times`` of nodes by program."""

    def share(item: Asked) -> float:
        nodes = times[item.program]
        return sum(nodes.get(name, 0.0) for name in item.answer.nodes) / max(sum(nodes.values()), 1e-9)

    heavy = [item for item in asked if share(item) >= SMALL]
    heavy.sort(key=lambda item: (spaces()[item.answer.space].leads, -share(item)))
    return heavy, len(asked) - len(heavy)


def is_current(entry: Entry) -> bool:
    """Whether the kernels that ``entry`` was measured with are those of today; no other entry counts."""
    space = spaces().get(entry.space)
    return space is not None and entry.kernel == version(space.templates)


def _prepare(asked: list[Asked], workshop: Workshop, show: Show) -> None:
    for number, item in enumerate(asked):
        space, question = spaces()[item.answer.space], item.answer.question
        lab = workshop.open(item.program, item.answer, space.rule(question), item.forced)
        near = list(space.neighbours(space.rule(question), question))
        for tried, (_, choice) in enumerate(near):
            show(f"{item.text}: {tried} of {len(near)} choices built", number, len(asked))
            lab.build(choice)


def _folder(job: Job) -> tempfile.TemporaryDirectory[str]:
    """A temporary folder for the graphs of parts."""
    (job.root / "artifacts").mkdir(exist_ok=True)
    return tempfile.TemporaryDirectory(dir=job.root / "artifacts", prefix=".tune-")


def graphs_of(job: Job, folder: str) -> dict[str, Path]:
    """The graphs that the target runs: a file per program, or, where parts may fall back to PyTorch, per
    part of one. Raises ``TuneError`` where they have not been extracted."""
    found: dict[str, Path] = {}
    for name in job.programs:
        path = job.ir(name)
        if not path.is_file():
            raise TuneError(f"{path.name} is missing; run doit extract:{job.config.name}")
        if job.config.fallback == "deny":
            found[name] = path
            continue
        for part in partition(load_graph(path), target=job.target):
            if part.kind == "target":
                found[f"{name}.{part.name}"] = Path(folder) / f"{name}.{part.name}.json"
                part.ir.save(found[f"{name}.{part.name}"])
    return found


def questions(graphs: Mapping[str, Path], target: str, options: Mapping[str, Any]) -> list[Asked]:
    """What the programs ask about their kernels, each question once, with what is asked where those that lead
    to others are answered otherwise."""
    found: dict[str, Asked] = {}
    for program, path in graphs.items():
        graph = load_graph(path)
        tried: set[tuple[str, str]] = set()
        waiting: list[tuple[tuple[str, Choice], ...]] = [()]
        while waiting:
            forced = waiting.pop()
            result = compile_with_report(graph, target=target, tuning=Tuning(forced=forced), **options)
            for answer in result.answers:
                found.setdefault(answer.key, Asked(program, answer, forced))
            waiting += _alternatives(result.answers, tried)
    return list(found.values())


def _alternatives(answers: tuple[Answer, ...],
                  tried: set[tuple[str, str]]) -> Iterator[tuple[tuple[str, Choice], ...]]:
    """Sets of choices that ask what was not asked yet: every leading question answered otherwise, all at
    once."""
    leading = [answer for answer in answers if spaces()[answer.space].leads]
    others: dict[int, list[tuple[str, Choice]]] = {}
    for answer in leading:
        tried.add((answer.key, str(dict(answer.choice))))
        space = spaces()[answer.space]
        for index, (_, choice) in enumerate(space.neighbours(answer.choice, answer.question)):
            if (answer.key, str(dict(choice))) not in tried:
                tried.add((answer.key, str(dict(choice))))
                others.setdefault(index, []).append((answer.key, choice))
    yield from (tuple(group) for group in others.values())


def _entry(answer: Answer, best: Best, default: Choice, kernel: str, driver: str, threads: int) -> Entry:
    low, median, high = statistics.quantiles((*best.trial.times, *best.trial.times[-1:]), n=4)
    median = statistics.median(best.trial.times)
    return Entry(
        answer.space, dict(answer.question), dict(best.choice), kernel, driver, threads,
        len(best.trial.times), round(median, 2), round(low, 2), round(high, 2), dict(default),
        round(statistics.median(best.trial.default), 2), best.tried,
        tuple(Failure(dict(choice), reason) for choice, reason in best.failed),
        best.program and round(best.program, 4))


def _line(item: Asked, entry: Entry) -> str:
    times = f"{entry.median_us:.0f} \N{MICRO SIGN}s"
    if entry.params == entry.default:
        return f"{item.text}: {times}, the rule's choice is the best of {entry.tried + 1}"
    changed = " ".join(f"{name}={value}" for name, value in entry.params.items()
                       if value != entry.default[name])
    return (f"{item.text}: {times} with {changed}, by rule {entry.default_us:.0f} "
            f"({entry.median_us / max(entry.default_us, 1e-9) - 1:+.0%}; {entry.program or 1:.3f} of the "
            "program's time)")
