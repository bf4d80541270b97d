"""The regression gate: is the new revision slower than the base, by more than the noise can explain?

Both sides are measured on one machine in turns: base, head, head, base, ... A *round* is one turn of each.
A round's figure is the ratio of its two turns' medians (head over base; above 1 is slower), which what the
machine is doing at that moment affects little; the result is the median of the rounds' figures. Its
confidence interval is the sign test's: two of the sorted figures, so far out that the true median lies beyond
them as rarely as asked. It supposes nothing about the distribution of the noise. Rounds are counted and not
runs, since the runs of a turn are not independent.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from statistics import median
from typing import Literal, TypeAlias

from pipelines.results import Record

#: Exit statuses of ``npubin gate``. 1 is any error, 2 a misuse of the command line.
OK, ERROR, REGRESSION, NOTHING_RAN = 0, 1, 3, 4

#: How often the interval is looked at, with the rounds doubled in between, before the answer is "undecided".
LOOKS = 3

#: Milliseconds of each run, one sequence per round.
Rounds: TypeAlias = Sequence[Sequence[float]]
Verdict: TypeAlias = Literal[
    "regression", "undecided", "no regression", "improvement", "not compared", "error"]


class Ratio(Record, frozen=True):
    """Head's time over base's, with its confidence interval."""

    value: float
    low: float
    high: float


class Comparison(Record, frozen=True):
    """One program of a model, on both sides. ``reason`` says why it was not compared, or what failed."""

    model: str
    program: str
    verdict: Verdict
    reason: str = ""
    ratio: Ratio | None = None
    base_ms: float | None = None
    head_ms: float | None = None
    rounds: int = 0
    runs: int = 0
    base_digest: str = ""
    head_digest: str = ""


class GateReport(Record, frozen=True):
    """What the gate saw. ``threshold`` is the slowdown that is let pass, as a share of the base's time."""

    base: str
    head: str
    threshold: float
    confidence: float
    device: str
    status: int
    comparisons: tuple[Comparison, ...]


def status_of(comparisons: Sequence[Comparison]) -> int:
    """The exit status: an error outranks a regression, which outranks that nothing was compared."""
    verdicts = {item.verdict for item in comparisons}
    if "error" in verdicts:
        return ERROR
    if "regression" in verdicts:
        return REGRESSION
    return OK if verdicts - {"not compared"} else NOTHING_RAN


def ratio_of_medians(base: Rounds, head: Rounds, confidence: float) -> Ratio:
    """The typical round's ratio of medians, with its confidence interval.

    Raises ``ValueError`` unless both sides have the same number of rounds, enough of them for ``confidence``,
    none of them empty, and all times are above 0.
    """
    if len(base) != len(head) or not all(map(len, (*base, *head))):
        raise ValueError("both sides need the same number of rounds, and runs in each")
    if len(base) < (needed := fewest_rounds(confidence)):
        raise ValueError(f"{len(base)} rounds cannot give {confidence:.2%} confidence; it takes {needed}")
    if not all(0 < time < math.inf for side in (base, head) for turn in side for time in turn):
        raise ValueError("times must be finite and above 0")
    ratios = sorted(median(new) / median(old) for old, new in zip(base, head, strict=True))
    count = len(ratios)
    value = math.sqrt(ratios[(count - 1) // 2] * ratios[count // 2])
    out = next(number for number in range(count) if _beyond(number + 1, count) > 1 - confidence)
    return Ratio(value, ratios[out - 1], ratios[count - out])


def fewest_rounds(confidence: float) -> int:
    """The rounds that it takes for an interval of ``confidence`` to end anywhere."""
    return next(count for count in range(2, 1000) if _beyond(1, count) <= 1 - confidence)


def _beyond(number: int, count: int) -> float:
    """How likely a distribution's median lies outside the ``number``-th smallest and the ``number``-th
    largest of ``count`` values: as likely as one side of a coin shows less often in ``count`` throws."""
    return float(2 * sum(math.comb(count, less) for less in range(number)) / 2**count)


def judge(ratio: Ratio, threshold: float) -> Verdict:
    """What an interval means for a ``threshold``: a regression only where all of it lies beyond."""
    if ratio.low > 1 + threshold:
        return "regression"
    if ratio.high > 1 + threshold:
        return "undecided"
    return "improvement" if ratio.high < 1 else "no regression"


def look_confidence(confidence: float) -> float:
    """That of each of the looks, which together are wrong as rarely as one look of ``confidence``."""
    return 1 - (1 - confidence) / LOOKS


def decide(measure: Callable[[int], tuple[Rounds, Rounds]], *, rounds: int, threshold: float,
           confidence: float) -> tuple[Verdict, Ratio, Rounds, Rounds]:
    """Measures ``rounds`` rounds, and while the interval contains the threshold as many again as there are,
    up to ``LOOKS`` looks. Each look uses its share of the allowed error, so that looking often does not make
    a false alarm likelier. ``measure(n)`` gives ``n`` further rounds of base and head."""
    each = look_confidence(confidence)
    base, head = measure(rounds)
    for _ in range(LOOKS - 1):
        ratio = ratio_of_medians(base, head, each)
        verdict = judge(ratio, threshold)
        if verdict != "undecided":
            return verdict, ratio, base, head
        more = measure(len(base))
        base, head = [*base, *more[0]], [*head, *more[1]]
    ratio = ratio_of_medians(base, head, each)
    return judge(ratio, threshold), ratio, base, head


def text(report: GateReport) -> str:
    """The report for people, a line per program."""
    lines = [f"base {report.base}, head {report.head}, on {report.device or 'no device'}; slower by more "
             f"than {report.threshold:.1%} is a regression ({report.confidence:.0%} confidence)"]
    for item in report.comparisons:
        name = f"{item.model} {item.program}".strip()
        if item.ratio is None:
            lines.append(f"{name}: {item.verdict}: {item.reason}")
            continue
        same = ", the same program" if item.base_digest == item.head_digest else ""
        lines.append(f"{name}: {item.verdict}: {item.base_ms:.3f} -> {item.head_ms:.3f} ms, ratio "
                     f"{item.ratio.value:.3f} ({item.ratio.low:.3f} to {item.ratio.high:.3f}), "
                     f"{item.rounds} rounds of {item.runs} runs{same}")
    lines.append({OK: "passed", ERROR: "error", REGRESSION: "regression",
                  NOTHING_RAN: "nothing was compared"}[report.status])
    return "\n".join(lines)
