"""Tokens that the device draws are those of ``npu_runtime.sampling``, bit for bit."""

from __future__ import annotations

import warnings
from collections import Counter
from functools import cache
from typing import Any

import numpy as np
import pytest

from npu_compiler.errors import UnsupportedOpError
from npu_compiler.ops import draw_token
from npu_compiler.token_sampler import token_sampler
from npu_runtime import sampling as sampling_module
from npu_runtime.device import Device
from npu_runtime.executor import Executor
from npu_runtime.sampling import Sampler, Sampling
from npu_runtime.weight_loader import Weights, load_weights

#: Rows of logits that are drawn from at once.
ROWS = 32
SETTINGS: list[dict[str, Any]] = [
    {},
    {"temperature": 0.3},
    {"temperature": 1e-30},
    {"temperature": 40.0},
    {"top_k": 1},
    {"top_k": 2},
    {"top_k": 40},
    {"top_k": 100_000},
    {"top_p": 0.0},
    {"top_p": 1e-9},
    {"top_p": 0.5},
    {"top_p": 0.9},
    {"top_p": 0.999999},
    {"top_p": 1.0},
    {"min_p": 0.05},
    {"min_p": 1.0},
    {"temperature": 0.7, "top_k": 50, "top_p": 0.8, "min_p": 0.1},
    {"temperature": 1.7, "top_k": 300, "top_p": 0.95},
]


@cache
def sampler(target: str, vocabulary: int) -> tuple[Executor, Weights]:
    program = token_sampler(vocabulary, target=target, batch=ROWS).program
    device = Device()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a GPU's program on a processor
        return Executor(program, device), load_weights({}, program, device)


def drawn(target: str, logits: np.ndarray[Any, Any], sampling: Sampling) -> tuple[list[int], list[float]]:
    """One token per row of logits, and its largest logit, with the random numbers of one sequence."""
    executor, weights = sampler(target, logits.shape[-1])
    random = Sampler(sampling, [])
    chance = np.array([[random.chance()] for _ in range(ROWS)])
    inputs = {"logits": logits[:, None], "rules": sampling.rules, "chance": chance}
    outputs = executor.run(inputs, weights)
    return outputs["token"].to_numpy()[:, 0].tolist(), outputs["best"].to_numpy()[:, 0].tolist()


def logits_of(kind: str) -> np.ndarray[Any, Any]:
    random = np.random.default_rng(len(kind))
    if kind == "peaked":
        made = random.standard_normal((ROWS, 5003)) ** 3 * 4
    elif kind == "flat":
        made = random.standard_normal((ROWS, 20_011)) * 0.1
    elif kind == "equals":
        made = random.integers(-3, 4, (ROWS, 499)) + 0.0
    elif kind == "one":
        made = random.standard_normal((ROWS, 1))
    elif kind == "signs":  # of zeros, and numbers so small that a device may take them for zeros
        made = random.choice([0.0, -0.0, 1e-40, -1e-40, -1.0], (ROWS, 73))
    else:
        made = np.where(random.random((ROWS, 701)) < 0.9, -np.inf, random.standard_normal((ROWS, 701)))
        made[:, 5] = -1
    return made.astype(np.float32)


@pytest.mark.parametrize("kind", ["peaked", "flat", "equals", "masked", "signs", "one"])
@pytest.mark.parametrize("target", ["cpu", "gpu"])
def test_tokens_are_those_of_the_host(target: str, kind: str) -> None:
    logits = logits_of(kind)
    seen = set()
    for seed, settings in enumerate(SETTINGS):
        sampling = Sampling(**{"temperature": 1.0, "seed": seed, **settings})
        host = Sampler(sampling, [])
        wanted = [host.choose(row) for row in logits]
        assert drawn(target, logits, sampling) == (wanted, list(logits.max(1))), settings
        seen.update(wanted)
    assert len(seen) > 50 or kind == "one"


@pytest.mark.parametrize("target", ["cpu", "gpu"])
def test_draws_have_the_probabilities_of_the_logits(target: str) -> None:
    shares = np.array([0.5, 0.2, 0.2, 0.06, 0.04])
    logits = np.full((ROWS, 499), -np.inf, np.float32)
    logits[:, 100:500:90] = np.log(shares)
    counts: Counter[int] = Counter()
    for seed in range(100):
        counts.update(drawn(target, logits, Sampling(temperature=1.0, top_p=0.95, seed=seed))[0])
    assert sorted(counts) == [100, 190, 280, 370]
    for token, share in zip(sorted(counts), shares, strict=False):
        assert counts[token] / (100 * ROWS) == pytest.approx(share / 0.96, abs=0.03)


@pytest.mark.parametrize("value", [np.nan, -np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("target", ["cpu", "gpu"])
def test_logits_without_a_finite_best_are_told(target: str, value: float) -> None:
    logits = np.full((ROWS, 499), value, np.float32) if value == -np.inf else logits_of("equals")
    logits[3, 498] = value
    for settings in ({}, {"top_k": 5}, {"top_p": 0.5}):
        tokens, best = drawn(target, logits, Sampling(temperature=1.0, seed=1, **settings))
        assert tokens[3] == 0 and np.array_equal(best, logits.max(1), equal_nan=True)


@pytest.mark.parametrize("target", ["cpu", "gpu"])
def test_the_smallest_temperature_gives_the_best_token(target: str) -> None:
    logits = np.where(np.arange(73) == 40, np.float32(0), logits_of("signs") - 1)
    assert drawn(target, logits, Sampling(temperature=1e-300, seed=1))[0] == [40] * ROWS


def test_both_sides_have_the_same_numbers() -> None:
    assert (draw_token.LOG2_E, draw_token.EXP2) == (sampling_module._LOG2_E, sampling_module.EXP2)
    assert draw_token.MOST_TOKENS == sampling_module._MOST_TOKENS


@pytest.mark.parametrize("vocabulary", [0, (1 << 23) + 1])
def test_vocabularies_without_a_sampler_are_refused(vocabulary: int) -> None:
    with pytest.raises(UnsupportedOpError, match=f"a token of {vocabulary} logits"):
        token_sampler(vocabulary)
