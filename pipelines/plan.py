"""What a build would do, and what follows from what. Runs nothing; knows nothing of doit."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum

from pipelines.records import Difference, Verdict


class State(Enum):
    """What would become of a task."""

    RUNS = "would run"
    RESTORED = "would be restored"
    MAY_RUN = "may run"
    FAILS = "would fail"
    STANDS = "up to date"
    CANNOT = "cannot run"


#: States of tasks that have something to do, or may have.
BUSY = (State.RUNS, State.RESTORED, State.MAY_RUN, State.FAILS)


@dataclass(frozen=True)
class Step:
    """A task of the plan.

    ``reasons``: why it runs (or cannot, or would fail) whatever the tasks before it do. ``because``: the
    tasks whose outputs make it run, or may. ``made``: what of its outputs would change, in words. ``open``:
    the tasks without whose results no more can be said of it; ``known`` says whether its own result is.
    """

    name: str
    state: State
    reasons: tuple[str, ...] = ()
    because: tuple[str, ...] = ()
    made: str = ""
    open: tuple[str, ...] = ()
    known: bool = True


def judged(verdict: Verdict, makers: Mapping[str, Step]) -> tuple[State, tuple[Difference, ...], set[str]]:
    """What follows from ``verdict`` on inputs that the steps ``makers`` (path -> step) make: with the
    differences that are not their doing, and the names of those steps that are a cause."""
    unknown = {path for path, maker in makers.items() if not maker.known}
    because = {makers[path].name for path in unknown}
    own: list[Difference] = []
    runs = verdict.previous is None
    for item in verdict.differences:
        kind, _, path = item.what.partition(" ")
        if kind == "input" and path in unknown:
            continue  # it says nothing yet
        runs = True
        if kind == "input" and path in makers and makers[path].state in BUSY:
            because.add(makers[path].name)
        else:
            own.append(item)
    state = State.RUNS if runs else State.MAY_RUN if unknown else State.STANDS
    return state, tuple(own), because


def lines(steps: Iterable[Step], shares: bool = False) -> Iterator[str]:
    """Every cause with the tasks that it makes run and those that may follow; then what is to be said of
    single tasks. ``shares`` says whether there is a cache, which may have what cannot be foreseen."""
    known = {step.name: step for step in steps}
    causes: dict[str, list[str]] = {}
    for step in known.values():
        for reason in step.reasons if step.state in BUSY else ():
            causes.setdefault(reason, []).append(step.name)
    grouped: dict[tuple[str, ...], list[str]] = {}
    for cause, names in causes.items():
        grouped.setdefault(tuple(names), []).append(cause)
    for first, shared in grouped.items():
        yield from shared
        levels = (", ".join(map(_told, level)) for level in _chain(first, known))
        yield f"    => {' => '.join(levels)}"
    told: dict[str, list[str]] = {}
    for step in known.values():
        if what := _about(step, shares):
            told.setdefault(what, []).append(step.name)
    yield from (f"{', '.join(names)} {what}" for what, names in told.items())
    counts = {state: sum(step.state is state for step in known.values()) for state in State}
    yield ", ".join(f"{count} {state.value}" for state, count in counts.items() if count) or "nothing to do"


def _about(step: Step, shares: bool) -> str:
    depends = f", depending on the result of {', '.join(step.open)}"
    match step.state:
        case State.CANNOT:
            return f"cannot run: {'; '.join(step.reasons)}"
        case State.FAILS:
            return f"would fail: {step.made}"
        case State.RESTORED:
            return "would be restored from the cache"
        case State.MAY_RUN:
            return f"may run{depends}"
        case State.RUNS if step.open and shares:
            return f"would run or be restored from the cache{depends}"
    return ""


def _told(step: Step) -> str:
    return f"{step.name} ({step.made})" if step.made and step.state is not State.FAILS else step.name


def _chain(first: tuple[str, ...], known: Mapping[str, Step]) -> Iterator[tuple[Step, ...]]:
    """``first``, then level by level the tasks that may run because of them."""
    depth = dict.fromkeys(first, 0)
    for step in known.values():  # in an order in which makers come first
        before = [depth[name] for name in step.because if name in depth]
        if before and step.name not in depth:
            depth[step.name] = max(before) + 1
    for level in range(max(depth.values()) + 1):
        yield tuple(known[name] for name, number in depth.items() if number == level)
