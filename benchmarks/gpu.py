"""Times compiled models on a GPU beside PyTorch on the same card, in one sitting, and writes a record.

    python benchmarks/gpu.py --device nvidia --target nvidia --profile --json benchmarks/records/h100.json
    python benchmarks/gpu.py resnet18-1 --no-peers --profile

Weights are random from a seed. Results are compared with PyTorch's in float32 of the same weights before
anything is timed; PyTorch's own results in the model's dtype are measured by the same yardstick. All times
are wall clock from the call to the synchronised end, inputs on the device. Needs PyTorch with CUDA, and
transformers for Qwen2.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import types
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from gpu_peers import Rival, convolutional, transformers_qwen

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "npu"), str(ROOT)]

QWEN = {
    "architecture": "Qwen2ForCausalLM",
    "max_cache": 2048,
    "dtype": "bfloat16",
    "config": {
        "vocab_size": 151936, "hidden_size": 1536, "intermediate_size": 8960, "num_hidden_layers": 28,
        "num_attention_heads": 12, "num_key_value_heads": 2, "rms_norm_eps": 1e-6,
        "max_position_embeddings": 32768, "tie_word_embeddings": True,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1000000.0},
    },
}  # fmt: skip
PROMPT, POSITION = 512, 128


def resnet(batch: int) -> tuple[Any, dict[str, Any]]:
    """ResNet-18 in float16 and its input."""
    import torch

    from pipelines.zoo.resnet import resnet18

    torch.manual_seed(0)
    return resnet18().eval().half(), {"x": torch.randn(batch, 3, 224, 224).half()}


def qwen(method: str, layers: int = 28) -> tuple[Any, dict[str, Any]]:
    """Qwen2.5-1.5B's graph in bfloat16, on the meta device; a prompt, or one step behind POSITION tokens."""
    import torch

    from pipelines.zoo.causal_lm import causal_lm

    with torch.device("meta"):
        model = causal_lm(**{**QWEN, "config": {**QWEN["config"], "num_hidden_layers": layers}})  # type: ignore[dict-item]
    forward = getattr(type(model), method)
    model.__class__ = types.new_class("Step", (type(model),), {}, lambda body: body.update(forward=forward))
    generator = torch.Generator().manual_seed(1)
    if method == "prefill":
        ids = torch.randint(0, 151936, (1, PROMPT), generator=generator)
        ones, places = torch.ones_like(ids), torch.arange(PROMPT)[None]
        return model, {"input_ids": ids, "attention_mask": ones, "position_ids": places}
    at = torch.tensor([POSITION])
    mask = (torch.arange(2048) <= POSITION).long()[None]
    step = {"input_ids": torch.tensor([[9707]]), "cache_position": at, "position_ids": at[None]}
    return model, {**step, "attention_mask": mask}


WORKS: Mapping[str, Callable[[], tuple[Any, dict[str, Any]]]] = {
    "resnet18-1": lambda: resnet(1),
    "resnet18-64": lambda: resnet(64),
    "qwen2-decode": lambda: qwen("decode"),
    "qwen2-prefill": lambda: qwen("prefill"),
}


def fill(model: Any) -> Any:
    """The model on the card with weights, and states, that are random where it has none."""
    import torch

    if not any(parameter.is_meta for parameter in model.parameters()):
        return model.cuda()
    tables = {name: buffer for name, buffer in model.named_buffers() if not buffer.is_meta}
    model = model.to_empty(device="cuda")
    model.tie_weights()
    torch.manual_seed(2)
    with torch.no_grad():
        for name, tensor in (*model.named_parameters(), *model.named_buffers()):
            if name in tables:
                tensor.copy_(tables[name])
            elif tensor.dim() > 1:
                width = 1.0 if name.startswith("cache") else tensor.shape[1]
                tensor.copy_(torch.randn(tensor.shape, device="cuda") * width**-0.5)
            else:
                tensor.copy_(torch.randn(tensor.shape, device="cuda") * 0.1 + float("norm" in name))
    return model


def array(tensor: Any) -> np.ndarray[Any, Any]:
    import torch

    tensor = tensor.detach().cpu().contiguous()
    if tensor.dtype == torch.bfloat16:
        return np.asarray(tensor.view(torch.int16).numpy().view(ml_dtypes.bfloat16))
    return np.asarray(tensor.numpy())


