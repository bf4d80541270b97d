"""``python -m benchmarks.language_models MODEL``: what it takes to build and run a language model.

Each stage runs in a process of its own, of which seconds and the largest resident memory are printed: fetch,
the extraction and the compilation of each program, the preparation of weights, and a run of a prompt and of
tokens behind it. Files go to a folder of its own below ``artifacts``, and ``--keep`` leaves them there.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.generation_bench import peak_memory

ROOT = Path(__file__).resolve().parents[1]
#: What the requirements allow: stage -> seconds, GiB (None: no limit).
LIMITS: dict[str, tuple[float, float]] = {"extract": (60.0, 1.0), "compile": (10.0, 1.0)}


def job_of(model: str) -> Any:
    from pipelines.config import find_config
    from pipelines.job import Job

    config = find_config(ROOT, model)
    return Job(ROOT, config.model_copy(update={"name": f"measured-{model}"}), config.target)


def fetch(job: Any, _: argparse.Namespace) -> dict[str, Any]:
    from pipelines import fetch as stage

    stage.run(job)
    return {"weights": json.loads(job.source_info.read_text())["label"]}


def extract(job: Any, options: argparse.Namespace) -> dict[str, Any]:
    from pipelines.extract import build_weightless, extract_program

    program = job.config.programs[options.program]
    model, device = build_weightless(job.config)
    ir = extract_program(job.config.name, model, program, device)
    ir.save(job.ir(options.program))
    return {"nodes": len(ir.nodes)}


def compile_program(job: Any, options: argparse.Namespace) -> dict[str, Any]:
    from npu_compiler import compile_ir

    program = compile_ir(job.ir(options.program), target=job.target, precision=job.config.precision,
                         program=options.program)
    program.save(job.npubin(options.program))
    return {"kernels": len(program.kernels), "steps": len(program.steps), "arena": program.arena_bytes}


def weights(job: Any, _: argparse.Namespace) -> dict[str, Any]:
    from npu_runtime.program import CompiledProgram
    from npu_runtime.weight_loader import prepare_file

    programs = [CompiledProgram.load(job.npubin(name)) for name in job.programs]
    wanted = {item.name: item for program in programs for item in program.transforms}
    prepare_file(job.source_weights, wanted.values(), job.prepared_weights)
    return {"bytes": job.prepared_weights.stat().st_size}


def run(job: Any, options: argparse.Namespace) -> dict[str, Any]:
    """A prompt of random tokens, then tokens one by one, from the prepared weights."""
    from npu_runtime.device import Device
    from npu_runtime.executor import Executor
    from npu_runtime.program import CompiledProgram
    from npu_runtime.safetensors_file import SafetensorsFile
    from npu_runtime.weight_loader import load_weights

    device = Device()
    prefill, decode = (
        Executor(CompiledProgram.load(job.npubin(name)), device) for name in ("prefill", "decode"))
    source = job.source_weights if options.original else job.prepared_weights
    loaded = load_weights(source, prefill.program, device)
    vocabulary = job.config.factory_args["config"]["vocab_size"]
    ids = np.random.default_rng(0).integers(0, vocabulary, (1, options.prompt))
    start = time.perf_counter()
    outputs = prefill.run({"input_ids": ids, "attention_mask": np.ones_like(ids),
                           "position_ids": np.arange(options.prompt)[None]}, loaded)
    token = int(outputs["logits"].to_numpy().argmax())
    prefilled, tokens = time.perf_counter() - start, [token]
    room = next(spec.shape[1] for spec in decode.program.input_specs if spec.name == "attention_mask")
    times = []
    for position in range(options.prompt, options.prompt + options.tokens):
        start = time.perf_counter()
        logits = decode.run(
            {"input_ids": np.array([[token]]), "cache_position": np.array([position]),
             "position_ids": np.array([[position]]),
             "attention_mask": (np.arange(room) <= position).astype(np.int64)[None]},
            loaded)["logits"].to_numpy()
        assert np.isfinite(logits).all()
        token = int(logits.argmax())
        tokens.append(token)
        times.append(time.perf_counter() - start)
    original = SafetensorsFile(job.source_weights)
    size = sum(end - begin for begin, end in (entry.data_offsets for entry in original.entries.values()))
    return {"prefill_s": round(prefilled, 2), "decode_ms": round(float(np.median(times)) * 1e3, 1),
            "device_bytes": loaded.tensors.nbytes, "weight_bytes": size,
            "device_share": round(loaded.tensors.nbytes / size, 4), "tokens": tokens}


STAGES: dict[str, Callable[[Any, argparse.Namespace], dict[str, Any]]] = {
    "fetch": fetch, "extract": extract, "compile": compile_program, "weights": weights, "run": run}


def child(options: argparse.Namespace) -> None:
    start = time.perf_counter()
    said = STAGES[options.stage](job_of(options.model), options)
    took = {"seconds": round(time.perf_counter() - start, 2), "peak_gib": round(peak_memory() / 2**30, 3)}
    print(json.dumps({**took, **said}))


def measure(arguments: list[str], stage: str, program: str = "") -> bool:
    """Runs a stage in a process of its own and prints what it took. Returns whether it keeps its limits."""
    command = [sys.executable, "-m", "benchmarks.language_models", *arguments, "--stage", stage]
    done = subprocess.run([*command, "--program", program], cwd=ROOT, capture_output=True, text=True,
                          check=False, env={**os.environ, "PYTHONPATH": f"{ROOT / 'npu'}:{ROOT}"})
    if done.returncode:
        print(f"{stage} {program}: FAILED: {(done.stderr.strip().splitlines() or ['no message'])[-1]}")
        return False
    found = json.loads(done.stdout.splitlines()[-1])
    seconds, gib = LIMITS.get(stage, (float("inf"), float("inf")))
    kept = found["seconds"] <= seconds and found["peak_gib"] <= gib and found.get("device_share", 0) <= 1.1
    rest = ", ".join(f"{key} {value}" for key, value in found.items() if key not in ("seconds", "peak_gib"))
    print(f"{stage:8} {program:8} {found['seconds']:8.2f} s {found['peak_gib']:7.3f} GiB   "
          f"{'' if kept else 'ABOVE ITS LIMIT   '}{rest}", flush=True)
    return kept


def main() -> int:
    parser = argparse.ArgumentParser("python -m benchmarks.language_models", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a name in configs/models")
    parser.add_argument("--prompt", type=int, default=128, help="tokens of the prompt")
    parser.add_argument("--tokens", type=int, default=16, help="tokens decoded behind it")
    parser.add_argument("--original", action="store_true", help="run from weights that are not prepared")
    parser.add_argument("--only", help="stages to run, with a comma between", default=",".join(STAGES))
    parser.add_argument("--stage", help=argparse.SUPPRESS)
    parser.add_argument("--program", default="", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.stage:
        child(options)
        return 0
    job = job_of(options.model)
    job.prepared_weights.parent.mkdir(parents=True, exist_ok=True)
    arguments = [value for value in sys.argv[1:] if value]
    kept = True
    for stage in options.only.split(","):
        for program in job.programs if stage in ("extract", "compile") else ("",):
            kept &= measure(arguments, stage, program)
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
