"""Executor: runs a compiled program on a device. Binds once, runs many times."""

from __future__ import annotations

import threading
import warnings
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from npu_runtime import env
from npu_runtime.accepting import accept, check_weights
from npu_runtime.backend import Backend, Bytes, KernelHandle, Launch, Memory, Ticket
from npu_runtime.buffer import NPUBuffer, as_bytes
from npu_runtime.dtypes import nbytes
from npu_runtime.errors import DeviceError
from npu_runtime.faults import Faults, fault_buffer
from npu_runtime.npubin import source_order
from npu_runtime.output_pool import OutputPool
from npu_runtime.program import (
    HOST_CHECKED,
    THREADS,
    Buffer,
    BufferArg,
    CompiledProgram,
    IOSpec,
    ScalarArg,
    StateSpec,
)
from npu_runtime.requirements import check_capabilities, check_sizes
from npu_runtime.scratch import places, slots
from npu_runtime.series import ARENA, CLOCKED, SeriesKernels
from npu_runtime.symbols import bind, evaluate, evaluate_shape, symbols_of
from npu_runtime.transforms import reads_of
from npu_runtime.weight_loader import Weights

_KEPT_SIZES = 256
#: Bytes of an output that is read behind the last step, at most: read for itself, it would wait for the
#: device once more.
_READ_ALONG = 1 << 16
_MACHINE_OPTIONS = ("-cl-std=CL1.2",)

_warned: set[tuple[str, str]] = set()


@dataclass(frozen=True, slots=True)
class _Slot:
    """A kernel's argument."""

    kernel: KernelHandle
    index: int
    access: str


@dataclass(frozen=True, slots=True)
class _Sizes:
    """Everything that follows from the symbols' values."""

    launches: tuple[Launch, ...]
    steps: tuple[int, ...]
    """The step of each launch; steps without work-items have none."""
    joined: tuple[Launch, ...]
    """The launches with one for each series of steps."""
    covered: tuple[tuple[int, ...], ...]
    """The steps of each of those."""
    tables: tuple[tuple[Memory, Bytes], ...]
    """What the series' memories must hold."""
    scalars: tuple[int, ...]
    """Values of the arguments that depend on symbols, in the order of ``Executor._scalars``."""
    outputs: tuple[tuple[int, ...], ...]
    values: Mapping[str, int]
    """The symbols' values, which the inputs' shapes give."""


@dataclass(frozen=True, slots=True)
class StepTime:
    """When a step ran, by the device's clock in nanoseconds; ``values`` are the symbols' of that run."""

    step: int
    start: int
    end: int
    values: Mapping[str, int]


@dataclass(slots=True, eq=False)
class Running:
    """A run that ``Executor.start`` enqueued. ``outputs`` may be inputs of what is enqueued next before
    anybody waits for them. ``wait`` must be called, at the latest before the executor is used for something
    else: an index out of range that nobody asked for is met by later runs."""

    outputs: dict[str, NPUBuffer]
    _ticket: Ticket | None = None
    _faults: Faults | None = None
    _seen: Bytes | None = None

    def wait(self) -> None:
        """Returns when the run is done. Raises ``InputError`` where kernels met an index out of range in it,
        or in a run that it was enqueued behind, and ``DeviceError`` where the device failed."""
        if self._ticket is not None:
            self._ticket.wait()
        if self._faults is not None and self._seen is not None:
            faults, self._faults = self._faults, None
            faults.check(self._seen)


