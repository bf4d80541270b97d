"""The memory of a program's outputs, used again when nobody holds the outputs any more."""

from __future__ import annotations

import weakref
from dataclasses import dataclass, field

from npu_runtime.backend import Backend, Memory
from npu_runtime.buffer import NPUBuffer

#: Free memories that are kept for later runs, at most.
_KEPT = 16


@dataclass(slots=True)
class OutputPool:
    """Memory of outputs: lent to buffers, and free (the latest last) when these are dead."""

    free: list[Memory] = field(default_factory=list)
    lent: dict[weakref.ref[NPUBuffer], Memory] = field(default_factory=dict)

    def take(self, device: Backend, nbytes: int) -> Memory:
        """Free memory of ``nbytes``, or new one of ``device``."""
        del self.free[:-_KEPT]
        for index, memory in enumerate(self.free):
            if memory.nbytes == nbytes:
                return self.free.pop(index)
        return device.allocate(nbytes)

    def watch(self, buffer: NPUBuffer) -> None:
        """Takes the buffer's memory back when nothing refers to the buffer any more."""
        self.lent[weakref.ref(buffer, self._take_back)] = buffer.memory

    def _take_back(self, dead: weakref.ref[NPUBuffer]) -> None:  # any thread may end a buffer
        self.free.append(self.lent.pop(dead))
