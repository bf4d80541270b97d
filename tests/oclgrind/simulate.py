"""Runs sample cases on Oclgrind's simulated device and collects what it reports.

Every buffer of a program gets memory of its own, so that an access behind its end is outside of memory, and
nothing is filled beforehand, so that what no kernel wrote is uninitialised.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import gpu_samples
import graphs
import numpy as np
import op_graphs
from alarms import unnoticed
from branches import Recorder
from subjects import EXTRA, GPU, Subject, of_sample

from npu_compiler.compiler import assemble
from npu_compiler.emit import Emitter
from npu_compiler.emitted import Options
from npu_compiler.errors import CompileError
from npu_compiler.target import load_target
from npu_compiler.views import View
from npu_runtime.backend import Bytes, Memory
from npu_runtime.buffer import as_bytes
from npu_runtime.device import Device, list_devices
from npu_runtime.errors import InputError
from npu_runtime.executor import Executor
from npu_runtime.program import CompiledProgram
from npu_runtime.weight_loader import load_weights
from torch_ir.ir import Node, TensorSpec

PLATFORM = "Oclgrind"
#: No optimisation: the passes of LLVM make instructions that the simulator does not know. It has no prefetch.
_SIMULATED = ("-cl-opt-disable", "-D__builtin_prefetch(pointer,write,locality)=")
#: Samples of the GPU's kernels that take more multiplications are left to the tests.
MOST_WORK = 150_000
#: The drivers whose idioms the kernels can be compiled with.
IDIOMS: Mapping[str, tuple[str, ...]] = {"pocl": ("-DNPU_POCL=1",), "other": ()}
#: All memory of this process: the simulator takes reused addresses for what they held before.
_KEPT: list[Memory] = []
_REPORT = re.compile(
    r"^(\S.*)\n\tKernel: +(\w+)\n(?:.*\n)*?(?:\tAt line (\d+)|\tDebugging|\t?\n)", re.MULTILINE
)
_ADDRESS = re.compile(r"0x[0-9a-f]+|\d+")


def listed() -> dict[str, Callable[[], Subject]]:
    """Every subject by its name: the registry's samples, on the GPU's kernels too, and graphs for what these
    do not reach."""
    found: dict[str, Callable[[], Subject]]
    found = {sample.id: partial(of_sample, sample) for sample in op_graphs.samples()}
    grouped = {
        f"gpu-{name}": partial(of_sample, sample, GPU)
        for name, sample in gpu_samples.SAMPLES.items()
        if gpu_samples.is_short(sample) and work(sample) <= MOST_WORK
    }
    return {**found, **grouped, **EXTRA}


def rendered_for_nvidia() -> list[tuple[str, bool]]:
    """Conditions of templates with their values in programs of inline PTX, which no simulator runs."""
    recorder = Recorder()
    for sample in gpu_samples.SAMPLES.values():
        if gpu_samples.is_short(sample):
            graphs.emit(sample.graph(), target=load_target("nvidia"))
    return recorder.taken


def work(sample: op_graphs.Sample) -> int:
    """About how many multiplications a product takes: the simulator makes a few million in a second."""
    sizes = [int(np.prod(shape)) for shape in sample.case.shapes[:2] if shape]
    inner = sample.case.shapes[0][-1] if sample.case.shapes[0] else 1
    return int(np.prod(sizes)) // max(1, inner)


class SimulatedDevice(Device):
    """Oclgrind, with the idioms of a driver. Regions of memory are memory of their own."""

    def __init__(self, idiom: str) -> None:
        super().__init__(next(i.selector for i in list_devices() if i.platform == PLATFORM))
        self.idiom = idiom

    def build(self, sources: Sequence[tuple[str, str]], options: Sequence[str]) -> object:
        return super().build(sources, [*options, *_SIMULATED, *IDIOMS[self.idiom]])

    def region(self, memory: Memory, offset: int, nbytes: int) -> Memory:  # noqa: ARG002
        return self.allocate(nbytes)

    def _buffer(self, flags: int, nbytes: int, data: Bytes | None = None) -> Memory:
        memory = super()._buffer(flags, nbytes, data)
        _KEPT.append(memory)
        return memory


class _PaddingEmitter(Emitter):
    """Notes the buffers with channels padded to a vector. Kernels compute with the padding and drop what
    comes of it, but to the simulator a vector with one uninitialised lane is uninitialised altogether."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.padded: set[str] = set()

    def output(self, node: Node, index: int = 0, **options: Any) -> View:
        return self._noted(super().output(node, index, **options), node.outs[index])

    def scratch(self, name: str, spec: TensorSpec) -> View:
        return self._noted(super().scratch(name, spec), spec)

    def _noted(self, view: View, spec: TensorSpec) -> View:
        if self.buffers[view.buffer].nbytes != spec.nbytes:
            self.padded.add(view.buffer)
        return view


