"""A compiled program as plain frozen values: what ``.npubin`` holds and the executor binds.

Sizes that depend on the program's symbols are texts in the grammar of ``npu_runtime.symbols``; all others are
numbers.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, TypeAlias, Union

import msgspec

#: An integer input of at most so many elements has its values checked before every run, where ``IOSpec``
#: bounds them; kernels check the indices in larger ones.
HOST_CHECKED = 1 << 14

FORMAT_VERSION = 2

#: A symbol that steps may use and no input determines: how many threads (compute units) the device has.
THREADS = "device_threads"

#: A size: a number, or an expression over the program's symbols ("s0*3136 + 1"; + - * // % min max).
Dim: TypeAlias = Union[int, str]

#: A prepared weight as a nested list over a closed set of functions; see ``npu_runtime.transforms``.
WeightExpr: TypeAlias = list[Any]


class Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Base of everything in a manifest."""


class Symbol(Record, frozen=True):
    """A dynamic dimension with its inclusive bounds."""

    name: str
    lower: int
    upper: int


class IOSpec(Record, frozen=True):
    """A program input or output: dense and row-major. ``lower`` and ``upper`` (inclusive) bound the values of
    an integer input where a kernel relies on them, and tell those of an integer output; None: unchecked,
    unknown."""

    name: str
    shape: tuple[Dim, ...]
    dtype: str
    lower: int | None = None
    upper: int | None = None


class StateSpec(Record, frozen=True):
    """Memory that outlives a run and is shared by the programs of a model under ``name``. ``init``: its first
    content (None: zeros)."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    init: WeightExpr | None = None


class Transform(Record, frozen=True):
    """How one device tensor is made from the model's original weights. ``name`` is unique for ``expr``."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    expr: WeightExpr


class Buffer(Record, frozen=True):
    """Memory that steps refer to by ``name``.

    ``kind`` says where it lives: a program "input" or "output" (``ref``: its name there), a "weight"
    (``ref``: a transform), a "state" (``ref``: a state), or "scratch" at ``offset`` of the arena, alive from
    step ``first`` to step ``last``. ``nbytes`` is its size, for scratch at the symbols' upper bounds.

    A "fault" is an int per checking step, 0 until a kernel meets an index that is out of range and sets its
    step's: the argument after the buffer is the number of the step's int. There is at most one such buffer.
    """

    name: str
    kind: Literal["input", "output", "weight", "state", "scratch", "fault"]
    nbytes: Dim
    ref: str = ""
    offset: int = 0
    first: int = 0
    last: int = 0


class Kernel(Record, frozen=True):
    """An OpenCL kernel function ``entry`` and the archive's ``file`` that holds it, with that file's
    sha256."""

    entry: str
    file: str
    sha256: str


class BufferArg(Record, frozen=True, tag="buffer"):
    """A kernel argument that is memory."""

    buffer: str
    access: Literal["r", "w", "rw"]


class ScalarArg(Record, frozen=True, tag="scalar"):
    """A kernel argument that is a whole number: an OpenCL ``int`` or ``long``."""

    value: Dim
    ctype: Literal["int", "long"] = "int"


Arg: TypeAlias = Union[BufferArg, ScalarArg]


class StepCost(Record, frozen=True):
    """Arithmetic operations and bytes that a step must move at least (not what caches make of it)."""

    flops: Dim = 0
    bytes_read: Dim = 0
    bytes_written: Dim = 0


class Step(Record, frozen=True):
    """One enqueue. ``origin`` names the extracted nodes that it computes, ``locs`` their source lines."""

    kernel: str
    args: tuple[Arg, ...]
    global_size: tuple[Dim, ...]
    local_size: tuple[int, ...] | None = None
    origin: tuple[str, ...] = ()
    cost: StepCost = StepCost()


class Guard(Record, frozen=True):
    """What must hold between the symbols: ``left`` equals ``right`` (or is at most ``right``)."""

    left: Dim
    right: Dim
    relation: Literal["==", "<="] = "=="
    message: str = ""


class CompiledProgram(Record, frozen=True):
    """An executable program. ``kernel_sources`` maps archive file names to OpenCL text and is stored beside
    the manifest; everything else is the manifest. Build options are the runtime's own and ``options``."""

    format_version: int
    model: str
    program: str
    target: str
    profile: str
    device_type: Literal["cpu", "gpu", "any"]
    options: tuple[str, ...]
    symbols: tuple[Symbol, ...]
    guards: tuple[Guard, ...]
    input_specs: tuple[IOSpec, ...]
    output_specs: tuple[IOSpec, ...]
    states: tuple[StateSpec, ...]
    transforms: tuple[Transform, ...]
    transform_digest: str
    arena_bytes: int
    buffers: tuple[Buffer, ...]
    kernels: tuple[Kernel, ...]
    steps: tuple[Step, ...]
    kernel_sources: dict[str, str] = {}

    def save(self, path: str | Path) -> None:
        """Writes the ``.npubin`` file, whole or not at all."""
        from npu_runtime.npubin import save_program

        save_program(self, path)

    @classmethod
    def load(cls, path: str | Path) -> CompiledProgram:
        """Reads and validates a ``.npubin`` file. Raises ``FormatError`` naming what is wrong with it."""
        from npu_runtime.npubin import load_program

        return load_program(path)
