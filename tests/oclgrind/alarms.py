"""Kernels that do what the simulator must notice: without its reports, a clean run says nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from programs import make, read, write

from npu_runtime.device import Device
from npu_runtime.executor import Executor
from npu_runtime.program import Buffer, CompiledProgram, IOSpec, Step
from npu_runtime.weight_loader import load_weights

_HEAD = (
    "__kernel void bad(__global const float *x, __global float *t, __global float *y) { "
    "int i = get_global_id(0); "
)
#: What goes wrong -> the kernel's body, and a word of the report. ``t`` is scratch that nothing has written.
_BODIES = {
    "a read behind an input": ("y[i] = x[i + 5];", "Invalid read"),
    "a write behind an output": ("y[i + 5] = x[i];", "Invalid write"),
    "a race": ("y[0] = x[i]; y[i] = 1.0f;", "race"),
    "a read of what nothing wrote": ("y[i] = t[i] > 0.5f ? x[i] : 1.0f;", "ninitialized"),
}


def _program(body: str) -> CompiledProgram:
    spec = IOSpec("x", (5,), "float32"), IOSpec("y", (5,), "float32")
    buffers = (Buffer("x", "input", 20, "x"), Buffer("t", "scratch", 20), Buffer("y", "output", 20, "y"))
    step = Step("bad", (read("x"), write("t"), write("y")), (5,))
    return make(
        {"bad": f"{_HEAD}{body} }}\n"},
        input_specs=spec[:1],
        output_specs=spec[1:],
        buffers=buffers,
        arena_bytes=512,
        steps=(step,),
    )


def unnoticed(device: Device, log: Path, reports: Callable[[Path, int], list[str]]) -> list[str]:
    """What the simulator does not report."""
    missed = []
    for name, (body, word) in _BODIES.items():
        seen = log.stat().st_size if log.exists() else 0
        program = _program(body)
        weights = load_weights({}, program, device)
        Executor(program, device).run({"x": np.linspace(0.0, 1.0, 5, dtype=np.float32)}, weights)
        if not any(word in line for line in reports(log, seen)):
            missed.append(f"the simulator does not report {name}")
    return missed
