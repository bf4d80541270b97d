"""The rules of a legal program, beyond the types of its fields. Run on every save and load."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from npu_runtime import transforms
from npu_runtime.dtypes import ITEM_SIZE, is_integer, nbytes
from npu_runtime.errors import FormatError
from npu_runtime.faults import fault_buffer, slots
from npu_runtime.program import (
    THREADS,
    Buffer,
    BufferArg,
    CompiledProgram,
    Dim,
    IOSpec,
    ScalarArg,
    StateSpec,
    Step,
    Transform,
)
from npu_runtime.symbols import evaluate, evaluate_shape, unbound

MAX_RANK = 16
MAX_BYTES = 1 << 44
MOST_THREADS = 1 << 16
#: Scratch offsets are multiples of this, so that they can be sub-buffers everywhere.
SCRATCH_ALIGNMENT = 512

_FILE = re.compile(r"kernels/[A-Za-z0-9_][A-Za-z0-9_.-]{0,250}\.cl")
_ENTRY = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,250}")
_OPTION = re.compile(r"-(cl-[a-zA-Z0-9.=-]+|D[A-Za-z_][A-Za-z0-9_]*(=[A-Za-z0-9_.+-]+)?)")
_SYMBOL = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_TEXT_LIMIT = 1000


def validate(program: CompiledProgram, name: str) -> None:
    """Raises ``FormatError`` naming ``name`` and the first rule that ``program`` breaks.

    Names are unique and everything named exists; sizes are in the grammar, fit their buffers and are not
    absurd, at both ends of the symbols' bounds; scratch lies inside the arena; sources match their sha256.
    """
    try:
        problem = next(_Checker(program).problems(), None)
    except FormatError as error:
        problem = str(error)
    if problem:
        raise FormatError(f"{name}: {problem}")


@dataclass
class _Checker:
    program: CompiledProgram

    def problems(self) -> Iterator[str]:
        program = self.program
        if not program.model or not program.program:
            yield "the model and the program must have names"
        for what, names in (
            ("symbol", [symbol.name for symbol in program.symbols]),
            ("input", [spec.name for spec in program.input_specs]),
            ("output", [spec.name for spec in program.output_specs]),
            ("state", [state.name for state in program.states]),
            ("transform", [transform.name for transform in program.transforms]),
            ("buffer", [buffer.name for buffer in program.buffers]),
            ("kernel", [kernel.entry for kernel in program.kernels]),
        ):
            yield from _unique(what, names)
        yield from self.symbol_problems()
        self.corners = _corners(program)
        yield from self.tensor_problems()
        self.buffers = {buffer.name: buffer for buffer in program.buffers}
        self.specs: Mapping[str, Mapping[str, IOSpec | StateSpec | Transform]] = {
            "input": {spec.name: spec for spec in program.input_specs},
            "output": {spec.name: spec for spec in program.output_specs},
            "weight": {spec.name: spec for spec in program.transforms},
            "state": {spec.name: spec for spec in program.states},
        }
        for buffer in program.buffers:
            yield from self.buffer_problems(buffer)
        if sum(buffer.kind == "fault" for buffer in program.buffers) > 1:
            yield "there are two buffers of kind fault"
        self.fault = fault_buffer(program)
        yield from self.kernel_problems()
        entries = {kernel.entry for kernel in program.kernels}
        for index, step in enumerate(program.steps):
            if step.kernel not in entries:
                yield f"step {index}: there is no kernel {step.kernel!r}"
            yield from self.step_problems(index, step)
        yield from self.written_problems()

    def symbol_problems(self) -> Iterator[str]:
        for symbol in self.program.symbols:
            if not _SYMBOL.fullmatch(symbol.name) or symbol.name in ("min", "max", THREADS):
                yield f"{symbol.name!r} cannot name a symbol"
            if not 0 <= symbol.lower <= symbol.upper < 1 << 40:
                yield f"symbol {symbol.name}: bounds {symbol.lower} to {symbol.upper}"
        for name in sorted(unbound(self.program.symbols, self.program.input_specs)):
            yield f"symbol {name}: no input's shape determines it"

    def tensor_problems(self) -> Iterator[str]:
        program = self.program
        for spec in (*program.input_specs, *program.output_specs):
            yield from self.spec_problems(spec.name, spec.dtype, spec.shape)
            if (spec.lower is not None or spec.upper is not None) and not is_integer(spec.dtype):
                yield f"{spec.name}: bounds on values of dtype {spec.dtype}; only integers have bounds"
        for state in program.states:
            yield from self.spec_problems(state.name, state.dtype, state.shape)
            if state.init is not None:
                transforms.check(state.init)
        for transform in program.transforms:
            yield from self.spec_problems(transform.name, transform.dtype, transform.shape)
            transforms.check(transform.expr)
        if transforms.digest(program.transforms) != program.transform_digest:
            yield "the digest of the weight transforms does not match them"
        for guard in program.guards:
            for values in self.corners:
                evaluate(guard.left, values)
                evaluate(guard.right, values)

    def spec_problems(self, name: str, dtype: str, shape: Sequence[Dim]) -> Iterator[str]:
        if dtype not in ITEM_SIZE:
            yield f"{name}: unknown dtype {dtype!r}"
        elif len(shape) > MAX_RANK:
            yield f"{name}: {len(shape)} dims; at most {MAX_RANK} are possible"
        else:
            for values in self.corners:
                sizes = evaluate_shape(shape, values)
                if any(size < 0 for size in sizes):
                    yield f"{name}: negative size in {list(sizes)}{_where(values)}"
                elif nbytes(sizes, dtype) > MAX_BYTES:
                    yield f"{name}: {nbytes(sizes, dtype)} bytes are absurd"

    def buffer_problems(self, buffer: Buffer) -> Iterator[str]:
        program, name = self.program, f"buffer {buffer.name!r}"
        if buffer.kind == "scratch":
            if not isinstance(buffer.nbytes, int):
                yield f"{name}: scratch has a fixed size, not {buffer.nbytes!r}"
            elif (
                buffer.nbytes < 0 or buffer.offset < 0 or buffer.offset + buffer.nbytes > program.arena_bytes
            ):
                yield (
                    f"{name}: {buffer.nbytes} bytes at offset {buffer.offset} lie outside the arena of "
                    f"{program.arena_bytes}"
                )
            elif buffer.offset % SCRATCH_ALIGNMENT:
                yield f"{name}: offset {buffer.offset} is not a multiple of {SCRATCH_ALIGNMENT}"
            if not 0 <= buffer.first <= buffer.last < max(1, len(program.steps)):
                yield f"{name}: alive from step {buffer.first} to {buffer.last} of {len(program.steps)}"
            return
        if buffer.kind == "fault":
            size = buffer.nbytes
            if not isinstance(size, int) or size % 4 or not 0 < size <= 4 * max(1, len(program.steps)):
                yield f"{name}: {size!r} bytes for the faults of {len(program.steps)} steps"
            return
        found = self.specs[buffer.kind].get(buffer.ref)
        if found is None:
            yield f"{name}: there is no {buffer.kind} {buffer.ref!r}"
            return
        for values in self.corners:
            size, dense = (
                evaluate(buffer.nbytes, values),
                nbytes(evaluate_shape(found.shape, values), found.dtype),
            )
            if size != dense:
                yield f"{name}: {size} bytes for a {buffer.kind} of {dense}{_where(values)}"

    def kernel_problems(self) -> Iterator[str]:
        program = self.program
        if not 0 <= program.arena_bytes <= MAX_BYTES:
            yield f"an arena of {program.arena_bytes} bytes is absurd"
        for option in program.options:
            if not _OPTION.fullmatch(option):
                yield f"build option {option!r} is neither -cl-... nor -D..."
        for file in program.kernel_sources:
            if not _FILE.fullmatch(file):
                yield f"{file!r} cannot name a kernel's file"
        used = {kernel.file for kernel in program.kernels} | {"kernels/_prelude.cl"}
        for file in program.kernel_sources.keys() - used:
            yield f"{file}: no kernel is in it"
        for kernel in program.kernels:
            if not _ENTRY.fullmatch(kernel.entry):
                yield f"{kernel.entry!r} cannot name a kernel"
            source = program.kernel_sources.get(kernel.file)
            if source is None:
                yield f"kernel {kernel.entry}: its file {kernel.file} is missing"
            elif hashlib.sha256(source.encode()).hexdigest() != kernel.sha256:
                yield f"kernel {kernel.entry}: {kernel.file} does not match its sha256"

    def step_problems(self, index: int, step: Step) -> Iterator[str]:
        name = f"step {index} ({step.kernel})"
        for arg in step.args:
            if isinstance(arg, BufferArg):
                buffer = self.buffers.get(arg.buffer)
                if buffer is None:
                    yield f"{name}: there is no buffer {arg.buffer!r}"
                elif arg.access != "r" and buffer.kind in ("input", "weight"):
                    yield f"{name}: writes to {buffer.name!r}, which is a {buffer.kind}"
                elif buffer.kind == "scratch" and not buffer.first <= index <= buffer.last:
                    yield f"{name}: uses {buffer.name!r} outside steps {buffer.first} to {buffer.last}"
            else:
                yield from self.scalar_problems(name, arg)
        for slot in slots(step, self.fault.name) if self.fault is not None else ():
            if not isinstance(slot, int) or not 0 <= 4 * slot < evaluate(self.fault.nbytes, {}):  # type: ignore[union-attr]
                yield f"{name}: {slot!r} is not the number of a fault"
        if not 1 <= len(step.global_size) <= 3:
            yield f"{name}: {len(step.global_size)} global sizes; 1 to 3 are possible"
        local = step.local_size
        if local is not None and (
            len(local) != len(step.global_size) or any(not 0 < n <= 1 << 16 for n in local)
        ):
            yield f"{name}: local size {list(local)} does not fit {len(step.global_size)} dims"
        for values in self.corners:
            sizes = evaluate_shape(step.global_size, values)
            if any(not 0 <= size < 1 << 40 for size in sizes):
                yield f"{name}: global size {list(sizes)}{_where(values)}"
            if local is not None and any(size % n for size, n in zip(sizes, local, strict=False)):
                yield f"{name}: global size {list(sizes)} is no multiple of {list(local)}{_where(values)}"
            for cost in (step.cost.flops, step.cost.bytes_read, step.cost.bytes_written):
                if evaluate(cost, values) < 0:
                    yield f"{name}: negative cost {cost!r}{_where(values)}"

    def scalar_problems(self, name: str, arg: ScalarArg) -> Iterator[str]:
        bits = 31 if arg.ctype == "int" else 63
        for values in self.corners:
            value = evaluate(arg.value, values)
            if not -(1 << bits) <= value < 1 << bits:
                yield f"{name}: {value} does not fit an OpenCL {arg.ctype}"

    def written_problems(self) -> Iterator[str]:
        written = {
            arg.buffer
            for step in self.program.steps
            for arg in step.args
            if isinstance(arg, BufferArg) and arg.access != "r"
        }
        made = {self.buffers[name].ref for name in written if self.buffers[name].kind == "output"}
        for spec in self.program.output_specs:
            if spec.name not in made and any(
                nbytes(evaluate_shape(spec.shape, values), spec.dtype) for values in self.corners
            ):
                yield f"output {spec.name!r}: no step writes it"


def _unique(what: str, names: Sequence[str]) -> Iterator[str]:
    for name in names:
        if not name or len(name) > _TEXT_LIMIT or "\0" in name:
            yield f"{name[:40]!r} cannot name a {what}"
    if len(set(names)) != len(names):
        twice = next(name for index, name in enumerate(names) if name in names[:index])
        yield f"two {what}s are named {twice!r}"


def _corners(program: CompiledProgram) -> list[Mapping[str, int]]:
    """The symbols' values at both ends of their bounds: what sizes are checked for,
    and with one thread and with many."""
    ends: list[Mapping[str, int]] = [
        {**{symbol.name: symbol.lower for symbol in program.symbols}, THREADS: 1},
        {**{symbol.name: symbol.upper for symbol in program.symbols}, THREADS: MOST_THREADS},
    ]
    return ends


def _where(values: Mapping[str, int]) -> str:
    named = [f"{name} = {value}" for name, value in values.items() if name != THREADS]
    return f" for {', '.join(named)}" if named else ""