def spread(samples: Sequence[float]) -> dict[str, Any]:
    """Milliseconds: the median, the 10th and the 90th percentile, and all."""
    ordered = sorted(samples)
    return {
        "median_ms": round(statistics.median(ordered), 4),
        "p10_ms": round(ordered[len(ordered) // 10], 4),
        "p90_ms": round(ordered[len(ordered) * 9 // 10], 4),
        "samples": len(ordered),
    }


def timed(
    step: Callable[[], object], warmup: int, repeats: int, before: Callable[[], None] = lambda: None
) -> list[float]:
    """Milliseconds of every step; ``before`` each of them is not counted."""
    for _ in range(warmup):
        before()
        step()
    samples = []
    for _ in range(repeats):
        before()
        start = time.perf_counter()
        step()
        samples.append((time.perf_counter() - start) * 1e3)
    return samples


def error(got: Any, expected: Any) -> float:
    difference = got.astype(np.float64) - expected.astype(np.float64)
    return float(np.linalg.norm(difference) / np.linalg.norm(expected.astype(np.float64)))


def reference(name: str, folder: Path) -> dict[str, Any]:
    """Writes the graph, weights, inputs and PyTorch's result in float32 to ``folder``."""
    import torch
    from safetensors.torch import save_file

    from torch_ir import extract_ir

    model, inputs = WORKS[name]()
    if not (folder / "main.ir.json").is_file():
        extract_ir(model, inputs, model_name=name).save(folder / "main.ir.json")
    model = fill(model)
    tensors = {key: value.clone().contiguous() for key, value in model.state_dict().items()}
    save_file(tensors, folder / "weights.safetensors")
    held = {key: value.clone() for key, value in model.named_buffers()}
    save_file({key: value.clone() for key, value in held.items()}, folder / "held.safetensors")
    np.savez(folder / "inputs.npz", **{key: array(value) for key, value in inputs.items()})
    on_card = {key: value.cuda() for key, value in inputs.items()}
    with torch.no_grad():
        eager = array(model(**on_card).float())
        for key, value in model.named_buffers():
            value.copy_(held[key])
        wide = {key: value.float() if value.is_floating_point() else value for key, value in on_card.items()}
        expected = array(model.float()(**wide))
    np.save(folder / "expected.npy", expected)
    return {"eager_error_to_float32": error(eager, expected)}


def ours(folder: Path, args: argparse.Namespace) -> dict[str, Any]:
    """Compiles, compares and times the program."""
    from npu_compiler import compile_ir
    from npu_runtime.buffer import NPUBuffer, as_bytes
    from npu_runtime.device import Device
    from npu_runtime.executor import Executor
    from npu_runtime.weight_loader import load_weights

    device = Device(args.device)
    start = time.perf_counter()
    program = compile_ir(folder / "main.ir.json", target=args.target, check_indices=False)
    compiled = time.perf_counter()
    program.save(folder / "main.npubin")
    executor = Executor(program, device)
    built = time.perf_counter()
    weights = load_weights(folder / "weights.safetensors", program, device)
    inputs = np.load(folder / "inputs.npz").items()
    given = {key: NPUBuffer.from_numpy(value, device) for key, value in inputs}
    held = safetensors_arrays(folder / "held.safetensors")
    for spec in program.states:
        device.write(weights.state(spec), as_bytes(held[spec.name]))
    first = next(iter(executor.run(given, weights).values())).to_numpy()
    row: dict[str, Any] = {
        "device": device.name,
        "driver": device.driver,
        "program_sha256": hashlib.sha256((folder / "main.npubin").read_bytes()).hexdigest(),
        "kernels": len(program.steps),
        "compile_s": round(compiled - start, 2),
        "build_s": round(built - compiled, 2),
        "load_s": round(time.perf_counter() - built, 2),
        "arena_mb": round(int(program.arena_bytes) / 1e6, 2),
        "error_to_float32": error(first, np.load(folder / "expected.npy")),
        "npubin": spread(timed(lambda: executor.run(given, weights), args.warmup, args.repeats)),
    }
    if args.profile:
        _, times = executor.run_timed(given, weights)
        busy: dict[str, list[float]] = defaultdict(list)
        for item in times:
            busy[program.steps[item.step].kernel.split("_h")[0]].append((item.end - item.start) / 1e3)
        row["device_us"] = round(sum(map(sum, busy.values())), 1)
        shares = sorted(busy.items(), key=lambda item: -sum(item[1]))
        row["by_kernel"] = {key: [len(v), round(sum(v), 1)] for key, v in shares[:24]}
    return row


def safetensors_arrays(path: Path) -> dict[str, np.ndarray[Any, Any]]:
    from safetensors.numpy import load_file

    return dict(load_file(path))


def peers(name: str, args: argparse.Namespace) -> dict[str, Any]:
    """PyTorch eager and compiled with CUDA graphs."""
    import torch

    results: dict[str, Any] = {"torch": torch.__version__}
    if name.startswith("qwen2"):
        import transformers

        results["transformers"] = transformers.__version__
    with torch.no_grad():
        if name.startswith("qwen2"):
            rivals = transformers_qwen(QWEN["config"], PROMPT if name == "qwen2-prefill" else None, POSITION)
        else:
            model, inputs = WORKS[name]()
            rivals = convolutional(model, inputs["x"])
        for kind, rival in rivals.items():

            def step(rival: Rival = rival) -> None:
                rival.step()
                torch.cuda.synchronize()

            def before(rival: Rival = rival) -> None:
                if rival.before:
                    rival.before()
                    torch.cuda.synchronize()

            try:
                results[kind] = spread(timed(step, args.warmup, args.repeats, before))
            except Exception as problem:  # a peer that cannot run is told, not hidden
                results[kind] = {"failed": f"{type(problem).__name__}: {problem}"[:300]}
    return results


def part(what: str, name: str, folder: Path, args: argparse.Namespace) -> dict[str, Any]:
    """Runs one part in a process of its own: CUDA and OpenCL in one process disturb each other."""
    own = [sys.executable, __file__, name, "--part", what, "--folder", str(folder), "--device", args.device]
    own += ["--target", args.target, "--warmup", str(args.warmup), "--repeats", str(args.repeats)]
    own += ["--profile"] if args.profile else []
    done = subprocess.run(own, capture_output=True, text=True, check=False)
    lines = done.stdout.strip().splitlines()
    if done.returncode or not lines:
        return {"failed": f"{what} ended with {done.returncode}: {done.stderr.strip()[-2000:]}"}
    return dict(json.loads(lines[-1]))


def measure(name: str, args: argparse.Namespace) -> dict[str, Any]:
    """The row of one work."""
    with tempfile.TemporaryDirectory(prefix="npubin-gpu-") as made:
        folder = Path(made)
        graph = args.ir / f"{name}.ir.json" if args.ir else None
        if graph is not None and graph.is_file():
            shutil.copy(graph, folder / "main.ir.json")
        row = part("reference", name, folder, args)
        if "failed" not in row:
            row |= part("ours", name, folder, args)
        if args.peers and "failed" not in row:
            row["peers"] = part("peers", name, folder, args)
    return row


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("works", nargs="*", default=list(WORKS), help=f"of {', '.join(WORKS)}")
    parser.add_argument("--device", default="nvidia")
    parser.add_argument("--target", default="nvidia")
    parser.add_argument("--ir", type=Path, help="folder of extracted graphs, <work>.ir.json")
    parser.add_argument("--no-peers", dest="peers", action="store_false")
    parser.add_argument("--profile", action="store_true", help="device time by kernel as well")
    parser.add_argument("--warmup", type=int, default=5)
    parser.add_argument("--repeats", type=int, default=50)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--part", choices=["reference", "ours", "peers"], help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    unknown = set(args.works) - WORKS.keys()
    if unknown:
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    if args.part:
        name = args.works[0]
        runs = {"reference": lambda: reference(name, args.folder), "ours": lambda: ours(args.folder, args)}
        print(json.dumps(runs.get(args.part, lambda: peers(name, args))()), flush=True)
        return 0
    record: dict[str, Any] = {"target": args.target, "works": {}}
    if args.json and args.json.is_file():  # rows of other works stay
        record = json.loads(args.json.read_text())
    for name in args.works:
        row = record["works"][name] = measure(name, args)
        if "failed" in row:
            print(f"{name}: {row['failed']}", flush=True)
            continue
        rivals = {k: v["median_ms"] for k, v in row.get("peers", {}).items() if "median_ms" in v}
        errors = f"error {row['error_to_float32']:.2e} (eager {row['eager_error_to_float32']:.2e})"
        print(f"{name}: {row['npubin']} {errors}, {row['kernels']} kernels, peers {rivals}", flush=True)
        for key, value in row.get("by_kernel", {}).items():
            print(f"    {value[1]:9.1f} us {value[0]:4d} x {key}", flush=True)
        if args.json:
            args.json.parent.mkdir(parents=True, exist_ok=True)
            args.json.write_text(json.dumps(record, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
