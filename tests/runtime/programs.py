"""Hand-written programs, without a compiler."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import msgspec

from npu_runtime.program import (
    FORMAT_VERSION,
    Buffer,
    BufferArg,
    CompiledProgram,
    IOSpec,
    Kernel,
    ScalarArg,
    StateSpec,
    Step,
    StepCost,
    Symbol,
    Transform,
)
from npu_runtime.transforms import digest

PRELUDE = """\
#if defined(NPU_POCL) || defined(NPU_INTEL) || defined(NPU_NVIDIA)
#define KNOWN_VENDOR 1
#endif
"""

SAXPY = """\
__kernel void saxpy(__global const float *x, __global const float *w, __global float *y, int n) {
    int i = get_global_id(0);
    if (i < n) y[i] = 2.0f * x[i] + w[i % 3];
}
"""
SQUARE = """\
__kernel void square(__global const float *x, __global float *y) {
    int i = get_global_id(0);
    y[i] = x[i] * x[i];
}
"""
ACCUMULATE = """\
__kernel void accumulate(__global const float *x, __global float *total, __global float *out, long n) {
    int i = get_global_id(0);
    if (i < n) { total[i] += x[i]; out[i] = total[i]; }
}
"""
GATHER = """\
__kernel void gather(__global const long *ids, __global const ushort *table, __global ushort *rows) {
    int row = get_global_id(1), column = get_global_id(0);
    rows[row * 4 + column] = table[ids[row] * 4 + column];
}
"""


ROOT = Path(__file__).resolve().parents[2]


def environment() -> dict[str, str]:
    """The environment in which a child process imports this checkout."""
    paths = [str(ROOT / "npu"), str(ROOT), os.environ.get("PYTHONPATH", "")]
    return os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))}


def read(name: str) -> BufferArg:
    return BufferArg(name, "r")


def write(name: str) -> BufferArg:
    return BufferArg(name, "w")


def make(sources: dict[str, str], **fields: Any) -> CompiledProgram:
    """A program of kernels by entry name; ``fields`` override what is empty by default."""
    files = {f"kernels/{entry}.cl": text for entry, text in sources.items()}
    kernels = tuple(
        Kernel(entry, f"kernels/{entry}.cl", hashlib.sha256(text.encode()).hexdigest())
        for entry, text in sources.items()
    )
    base = CompiledProgram(
        format_version=FORMAT_VERSION,
        model="hand",
        program="main",
        target="cpu",
        profile="test",
        device_type="any",
        options=(),
        symbols=(),
        guards=(),
        input_specs=(),
        output_specs=(),
        states=(),
        transforms=(),
        transform_digest=digest(()),
        arena_bytes=0,
        buffers=(),
        kernels=kernels,
        steps=(),
        kernel_sources={"kernels/_prelude.cl": PRELUDE, **files},
    )
    changed = msgspec.structs.replace(base, **fields)
    return msgspec.structs.replace(changed, transform_digest=digest(changed.transforms))


def saxpy_square(**fields: Any) -> CompiledProgram:
    """y = (2x + w[i % 3])^2 and h = 2x + w over x: float32[2, n], 1 <= n <= 1000, through scratch; two
    outputs."""
    defaults: dict[str, Any] = {
        "symbols": (Symbol("n", 1, 1000),),
        "input_specs": (IOSpec("x", (2, "n"), "float32"),),
        "output_specs": (IOSpec("y", (2, "n"), "float32"), IOSpec("h", ("2*n",), "float32")),
        "transforms": (Transform("w3", (3,), "float32", ["add", ["tensor", "weight"], ["tensor", "bias"]]),),
        "arena_bytes": 8512 + 4,
        "buffers": (
            Buffer("x", "input", "8*n", "x"),
            Buffer("w", "weight", 12, "w3"),
            Buffer("unused", "scratch", 4, offset=0, first=0, last=2),
            Buffer("hidden", "scratch", 8000, offset=512, first=0, last=2),
            Buffer("y", "output", "8*n", "y"),
            Buffer("h", "output", "8*n", "h"),
        ),
        "steps": (
            Step(
                "saxpy",
                (read("x"), read("w"), write("hidden"), ScalarArg("2*n")),
                ("2*n",),
                origin=("mul", "add"),
                cost=StepCost("4*n", "8*n", "8*n"),
            ),
            Step("saxpy", (read("x"), read("w"), write("h"), ScalarArg("2*n")), ("2*n",)),
            Step("square", (read("hidden"), write("y")), ("n*2",), cost=StepCost("2*n", "8*n", "8*n")),
        ),
    }
    return make({"saxpy": SAXPY, "square": SQUARE}, **{**defaults, **fields})


def accumulator(program: str = "main", size: int = 5, **fields: Any) -> CompiledProgram:
    """out = total = total + x: the state "total" of ``size`` floats, zero at first."""
    defaults: dict[str, Any] = {
        "program": program,
        "input_specs": (IOSpec("x", (size,), "float32"),),
        "output_specs": (IOSpec("out", (size,), "float32"),),
        "states": (StateSpec("total", (size,), "float32"),),
        "buffers": (
            Buffer("x", "input", 4 * size, "x"),
            Buffer("total", "state", 4 * size, "total"),
            Buffer("out", "output", 4 * size, "out"),
        ),
        "steps": (
            Step(
                "accumulate",
                (read("x"), BufferArg("total", "rw"), write("out"), ScalarArg(size, "long")),
                (8,),
                (4,),
            ),
        ),
    }
    return make({"accumulate": ACCUMULATE}, **{**defaults, **fields})


def embedding(**fields: Any) -> CompiledProgram:
    """rows = table[ids]: ids int64[n] with values 0 to 6, table bfloat16[7, 4]."""
    defaults: dict[str, Any] = {
        "symbols": (Symbol("n", 0, 16),),
        "input_specs": (IOSpec("ids", ("n",), "int64", 0, 6), IOSpec("table", (7, 4), "bfloat16")),
        "output_specs": (IOSpec("rows", ("n", 4), "bfloat16"),),
        "buffers": (
            Buffer("ids", "input", "8*n", "ids"),
            Buffer("table", "input", 56, "table"),
            Buffer("rows", "output", "8*n", "rows"),
        ),
        "steps": (Step("gather", (read("ids"), read("table"), write("rows")), (4, "n")),),
    }
    return make({"gather": GATHER}, **{**defaults, **fields})
