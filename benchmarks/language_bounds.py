"""``python -m benchmarks.language_bounds MODEL``: a language model's speed against what the machine can do.

In one process, in rounds that alternate: decode steps against the bandwidth of reading memory once (the
weights that a step reads, over its time), and a prompt against numpy's float32 matrix product (the prompt's
operations, over its time). With ``--caches 512,8192`` also decode steps at one position with caches of these
lengths.

Needs ``doit weights:MODEL``, and a machine that does nothing else.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from npu_runtime.device import Device
from npu_runtime.executor import Executor
from npu_runtime.program import CompiledProgram
from npu_runtime.symbols import evaluate
from npu_runtime.weight_loader import Weights, load_weights
from pipelines import roofline
from pipelines.config import find_config
from pipelines.job import Job

ROOT = Path(__file__).resolve().parents[1]
#: Sides of numpy's matrices.
SIDE = 1536


def job_of(model: str, **changes: Any) -> Job:
    config = find_config(ROOT, model).model_copy(update=changes)
    return Job(ROOT, config, config.target)


def prompt_inputs(length: int, vocabulary: int) -> dict[str, Any]:
    ids = np.random.default_rng(length).integers(0, vocabulary, (1, length))
    return {"input_ids": ids, "attention_mask": np.ones_like(ids), "position_ids": np.arange(length)[None]}


def step_inputs(position: int, room: int) -> dict[str, Any]:
    mask = (np.arange(room) <= position).astype(np.int64)[None]
    return {"input_ids": np.array([[1]]), "cache_position": np.array([position]),
            "position_ids": np.array([[position]]), "attention_mask": mask}


def room_of(program: CompiledProgram) -> int:
    return int(next(spec.shape[1] for spec in program.input_specs if spec.name == "attention_mask"))


def vocabulary_of(program: CompiledProgram) -> int:
    return int(next(spec.shape[-1] for spec in program.output_specs if spec.name == "logits"))


def seconds(run: Callable[[], object], times: int) -> float:
    start = time.perf_counter()
    for _ in range(times):
        run()
    return (time.perf_counter() - start) / times


def runner(executor: Executor, inputs: Mapping[str, object], weights: Weights) -> Callable[[], object]:
    """A run that reads what generation reads: the token where the program chooses one."""
    name = "token" if any(spec.name == "token" for spec in executor.program.output_specs) else "logits"
    return lambda: executor.run(inputs, weights)[name].to_numpy()


def bounds(model: str, rounds: int, length: int, position: int) -> None:
    """Decode against bandwidth, a prompt against numpy."""
    job, device = job_of(model), Device()
    prefill, decode = (
        Executor(CompiledProgram.load(job.npubin(name)), device) for name in ("prefill", "decode"))
    weights = load_weights(job.prepared_weights, decode.program, device)
    read_prompt = runner(prefill, prompt_inputs(length, vocabulary_of(prefill.program)), weights)
    step = runner(decode, step_inputs(position, room_of(decode.program)), weights)
    values = {symbol.name: length for symbol in prefill.program.symbols}
    work = sum(evaluate(item.cost.flops, values) for item in prefill.program.steps)
    left = np.random.default_rng(0).random((SIDE, SIDE), np.float32)
    read_prompt(), step(), left @ left
    found: dict[str, list[float]] = {"read": [], "step": [], "prompt": [], "numpy": []}
    for _ in range(rounds):
        found["read"].append(roofline.measure(device).gbytes)
        found["step"].append(weights.tensors.nbytes / seconds(step, 8) / 1e9)
        found["prompt"].append(work / seconds(read_prompt, 1) / 1e9)
        found["numpy"].append(2 * SIDE**3 / seconds(lambda: left @ left, 2) / 1e9)
    median = {name: float(np.median(rates)) for name, rates in found.items()}
    _say(f"decode at {position}: {weights.tensors.nbytes / median['step'] / 1e6:.2f} ms a step",
         "GB/s of weights", median["step"], "read bandwidth", median["read"], max(found["read"]))
    _say(f"prompt of {length}: {work / median['prompt'] / 1e6:.0f} ms",
         "GFLOP/s", median["prompt"], "numpy's matrix product", median["numpy"], max(found["numpy"]))


def _say(what: str, unit: str, rate: float, limit: str, median: float, best: float) -> None:
    print(f"{what}, {rate:.1f} {unit}: {rate / median:.2f} of the median {limit} ({median:.1f}), "
          f"{rate / best:.2f} of the best")


def caches(model: str, lengths: Sequence[int], rounds: int, position: int) -> None:
    """Decode steps at ``position`` with caches of several lengths, and the ratio of each to the first."""
    from npu_compiler import compile_ir
    from pipelines.extract import build_weightless, extract_program

    device, steps = Device(), []
    for length in lengths:
        job = job_of(model)
        config = job.config.model_copy(
            update={"factory_args": {**job.config.factory_args, "max_cache": length}})
        program = config.programs["decode"]
        mask = program.inputs["attention_mask"].model_copy(update={"shape": (1, length)})
        program = program.model_copy(update={"inputs": {**program.inputs, "attention_mask": mask}})
        module, on = build_weightless(config)
        ir = extract_program(config.name, module, program, on)
        executor = Executor(compile_ir(ir, precision=config.precision, program="decode"), device)
        weights = load_weights(job.source_weights, executor.program, device)
        steps.append(runner(executor, step_inputs(position, length), weights))
    found: list[list[float]] = [[] for _ in steps]
    for step in steps:
        step()
    for number in range(rounds):
        order = range(len(steps)) if number % 2 else reversed(range(len(steps)))
        for index in order:
            found[index].append(seconds(steps[index], 8))
    for index, length in enumerate(lengths):
        ratio = np.median(np.array(found[index]) / np.array(found[0]))
        print(f"cache of {length}, position {position}: {np.median(found[index]) * 1e3:.2f} ms a step, "
              f"ratio {ratio:.3f}")


def main() -> int:
    parser = argparse.ArgumentParser("python -m benchmarks.language_bounds", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a name in configs/models")
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--prompt", type=int, default=128)
    parser.add_argument("--position", type=int, default=300)
    parser.add_argument("--caches", help="lengths of the cache, with a comma between")
    options = parser.parse_args()
    if (load := os.getloadavg()[0]) > 0.5:
        print(f"warning: other work keeps {load:.1f} cores busy; figures may mislead", file=sys.stderr)
    bounds(options.model, options.rounds, options.prompt, options.position)
    if options.caches:
        lengths = [int(text) for text in options.caches.split(",")]
        caches(options.model, lengths, 2 * options.rounds, options.position)
    return 0


if __name__ == "__main__":
    sys.exit(main())
