"""What a command is doing, on the terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from pipelines.job import Job


@contextmanager
def progress_bar(job: Job) -> Iterator[Callable[[str, int, int], None]]:
    """A function that shows a text and how much of how much is done: to the build that watches ``job``, else
    as a bar."""
    if job.watched:
        yield job.progress
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
    columns = (TimeElapsedColumn(), BarColumn(24), TextColumn("{task.completed:.0f}/{task.total:.0f}"),
               TextColumn("{task.description}"))
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("", total=1)
        yield lambda text, done, total: progress.update(
            task, description=text, completed=done, total=max(total, 1))
