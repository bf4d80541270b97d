"""What tokens may be drawn, and their scores: as ``transformers``' logits processors leave them."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest

from npu_runtime.errors import InputError
from npu_runtime.sampling import Sampler, Sampling, candidates, penalised, weights_of

SETTINGS: list[dict[str, Any]] = [
    {"temperature": 1.0},
    {"temperature": 0.3},
    {"temperature": 1.7, "top_k": 1},
    {"temperature": 1.0, "top_k": 40},
    {"temperature": 1.0, "top_k": 100_000},
    {"temperature": 0.8, "top_p": 0.0},
    {"temperature": 0.8, "top_p": 0.9},
    {"temperature": 1.0, "top_p": 0.999},
    {"temperature": 1.0, "min_p": 0.05},
    {"temperature": 2.5, "min_p": 1.0},
    {"temperature": 0.7, "top_k": 50, "top_p": 0.8, "min_p": 0.1, "repetition_penalty": 1.3},
    {"temperature": 1.3, "top_k": 400, "top_p": 0.95, "repetition_penalty": 0.7},
]


def wanted(logits: Any, settings: dict[str, Any], seen: list[int]) -> Any:
    """Scores by ``transformers``; -inf where a token may not be drawn."""
    import torch
    from transformers.generation import (
        LogitsProcessorList,
        MinPLogitsWarper,
        RepetitionPenaltyLogitsProcessor,
        TemperatureLogitsWarper,
        TopKLogitsWarper,
        TopPLogitsWarper,
    )

    makers = {
        "repetition_penalty": RepetitionPenaltyLogitsProcessor,
        "temperature": TemperatureLogitsWarper,
        "top_k": TopKLogitsWarper,
        "top_p": TopPLogitsWarper,
        "min_p": MinPLogitsWarper,
    }
    steps = LogitsProcessorList(make(settings[name]) for name, make in makers.items() if name in settings)
    return steps(torch.tensor([seen]), torch.from_numpy(logits.copy())[None])[0].numpy()


def logits_of(kind: str, seed: int) -> Any:
    random = np.random.default_rng(seed)
    if kind == "peaked":
        return (random.standard_normal(5003) ** 3 * 4).astype(np.float32)
    if kind == "flat":
        return (random.standard_normal(997) * 0.1).astype(np.float32)
    if kind == "equals":
        return random.integers(-3, 4, 499).astype(np.float32)
    return np.where(random.random(701) < 0.9, -np.inf, random.standard_normal(701)).astype(np.float32)


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize("kind", ["peaked", "flat", "equals", "masked"])
def test_candidates_are_those_of_transformers(kind: str, settings: dict[str, Any]) -> None:
    for seed in range(5):
        logits = logits_of(kind, seed)
        seen = [int(token) for token in np.random.default_rng(seed).integers(0, len(logits), 40)]
        expected = wanted(logits, settings, seen)
        sampling = Sampling(**settings)
        scores = penalised(logits, sorted(set(seen)), sampling.repetition_penalty)
        tokens, weights = candidates(scores, sampling)
        kept = np.flatnonzero(np.isfinite(expected))
        if kind == "masked":  # what no draw gives may stay or go
            tokens, weights = tokens[np.isfinite(scores[tokens])], weights[np.isfinite(scores[tokens])]
        if kind == "equals" and "top_p" in settings:  # which of several equal ones go, is sort's own choice
            assert np.array_equal(np.sort(scores[tokens]), np.sort(scores[kept]))
        else:
            assert np.array_equal(tokens, kept)
        gaps = (scores.max() - scores[tokens]).astype(np.float64) / sampling.temperature
        np.testing.assert_allclose(weights / 2**40, np.exp(-gaps), rtol=2e-6, atol=2**-40)


def test_weights_are_exponentials() -> None:
    random = np.random.default_rng(1)
    edges = [0, 2**-27, np.log(2), 27.7, 31.999, 32, 1e30, np.inf]
    gaps = np.concatenate([random.random(100_000) * 33, edges]).astype(np.float32)
    wanted = np.exp(-np.floor(np.minimum(gaps, 33).astype(np.float64) * 2**27) / 2**27) * 2.0**40
    assert weights_of(gaps[:0]).size == 0
    np.testing.assert_allclose(weights_of(gaps), np.where(gaps < 32, wanted, 0), rtol=1e-8, atol=1)
    assert weights_of(np.zeros(1, np.float32)) == 1 << 40
    ascending = np.sort(gaps)
    assert (np.diff(weights_of(ascending).astype(np.int64)) <= 0).all()


def test_draws_have_the_probabilities_of_the_candidates() -> None:
    logits = np.log(np.array([0.5, 0.2, 0.2, 0.06, 0.04], np.float32))
    sampler = Sampler(Sampling(temperature=1.0, top_k=3, seed=11), [])
    counts = Counter(sampler.choose(logits) for _ in range(20_000))
    assert sorted(counts) == [0, 1, 2]
    for token, share in ((0, 5 / 9), (1, 2 / 9), (2, 2 / 9)):
        assert counts[token] / 20_000 == pytest.approx(share, abs=0.015)


def test_a_seed_repeats_its_draws_and_leaves_the_logits() -> None:
    logits = logits_of("flat", 1)
    kept = logits.copy()
    sampling = Sampling(temperature=1.0, top_p=0.9, repetition_penalty=1.2, seed=3)
    draws = [[sampler.choose(logits) for _ in range(30)]
             for sampler in (Sampler(sampling, [1]), Sampler(sampling, [1]))]
    assert draws[0] == draws[1]
    assert len(set(draws[0])) > 10
    assert np.array_equal(logits, kept)


def test_the_best_token_is_the_first_of_equals() -> None:
    assert Sampler(Sampling(), []).choose(np.array([1, 3, 3, 2], np.float32)) == 1


def test_penalties_reach_what_was_generated() -> None:
    sampler = Sampler(Sampling(repetition_penalty=2.0), [3, 9])
    logits = np.array([1.0, 1.5, 1.6, 3.0, -1.0], np.float32)
    assert [sampler.choose(logits) for _ in range(4)] == [2, 1, 3, 3]


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_logits_without_a_finite_best_are_refused(value: float) -> None:
    with pytest.raises(InputError, match="cannot be sampled from: their largest is"):
        Sampler(Sampling(temperature=1.0), []).choose(np.array([0, value, 1], np.float32))
    with pytest.raises(InputError, match="their largest is -inf"):
        Sampler(Sampling(), []).choose(np.full(3, -np.inf, np.float32))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"temperature": -0.1}, r"temperature is -0\.1: expected 0"),
        ({"temperature": float("nan")}, "temperature is nan"),
        ({"temperature": float("inf")}, "temperature is inf"),
        ({"temperature": "hot"}, "temperature is 'hot'"),
        ({"top_k": -1}, "top_k is -1: expected a whole number"),
        ({"top_k": 2.5}, r"top_k is 2\.5"),
        ({"top_p": 1.1}, "top_p is 1.1: expected a probability"),
        ({"min_p": -1}, "min_p is -1"),
        ({"repetition_penalty": 0}, "repetition_penalty is 0: expected above 0"),
        ({"repetition_penalty": None}, "repetition_penalty is None"),
        ({"seed": -4}, "seed is -4"),
        ({"seed": True}, "seed is True"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Sampling(**settings)
