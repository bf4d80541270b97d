"""Stage ``bench``: latency, throughput, time per kernel, memory, and the time to a first result."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from math import prod
from pathlib import Path

import msgspec
import numpy as np

import npu_runtime
from npu_runtime.dag_executor import DAGExecutor
from npu_runtime.device import Device
from npu_runtime.dtypes import nbytes
from npu_runtime.env import pin_threads
from npu_runtime.executor import Executor, StepTime
from npu_runtime.profiler import Profiler
from npu_runtime.program import THREADS, CompiledProgram, Step, Transform
from npu_runtime.symbols import bind, evaluate, evaluate_shape
from npu_runtime.weight_loader import Weights, load_weights
from pipelines import roofline
from pipelines.generation_bench import Request, in_a_fresh_process
from pipelines.inputs import Array, made_up_inputs, upper_sizes
from pipelines.job import Job
from pipelines.programs import open_program
from pipelines.results import (
    BenchResult,
    Block,
    FirstResult,
    Generation,
    HistoryLine,
    KernelTime,
    Memory,
    ProgramBench,
    environment_of,
    file_digest,
    write_result,
)

#: Runs with every kernel timed, at most.
PROFILED_RUNS = 10

#: Run by a fresh interpreter: the files' names and the inputs' specs in, seconds and bytes out.
FIRST_RESULT = """
import time
start = time.perf_counter()
import json, sys
import numpy as np
from npu_runtime.device import Device
from npu_runtime.dtypes import numpy_dtype
from npu_runtime.executor import Executor
from npu_runtime.program import CompiledProgram
from npu_runtime.weight_loader import load_weights
imported = time.perf_counter()
given = json.loads(sys.argv[1])
device = Device(given["selector"], threads=given["threads"])
if given["program"].endswith(".npubin"):
    program = CompiledProgram.load(given["program"])
    executor = Executor(program, device)
else:
    from pathlib import Path
    from npu_compiler.parts_file import load_parts
    from npu_runtime.dag_executor import DAGExecutor
    from torch_ir import eager
    executor = DAGExecutor(load_parts(Path(given["program"])), device, cpu_runner=eager.run)
    program = executor.program
