"""The stages of the build, as data. ``pipelines.fingerprint`` turns a stage's fields into its key.

To add a stage, add a ``Stage`` to ``STAGES``, and a module whose ``run(job)`` reads and writes the paths of
its ``Job``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pipelines.config import ModelConfig
from pipelines.job import Job


def _never(config: ModelConfig) -> bool:
    return False


def _always(config: ModelConfig) -> bool:
    return True


def _weights_may_be_random(config: ModelConfig) -> bool:
    return config.weights.kind == "random" or config.weights.or_random is not None


def _no_files(job: Job) -> tuple[Path, ...]:
    return ()


def _checkpoint(job: Job) -> tuple[Path, ...]:
    """The user's own files that the weights and the tokenizer come from."""
    weights, found = job.config.weights, []
    if weights.file is not None:
        found.append(job.root / weights.file.path)
    if weights.huggingface is not None and (job.root / weights.huggingface).is_dir():
        found.append(job.root / weights.huggingface)
    if job.config.tokenizer is not None:
        found.append(job.root / job.config.tokenizer)
    return tuple(found)


def _description(job: Job) -> tuple[Path, ...]:
    """``config.json`` of the folder that a factory is given."""
    folder = job.config.factory_args.get("folder")
    path = job.root / folder / "config.json" if isinstance(folder, str) else None
    return (path,) if path is not None and path.is_file() else ()


def _target_file(job: Job) -> tuple[Path, ...]:
    """The target's description."""
    from npu_compiler.resources import config_root
    return (Path(str(config_root())) / "targets" / f"{job.target}.yaml",)


def _comparisons(job: Job) -> tuple[Path, ...]:
    return (job.peers,) if job.peers.is_file() else ()


@dataclass(frozen=True)
class Stage:
    """What a stage reads, makes and is shaped by. It reruns when any of that has changed, and for nothing
    else.

    ``run`` is "module:function", called with a ``Job`` in a process of its own. ``after`` names the stages
    that make what it ``reads``; ``reads`` and ``makes`` are names in ``pipelines.job.ARTIFACTS``; ``files``
    are further inputs. ``knobs`` are dotted keys of the configuration. ``code`` are packages (all modules)
    and modules whose source shapes the output, ``libraries`` distributions whose version does,
    ``templates`` folders below templates/ of which it includes some. ``builds_model`` says whether it calls
    the model's factory, whose own modules then count as code. A stage with ``device`` runs on an OpenCL
    device, whose name and driver count; an ``exclusive`` one runs alone. A ``tuned`` one may read entries of
    configs/tuning; those that its last run looked up count, one by one. A ``quick`` one is done in seconds
    and is rehearsed to foresee what it would make.
    """

    name: str
    run: str
    doc: str
    after: tuple[str, ...] = ()
    reads: tuple[str, ...] = ()
    makes: tuple[str, ...] = ()
    files: Callable[[Job], tuple[Path, ...]] = _no_files
    knobs: tuple[str, ...] = ()
    code: tuple[str, ...] = ()
    libraries: tuple[str, ...] = ()
    templates: tuple[str, ...] = ()
    builds_model: Callable[[ModelConfig], bool] = _never
    per_target: bool = True
    device: bool = False
    exclusive: bool = False
    tuned: bool = False
    quick: bool = False

    @property
    def shared(self) -> bool:
        """Whether what it makes is the same wherever it is made, and may be taken from another machine."""
        return not self.device


