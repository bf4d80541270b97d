"""DAGExecutor: runs a partitioned graph, target parts on the device, the others through a function of the
caller's."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol, TypeAlias

from npu_runtime.accepting import accept, check_weights
from npu_runtime.backend import Backend
from npu_runtime.buffer import NPUBuffer, as_bytes, as_dense, to_array
from npu_runtime.dtypes import Array
from npu_runtime.errors import InputError
from npu_runtime.executor import Executor, StepTime
from npu_runtime.npubin import digest
from npu_runtime.program import FORMAT_VERSION, CompiledProgram, IOSpec, StateSpec, Symbol, Transform
from npu_runtime.symbols import bind
from npu_runtime.weight_loader import Weights


class Part(Protocol):
    """What the executor needs of a part; ``npu_compiler.partition`` makes them.

    ``ir.outputs`` pairs the names of the part's outputs with the values of the whole graph that they are.
    """

    @property
    def name(self) -> str: ...
    @property
    def kind(self) -> str: ...
    @property
    def ir(self) -> Any: ...
    @property
    def inputs(self) -> tuple[str, ...]: ...
    @property
    def transforms(self) -> tuple[Transform, ...]: ...
    @property
    def weight_keys(self) -> tuple[str, ...]: ...
    @property
    def states(self) -> tuple[StateSpec, ...]: ...
    @property
    def updates(self) -> frozenset[str]: ...
    def compile(self) -> CompiledProgram: ...


class Parts(Protocol):
    """A partitioned graph: its parts in order, and what goes in and out of the whole."""

    @property
    def name(self) -> str: ...
    @property
    def inputs(self) -> Mapping[str, Any]: ...
    @property
    def outputs(self) -> Sequence[Any]: ...
    @property
    def output_specs(self) -> Sequence[Any]: ...
    @property
    def symbols(self) -> Mapping[str, tuple[int, int]]: ...
    @property
    def parts(self) -> Sequence[Any]: ...


#: Runs a fallback part: ``runner(ir, inputs, weights, states)`` with arrays by name; gives an object with the
#: mappings ``outputs`` and ``states`` (``torch_ir.eager.run``).
Runner: TypeAlias = Callable[..., Any]


class DAGExecutor:
    """Runs what ``npu_compiler.partition`` gives, as ``Executor`` runs a program.

    ``programs`` are the compiled target parts by name, or a function that compiles a part; by default each
    part's own ``compile()``. ``cpu_runner`` runs fallback parts (``torch_ir.eager.run``).

    ``program`` describes the whole: inputs, outputs, symbols, states and weights, and the steps of all target
    parts; ``load_weights`` takes it, no executor runs it.

    Raises ``InputError`` if there are fallback parts and no ``cpu_runner``; ``DeviceError`` if the driver
    refuses a kernel; and what compiling raises.
    """

    def __init__(
        self,
        parts: Parts,
        device: Backend,
        *,
        cpu_runner: Runner | None = None,
        programs: Mapping[str, CompiledProgram] | Callable[[Any], CompiledProgram] | None = None,
    ) -> None:
        self.device = device
        self.parts: tuple[Part, ...] = tuple(parts.parts)
        self._outputs = tuple((output.name, output.value) for output in parts.outputs)
        self._runner = cpu_runner
        self._lock = threading.Lock()
        fallback = [part.name for part in self.parts if part.kind != "target"]
        if fallback and cpu_runner is None:
            raise InputError(
                f"{parts.name}: {', '.join(fallback)} cannot run on the target: pass "
                "cpu_runner=torch_ir.eager.run, which needs PyTorch"
            )
        compiled = {part.name: _program(part, programs) for part in self.parts if part.kind == "target"}
        self.program = _whole(parts, self.parts, compiled)
        self._inputs = {spec.name: spec for spec in self.program.input_specs}
        self._executors = {name: Executor(program, device) for name, program in compiled.items()}
        self._first_step: dict[str, int] = {}
        count = 0
        for name, program in compiled.items():
            self._first_step[name] = count
            count += len(program.steps)
        self._last_use = self._uses()

    def run(self, inputs: Mapping[str, object], weights: Weights) -> dict[str, NPUBuffer]:
        """The outputs by name, as ``Executor.run``. ``weights``: what ``load_weights`` makes for
        ``program``.

        Raises ``InputError`` and ``WeightsMismatchError`` before anything is enqueued, and what
        ``cpu_runner`` raises.
        """
        with self._lock:
            return self._run(inputs, weights, None)

    def run_timed(
        self, inputs: Mapping[str, object], weights: Weights
    ) -> tuple[dict[str, NPUBuffer], list[StepTime]]:
        """As ``run``; gives also when each step of the target parts ran, numbered as in ``program``."""
        times: list[StepTime] = []
        with self._lock:
            return self._run(inputs, weights, times), times

    def _run(
        self, inputs: Mapping[str, object], weights: Weights, times: list[StepTime] | None
    ) -> dict[str, NPUBuffer]:
        given, shapes = accept(self._inputs, inputs, self.device)
        bind(self.program, shapes)
        check_weights(weights, self.device)
        weights.tensors.check(self.program)
        values = dict(given)
        for index, part in enumerate(self.parts):
            fed = {name: values[name] for name in part.inputs}
            if part.kind == "target":
                made = self._run_target(part, fed, weights, times)
            else:
                made = self._run_fallback(part, fed, weights)
            values.update({output.value: made[output.name] for output in part.ir.outputs})
            for name in self._last_use.get(index, ()):
                del values[name]
        return self._results(values, given)

    def _run_target(
        self, part: Part, fed: Mapping[str, object], weights: Weights, times: list[StepTime] | None
    ) -> Mapping[str, object]:
        executor = self._executors[part.name]
        if times is None:
            return executor.run(fed, weights)
        outputs, found = executor.run_timed(fed, weights)
        first = self._first_step[part.name]
        times += [StepTime(first + time.step, time.start, time.end, time.values) for time in found]
        return outputs

    def _run_fallback(self, part: Part, fed: Mapping[str, object], weights: Weights) -> Mapping[str, object]:
        assert self._runner is not None
        arrays = {
            name: value.to_numpy() if isinstance(value, NPUBuffer) else value for name, value in fed.items()
        }
        states = {spec.name: weights.read_state(spec) for spec in part.states}
        result = self._runner(_present(part.ir, weights), arrays, _Originals(part, weights), states)
        for spec in part.states:
            if spec.name in part.updates:
                content = as_dense(to_array(result.states[spec.name]))
                self.device.write(weights.state(spec), as_bytes(content))
                weights.note_changes([spec])
        return {name: as_dense(value) for name, value in result.outputs.items()}

    def _results(self, values: Mapping[str, object], given: Mapping[str, object]) -> dict[str, NPUBuffer]:
        """A buffer of its own for every output."""
        results: dict[str, NPUBuffer] = {}
        seen: set[str] = set()
        for name, value in self._outputs:
            found = values[value]
            if isinstance(found, NPUBuffer) and (value in given or value in seen):
                found = found.to_numpy()
            if not isinstance(found, NPUBuffer):
                found = NPUBuffer.from_numpy(found, self.device)
            seen.add(value)
            results[name] = found
        return results

    def _uses(self) -> dict[int, list[str]]:
        """part -> the values that nothing needs after it."""
        last: dict[str, int] = {}
        for index, part in enumerate(self.parts):
            last.update((output.value, index) for output in part.ir.outputs)
            last.update((name, index) for name in part.inputs)
        results = {value for _, value in self._outputs}
        freed: dict[int, list[str]] = {}
        for name, index in last.items():
            if name not in results:
                freed.setdefault(index, []).append(name)
        return freed


class _Originals(Mapping[str, Array]):
    """The original weights of a fallback part by state_dict key, read when they are asked for."""

    def __init__(self, part: Part, weights: Weights) -> None:
        self._transforms = dict(zip(part.weight_keys, part.transforms, strict=True))
        self._weights = weights

    def __getitem__(self, key: str) -> Array:
        return self._weights.array(self._transforms[key])

    def __contains__(self, key: object) -> bool:
        return key in self._transforms

    def __iter__(self) -> Iterator[str]:
        return iter(self._transforms)

    def __len__(self) -> int:
        return len(self._transforms)


def _present(ir: Any, weights: Weights) -> Any:
    """``ir`` with the present content of its constants that are buffers which programs have changed."""
    changed = {}
    for name, constant in ir.constants.items():
        content = weights.changed_content(constant.key)
        if content is not None:
            changed[name] = replace(constant, data=content.tobytes())
    return replace(ir, constants={**ir.constants, **changed}) if changed else ir


def _program(
    part: Part, programs: Mapping[str, CompiledProgram] | Callable[[Any], CompiledProgram] | None
) -> CompiledProgram:
    if programs is None:
        return part.compile()
    if isinstance(programs, Mapping):
        if part.name not in programs:
            raise InputError(
                f"programs lacks {part.name}, a part for the target: compile it with part.compile()"
            )
        return programs[part.name]
    return programs(part)


def _whole(parts: Parts, ordered: Sequence[Part], compiled: Mapping[str, CompiledProgram]) -> CompiledProgram:
    """The description of the whole: no executor can run it."""
    programs = list(compiled.values())
    states = {state.name: state for program in programs for state in program.states}
    transforms = {item.name: item for program in programs for item in program.transforms}
    for part in ordered:
        if part.kind != "target":
            states.update((state.name, state) for state in part.states)
            transforms.update((item.name, item) for item in part.transforms)
    first = programs[0] if programs else None
    weights = tuple(transforms[name] for name in sorted(transforms))
    return CompiledProgram(
        format_version=FORMAT_VERSION,
        model=parts.name,
        program=first.program if first else "main",
        target=first.target if first else "none",
        profile=first.profile if first else "",
        device_type=first.device_type if first else "any",
        options=(),
        symbols=tuple(Symbol(name, low, high) for name, (low, high) in parts.symbols.items()),
        guards=(),
        input_specs=tuple(_input_spec(name, spec, programs) for name, spec in parts.inputs.items()),
        output_specs=tuple(
            IOSpec(output.name, _shape(spec), spec.dtype)
            for output, spec in zip(parts.outputs, parts.output_specs, strict=True)
        ),
        states=tuple(states.values()),
        transforms=weights,
        transform_digest=digest(weights),
        arena_bytes=sum(program.arena_bytes for program in programs),
        buffers=(),
        kernels=tuple({kernel.entry: kernel for p in programs for kernel in p.kernels}.values()),
        steps=tuple(step for program in programs for step in program.steps),
    )


def _input_spec(name: str, spec: Any, programs: Sequence[CompiledProgram]) -> IOSpec:
    """An input with the narrowest bounds that the parts which read it need."""
    readers = [item for program in programs for item in program.input_specs if item.name == name]
    lower = [item.lower for item in readers if item.lower is not None]
    upper = [item.upper for item in readers if item.upper is not None]
    return IOSpec(name, _shape(spec), spec.dtype, max(lower, default=None), min(upper, default=None))


def _shape(spec: Any) -> tuple[int | str, ...]:
    return tuple(size if isinstance(size, int) else str(size) for size in spec.shape)
