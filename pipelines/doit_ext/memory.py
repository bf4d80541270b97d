"""How many stages may run beside each other: as many as memory has room for."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path

#: What a stage is taken to need that has not run yet (bytes): PyTorch and a model, and copies of its weights.
FIRST_RUN = 1 << 30
_COPIES = 3
_SHARE = 0.9


class Memory:
    """Room for stages, shared by the threads of a build. ``available`` bytes are there to begin with."""

    def __init__(self, available: int | None = None) -> None:
        self._limit = int(_SHARE * (_available() if available is None else available))
        self._taken = 0
        self._changed = threading.Condition()

    @contextlib.contextmanager
    def taken(self, need: int) -> Iterator[None]:
        """Waits until there are ``need`` bytes of room; what needs more than there is runs alone."""
        with self._changed:
            self._changed.wait_for(lambda: self._taken == 0 or self._taken + need <= self._limit)
            self._taken += need
        try:
            yield
        finally:
            with self._changed:
                self._taken -= need
                self._changed.notify_all()


def first_need(weights: Path) -> int:
    """What a stage may need at its first run, with the model's original weights in ``weights`` if they are
    there."""
    return FIRST_RUN + _COPIES * (weights.stat().st_size if weights.is_file() else 0)


def _available() -> int:
    """The bytes that programs can still have; without limit where the system does not say."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            name, _, value = line.partition(":")
            if name == "MemAvailable":
                return int(value.split()[0]) * 1024
    return 1 << 62
