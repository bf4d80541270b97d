"""Weights as Hugging Face publishes them: folders that ``transformers`` itself wrote, whole and in shards."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file

from pipelines.config import ConfigError, load_config
from pipelines.execute import execute
from pipelines.huggingface import Unreachable
from pipelines.job import Job
from pipelines.packages import FetchError
from pipelines.reference import Reference
from pipelines.stages import STAGES

SMALL: dict[str, Any] = {
    "vocab_size": 61, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64,
}
FETCH = next(stage for stage in STAGES if stage.name == "fetch")
PROGRAMS = """
programs:
  prefill:
    method: prefill
    symbols: {length: {min: 1, max: 16}}
    inputs:
      input_ids: {shape: [1, length], dtype: int64, range: [0, 60]}
      attention_mask: {shape: [1, length], dtype: int64, range: [1, 1]}
      position_ids: {shape: [1, length], dtype: int64, range: [0, 15]}
"""


def small(seed: int, tied: bool = True) -> Any:
    torch.manual_seed(seed)
    config = transformers.Qwen2Config(**SMALL, tie_word_embeddings=tied)
    model = transformers.Qwen2ForCausalLM(config).to(torch.bfloat16).eval()
    for bias in (bias for name, bias in model.named_parameters() if name.endswith("bias")):
        torch.nn.init.normal_(bias)
    return model


def job(root: Path, weights: str, factory: str = "", config: dict[str, Any] | None = None) -> Job:
    path = root / "configs" / "models" / "small.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    arguments = {"architecture": "Qwen2ForCausalLM", "max_cache": 32, "dtype": "bfloat16",
                 "config": {**SMALL, **(config or {})}}
    built = f"factory: pipelines.zoo.causal_lm:causal_lm\nfactory_args: {json.dumps(arguments)}"
    path.write_text(f"{factory or built}\nweights: {weights}{PROGRAMS}")
    (root / "artifacts" / "small").mkdir(parents=True, exist_ok=True)
    return Job(root, load_config(path, root), "cpu")


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("shard", ["5GB", "10KB"])
def test_a_folder_gives_the_model_that_wrote_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shard: str, tied: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    model = small(1, tied)
    model.save_pretrained(tmp_path / "hub", max_shard_size=shard)
    assert (tmp_path / "hub" / "model.safetensors.index.json").exists() == (shard == "10KB")
    described = "factory: pipelines.zoo.causal_lm:from_folder\nfactory_args: {folder: hub, max_cache: 32}"
    here = job(tmp_path, "{huggingface: hub}", described)
    execute(FETCH, here)
    assert json.loads(here.source_info.read_text()) == {"kind": "huggingface", "label": "Hugging Face hub"}
    expected = model.state_dict()
    found = load_file(here.source_weights)
    assert all(torch.equal(tensor, expected[key]) for key, tensor in found.items())
    assert expected.keys() - found.keys() == ({"lm_head.weight"} if tied else set())
    reference = Reference(here.config, here.source_weights)
    ids = np.random.default_rng(0).integers(0, 61, (1, 9))
    inputs = {"input_ids": ids, "attention_mask": np.ones_like(ids), "position_ids": np.arange(9)[None]}
    with torch.no_grad():
        wanted = model.float()(torch.tensor(ids)).logits[:, -1:].numpy()
    assert wanted.std() > 0.01
    np.testing.assert_allclose(reference.call("prefill", inputs)[0], wanted, rtol=1e-4, atol=1e-5)


def _lose_a_shard(folder: Path) -> None:
    sorted(folder.glob("model-*.safetensors"))[1].unlink()


def _cut_a_shard(folder: Path) -> None:
    shard = sorted(folder.glob("model-*.safetensors"))[1]
    shard.write_bytes(shard.read_bytes()[:-7])


def _break_the_index(folder: Path) -> None:
    (folder / "model.safetensors.index.json").write_text('{"weight_map": {"a": "../b.safetensors"}}')


def _lose_all(folder: Path) -> None:
    for path in folder.glob("model*"):
        path.unlink()


def _describe_another(folder: Path) -> None:
    content = json.loads((folder / "config.json").read_text())
    content["rope_parameters"] = {"rope_type": "default", "rope_theta": 5.0}
    (folder / "config.json").write_text(json.dumps({**content, "hidden_size": 64}))


@pytest.mark.parametrize(("harm", "words"), [
    (_lose_a_shard, "names model-00002-of-.*, which is not there"),
    (_cut_a_shard, "not a whole safetensors file"),
    (_break_the_index, "names no files, or files outside its folder"),
    (_lose_all, "has no .safetensors file"),
    (_describe_another, "describes another model: hidden_size is 64 there and 32 in small.yaml.*; "
                        "rope_parameters is .*5.0.* there and .*10000.0"),
])
def test_a_folder_that_is_not_whole_is_refused(tmp_path: Path, harm: Any, words: str) -> None:
    small(1).save_pretrained(tmp_path / "hub", max_shard_size="10KB")
    harm(tmp_path / "hub")
    rope = {"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0}}
    with pytest.raises(FetchError, match=words):
        execute(FETCH, job(tmp_path, "{huggingface: hub}", config=rope))


def test_weights_are_downloaded_from_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small(1).save_pretrained(tmp_path / "cache")
    asked = []

    def snapshot_download(name: str, allow_patterns: list[str]) -> str:
        asked.append((name, "*.safetensors" in allow_patterns))
        return str(tmp_path / "cache")

    monkeypatch.setitem(sys.modules, "huggingface_hub", SimpleNamespace(snapshot_download=snapshot_download))
    here = job(tmp_path, "{huggingface: some/model}")
    execute(FETCH, here)
    assert asked == [("some/model", True)]
    assert load_file(here.source_weights).keys() == load_file(tmp_path / "cache" / "model.safetensors").keys()


def test_random_weights_stand_in_only_where_that_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def snapshot_download(name: str, allow_patterns: list[str]) -> str:
        raise OSError("no network\nat all")

    monkeypatch.setitem(sys.modules, "huggingface_hub", SimpleNamespace(snapshot_download=snapshot_download))
    with pytest.raises(Unreachable, match=r"some/model is no folder here and cannot .*: no network$"):
        execute(FETCH, job(tmp_path, "{huggingface: some/model}"))
    here = job(tmp_path, "{huggingface: some/model, or_random: {seed: 3}}")
    execute(FETCH, here)
    said = capsys.readouterr().out
    assert "no network; taking random weights (seed 3), as weights.or_random says" in said
    info = json.loads(here.source_info.read_text())
    assert (info["kind"], info["label"], info["instead_of"]) == (
        "random", "random weights (seed 3)", "some/model")
    found = load_file(here.source_weights)
    assert "lm_head.weight" in found and all(tensor.dtype == torch.bfloat16 for tensor in found.values())
    assert all(tensor.float().std() > 0.01 for tensor in found.values())
    first = here.source_weights.read_bytes()
    here.source_weights.unlink()
    execute(FETCH, here)
    assert here.source_weights.read_bytes() == first
    small(1).save_pretrained(tmp_path / "some" / "model")  # as soon as there are real ones, they are taken
    execute(FETCH, here)
    assert json.loads(here.source_info.read_text())["kind"] == "huggingface"


def test_a_stand_in_goes_with_the_hub_alone(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"weights\.or_random: goes with huggingface alone"):
        job(tmp_path, "{file: {path: a.pth}, or_random: {seed: 3}}")


@pytest.mark.parametrize(("content", "words"), [
    ({"architectures": ["Qwen2ForCausalLM"], "quantization_config": {"bits": 4}}, "weights are quantised"),
    ({"architectures": ["BertModel"]}, "BertModel is no decoder"),
    ({}, "has no class none"),
])
def test_what_describes_something_else_is_refused(
    tmp_path: Path, content: dict[str, Any], words: str
) -> None:
    from pipelines.zoo.causal_lm import from_folder
    (tmp_path / "config.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=words):
        from_folder(folder=str(tmp_path), max_cache=32)
