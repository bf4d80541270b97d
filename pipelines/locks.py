"""Locks between processes."""

from __future__ import annotations

import contextlib
import fcntl
from collections.abc import Callable, Iterator
from pathlib import Path


@contextlib.contextmanager
def locked(path: Path, *, shared: bool = False, waiting: Callable[[], None] | None = None) -> Iterator[bool]:
    """Holds the lock ``path`` and says whether it had to be waited for; ``waiting`` is called before that.
    The system releases it when the process ends, however it ends."""
    path.parent.mkdir(parents=True, exist_ok=True)
    kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    with path.open("w") as file:
        waited = False
        try:
            fcntl.flock(file, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            waited = True
            if waiting is not None:
                waiting()
            fcntl.flock(file, kind)
        yield waited


def leftovers(path: Path) -> list[Path]:
    """What killed writers of ``path`` have left beside it, and what others are writing now."""
    return list(path.parent.glob(f".{path.name}.*.tmp"))


def remove_leftovers(path: Path) -> None:
    """Removes what killed writers have left of ``path``. Only for who holds the writers' lock."""
    for leftover in leftovers(path):
        leftover.unlink(missing_ok=True)
