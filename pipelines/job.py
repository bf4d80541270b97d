"""What a stage is given: one model on one target, and where its artifacts lie.

A stage reads and writes only through the paths of its ``Job``. While it runs, what it makes goes to a staging
folder and is moved into place when the stage has succeeded, so a path of an output must be asked for with
``job`` and never built by hand or kept for later.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from npu_compiler.tuned import DeviceKey
from pipelines.config import ConfigError, ModelConfig, find_config, load_configs, target_names
from pipelines.yaml_source import suggest

#: Artifact name -> path below artifacts/<model>/. ``{program}``: one file per program. Folders have no
#: suffix.
ARTIFACTS: Mapping[str, str] = MappingProxyType({
    "source_weights": "source.safetensors",
    "source_info": "source.json",
    "dataset": "dataset",
    "tokenizer": "tokenizer",
    "ir": "{program}.ir.json",
    "npubin": "{target}/{program}.npubin",
    "parts": "{target}/parts",
    "token_sampler": "{target}/token_sampler.npubin",
    "transforms": "{target}/{program}.transforms.json",
    "kernels": "{target}/kernels",
    "dumps": "{target}/dump",
    "build_info": "{target}/build.json",
    "prepared_weights": "{target}/{model}.safetensors",
    "verify_result": "{target}/verify.{device}.json",
    "bench_result": "{target}/bench.{device}.json",
    "history": "{target}/history.jsonl",
    "peers": "{target}/peers.json",
    "report": "{target}/report.html",
})

#: How lines of a watched stage's standard output begin that are meant for the build's display.
PROGRESS = "\x1e"
SAY = "\x1f"
OUTCOME = "\x1d"


@dataclass(frozen=True)
class Job:
    """One model on one target, and the device that measurements are taken on.

    ``device`` is the device's short name in file names ("pocl"); ``selector`` is what to open it with
    (``npu_runtime.device.Device(job.selector)``; None: the runtime's own choice); ``device_id`` is its full
    name and driver. ``tuned_for``: the device whose tuned entries a compilation may use (None: its kind's).
    """

    root: Path
    config: ModelConfig
    target: str
    device: str = "none"
    selector: str | None = None
    device_id: str = ""
    tuned_for: DeviceKey | None = None
    staging: Path | None = field(default=None, repr=False)
    staged: frozenset[str] = field(default=frozenset(), repr=False)
    watched: bool = field(default=False, repr=False)

    @property
    def label(self) -> str:
        """The model, and the target where it is not the configuration's own: "resnet18",
        "resnet18@nvidia"."""
        return self.config.name + (f"@{self.target}" if self.target != self.config.target else "")

    @property
    def folder(self) -> Path:
        """artifacts/<model>."""
        return self.root / "artifacts" / self.config.name

    @property
    def downloads(self) -> Path:
        """Where downloaded packages are kept, shared by all models."""
        return self.root / "artifacts" / ".downloads"

    @property
    def programs(self) -> tuple[str, ...]:
        """The names of the model's programs, in the order of the configuration."""
        return tuple(self.config.programs)

    def path(self, artifact: str, program: str = "") -> Path:
        """Where ``artifact`` (a name in ``ARTIFACTS``) is read, or written by the stage that makes it."""
        relative = ARTIFACTS[artifact].format(
            program=program, target=self.target, model=self.config.name, device=self.device)
        if artifact in self.staged and self.staging is not None:
            staged = self.staging / relative
            staged.parent.mkdir(parents=True, exist_ok=True)
            return staged
        return self.folder / relative

    def paths(self, artifact: str) -> tuple[Path, ...]:
        """All files (or the folder) of ``artifact``: one per program where it is per program, none where the
        configuration asks for none."""
        verify = self.config.verify
        if artifact == "dataset" and verify.dataset is None and verify.sentences is None:
            return ()
        if artifact in ("tokenizer", "token_sampler") and not self.config.is_language_model:
            return ()
        if artifact == "token_sampler" and "logits" not in self.config.programs["decode"].outputs:
            return ()
        if artifact == ("npubin" if self.config.fallback == "allow" else "parts"):
            return ()
        if "{program}" in ARTIFACTS[artifact]:
            return tuple(self.path(artifact, program) for program in self.programs)
        return (self.path(artifact),)

    @property
    def source_weights(self) -> Path:
        """The model's original state_dict as safetensors."""
        return self.path("source_weights")

    @property
    def source_info(self) -> Path:
        """JSON: {"kind": "file" | "package" | "random" | ..., "label": text for people, ...}."""
        return self.path("source_info")

    @property
    def dataset_dir(self) -> Path:
        """The files of ``verify.dataset`` or ``verify.sentences``, by their base names."""
        return self.path("dataset")

    @property
    def tokenizer_dir(self) -> Path:
        """The tokenizer of a language model, or why there is none: see ``pipelines.tokenizer``."""
        return self.path("tokenizer")

    def ir(self, program: str = "main") -> Path:
        """The extracted graph of ``program``."""
        return self.path("ir", program)

    def npubin(self, program: str = "main") -> Path:
        """The compiled ``program``."""
        return self.path("npubin", program)

    @property
    def token_sampler(self) -> Path:
        """The program that draws a language model's tokens from its logits."""
        return self.path("token_sampler")

    def parts_dir(self, program: str = "main") -> Path:
        """The parts of ``program`` and their placement, instead of ``npubin`` where the configuration allows
        a fallback."""
        return self.path("parts") / program

    def program_file(self, program: str = "main") -> Path:
        """What runs ``program``: its ``npubin``, or the manifest of its parts."""
        if self.config.fallback == "allow":
            return self.parts_dir(program) / "parts.json"
        return self.npubin(program)

    def transforms(self, program: str = "main") -> Path:
        """JSON list of the weight transforms of ``program``."""
        return self.path("transforms", program)

    @property
    def kernels_dir(self) -> Path:
        """kernels/<program>/<entry>.cl."""
        return self.path("kernels")

    @property
    def dump_dir(self) -> Path:
        """dump/<program>/<number>-<pass>.txt."""
        return self.path("dumps")

    @property
    def build_info(self) -> Path:
        """JSON about the compilation: per program its templates and decisions. Provenance, for people."""
        return self.path("build_info")

    @property
    def prepared_weights(self) -> Path:
        """The weights of all programs as the target wants them."""
        return self.path("prepared_weights")

    @property
    def verify_result(self) -> Path:
        """JSON of the verification on ``device``."""
        return self.path("verify_result")

    @property
    def bench_result(self) -> Path:
        """JSON of the benchmark on ``device``."""
        return self.path("bench_result")

    @property
    def history(self) -> Path:
        """One JSON line per benchmark ever run. Only ever appended to; survives rebuilds."""
        return self.path("history")

    @property
    def peers(self) -> Path:
        """JSON of the last comparisons with other ways to run the model; made by ``benchmarks/peers.py``."""
        return self.path("peers")

    @property
    def report(self) -> Path:
        """The HTML report."""
        return self.path("report")

    def progress(self, text: str, done: int = 0, total: int = 0) -> None:
        """Tells whoever watches the build what the stage is doing now; ``total`` 0 means unknown."""
        if self.watched:
            share = f"{done}/{total}" if total else "-"
            print(f"{PROGRESS}{share} {text}", flush=True)

    def say(self, text: str) -> None:
        """One line of result that the build shows under the task: "top-1 18/20, top-5 19/20"."""
        print(f"{SAY if self.watched else ''}{text}", flush=True)

    def say_outcome(self, outcome: str, text: str) -> None:
        """Tells that the stage was not run, and in one word what has become of it instead: "restored",
        "skipped"."""
        print(f"{OUTCOME}{outcome} {text}" if self.watched else text, flush=True)


def job_of(name: str, root: Path) -> Job:
    """The job that "model" or "model@target" means. Raises ``ConfigError``."""
    model, _, target = name.partition("@")
    config = find_config(root, model)
    targets = target_names()
    if target and target not in targets:
        raise ConfigError(f"{name}: unknown target {target}{suggest(target, targets)}")
    return Job(root, config, target or config.target)


def jobs_of(names: Iterable[str], root: Path) -> list[Job]:
    """The jobs that ``names`` mean; without names, those of the default models. Raises ``ConfigError``."""
    return [job_of(name, root) for name in names] or [
        Job(root, config, config.target) for config in load_configs(root).values() if config.default]


def write_atomic(path: Path, data: bytes | str) -> None:
    """Writes ``data`` (text as UTF-8) to ``path``: whole, or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(data.encode() if isinstance(data, str) else data)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
