"""Where scratch buffers lie: in one arena, or in memories that they have one after the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from npu_runtime.backend import Backend
from npu_runtime.errors import DeviceError
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


def places(buffers: Sequence[Buffer], device: Backend) -> dict[str, int]:
    """Where buffers start in the arena. Offsets are stretched where ``device`` aligns regions more coarsely
    than they are: what did not overlap still does not. Raises ``DeviceError`` where that does not help."""
    alignment, stretch = device.alignment, 1
    while any(buffer.offset * stretch % alignment for buffer in buffers):
        stretch *= 2
        if stretch > alignment:
            raise DeviceError(
                f"{device.name} aligns memory to {alignment} bytes, which no scratch offset can be "
                "stretched to"
            )
    return {buffer.name: buffer.offset * stretch for buffer in buffers}
