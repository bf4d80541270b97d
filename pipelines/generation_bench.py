"""``python -m pipelines.generation_bench JSON``: how fast a language model reads a prompt and writes text.

Runs in a process of its own, for its peak memory to be that of nothing else. It is given the files and the
rows as ``Request``, and prints a ``Generation``. """

from __future__ import annotations

import gc
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import msgspec
import numpy as np

from npu_runtime.dag_executor import DAGExecutor
from npu_runtime.device import Device
from npu_runtime.dtypes import nbytes
from npu_runtime.executor import Executor
from npu_runtime.generate import generate
from npu_runtime.weight_loader import Weights, load_weights
from pipelines.programs import open_program
from pipelines.results import Generation, GenerationRow, Record


class Request(Record, frozen=True):
    """The files of a model and what is measured."""

    prefill: str
    decode: str
    weights: str
    selector: str | None
    threads: int | None
    seed: int
    prompts: tuple[int, ...]
    tokens: int
    depths: tuple[int, ...]
    warmup: int
    repeats: int


class GenerationBenchError(ValueError):
    """A language model could not be measured."""


def in_a_fresh_process(request: Request, environment: dict[str, str]) -> Generation:
    """What ``measure`` gives, from a process of its own. Raises ``GenerationBenchError``."""
    command = [sys.executable, "-m", "pipelines.generation_bench", msgspec.json.encode(request).decode()]
    done = subprocess.run(command, text=True, check=False, capture_output=True, env=environment)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise GenerationBenchError(f"a fresh process could not generate: {last}")
    return msgspec.json.decode(done.stdout.splitlines()[-1], type=Generation)


def measure(request: Request) -> Generation:
    """The rows in their order: prompts, then tokens written at each depth."""
    device = Device(request.selector, threads=request.threads)
    prefill, decode = (open_program(Path(file), device) for file in (request.prefill, request.decode))
    weights = load_weights(request.weights, decode.program, device)
    rows = []
    for length in request.prompts:
        seconds = _repeated(request, partial(_first, request, prefill, decode, weights, length))
        rows.append(GenerationRow(f"pp{length}", length, 0, seconds))
    for depth in request.depths:
        seconds = _repeated(request, partial(_written, request, prefill, decode, weights, depth))
        name = f"tg{request.tokens}" + (f" @ d{depth}" if depth else "")
        rows.append(GenerationRow(name, request.tokens, depth, seconds))
    states = {state.name: nbytes(state.shape, state.dtype)
              for program in (prefill.program, decode.program) for state in program.states}
    arenas = sum(executor.program.arena_bytes for executor in (prefill, decode))
    return Generation(tuple(rows), peak_memory(), weights.tensors.nbytes, sum(states.values()), arenas)


Runs = Executor | DAGExecutor


def _repeated(request: Request, once: Callable[[], float]) -> tuple[float, ...]:
    gc.disable()
    try:
        return tuple(once() for _ in range(request.warmup + request.repeats))[request.warmup :]
    finally:
        gc.enable()


def _first(request: Request, prefill: Runs, decode: Runs, weights: Weights, length: int) -> float:
    """Seconds until the first token behind a prompt is chosen."""
    prompt = _prompt(request, prefill, length)
    start = time.perf_counter()
    next(generate(prefill, decode, weights, prompt, max_tokens=1))
    return time.perf_counter() - start


def _written(request: Request, prefill: Runs, decode: Runs, weights: Weights, depth: int) -> float:
    """Seconds for the tokens behind the first that follows a prompt."""
    prompt = _prompt(request, prefill, max(1, depth))
    times = list(_times(generate(prefill, decode, weights, prompt, max_tokens=request.tokens + 1)))
    if len(times) != request.tokens + 1:
        raise GenerationBenchError(
            f"the cache has no room for {request.tokens} tokens behind {depth}; choose other "
            "bench.generation.depths, or a longer cache"
        )
    return times[-1] - times[0]


def _times(pieces: Iterator[object]) -> Iterator[float]:
    for _ in pieces:
        yield time.perf_counter()


def _prompt(request: Request, prefill: Runs, length: int) -> list[int]:
    vocabulary = next(spec.shape[-1] for spec in prefill.program.output_specs if spec.name == "logits")
    random = np.random.default_rng([request.seed, length])
    return [int(token) for token in random.integers(0, int(vocabulary), length)]


def peak_memory() -> int:
    """The largest resident memory of this process so far, in bytes. Linux counts that of the process which
    started this one into ``ru_maxrss``, so its own count is read there."""
    import resource

    status = Path("/proc/self/status")
    for line in status.read_text().splitlines() if status.exists() else ():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    factor = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * factor


if __name__ == "__main__":
    print(msgspec.json.encode(measure(msgspec.json.decode(sys.argv[1], type=Request))).decode())
