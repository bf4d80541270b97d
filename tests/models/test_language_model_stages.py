"""verify, bench and report of a language model: its continuations, its rows, and what the page says of
them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
from results_by_hand import facts

from npu_runtime.device import list_devices
from npu_runtime.program import CompiledProgram
from pipelines import bench, compile, continuations, extract, fetch, report, verify, weights
from pipelines.comparison import is_as_good
from pipelines.config import ConfigError, load_config
from pipelines.generation_bench import GenerationBenchError
from pipelines.job import Job
from pipelines.report import render, summary
from pipelines.results import (
    BenchResult,
    ContinuationCheck,
    ErrorStats,
    Generation,
    GenerationRow,
    TensorCheck,
    VerifyResult,
    read_result,
)
from pipelines.schema import VerifyKnobs
from pipelines.verify import VerifyError

CONFIG = {"vocab_size": 97, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1,
          "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64}
ARGUMENTS = {"architecture": "LlamaForCausalLM", "max_cache": 32, "dtype": "bfloat16", "config": CONFIG}
WRITER = f"""
factory: pipelines.zoo.causal_lm:causal_lm
factory_args: {json.dumps(ARGUMENTS)}
weights: {{huggingface: nobody/nothing, or_random: {{seed: 2}}}}
precision: bfloat16
programs:
  prefill:
    method: prefill_best
    symbols: {{length: {{min: 1, max: 24}}}}
    inputs:
      input_ids: {{shape: [1, length], dtype: int64, range: [0, 96]}}
      attention_mask: {{shape: [1, length], dtype: int64, range: [1, 1]}}
      position_ids: {{shape: [1, length], dtype: int64, range: [0, 23]}}
    outputs: [logits, token]
  decode:
    method: decode_best
    inputs:
      input_ids: {{shape: [1, 1], dtype: int64, range: [0, 96]}}
      cache_position: {{shape: [1], dtype: int64, range: [24, 24]}}
      position_ids: {{shape: [1, 1], dtype: int64, range: [24, 24]}}
      attention_mask: {{shape: [1, 32], dtype: int64, range: [1, 1]}}
    outputs: [logits, token]
verify:
  samples: 3
  sizes: [{{length: 9}}]
  continuations: {{prompts: [four words of text], lengths: [3, 17], tokens: 6}}
bench:
  warmup: 0
  repeats: 1
  profile: false
  generation: {{prompts: [5, 20], tokens: 4, depths: [0, 16], repeats: 3}}