STAGES: tuple[Stage, ...] = (
    Stage(
        "fetch", "pipelines.fetch:run", "gets the original weights and the data set",
        makes=("source_weights", "source_info", "dataset", "tokenizer"), files=_checkpoint,
        knobs=("weights", "tokenizer", "verify.dataset.package", "verify.dataset.version",
               "verify.dataset.sha256", "verify.dataset.files", "verify.sentences.package",
               "verify.sentences.version", "verify.sentences.sha256", "verify.sentences.tokenizer"),
        code=("pipelines.fetch", "pipelines.checkpoint", "pipelines.huggingface",
              "pipelines.gguf_checkpoint", "pipelines.gguf_file", "pipelines.packages", "pipelines.factory",
              "pipelines.reads",
              "pipelines.tokenizer_source", "pipelines.gguf_tokenizer", "pipelines.token_bytes"),
        libraries=("torch", "safetensors", "gguf", "huggingface_hub", "tokenizers"),
        builds_model=_weights_may_be_random, per_target=False,
    ),
    Stage(
        "extract", "pipelines.extract:run", "turns the PyTorch module into ir.json, one per program",
        makes=("ir",), files=_description, knobs=("programs",),
        code=("torch_ir", "pipelines.extract", "pipelines.factory", "pipelines.reads",
              "pipelines.huggingface"),
        libraries=("torch",), builds_model=_always, per_target=False,
    ),
    Stage(
        "compile", "pipelines.compile:run", "compiles the IR into .npubin programs", after=("extract",),
        reads=("ir",),
        makes=("npubin", "parts", "token_sampler", "transforms", "kernels", "dumps", "build_info"),
        files=_target_file,
        knobs=("precision", "fallback", "compile"), templates=("ops", "lib"),
        code=("npu_compiler", "npu_runtime.program", "npu_runtime.npubin", "torch_ir.ir", "torch_ir.expr",
              "torch_ir.serialize", "torch_ir.file_entries", "torch_ir.decompose", "torch_ir.tracing",
              "pipelines.compile", "pipelines.tuning_files"),
        libraries=("jinja2", "numpy", "ml_dtypes", "msgspec", "torch"), tuned=True, quick=True,
    ),
    Stage(
        "weights", "pipelines.weights:run", "prepares the weights as the programs want them",
        after=("fetch", "compile"), reads=("source_weights", "transforms"), makes=("prepared_weights",),
        code=("npu_runtime.transforms", "npu_runtime.weight_loader", "npu_runtime.weight_sources",
              "npu_runtime.safetensors_file", "npu_runtime.program", "npu_runtime.dtypes",
              "pipelines.weights"),
        libraries=("numpy", "ml_dtypes", "safetensors"),
    ),
    Stage(
        "verify", "pipelines.verify:run", "compares the programs with PyTorch, and fails past the tolerance",
        after=("fetch", "extract", "compile", "weights"),
        reads=("source_weights", "dataset", "tokenizer", "ir", "npubin", "parts", "prepared_weights"),
        makes=("verify_result",), files=_description,
        knobs=("verify", "programs", "precision"),
        code=("npu_runtime", "torch_ir.eager", "npu_compiler.parts", "npu_compiler.parts_file",
              "pipelines.programs", "pipelines.verify", "pipelines.comparison", "pipelines.first_jump",
              "pipelines.reference", "pipelines.extract", "pipelines.huggingface",
              "pipelines.inputs", "pipelines.datasets", "pipelines.metrics",
              "pipelines.sentences", "pipelines.results", "pipelines.factory", "pipelines.continuations",
              "pipelines.chat", "pipelines.reads",
              "pipelines.tokenizer", "pipelines.token_bytes"),
        libraries=("torch", "numpy", "pillow", "tokenizers"), builds_model=_always, device=True,
    ),
    Stage(
        "bench", "pipelines.bench:run", "measures latency, throughput and every kernel",
        after=("compile", "weights"), reads=("npubin", "parts", "transforms", "prepared_weights"),
        makes=("bench_result",),
        knobs=("bench", "programs", "precision"),
        code=("npu_runtime", "torch_ir.eager", "npu_compiler.parts", "npu_compiler.parts_file",
              "pipelines.programs", "pipelines.bench", "pipelines.generation_bench", "pipelines.inputs",
              "pipelines.results", "pipelines.roofline", "npu_compiler.resources"), templates=("probes",),
        libraries=("numpy", "pyopencl"), device=True, exclusive=True,
    ),
    Stage(
        "report", "pipelines.report:run", "writes the HTML report", after=("fetch", "verify", "bench"),
        reads=("source_info", "verify_result", "bench_result", "npubin", "parts"), makes=("report",),
        files=_comparisons, knobs=("description",), templates=("report",),
        code=("pipelines.report", "pipelines.roofline", "pipelines.peer_results", "pipelines.results",
              "npu_runtime.program"),
        libraries=("jinja2",), device=True,
    ),
)
