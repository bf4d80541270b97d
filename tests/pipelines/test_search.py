"""The tuner's search with a made-up stopwatch, and its worker's end with processes that hang and die."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from npu_compiler.spaces import Choice, Question, Space
from npu_compiler.tuned import Answer
from pipelines.search import Budget, Trial, search
from pipelines.tune import Asked, heaviest_first
from pipelines.workshop import Workshop

SPACE = Space(
    "toy", {"mr": (1, 2, 4, 8), "order": ("row", "column"), "ahead": (False, True)},
    lambda question: {"mr": 2, "order": "row", "ahead": False},
    lambda choice, question: int(choice["mr"]) <= int(question["rows"]), ("ops/copy.cl.j2",))
ROWS: Question = {"rows": 8}


@dataclass
class Stopwatch:
    """A lab whose times are a function of the choice; those of programs of ``program``."""

    time: Callable[[Choice], float | str]
    program: Callable[[Choice], list[float] | str] = lambda choice: [9.0] * 9
    programs: list[Choice] = field(default_factory=list)
    tried: list[tuple[Choice, int]] = field(default_factory=list)

    def measure(self, choice: Choice, repeats: int) -> Trial:
        self.tried.append((choice, repeats))
        found, default = self.time(choice), self.time(SPACE.rule(ROWS))
        if isinstance(found, str):
            return Trial(problem=found)
        assert isinstance(default, float)
        return Trial((found,) * repeats, (default,) * repeats)

    def measure_program(self, choice: Choice) -> Trial:
        self.programs.append(choice)
        found = self.program(choice)
        if isinstance(found, str):
            return Trial(problem=found)
        return Trial(tuple(found), (10.0,) * len(found))


def budget(seconds: float = 1e9, candidates: int = 100, step: float = 0.0) -> Budget:
    """One whose clock goes ``step`` seconds at every look."""
    ticks = iter(range(10**6))
    return Budget(seconds, candidates, lambda: next(ticks) * step)


def far(choice: Choice) -> float:
    """The best differs from the rule's choice in every knob."""
    worse = [choice["mr"] != 8, choice["order"] != "column", not choice["ahead"]]
    return 10.0 * 2 ** sum(worse)


def test_the_search_goes_knob_by_knob_to_the_best() -> None:
    lab = Stopwatch(far)
    best = search(SPACE, ROWS, lab, budget(), 5)
    assert best.choice == {"mr": 8, "order": "column", "ahead": True}
    assert best.complete and not best.failed and best.trial.ratio == 1 / 8
    assert len({str(choice) for choice, _ in lab.tried}) == best.tried + 1 <= 10
    assert (best.choice, 15) in lab.tried  # what looks faster is measured longer before it counts


@pytest.mark.parametrize(("time", "choice", "failed"), [
    (lambda choice: 100.0 - (choice["mr"] == 4), {"mr": 2}, set()),  # 1 % is noise
    (lambda choice: 100.0 - 5 * (choice["mr"] == 4), {"mr": 4}, set()),
    (lambda choice: "crashed" if choice["mr"] == 4 else 100.0, {"mr": 2}, {"crashed"}),
    (lambda choice: "hung" if choice["mr"] == 1 else far(choice), {"mr": 8, "ahead": True}, {"hung"}),
])
def test_what_counts_as_better(time: Callable[[Choice], float | str], choice: dict[str, object],
                               failed: set[str]) -> None:
    best = search(SPACE, ROWS, Stopwatch(time), budget(), 3)
    assert choice.items() <= best.choice.items()
    assert {reason for _, reason in best.failed} == failed


def test_a_first_impression_that_does_not_last_is_no_improvement() -> None:
    lab = Stopwatch(lambda choice: 50.0 if choice["mr"] == 4 and lab.tried[-1][1] == 3 else 100.0)
    assert search(SPACE, ROWS, lab, budget(), 3).choice == SPACE.rule(ROWS)


@pytest.mark.parametrize(("program", "ratio", "reason"), [
    ([9.0] * 9, 0.9, ""),
    ([10.0] * 9, None, "0.125 of the time alone, 1.000 of the program's"),
    ([9.9, 10.3, 9.7, 10.2, 9.4], None, "0.125 of the time alone, 0.990 of the program's"),  # or by luck
    ([9.9, 9.8, 9.9, 9.9, 9.8], 0.99, ""),
    ("did not end within 60 s", None, "did not end within 60 s"),
])
def test_the_best_alone_is_taken_where_the_program_gains(program: list[float] | str, ratio: float | None,
                                                         reason: str) -> None:
    lab = Stopwatch(far, lambda choice: program)
    best = search(SPACE, ROWS, lab, budget(), 5)
    fastest = {"mr": 8, "order": "column", "ahead": True}
    assert lab.programs == [fastest]
    assert best.program == (pytest.approx(ratio) if ratio else None)
    if ratio:
        assert best.choice == fastest and not best.failed
    else:
        assert best.choice == SPACE.rule(ROWS) and best.trial.ratio == 1
        assert best.failed == ((fastest, reason),)