"""


@pytest.mark.skipif(not list_devices(), reason="no OpenCL device on this machine")
def test_from_yaml_to_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    path = tmp_path / "configs" / "models" / "writer.yaml"
    path.parent.mkdir(parents=True)
    path.write_text(WRITER)
    (tmp_path / "artifacts" / "writer" / "cpu").mkdir(parents=True)
    info = list_devices()[0]
    job = Job(tmp_path, load_config(path, tmp_path), "cpu", device=info.vendor, selector=info.selector)
    for stage in (fetch, extract, compile, weights, verify, bench, report):
        stage.run(job)
    assert CompiledProgram.load(job.token_sampler).input_specs[0].shape == (1, 1, 97)
    checked = read_result(job.verify_result, VerifyResult)
    assert [(item.prompt, item.prompt_tokens, item.tokens) for item in checked.continuations] == [
        ("3 random tokens", 3, 6), ("17 random tokens", 17, 6), ("4 random tokens", 4, 6)]
    for item in checked.continuations:
        assert item.equal == item.tokens or (item.margin or 0) <= (item.error or 0)
    logits = [check for check in checked.checks if check.name == "logits"]
    assert len(logits) == 2 and all(check.eager is not None and check.eager.max_abs for check in logits)
    measured = read_result(job.bench_result, BenchResult)
    assert measured.precision == "bfloat16"
    found = measured.generation
    assert found is not None
    assert [(row.name, row.tokens, row.depth, len(row.seconds)) for row in found.rows] == [
        ("pp5", 5, 0, 3), ("pp20", 20, 0, 3), ("tg4", 4, 0, 3), ("tg4 @ d16", 4, 16, 3)]
    assert found.states == 2 * 2 * 32 * 8 * 2
    assert found.weights > 0 and found.peak_process > 10_000_000
    page = job.report.read_text()
    for text in ("tg4 @ d16", "random weights (seed 2)", "17 random tokens", "PyTorch's in 16 bits"):
        assert text in page
    wrong = replace(job, config=job.config.model_copy(update={"bench": job.config.bench.model_copy(update={
        "generation": job.config.bench.generation.model_copy(update={"depths": (30,)})})}))  # type: ignore[union-attr]
    with pytest.raises(GenerationBenchError, match="no room for 4 tokens behind 30"):
        bench.run(wrong)
    monkeypatch.setattr(continuations, "problem_of", lambda check: f"{check.prompt} is bad")
    with pytest.raises(VerifyError, match="writer: 3 random tokens is bad"):
        verify.run(job)


@pytest.mark.parametrize(
    ("margin", "error", "fails"), [(None, None, False), (0.1, 0.2, False), (0.3, 0.2, True)])
def test_a_continuation_may_leave_where_two_tokens_are_equal(
    margin: float | None, error: float | None, fails: bool
) -> None:
    check = ContinuationCheck("To be", 2, 8, 8 if margin is None else 3, margin, error)
    problem = continuations.problem_of(check)
    assert (problem is not None) == fails
    if problem:
        assert "the continuation of 'To be' differs from PyTorch's in token 4 of 8" in problem


@pytest.mark.parametrize(("token", "good"), [(2, True), (1, True), (0, False), (3, False), (-1, False)])
def test_a_chosen_token_is_as_good_as_its_logit(token: int, good: bool) -> None:
    logits = np.array([[[9.0, 0.0, 0.0], [1.0, 4.9999, 5.0]]], np.float32)
    assert is_as_good(np.array([[token]]), logits, None, VerifyKnobs()) == good
    assert is_as_good(np.array([[0]]), logits, logits + 3, VerifyKnobs())


@pytest.mark.parametrize("problem", [
    (6e-3, 5e-3, None), (7.6e-3, 5e-3, "differs from PyTorch in float32 by 7.60e-03"), (5e-5, 1e-6, None)])
def test_errors_in_16_bits_are_measured_by_those_of_pytorch(problem: tuple[float, float, str | None]) -> None:
    ours, eager, says = problem
    first, second = (ErrorStats(error, error / 9, error, 50.0, 97) for error in (ours, eager))
    check = TensorCheck(
        "decode", "logits", "output", "made-up inputs", {}, (1, 1, 97), 1, first, eager=second)
    found = verify.problem_of(check, VerifyKnobs())
    assert (found is None) == (says is None)
    if says is not None:
        assert says in str(found) and "verify.max_eager_ratio allows 1.5 times" in str(found)


def test_the_page_has_the_table_of_a_language_model() -> None:
    given = facts(kind="package")
    rows = (GenerationRow("pp128", 128, 0, (0.5, 0.25, 0.2)),
            GenerationRow("tg64 @ d512", 64, 512, (2.0, 1.0, 1.6)))
    took = Generation(rows, 700_000_000, 300_000_000, 5000, 6000)
    said = ContinuationCheck("The <end>", 3, 16, 16, text="of a story")
    given = replace(
        given,
        bench=msgspec.structs.replace(given.bench, generation=took),
        verify=msgspec.structs.replace(given.verify, continuations=(said,)),
    )
    page = render(given)
    for text in ("tg64 @ d512", "512.0", "(256.0 to 640.0)", "250 ms", "40.0", "(32.0 to 64.0)", "700 MB",
                 "16 of 16", "The &lt;end&gt;", "of a story"):
        assert text in page, text
    lines = "\n".join(summary(given))
    assert "512.0 tokens/s (256.0 to 640.0), first token after 250 ms" in lines
    assert "1 of 1 continuations are PyTorch's to the end" in lines
    assert "read and write" not in render(facts())


@pytest.mark.parametrize("section", ["verify: {continuations: {lengths: [3]}}", "bench: {generation: {}}"])
def test_text_is_asked_of_language_models_alone(tmp_path: Path, section: str) -> None:
    path = tmp_path / "one.yaml"
    path.write_text(f"factory: a:b\nprograms: {{main: {{inputs: {{x: {{shape: [1]}}}}}}}}\n{section}\n")
    with pytest.raises(ConfigError, match="goes with the programs prefill and decode alone"):
        load_config(path, tmp_path)
