"""What a build shows: why a task runs, what it is doing, how it ended. Plain lines where nobody watches."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar, TextIO

from pipelines.doit_ext.session import Session

#: Reasons shown per task; NPU_DEBUG and `doit info` show all.
MAX_REASONS = 3


def _shortened(reasons: Sequence[str]) -> str:
    more = f"; and {len(reasons) - MAX_REASONS} more" if len(reasons) > MAX_REASONS else ""
    return f"{'; '.join(reasons[:MAX_REASONS])}{more}"


class Reporter:
    """doit's reporter for one ``session``."""

    desc = "one line per task, with its reason"
    session: ClassVar[Session]

    def __init__(self, outstream: TextIO, options: dict[str, Any]) -> None:  # noqa: ARG002
        self.out = outstream
        self.started = time.monotonic()
        self.ends: list[tuple[str, str, str]] = []  # task, how it ended ("ran"...), why
        self.current = 0
        self.errors: list[str] = []
        self._live: Any = None

    def initialize(self, tasks: dict[str, Any], selected_tasks: list[str]) -> None:
        """Before anything runs."""
        groups = frozenset(name for name, task in tasks.items() if task.has_subtask)
        self.session.start(selected_tasks, {name: task.task_dep for name, task in tasks.items()}, groups)

    def get_status(self, task: Any) -> None:
        """A task is about to be checked."""

    def execute_task(self, task: Any) -> None:
        """A task starts."""
        if not task.actions:
            return
        reasons = self.session.reasons.get(task.name, ())
        if not reasons:
            return  # it fails at once, and says why
        self._write(f"{task.name}: runs, since {_shortened(reasons)}")
        self._watch()

    def add_success(self, task: Any) -> None:
        """A task has succeeded."""
        if not task.actions:
            return
        running = self.session.running.pop(task.name, None)
        if running is None:
            return
        reasons = _shortened(self.session.reasons.get(task.name, ()))
        made = f": {running.made}" if running.made else ""
        self.ends.append((task.name, running.outcome, f"{reasons}{made}"))
        self._write_all(f"    {line}" for line in running.lines)
        done = "done" if running.outcome == "ran" else running.outcome
        self._write(f"{task.name}: {done} in {time.monotonic() - running.since:.1f} s{made}")

    def add_failure(self, task: Any, fail: Any) -> None:
        """A task has failed, or cannot run because one before it has."""
        if not task.actions:
            return
        running = self.session.running.pop(task.name, None)
        self._write_all(f"    {line}" for line in (running.lines if running else ()))
        if type(fail).__name__ == "UnmetDependency":
            why = f"{', '.join(fail.message.split())} failed"
            self.ends.append((task.name, "not run", why))
            self._write(f"{task.name}: not run, since {why}")
            return
        message = fail.message if type(fail).__name__ == "TaskFailed" else fail.get_msg()
        text = str(message).strip()
        self.ends.append((task.name, "failed", text.partition("\n")[0]))
        indented = text.replace("\n", "\n    ")
        self._write(f"{task.name}: failed: {indented}")

    def skip_uptodate(self, task: Any) -> None:
        """A task need not run: its outputs stand, or its device is absent."""
        reason = self.session.skipped.get(task.name)
        if reason is None:
            self.current += 1
        else:
            self.ends.append((task.name, "skipped", reason))
            self._write(f"{task.name}: skipped: {reason}")

    def skip_ignore(self, task: Any) -> None:
        """The user has told doit to ignore the task."""
        self._write(f"{task.name}: ignored")

    def cleanup_error(self, exception: Any) -> None:
        """A clean-up has failed."""
        self.errors.append(exception.get_msg())

    def runtime_error(self, msg: str) -> None:
        """doit itself has failed."""
        self.errors.append(msg)

    def teardown_task(self, task: Any) -> None:
        """A clean-up starts."""

    def complete_run(self) -> None:
        """After everything."""
        self.session.digests.save()
        if self._live is not None:
            self._live.stop()
        for text in self.errors:
            self._write(text)
        self.ends += [(name, "stopped", "interrupted") for name in self.session.running]
        if self.ends:
            width = max(len(name) for name, _, _ in self.ends)
            self._write("")
            self._write_all(f"{end:9} {name:{width}}  {why}".rstrip() for name, end, why in self.ends)
        counts = Counter(end for _, end, _ in self.ends)
        told = [f"{count} {end}" for end, count in counts.items()]
        told += [f"{self.current} up to date"] if self.current else []
        self._write(f"{', '.join(told) or 'nothing to do'} ({time.monotonic() - self.started:.1f} s)")

    def _write_all(self, lines: Iterable[str]) -> None:
        for line in lines:
            self._write(line)

    def _write(self, text: str) -> None:
        if self._live is not None:
            self._live.console.print(text, markup=False, highlight=False, soft_wrap=True)
        else:
            self.out.write(f"{text}\n")
            self.out.flush()

    def _watch(self) -> None:
        """On a terminal: a line per running task, with its time and what it is doing."""
        if self._live is not None or not self.out.isatty():
            return
        from rich.console import Console
        from rich.live import Live
        console = Console(file=self.out)
        self._live = Live(console=console, transient=True, refresh_per_second=4, redirect_stdout=False,
                          redirect_stderr=False, get_renderable=self._picture)
        self._live.start()

    def _picture(self) -> Any:
        from rich.spinner import Spinner
        from rich.table import Table
        table = Table.grid(padding=(0, 1))
        for name, running in list(self.session.running.items()):
            elapsed = time.monotonic() - running.since
            table.add_row(Spinner("dots"), name, f"{elapsed:.0f} s", running.text)
        return table