class _PaddedExecutor(Executor):
    """Initialises the padded buffers."""

    def __init__(self, program: CompiledProgram, device: Device, padded: set[str]) -> None:
        self._padded = padded
        super().__init__(program, device)

    def _bind(self, name: str, memory: Memory) -> None:
        if name in self._padded and self._bound.get(name) is not memory:
            self.device.write(memory, np.zeros(memory.nbytes, np.uint8))  # the simulator overlooks fills
        super()._bind(name, memory)


@dataclass
class Found:
    """What a batch of subjects gave. ``taken``: conditions of templates with their values."""

    ran: list[str] = field(default_factory=list)
    variants: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    taken: list[tuple[str, bool]] = field(default_factory=list)


def run(names: Iterable[str], log: Path) -> Found:
    """Simulates the subjects of these names, those that differ between drivers with the idioms of each.
    ``log`` is where the simulator writes (``OCLGRIND_LOG``)."""
    recorder, found, subjects = Recorder(), Found(), listed()
    found.problems += unnoticed(SimulatedDevice("other"), log, _reports)
    for name in names:
        subject = subjects[name]()
        for idiom in IDIOMS if subject.target is not GPU else ("other",):
            if not _simulate(name, subject, idiom, log, found):
                break
    found.variants = sorted(set(found.variants))
    found.taken = recorder.taken
    return found


def _simulate(name: str, subject: Subject, idiom: str, log: Path, found: Found) -> bool:
    """Whether the kernels look at the driver, so that another idiom gives another program."""
    emitter = _PaddingEmitter(subject.graph, subject.target, subject.options or Options())
    try:
        emitter.run()
    except CompileError as error:
        found.problems.append(f"{name}: {error}")
        return False
    program = assemble(subject.graph, emitter.result(), subject.target, "main")
    device = SimulatedDevice(idiom)
    seen = log.stat().st_size if log.exists() else 0
    place = f"{name} ({idiom})"
    try:
        executor = _PaddedExecutor(program, device, emitter.padded)
        weights = load_weights(subject.weights, program, device)
        outputs = executor.run(subject.inputs, weights)
    except InputError as error:
        if not subject.faulty or "dimension that it indexes" not in str(error):
            found.problems.append(f"{place}: {error}")
    except Exception as error:  # whatever the driver refuses is a finding
        found.problems.append(f"{place}: {type(error).__name__}: {error}")
    else:
        for key, expected in subject.expected().items():
            difference = _difference(outputs[key].to_numpy(), expected, subject)
            if difference or subject.faulty:
                found.problems.append(f"{place}: output {key}: {difference or 'no fault was raised'}")
        for spec in program.states:
            device.read(weights.state(spec), as_bytes(np.empty(spec.shape, np.dtype(spec.dtype))))
    found.problems += [f"{place}: {line}" for line in _reports(log, seen)]
    found.ran.append(place)
    found.variants += {step.kernel.split("__")[0] for step in program.steps}
    return any("NPU_" in source for source in program.kernel_sources.values())


def _difference(got: Any, expected: Any, subject: Subject) -> str:
    if (got.shape, got.dtype) != (expected.shape, expected.dtype):
        return f"is {got.dtype}{list(got.shape)}, not {expected.dtype}{list(expected.shape)}"
    size = np.abs(expected[np.isfinite(expected)].astype(np.float64)).max(initial=1.0)
    near = np.isclose(
        got.astype(np.float64), expected.astype(np.float64), subject.rtol, subject.atol * size, equal_nan=True
    )
    return "" if near.all() else f"{np.count_nonzero(~near)} of {got.size} elements differ"


def _reports(log: Path, start: int) -> list[str]:
    """What the simulator wrote behind ``start``, each kind once per kernel."""
    if not log.exists():
        return []
    with log.open(encoding="utf-8", errors="replace") as file:
        file.seek(start)
        text = file.read()
    found: dict[str, list[str]] = {}
    for message, kernel, line in _REPORT.findall(text):
        key = f"{_ADDRESS.sub('N', message)} in {kernel}"
        found.setdefault(key, []).append(line)
    if text.strip() and not found:
        found[text.strip()[:500]] = [""]
    return [f"{key}, first at line {lines[0] or '?'}, {len(lines)} times" for key, lines in found.items()]


def child(request: Path) -> None:
    """Runs the names in ``request`` (JSON) and writes what was found beside it."""
    names = json.loads(request.read_text())
    found = run(names, Path(os.environ["OCLGRIND_LOG"]))
    request.with_suffix(".found").write_text(json.dumps(asdict(found)))
