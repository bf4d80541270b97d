"""doit commands: ``explain``, ``graph``, ``--dry-run``, and what ``forget`` and ``ignore`` mean where records
take the place of doit's database. On tasks that are not ours, doit's own commands do as ever.

They are found by the entry points of the installed package, and in this repository by pyproject.toml.
"""

from __future__ import annotations

import contextlib
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from doit.cmd_base import DoitCmdBase
from doit.cmd_forget import Forget as DoitForget
from doit.cmd_ignore import Ignore as DoitIgnore
from doit.cmd_run import Run as DoitRun
from doit.control import TaskControl
from doit.exceptions import InvalidCommand

from npu_runtime.errors import InputError
from pipelines.doit_ext.launch import end_children
from pipelines.doit_ext.tasks import Work
from pipelines.foresight import Foresight
from pipelines.graph import FORMATS, drawn
from pipelines.job import Job
from pipelines.plan import State, Step, lines
from pipelines.stages import Stage

if TYPE_CHECKING:
    from doit.task import Task

_DRY_RUN = {"name": "dry_run", "short": "", "long": "dry-run", "type": bool, "default": False,
            "help": "say what would run and why, and run nothing"}
_QUICK = {"name": "quick", "short": "q", "long": "quick", "type": bool, "default": False,
          "help": "do not rehearse a compilation to see what it would change"}
_FORMAT = {"name": "format", "short": "f", "long": "format", "type": str, "default": "mermaid",
           "choices": [(name, "") for name in FORMATS], "help": "mermaid or dot [default: %(default)s]"}


class Run(DoitRun):  # type: ignore[misc]
    """``doit run`` with ``--dry-run``."""

    cmd_options = (*DoitRun.cmd_options, _DRY_RUN, _QUICK)

    def execute(self, params: Any, args: Sequence[str]) -> Any:
        """doit's entry: parameters of the command line, names of tasks."""
        if params["dry_run"]:
            self._execute = self._plan
        with _interruptible():
            return super().execute(params, args)

    def _plan(self, quick: bool) -> int:
        _explain(self, before_only=True, quick=quick)
        return 0


class Explain(DoitCmdBase):  # type: ignore[misc]
    """``doit explain [TASK...]``."""

    name = "explain"
    doc_purpose = "say what would run, why, and what would follow"
    doc_usage = "[TASK ...]"
    doc_description = "The tasks named (or the default ones), those before them, and finished ones after."
    cmd_options = (_QUICK,)

    def _execute(self, quick: bool) -> int:
        with _interruptible():
            _explain(self, before_only=False, quick=quick)
        return 0


class Graph(DoitCmdBase):  # type: ignore[misc]
    """``doit graph [TASK...]``."""

    name = "graph"
    doc_purpose = "draw the stages, or some tasks with what they need, as mermaid or dot text"
    doc_usage = "[TASK ...]"
    doc_description = None
    cmd_options = (_FORMAT,)

    def _execute(self, format: str, pos_args: Sequence[str]) -> int:
        works = _works(self.task_list)
        if pos_args:
            _, closure = _selected(self, works)
            edges = [(name, task, "") for task in closure for name in works[task].after]
            picture = drawn(closure, edges, format)
        else:
            stages = list({work.stage.name: work.stage for work in works.values()}.values())
            makers = {artifact: stage.name for stage in stages for artifact in stage.makes}
            edges = [(before, stage.name, ", ".join(
                artifact for artifact in stage.reads if makers.get(artifact) == before))
                for stage in stages for before in stage.after]
            picture = drawn([stage.name for stage in stages], edges, format)
        self.outstream.write(picture)
        return 0


class Forget(DoitForget):  # type: ignore[misc]
    """``doit forget``: removes records."""

    name = "forget"

    def _execute(self, forget_sub: bool, forget_disable_default: bool, forget_all: bool) -> Any:
        works = _works(self.task_list)
        if works:
            def forget(*names: str) -> None:
                for name in names:
                    if name in works:
                        works[name].forget()

            self.dep_manager.remove = forget
            self.dep_manager.remove_all = lambda: forget(*works)
        return super()._execute(forget_sub, forget_disable_default, forget_all)


class Ignore(DoitIgnore):  # type: ignore[misc]
    """``doit ignore``: refused, since nothing would remember it."""

    name = "ignore"

    def _execute(self, pos_args: Sequence[str]) -> Any:
        if _works(self.task_list):
            raise InvalidCommand("this build has no list of ignored tasks; `default: false` in a model's "
                                 "YAML takes it out of plain `doit` and of bare groups")
        return super()._execute(pos_args)


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """Ctrl-C and a request to end (SIGTERM) end the command, with all stages that it runs."""
    def leave(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    except KeyboardInterrupt:
        end_children()
        raise SystemExit(128 + signal.SIGINT) from None
    finally:
        signal.signal(signal.SIGTERM, before)


def _works(tasks: Sequence[Task]) -> dict[str, Work]:
    return {task.name: check for task in tasks for check, _, _ in task.uptodate if isinstance(check, Work)}


def _explain(command: DoitCmdBase, *, before_only: bool, quick: bool) -> None:
    works = _works(command.task_list)
    selected, closure = _selected(command, works)
    if not works:
        command.outstream.write("nothing to do\n")
        return
    wanted = set(closure)
    if not before_only:
        for name, work in works.items():  # makers come first
            if name not in wanted and wanted.intersection(work.after) and work.has_run:
                wanted.add(name)
    session = next(iter(works.values())).session
    try:
        cache = session.find_cache(session.root)
    except InputError as error:
        raise InvalidCommand(str(error)) from None

    def rehearse(stage: Stage, job: Job) -> Mapping[str, str]:
        if sys.stderr.isatty():
            sys.stderr.write(f"rehearsing {stage.name}:{job.label}\n")
        return session.rehearse(stage, job)

    foresight = Foresight(session.digests, cache, None if quick else rehearse)
    steps: dict[str, Step] = {}
    for name, work in works.items():
        if name in wanted:
            steps[name] = work.step(steps, foresight)
    for line in (*lines(_told(steps, selected), shares=cache is not None), *foresight.notes):
        command.outstream.write(f"{line}\n")
    session.digests.save()


def _told(steps: Mapping[str, Step], selected: frozenset[str]) -> Iterator[Step]:
    """Without what cannot run here and was not asked for."""
    return (step for step in steps.values() if step.state is not State.CANNOT or step.name in selected)


def _selected(command: DoitCmdBase, works: Mapping[str, Work]) -> tuple[frozenset[str], list[str]]:
    """The stages' tasks that the command line means, and these with all that they need, in order. Raises
    doit's ``InvalidCommand`` for a name that means nothing."""
    control = TaskControl(command.task_list)
    control.process(command.sel_tasks)
    waiting, found = list(control.selected_tasks), set()
    selected: set[str] = set()
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        found.add(name)
        waiting += control.tasks[name].task_dep
    for name in control.selected_tasks:
        members = control.tasks[name].task_dep if control.tasks[name].has_subtask else [name]
        selected.update(member for member in [name, *members] if member in works)
    return frozenset(selected), [name for name in works if name in found]