weights = load_weights(given["weights"], program, device)
loaded = time.perf_counter()
inputs = {name: np.zeros(shape, numpy_dtype(dtype)) for name, shape, dtype in given["inputs"]}
outputs = {name: buffer.to_numpy() for name, buffer in executor.run(inputs, weights).items()}
done = time.perf_counter()
from pipelines import roofline
from pipelines.generation_bench import peak_memory
peak = peak_memory()
times = {"imports": imported - start, "load": loaded - imported, "run": done - loaded}
print(json.dumps({**times, "peak": peak}))
"""


class BenchError(ValueError):
    """A measurement could not be taken."""


def run(job: Job) -> None:
    """Makes ``bench_result`` and appends to ``history``."""
    pin_threads()
    device = Device(job.selector, threads=job.config.bench.threads)
    programs = tuple(_bench_program(job, name, device) for name in job.programs)
    generation = _generation(job)
    job.progress("what the device can do at most")
    result = BenchResult(
        model=job.config.name,
        target=job.target,
        precision=precision_of(job),
        when=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        programs=programs,
        environment=environment_of(device, ("numpy", "pyopencl")),
        generation=generation,
        peaks=roofline.measure(device) if job.config.bench.profile else None,
    )
    write_result(job.bench_result, result)
    append_history(job.history, result)
    job.say(", ".join(_summary(program, len(programs) > 1) for program in programs))
    if generation is not None:
        job.say(", ".join(f"{row.name} {row.speeds[0]:.1f} tokens/s" for row in generation.rows))


def _generation(job: Job) -> Generation | None:
    """The rows of ``bench.generation``."""
    knobs = job.config.bench.generation
    if knobs is None:
        return None
    job.progress("generating text")
    request = Request(
        str(job.program_file("prefill")), str(job.program_file("decode")), str(job.prepared_weights),
        job.selector, job.config.bench.threads, job.config.verify.seed, knobs.prompts, knobs.tokens,
        knobs.depths, knobs.warmup, knobs.repeats)
    return in_a_fresh_process(request, _environment())


def _environment() -> dict[str, str]:
    """That of a fresh process, which finds the runtime where this one did."""
    roots = [str(Path(npu_runtime.__file__).resolve().parents[1]), str(Path(__file__).resolve().parents[1])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, (*roots, os.environ.get("PYTHONPATH"))))}


def precision_of(job: Job) -> str:
    """The dtype that the model computes in: the configuration's, else that of most of its weights on the
    device."""
    if job.config.precision is not None:
        return job.config.precision
    sizes: dict[str, int] = {}
    for name in job.programs:
        for item in msgspec.json.decode(job.transforms(name).read_bytes(), type=list[Transform]):
            sizes[item.dtype] = sizes.get(item.dtype, 0) + nbytes(item.shape, item.dtype)
    floats = {dtype: size for dtype, size in sizes.items() if "float" in dtype}
    return max(floats, key=lambda dtype: floats[dtype], default="float32")


def append_history(path: Path, result: BenchResult) -> None:
    """Adds one line to the history of benchmarks, in one write."""
    environment = result.environment
    line = HistoryLine(
        when=result.when,
        device=environment.device,
        driver=environment.driver,
        threads=environment.threads,
        programs={item.program: (item.median_ms, item.p10_ms, item.p90_ms) for item in result.programs},
        digests={item.program: item.digest for item in result.programs},
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        file.write(msgspec.json.encode(line) + b"\n")


def largest_live(blocks: Sequence[Block]) -> int:
    """The most bytes of ``blocks`` that are alive at one step."""
    steps = range(max((block.last for block in blocks), default=-1) + 1)
    return max(
        (sum(block.nbytes for block in blocks if block.first <= step <= block.last) for step in steps),
        default=0,
    )


def profile(program: CompiledProgram, runs: Sequence[Sequence[StepTime]], by: str) -> tuple[KernelTime, ...]:
    """The profiled runs ``by`` "kernel" or by "step", in the order of launch; numbers are per run."""
    groups: dict[str | int, list[StepTime]] = {}
    for item in (item for each in runs for item in each):
        groups.setdefault(program.steps[item.step].kernel if by == "kernel" else item.step, []).append(item)
    return tuple(_times(program, items, len(runs)) for items in groups.values())


def _times(program: CompiledProgram, items: Sequence[StepTime], runs: int) -> KernelTime:
    steps = [(program.steps[item.step], item.values) for item in items]
    moved = sum(
        evaluate(size, values)
        for step, values in steps
        for size in (step.cost.bytes_read, step.cost.bytes_written)
    )
    return KernelTime(
        kernel=steps[0][0].kernel,
        calls=len(items) // runs,
        total_us=sum(item.end - item.start for item in items) / 1e3 / runs,
        flops=sum(evaluate(step.cost.flops, values) for step, values in steps) // runs,
        bytes_moved=moved // runs,
        origin=tuple(dict.fromkeys(name for step, _ in steps for name in step.origin)),
        groups=sum(groups_of(step, values) for step, values in steps) // runs,
    )


def groups_of(step: Step, values: Mapping[str, int]) -> int:
    """The work-groups of one launch; 0 where the driver chooses their size."""
    if step.local_size is None:
        return 0
    sizes = evaluate_shape(step.global_size, values)
    return prod(size // local for size, local in zip(sizes, step.local_size, strict=True))


def time_runs(
    job: Job, executor: Executor | DAGExecutor, inputs: Mapping[str, Array], weights: Weights
) -> list[float]:
    """Milliseconds of each run that counts: from inputs in host memory to outputs in host memory."""
    knobs = job.config.bench
    samples = []
    collecting = gc.isenabled()
    gc.disable()
    try:
        for number in range(knobs.warmup + knobs.repeats):
            start = time.perf_counter_ns()
            for buffer in executor.run(inputs, weights).values():
                buffer.to_numpy()
            elapsed = (time.perf_counter_ns() - start) / 1e6
            if number >= knobs.warmup:
                samples.append(elapsed)
    finally:
        if collecting:
            gc.enable()
    return samples


def _bench_program(job: Job, name: str, device: Device) -> ProgramBench:
    knobs, config = job.config.bench, job.config.programs[name]
    job.progress(f"{name}: loading")
    executor = open_program(job.program_file(name), device)
    program = executor.program
    weights = load_weights(job.prepared_weights, program, device)
    sizes = upper_sizes(job.config, knobs.sizes)
    inputs = made_up_inputs(config, sizes, (job.config.verify.seed,))
    shapes = {key: value.shape for key, value in inputs.items()}
    job.progress(f"{name}: {knobs.repeats} runs")
    samples = time_runs(job, executor, inputs, weights)
    runs: Sequence[Sequence[StepTime]] = ()
    if knobs.profile:
        job.progress(f"{name}: timing every kernel")
        profiler = Profiler(executor)
        for _ in range(min(knobs.repeats, PROFILED_RUNS) + 1):
            profiler.run(inputs, weights)
        runs = profiler.runs[1:]
    job.progress(f"{name}: first result of a fresh process")
    first, peak = first_result(job, name, inputs)
    values = {**bind(program, shapes), THREADS: device.threads}
    first_shape = next(iter(shapes.values()))
    batch = first_shape[0] if first_shape else 1
    median, p10, p90 = (float(np.percentile(samples, percent)) for percent in (50, 10, 90))
    return ProgramBench(
        program=name,
        digest=file_digest(job.program_file(name)),
        symbols={symbol: sizes[symbol] for symbol in config.symbols},
        inputs=shapes,
        batch=batch,
        warmup=knobs.warmup,
        samples_ms=tuple(round(sample, 4) for sample in samples),
        median_ms=median,
        p10_ms=p10,
        p90_ms=p90,
        throughput=batch / median * 1e3,
        flops=sum(evaluate(step.cost.flops, values) for step in program.steps),
        kernels=profile(program, runs, "kernel"),
        steps=profile(program, runs, "step"),
        memory=memory_of(program, peak),
        first_result=first,
    )


def memory_of(program: CompiledProgram, peak: int) -> Memory:
    """Where the memory of a program goes; ``peak`` is that of a process that ran it, in bytes."""
    blocks = tuple(
        Block(buffer.name, buffer.offset, evaluate(buffer.nbytes, {}), buffer.first, buffer.last)
        for buffer in program.buffers
        if buffer.kind == "scratch"
    )
    return Memory(
        arena=program.arena_bytes,
        largest_live=largest_live(blocks),
        weights=sum(nbytes(transform.shape, transform.dtype) for transform in program.transforms),
        states=sum(nbytes(state.shape, state.dtype) for state in program.states),
        peak_process=peak,
        steps=len(program.steps),
        blocks=blocks,
    )


def first_result(job: Job, name: str, inputs: Mapping[str, Array]) -> tuple[FirstResult, int]:
    """The times of a fresh process, and its peak memory in bytes. One that does not count fills the
    caches."""
    given = {
        "selector": job.selector,
        "threads": job.config.bench.threads,
        "program": str(job.program_file(name)),
        "weights": str(job.prepared_weights),
        "inputs": [(key, value.shape, value.dtype.name) for key, value in inputs.items()],
    }
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-c", FIRST_RESULT, json.dumps(given)],
            text=True,
            check=False,
            capture_output=True,
            env=_environment(),
            timeout=600,
        )
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise BenchError(f"{job.label}: a fresh process could not run {name}: {last}")
    times = json.loads(done.stdout.splitlines()[-1])
    peak = times.pop("peak")
    return FirstResult(**times), peak


def _summary(program: ProgramBench, named: bool) -> str:
    return (
        f"{program.program + ' ' if named else ''}{program.median_ms:.2f} ms "
        f"(p10 {program.p10_ms:.2f}, p90 {program.p90_ms:.2f})"
    )
