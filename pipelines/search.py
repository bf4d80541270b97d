"""The search for a kernel's best choice: which choices are tried in which order, when one counts as better,
and when to stop. Knows neither devices nor processes: a ``Lab`` measures.

Kernels are searched alone, where a choice costs little; what is best alone is taken only if the program that
it is part of is faster with it: there caches, threads and neighbours are others."""

from __future__ import annotations

import math
import statistics
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from npu_compiler.spaces import Choice, Question, Space

#: A choice must be this much faster than the best so far to be looked at again, and to take its place.
LOOK, TAKE = 0.97, 0.98


@dataclass(frozen=True)
class Trial:
    """Microseconds of a choice and, in turns with them, of the rule's; or why it could not be measured."""

    times: tuple[float, ...] = ()
    default: tuple[float, ...] = ()
    problem: str = ""

    @property
    def ratio(self) -> float:
        """Median over the default's median; infinite where there is none."""
        if self.problem:
            return float("inf")
        return statistics.median(self.times) / max(statistics.median(self.default), 1e-9)

    @property
    def highest(self) -> float:
        """The upper end of the 95 % interval of the median of the ratios run by run: median + 1.57 IQR /
        sqrt(n) (the notch of McGill, Tukey and Larsen, "Variations of box plots", 1978)."""
        if self.problem:
            return float("inf")
        ratios = [time / max(default, 1e-9) for time, default in zip(self.times, self.default, strict=True)]
        low, median, high = statistics.quantiles((*ratios, *ratios[-1:]), n=4)
        return median + 1.57 * (high - low) / math.sqrt(len(ratios))


class Lab(Protocol):
    """Measures choices for one question."""

    def measure(self, choice: Choice, repeats: int) -> Trial:
        """Runs ``choice`` and the rule's choice ``repeats`` times each, in turns, after it has compared their
        results."""

    def measure_program(self, choice: Choice) -> Trial:
        """Runs the whole program with ``choice`` and with the rule's, in turns."""


@dataclass
class Budget:
    """What is left: seconds of the clock for all questions, choices for each."""

    seconds: float
    candidates: int
    clock: Callable[[], float]
    started: float = field(init=False)

    def __post_init__(self) -> None:
        self.started = self.clock()

    @property
    def over(self) -> bool:
        """Whether the time is up."""
        return self.clock() - self.started >= self.seconds


@dataclass(frozen=True)
class Best:
    """What a search has found: the choice, its last trial, how many choices were tried, those that failed and
    why; ``complete`` is false where the time was up before the end. ``program`` is the whole program's time
    with the choice over that with the rule's, None for the rule's own."""

    choice: Choice
    trial: Trial
    tried: int
    failed: tuple[tuple[Choice, str], ...]
    complete: bool
    program: float | None = None


def search(space: Space, question: Question, lab: Lab, budget: Budget, repeats: int,
           say: Callable[[int, Trial], None] = lambda tried, trial: None) -> Best:
    """From the rule's choice on, changes one knob at a time and keeps what is faster, until no knob helps.

    A choice that looks faster is measured again, three times as often, before it is kept: the fastest of many
    is by half luck. The best is the rule's after all unless the program gains by it. Raises ``ValueError``
    where not even the rule's choice can be measured."""
    default = space.rule(question)
    first = lab.measure(default, repeats)
    if first.problem:
        raise ValueError(first.problem)
    best, trial, ratio = default, first, 1.0
    seen = [default]
    failed: list[tuple[Choice, str]] = []
    complete, waiting = True, deque(space.neighbours(default, question))
    while waiting:
        knob, choice = waiting.popleft()
        if choice in seen:
            continue
        if budget.over or len(seen) > budget.candidates:
            complete = not budget.over
            break
        seen.append(choice)
        found = lab.measure(choice, repeats)
        if found.ratio < ratio * LOOK:
            found = lab.measure(choice, 3 * repeats)
        say(len(seen) - 1, found)
        if found.problem:
            failed.append((choice, found.problem))
        elif found.ratio < ratio * TAKE:
            best, trial, ratio = choice, found, found.ratio
            names = list(space.knobs)
            turn = names[names.index(knob) + 1:] + names[:names.index(knob) + 1]  # the next knob's turn
            near = list(space.neighbours(best, question))
            waiting = deque(item for name in turn for item in near if item[0] == name)
    tried = len(seen) - 1
    if best == default or not complete:
        return Best(best, trial, tried, tuple(failed), complete)
    whole = lab.measure_program(best)
    if whole.highest < 1:
        return Best(best, trial, tried, tuple(failed), complete, whole.ratio)
    reason = whole.problem or f"{trial.ratio:.3f} of the time alone, {whole.ratio:.3f} of the program's"
    return Best(default, first, tried, (*failed, (best, reason)), complete)
