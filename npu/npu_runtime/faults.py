"""Indices out of range: kernels note them in the program's "fault" buffer, the executor reads it behind the
last step."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from npu_runtime.backend import Backend, Bytes, Memory
from npu_runtime.errors import InputError
from npu_runtime.program import Buffer, BufferArg, CompiledProgram, ScalarArg, Step
from npu_runtime.symbols import evaluate


def fault_buffer(program: CompiledProgram) -> Buffer | None:
    """The buffer of ``program`` that checking steps write, None where no step checks."""
    return next((buffer for buffer in program.buffers if buffer.kind == "fault"), None)


def slots(step: Step, buffer: str) -> Iterator[object]:
    """The argument behind each use of ``buffer`` in ``step`` (None: there is none): its number there."""
    for arg, following in zip(step.args, (*step.args[1:], None), strict=True):
        if isinstance(arg, BufferArg) and arg.buffer == buffer:
            yield following.value if isinstance(following, ScalarArg) and following.ctype == "int" else None


class Faults:
    """The fault memory of one executor, all zeros between runs."""

    def __init__(self, program: CompiledProgram, buffer: Buffer, device: Backend) -> None:
        self._device = device
        self._size = evaluate(buffer.nbytes, {})
        self._steps = {
            slot: f"step {index} ({step.kernel}), which computes {', '.join(step.origin) or 'nothing named'}"
            for index, step in enumerate(program.steps)
            for slot in slots(step, buffer.name)
        }
        self.name = buffer.name
        self.memory = device.allocate(self._size)
        device.zero(self.memory)

    def fetch(self) -> tuple[Memory, Bytes]:
        """What to read behind the last launch, into an array of this run's own."""
        return self.memory, np.zeros(self._size, np.uint8)

    def check(self, seen: Bytes) -> None:
        """Raises ``InputError`` naming the first step that met an index out of range, if any did: ``seen`` is
        what ``fetch`` gave, filled. Runs that were enqueued behind that one meet what it left as well."""
        if not seen.any():
            return
        self._device.zero(self.memory)
        first = self._steps[int(np.flatnonzero(seen.view(np.int32))[0])]
        raise InputError(
            f"{first}: an index lies outside the dimension that it indexes. Nothing was read or written "
            "there, but no output of this run is right, and states that it changed must be reset: check "
            "the indices that the inputs give or lead to"
        )