class Executor:
    """Runs ``program`` on ``device``.

    Builds the kernels at once. Weights, state and what depends on the symbols are bound when they change; a
    run sets the arguments that are inputs and outputs, enqueues every step and waits once. One run at a time:
    calls from several threads wait for each other.

    Raises ``DeviceError`` if the driver refuses a kernel, or a buffer is larger than the device's largest.
    """

    def __init__(self, program: CompiledProgram, device: Backend) -> None:
        self.program = program
        self.device = device
        self._lock = threading.Lock()
        self._watched = env.debug_level() >= env.KERNELS
        self._warn_of_other_kind()
        check_sizes(program, device)
        check_capabilities(program, device)
        self._options = (*_MACHINE_OPTIONS, *program.options)
        sources = [(name, program.kernel_sources[name]) for name in source_order(program)]
        module = device.build(sources, self._options)
        self._kernels = [
            device.kernel(module, step.kernel, f"step {index} ({step.kernel})")
            for index, step in enumerate(program.steps)
        ]
        self._slots: dict[str, list[_Slot]] = {}
        self._scalars: list[tuple[_Slot, ScalarArg]] = []
        self._bound: dict[str, Memory] = {}
        self._tensors: object = None
        self._substituted = False
        self._current: _Sizes | None = None
        self._sizes: OrderedDict[tuple[tuple[int, ...], ...], _Sizes] = OrderedDict()
        self._staging: dict[str, Memory] = {}
        self._pool = OutputPool()
        self._series: SeriesKernels | None = None
        self._buffers = {
            kind: [buffer for buffer in program.buffers if buffer.kind == kind]
            for kind in ("input", "output", "weight", "state", "scratch")
        }
        self._transforms = {transform.name: transform for transform in program.transforms}
        self._states: dict[str, StateSpec] = {state.name: state for state in program.states}
        self._weight_reads = {key for item in program.transforms for key in reads_of(item.expr)}
        self._inputs: dict[str, IOSpec] = {spec.name: spec for spec in program.input_specs}
        self._collect_arguments()
        self._bind_scratch()
        buffer = fault_buffer(program)
        self._faults = None if buffer is None else Faults(program, buffer, device)
        if self._faults is not None:
            self._bind(self._faults.name, self._faults.memory)
        env.debug(
            env.STAGES,
            f"{program.model} {program.program}: {len(program.steps)} steps on {device.name}, "
            f"{program.arena_bytes} bytes of scratch",
        )

    def run(self, inputs: Mapping[str, object], weights: Weights) -> dict[str, NPUBuffer]:
        """The outputs by name, for inputs by name (``NPUBuffer`` or what numpy makes an array of).

        Outputs stay valid after further runs. State in ``weights`` is updated. Raises, before anything is
        enqueued, ``InputError`` for a missing, unknown or unfitting input and ``WeightsMismatchError`` for
        weights of another program; and ``InputError`` after the run where kernels met an index out of range.
        """
        if not self._watched:
            with self._lock:
                running = self._enqueue(inputs, weights)
                running.wait()
                return running.outputs
        from npu_runtime.profiler import step_lines

        outputs, times = self.run_timed(inputs, weights)
        for line in step_lines(self.program, times):
            env.debug(env.KERNELS, line)
        return outputs

    def start(self, inputs: Mapping[str, object], weights: Weights) -> Running:
        """As ``run``, but only enqueues: the caller waits. Arrays among the inputs may change at once."""
        if self._watched:
            return Running(self.run(inputs, weights))
        with self._lock:
            return self._enqueue(inputs, weights, copied=True)

    def run_timed(
        self, inputs: Mapping[str, object], weights: Weights
    ) -> tuple[dict[str, NPUBuffer], list[StepTime]]:
        """As ``run``; gives also when each step ran, by the device's clock; the time of steps that are
        launched together is divided by the processor's."""
        device = self.device
        with self._lock:
            sizes, writes, memories = self._bind_all(inputs, weights)
            for write in writes:
                device.write(*write)
            times = self._launch_timed(sizes)
            made = self._outputs(sizes, memories)
            if self._faults is not None:
                memory, seen = self._faults.fetch()
                device.read(memory, seen)
                self._faults.check(seen)
        return made, times

    def _launch_timed(self, sizes: _Sizes) -> list[StepTime]:
        if self._series is None or not CLOCKED:
            spans = self.device.launch_timed(sizes.launches)
        else:
            wholes = zip(sizes.covered, self.device.launch_timed(sizes.joined), strict=True)
            spans = [span for steps, whole in wholes for span in self._series.spans(steps, whole)]
        return [StepTime(step, *span, sizes.values) for step, span in zip(sizes.steps, spans, strict=True)]

    def _enqueue(self, inputs: Mapping[str, object], weights: Weights, copied: bool = False) -> Running:
        """Enqueues a run; ``copied``: arrays among the inputs may change before it is done."""
        sizes, writes, memories = self._bind_all(inputs, weights)
        if copied:
            writes = [(memory, data.copy()) for memory, data in writes]
        made: dict[str, NPUBuffer] = {}
        faults: list[tuple[Memory, Bytes]] = []

        def reads() -> Iterator[tuple[Memory, Bytes]]:
            """What needs not be there before the first launch: the device computes meanwhile."""
            if self._faults is not None:
                faults.append(self._faults.fetch())
                yield faults[0]
            made.update(self._outputs(sizes, memories))
            for output in made.values():
                if output.nbytes <= _READ_ALONG:
                    yield output.memory, output.keep_copy()

        ticket = self.device.enqueue(sizes.joined, writes, reads(), alone=not copied)
        for output in made.values():
            if output.nbytes <= _READ_ALONG:
                output.filled_by(ticket)
        return Running(made, ticket, self._faults, faults[0][1] if faults else None)

    def _bind_all(
        self, inputs: Mapping[str, object], weights: Weights
    ) -> tuple[_Sizes, list[tuple[Memory, Bytes]], dict[str, Memory]]:
        """Sets every argument of every kernel; gives what is launched, what to write before, and where the
        outputs lie."""
        program, device = self.program, self.device
        arrays, shapes = accept(self._inputs, inputs, device, HOST_CHECKED if self._faults else None)
        sizes = self._bind_sizes(shapes)
        check_weights(weights, device)
        self._bind_weights(weights)
        writes: list[tuple[Memory, Bytes]] = []
        for buffer in self._buffers["input"]:
            self._bind(buffer.name, self._input_memory(buffer, arrays[buffer.ref], writes))
        memories = {
            spec.name: self._pool.take(device, max(1, nbytes(shape, spec.dtype)))
            for spec, shape in zip(program.output_specs, sizes.outputs, strict=True)
        }
        for buffer in self._buffers["output"]:
            self._bind(buffer.name, memories[buffer.ref])
        if self._changes:
            weights.note_changes(self._changes)
        return sizes, writes, memories

    def _outputs(self, sizes: _Sizes, memories: Mapping[str, Memory]) -> dict[str, NPUBuffer]:
        """The outputs, whose memory is lent to them."""
        made = {}
        for spec, shape in zip(self.program.output_specs, sizes.outputs, strict=True):
            bounds = None if spec.lower is None or spec.upper is None else (spec.lower, spec.upper)
            made[spec.name] = NPUBuffer(memories[spec.name], shape, spec.dtype, self.device, bounds)
            self._pool.watch(made[spec.name])
        return made

    def _input_memory(self, buffer: Buffer, value: object, writes: list[tuple[Memory, Bytes]]) -> Memory:
        """Where an input lies; an array is added to what is written there before the first step."""
        if isinstance(value, NPUBuffer):
            return value.memory
        data = as_bytes(value)  # type: ignore[arg-type]  # accept made it an array
        memory = self._staging.get(buffer.ref)
        if memory is None or memory.nbytes < data.size:
            memory = self._staging[buffer.ref] = self.device.allocate(data.size)
        writes.append((memory, data))
        return memory

    def _bind(self, name: str, memory: Memory) -> None:
        if self._bound.get(name) is not memory:
            for slot in self._slots.get(name, ()):
                self.device.set_memory(slot.kernel, slot.index, memory, slot.access)
            self._bound[name] = memory

    def _bind_weights(self, weights: Weights) -> None:
        substitute = not self._weight_reads.isdisjoint(weights.changed)
        if self._tensors is not weights.tensors or substitute or self._substituted:
            weights.tensors.check(self.program)
            self._tensors = None
            for buffer in self._buffers["weight"]:
                self._bind(buffer.name, weights.memory(self._transforms[buffer.ref]))
            self._tensors, self._substituted = weights.tensors, substitute
        for buffer in self._buffers["state"]:
            self._bind(buffer.name, weights.state(self._states[buffer.ref]))

    def _bind_sizes(self, shapes: Mapping[str, tuple[int, ...]]) -> _Sizes:
        """What follows from the inputs' shapes; raises ``InputError`` where they do not fit the program."""
        key = tuple(shapes.values())
        sizes = self._sizes.get(key)
        if sizes is None:
            values = {**bind(self.program, shapes), THREADS: self.device.threads}
            sizes = self._sizes[key] = self._evaluate(values)
            if len(self._sizes) > _KEPT_SIZES:
                self._sizes.popitem(last=False)
        if sizes is not self._current:
            self._current = None
            for (slot, arg), value in zip(self._scalars, sizes.scalars, strict=True):
                self.device.set_scalar(slot.kernel, slot.index, value, arg.ctype)
            for table in sizes.tables:
                self.device.write(*table)
            self._current = sizes
        return sizes

    def _evaluate(self, values: Mapping[str, int]) -> _Sizes:
        launches, steps = [], []
        for index, (step, kernel) in enumerate(zip(self.program.steps, self._kernels, strict=True)):
            global_size = evaluate_shape(step.global_size, values)
            if all(global_size):
                launches.append(Launch(kernel, global_size, step.local_size))
                steps.append(index)
        joined, covered, tables = (
            (tuple(launches), tuple((step,) for step in steps), ())
            if self._series is None
            else self._series.shorten(launches, steps, values)
        )
        return _Sizes(
            tuple(launches),
            tuple(steps),
            joined,
            covered,
            tables,
            tuple(evaluate(arg.value, values) for _, arg in self._scalars),
            tuple(evaluate_shape(spec.shape, values) for spec in self.program.output_specs),
            values,
        )

    def _collect_arguments(self) -> None:
        """Finds where each buffer and each symbolic number goes; sets the numbers that never change."""
        for step, kernel in zip(self.program.steps, self._kernels, strict=True):
            if kernel.num_args != len(step.args):
                raise DeviceError(
                    f"{kernel.label}: the kernel takes {kernel.num_args} arguments, the program gives "
                    f"{len(step.args)}: compile it again"
                )
            for index, arg in enumerate(step.args):
                if isinstance(arg, BufferArg):
                    self._slots.setdefault(arg.buffer, []).append(_Slot(kernel, index, arg.access))
                elif symbols_of(arg.value):
                    self._scalars.append((_Slot(kernel, index, "r"), arg))
                else:
                    self.device.set_scalar(kernel, index, evaluate(arg.value, {}), arg.ctype)
        written = {
            buffer.ref
            for buffer in self._buffers["state"]
            if any(slot.access != "r" for slot in self._slots.get(buffer.name, ()))
        }
        self._changes = tuple(self._states[name] for name in sorted(written))

    def _bind_scratch(self) -> None:
        """Regions of one arena, or memories that buffers have one after the other. In an arena, series of
        steps get kernels of their own."""
        scratch, device = self._buffers["scratch"], self.device
        sizes = {buffer.name: max(1, evaluate(buffer.nbytes, {})) for buffer in scratch}
        starts = places(scratch, device)
        total = max((start + sizes[name] for name, start in starts.items()), default=1)
        if total > device.largest or not device.shares_arenas:
            for slot in slots(scratch):
                memory = device.allocate(slot.nbytes)
                for buffer in slot.buffers:
                    self._bind(buffer.name, memory)
            return
        arena = device.allocate(total)
        for name, start in starts.items():
            self._bind(name, device.region(arena, start, sizes[name]))
        self._series = SeriesKernels(self.program, device, self._options, starts)
        for name, kernel, index in self._series.slots():
            self._slots.setdefault(name, []).append(_Slot(kernel, index, "rw"))
        self._bind(ARENA, arena)

    def _warn_of_other_kind(self) -> None:
        program, device = self.program, self.device
        pair = (program.target, device.name)
        if (
            program.device_type not in ("any", device.kind)
            and device.vendor != "null"
            and pair not in _warned
        ):
            _warned.add(pair)
            warnings.warn(
                f"{program.model} {program.program} was compiled for {program.target!r} "
                f"({program.device_type}) and runs on {device.name} ({device.kind}), where a program "
                f"compiled for {device.kind!r} could be faster",
                stacklevel=3,
            )
