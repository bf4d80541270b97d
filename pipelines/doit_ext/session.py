"""What the tasks of one doit command share."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

from pipelines import devices
from pipelines.cache import Cache
from pipelines.digests import Digests
from pipelines.doit_ext.memory import Memory
from pipelines.execute import store_of
from pipelines.foresight import Rehearse
from pipelines.job import Job
from pipelines.stages import Stage


@dataclass
class Running:
    """A task at work: since when, what it says it is doing, and how it has ended: "ran", or how else its
    outputs came ("restored"; "skipped": another build has made them), and what changed in them."""

    since: float = field(default_factory=time.monotonic)
    text: str = ""
    lines: list[str] = field(default_factory=list)
    outcome: str = "ran"
    made: str = ""


#: Runs a stage, and returns the message of its failure (None: success).
Launcher: TypeAlias = Callable[[Stage, Job, Running], str | None]
FindDevice: TypeAlias = Callable[[str, Path], devices.Found | devices.Absent]
FindCache: TypeAlias = Callable[[Path], Cache | None]


@dataclass
class Session:
    """The state of one command. ``named`` are the tasks that must run because of names on the command line;
    others are skipped when their device is absent, and ``skipped`` says why."""

    root: Path
    launch: Launcher
    find_device: FindDevice
    find_cache: FindCache
    rehearse: Rehearse
    digests: Digests = field(init=False)
    memory: Memory = field(default_factory=Memory)
    named: frozenset[str] | None = None
    skipped: dict[str, str] = field(default_factory=dict)
    reasons: dict[str, tuple[str, ...]] = field(default_factory=dict)
    running: dict[str, Running] = field(default_factory=dict)
    _devices: dict[str, devices.Found | devices.Absent] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.digests = Digests(store_of(self.root))

    def device(self, target: str) -> devices.Found | devices.Absent:
        """The device for ``target``, looked for once."""
        if target not in self._devices:
            self._devices[target] = self.find_device(target, self.root)
        return self._devices[target]

    def start(self, selected: Iterable[str], dependencies: Mapping[str, list[str]],
              groups: frozenset[str]) -> None:
        """Notes what the command line named: those tasks, and what they need, are not skipped."""
        named: set[str] = set()
        waiting = [name for name in selected if name not in groups]
        while waiting:
            name = waiting.pop()
            if name not in named:
                named.add(name)
                waiting += dependencies.get(name, [])
        self.named = frozenset(named)
