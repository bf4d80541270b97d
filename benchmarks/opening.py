"""Ways to run a model on this machine, each opened as a function of no arguments: what peers.py compares."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

ROOT = Path(__file__).resolve().parents[1]

#: Runs the model once: the first output for the input that it was opened with.
Step: TypeAlias = Callable[[], Any]

#: Whose outputs the others must give.
REFERENCE = "pytorch"
OURS = "npubin"
#: Ours on the second CPU runtime, where it is installed.
INTEL = "npubin-intel"


@dataclass(frozen=True)
class Work:
    """What a peer is asked to run."""

    model: str
    target: str
    device: str | None
    threads: int
    seed: int = 0
    root: str = str(ROOT)


class PeerError(RuntimeError):
    """A peer cannot run, or gives other results."""


def open_npubin(work: Work) -> tuple[Step, str]:
    """Our compiled program, from files."""
    from npu_runtime.device import Device
    from npu_runtime.executor import Executor
    from npu_runtime.program import CompiledProgram
    from npu_runtime.weight_loader import load_weights

    job = job_of(work)
    for path in (job.npubin("main"), job.prepared_weights):
        if not path.is_file():
            raise PeerError(f"{path.relative_to(work.root)} is missing; build it: doit weights:{work.model}")
    device = Device(work.device, threads=work.threads)
    program = CompiledProgram.load(job.npubin("main"))
    executor = Executor(program, device)
    weights = load_weights(job.prepared_weights, program, device)
    inputs, output = inputs_of(work), program.output_specs[0].name
    return lambda: executor.run(inputs, weights)[output].to_numpy(), f"{device.vendor} {device.driver}"


def open_on_intel(work: Work) -> tuple[Step, str]:
    """Our compiled program on Intel's CPU runtime."""
    return open_npubin(replace(work, device="intel"))


def open_pytorch(work: Work) -> tuple[Step, str]:
    """Eager PyTorch."""
    import torch

    torch.set_num_threads(work.threads)
    model = reference_of(work).module
    inputs = {name: torch.from_numpy(value) for name, value in inputs_of(work).items()}

    def step() -> Any:
        with torch.inference_mode():
            return model(**inputs).numpy()

    return step, torch.__version__


def open_onnxruntime(work: Work) -> tuple[Step, str]:
    """ONNX Runtime's CPU provider, all graph optimisations."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = work.threads, 1
    session = onnxruntime.InferenceSession(onnx_file(work), options, providers=["CPUExecutionProvider"])
    feed = dict(zip([item.name for item in session.get_inputs()], inputs_of(work).values(), strict=True))
    return lambda: session.run(None, feed)[0], onnxruntime.__version__


def open_openvino(work: Work) -> tuple[Step, str]:
    """OpenVINO's CPU plugin, latency hint, float32."""
    import openvino

    compiled = openvino.Core().compile_model(
        str(onnx_file(work)),
        "CPU",
        {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": "f32",
            "INFERENCE_NUM_THREADS": work.threads,
            "ENABLE_CPU_PINNING": False,
        },
    )
    request, feed = compiled.create_infer_request(), list(inputs_of(work).values())
    return lambda: request.infer(feed)[0], openvino.__version__.partition("-")[0]


PEERS: dict[str, Callable[[Work], tuple[Step, str]]] = {
    OURS: open_npubin,
    INTEL: open_on_intel,
    "onnxruntime": open_onnxruntime,
    "openvino": open_openvino,
    REFERENCE: open_pytorch,
}


def job_of(work: Work) -> Any:
    """The build's job, for its paths."""
    from pipelines.config import find_config
    from pipelines.job import Job

    root = Path(work.root)
    config = find_config(root, work.model)
    if list(config.programs) != ["main"]:
        raise PeerError(
            f"{work.model} has the programs {', '.join(config.programs)}; only models with one "
            "program called main can be compared"
        )
    return Job(root, config, work.target)


def reference_of(work: Work) -> Any:
    """The PyTorch module with the weights that the build fetched."""
    from pipelines.reference import Reference

    job = job_of(work)
    if not job.source_weights.is_file():
        raise PeerError(
            f"{job.source_weights.relative_to(work.root)} is missing; build it: doit fetch:{work.model}"
        )
    return Reference(job.config, job.source_weights)


def inputs_of(work: Work) -> dict[str, Any]:
    """The same made-up inputs for every peer."""
    from pipelines.inputs import made_up_inputs, upper_sizes

    config = job_of(work).config
    return made_up_inputs(config.programs["main"], upper_sizes(config, config.bench.sizes), (work.seed,))


def onnx_file(work: Work) -> Path:
    """The model as ONNX with its weights, exported once for each content of the weights and size of the
    inputs."""
    from pipelines.results import file_digest

    digest = file_digest(job_of(work).source_weights)[:16]
    sizes = "_".join("x".join(map(str, value.shape)) for value in inputs_of(work).values())
    path = Path(work.root) / "artifacts" / ".peers" / f"{work.model}-{digest}-{sizes}.onnx"
    if not path.is_file():
        import torch

        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(".tmp.onnx")
        inputs = {name: torch.from_numpy(value) for name, value in inputs_of(work).items()}
        torch.onnx.export(
            reference_of(work).module,
            kwargs=inputs,
            f=str(temporary),
            dynamo=True,
            external_data=False,
            verbose=False,
        )
        temporary.replace(path)
    return path
