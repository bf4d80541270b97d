"""What a build would do, and what follows from what. Runs nothing; knows nothing of doit."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum

from pipelines.records import Difference, Verdict


class State(Enum):
    """What would become of a task."""

    RUNS = "runs"
    MAY_RUN = "may run"
    STANDS = "is up to date"
    CANNOT = "cannot run"


@dataclass(frozen=True)
class Step:
    """A task of the plan: why it runs (or cannot), and the tasks that make what it reads."""

    name: str
    after: tuple[str, ...]
    state: State
    reasons: tuple[str, ...] = ()


def judged(verdict: Verdict, made_anew: frozenset[str]) -> tuple[State, tuple[Difference, ...]]:
    """What follows from ``verdict`` if the inputs ``made_anew`` are about to be made again: a difference in
    these says nothing yet. With the differences that count."""
    def stays(item: Difference) -> bool:
        kind, _, path = item.what.partition(" ")
        return kind != "input" or path not in made_anew
    if verdict.previous is None:
        return State.RUNS, ()
    differences = tuple(item for item in verdict.differences if stays(item))
    if differences:
        return State.RUNS, differences
    return (State.MAY_RUN if made_anew else State.STANDS), ()


def lines(steps: Iterable[Step]) -> Iterator[str]:
    """Every cause with the tasks that it makes run, and those that follow if their outputs change."""
    known = {step.name: step for step in steps}
    causes: dict[str, list[str]] = {}
    for step in known.values():
        for reason in step.reasons if step.state is State.RUNS else ():
            causes.setdefault(reason, []).append(step.name)
    grouped: dict[tuple[str, ...], list[str]] = {}
    for cause, names in causes.items():
        grouped.setdefault(tuple(names), []).append(cause)
    for first, shared in grouped.items():
        yield from shared
        yield f"    => {' => '.join(', '.join(level) for level in _chain(first, known))}"
    for step in known.values():
        if step.state is State.CANNOT:
            yield f"{step.name} cannot run: {'; '.join(step.reasons)}"
    may = [step.name for step in known.values() if step.state is State.MAY_RUN]
    if may:
        yield f"only if what they read comes out different: {', '.join(may)}"
    counts = {state: sum(step.state is state for step in known.values()) for state in State}
    said = {State.RUNS: "would run", State.MAY_RUN: "may run", State.STANDS: "up to date",
            State.CANNOT: "cannot run"}
    yield ", ".join(f"{count} {said[state]}" for state, count in counts.items() if count) or "nothing to do"


def _chain(first: tuple[str, ...], known: Mapping[str, Step]) -> Iterator[tuple[str, ...]]:
    """``first``, then level by level the tasks that may run because of them."""
    depth = dict.fromkeys(first, 0)
    for step in known.values():  # in an order in which makers come first
        before = [depth[name] for name in step.after if name in depth]
        if before and step.name not in depth and step.state in (State.RUNS, State.MAY_RUN):
            depth[step.name] = max(before) + 1
    for level in range(max(depth.values()) + 1):
        yield tuple(name for name, number in depth.items() if number == level)
