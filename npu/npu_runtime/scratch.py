"""Memory of a program's buffers: what no device memory can hold, and which scratch buffers share one where
the arena is not one memory with regions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from npu_runtime.backend import Backend
from npu_runtime.errors import DeviceError
from npu_runtime.program import Buffer, BufferArg, CompiledProgram
from npu_runtime.symbols import evaluate


def check_sizes(program: CompiledProgram, device: Backend) -> None:
    """Raises ``DeviceError``, naming the nodes, if a buffer of ``program`` is larger than the largest memory
    of ``device`` whatever the inputs are."""
    least = {symbol.name: symbol.lower for symbol in program.symbols}
    for buffer in program.buffers:
        size = evaluate(buffer.nbytes, least)
        if size <= device.largest:
            continue
        users = [
            step
            for step in program.steps
            if any(isinstance(arg, BufferArg) and arg.buffer == buffer.name for arg in step.args)
        ]
        nodes = ", ".join(dict.fromkeys(name for step in users[:1] for name in step.origin)) or "no node"
        remedy = {
            "weight": f"compile for a target whose max_alloc_bytes is {device.largest} or less, for which "
            "products and embedding tables are split",
            "scratch": "lower the upper bounds of the dynamic dimensions, or the batch",
        }.get(buffer.kind, "make it smaller")
        raise DeviceError(
            f"{program.model} {program.program}: {buffer.kind} {(buffer.ref or buffer.name)!r} of {nodes} "
            f"has {size} bytes, and the largest buffer of {device.name} has {device.largest}: {remedy}, "
            "or use a device with larger buffers"
        )


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
