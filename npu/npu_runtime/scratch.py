"""Which scratch buffers share a memory, where a program's arena is not one memory with regions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from npu_runtime.program import Buffer
from npu_runtime.symbols import evaluate


@dataclass(slots=True)
class Slot:
    """A memory of ``nbytes`` and the buffers that have it one after the other."""

    nbytes: int
    buffers: list[Buffer] = field(default_factory=list)


def slots(buffers: Sequence[Buffer]) -> list[Slot]:
    """Gives every buffer, in order of its first use, the smallest slot that is free again and large enough;
    else the largest free one grows, or a new one is made. Buffers of one slot are never in use together."""
    made: list[Slot] = []
    for buffer in sorted(buffers, key=lambda buffer: (buffer.first, buffer.name)):
        size = max(1, evaluate(buffer.nbytes, {}))
        free = [slot for slot in made if slot.buffers[-1].last < buffer.first]
        fitting = [slot for slot in free if slot.nbytes >= size]
        slot = min(fitting, key=lambda slot: slot.nbytes, default=None) or max(
            free, key=lambda slot: slot.nbytes, default=None
        )
        if slot is None:
            slot = Slot(size)
            made.append(slot)
        slot.nbytes = max(slot.nbytes, size)
        slot.buffers.append(buffer)
    return made