def test_a_program_is_not_measured_for_the_rules_choice() -> None:
    lab = Stopwatch(lambda choice: 100.0)
    assert search(SPACE, ROWS, lab, budget(), 3).program is None
    assert not lab.programs


def test_only_valid_choices_are_tried() -> None:
    lab = Stopwatch(far)
    search(SPACE, {"rows": 2}, lab, budget(), 1)
    assert {choice["mr"] for choice, _ in lab.tried} == {1, 2}


@pytest.mark.parametrize(("limits", "tried", "complete"), [
    ({"candidates": 2}, 2, True), ({"candidates": 1}, 1, True), ({"seconds": 3.5, "step": 1.0}, 3, False),
])
def test_a_search_keeps_to_its_budget(limits: dict[str, float], tried: int, complete: bool) -> None:
    best = search(SPACE, ROWS, Stopwatch(lambda choice: 100.0), budget(**limits), 1)  # type: ignore[arg-type]
    assert (best.tried, best.complete) == (tried, complete)


def test_a_rule_that_does_not_run_is_told() -> None:
    with pytest.raises(ValueError, match="crashed"):
        search(SPACE, ROWS, Stopwatch(lambda choice: "crashed"), budget(), 1)


#: A worker that does what the choice says.
WORKER = """
import json, os, signal, sys, time
print(json.dumps({"threads": 2}), flush=True)
for line in sys.stdin:
    request = json.loads(line)
    if request["do"] == "open":
        answer = {"asked": request["question"] != 'toy {"rows":0}'}
    else:
        what = request["choice"]["order"]
        if what == "hangs":
            time.sleep(60)
        if what == "dies":
            os.kill(os.getpid(), signal.SIGSEGV)
        if what == "leaves":
            sys.exit(3)
        answer = {"problem": "differs"} if what == "differs" else {"times": [1.0], "default": [2.0]}
    print(json.dumps(answer), flush=True)
"""


def test_a_choice_that_hangs_or_dies_is_recorded_and_the_next_one_is_measured(tmp_path: Path) -> None:
    with Workshop({}, 1.0, tmp_path, (sys.executable, "-c", WORKER)) as workshop:
        bench = workshop.open("main", Answer("toy", ROWS, {}, nodes=("conv1",)), {"order": "row"}, ())
        found = {what: bench.measure({"order": what}, 1).problem
                 for what in ("row", "hangs", "dies", "differs", "leaves", "column")}
        process = workshop._process
        assert process is not None and workshop.threads == 2
    assert found == {"row": "", "hangs": "did not end within 1 s", "dies": "crashed: it was ended by SIGSEGV",
                     "differs": "differs", "leaves": "crashed: it was ended with status 3", "column": ""}
    assert process.poll() is not None  # the last worker has gone with the workshop


def test_a_node_that_does_not_ask_the_question_is_refused(tmp_path: Path) -> None:
    with (Workshop({}, 5.0, tmp_path, (sys.executable, "-c", WORKER)) as workshop,
          pytest.raises(ValueError, match="does not ask it")):
        workshop.open("main", Answer("toy", {"rows": 0}, {}, nodes=("conv1",)), {"order": "row"}, ())


def test_the_heaviest_questions_come_first_and_the_lightest_never() -> None:
    def asked(rows: int, *nodes: str, space: str = "product", program: str = "main") -> Asked:
        return Asked(program, Answer(space, {"rows": rows}, {}, nodes=nodes))

    given = [asked(1, "a"), asked(2, "b", "c"), asked(3, "d"), asked(4, "b", space="conv3x3"),
             asked(5, "a", program="decode"), asked(6, "gone")]
    times = {"main": {"a": 30.0, "b": 20.0, "c": 20.0, "d": 0.3}, "decode": {"a": 1.0}}
    found, small = heaviest_first(given, times)
    assert [item.answer.question["rows"] for item in found] == [5, 2, 1, 4]
    assert small == 2
