"""Made-up inputs, and the sizes at which a model is verified."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from pipelines.inputs import checked_sizes, made_up_inputs, upper_sizes
from pipelines.schema import ModelConfig


def config(inputs: dict[str, Any], symbols: dict[str, Any] | None = None, **keys: Any) -> ModelConfig:
    return ModelConfig.model_validate(
        {
            "name": "m",
            "factory": "a:b",
            "programs": {"main": {"inputs": inputs, "symbols": symbols or {}}},
            **keys,
        },
        strict=False,
    )


@pytest.mark.parametrize(
    ("item", "check"),
    [
        ({"dtype": "float32"}, lambda values: abs(values.mean()) < 0.2 and 0.8 < values.std() < 1.2),
        ({"dtype": "float32", "range": (2.0, 3.0)}, lambda values: values.min() >= 2 and values.max() <= 3),
        ({"dtype": "int64", "range": (0, 3)}, lambda values: set(values.ravel().tolist()) == {0, 1, 2, 3}),
        ({"dtype": "int32"}, lambda values: not values.any()),
        ({"dtype": "bool", "range": (0, 1)}, lambda values: 0 < values.mean() < 1),
        ({"dtype": "bfloat16"}, lambda values: len(np.unique(values.astype(np.float32))) > 20),
    ],
)
def test_values_fit_the_input(item: dict[str, Any], check: Any) -> None:
    program = config({"x": {"shape": (20, 7), **item}}).programs["main"]
    values = made_up_inputs(program, {}, (0,))["x"]
    assert (values.shape, values.dtype.name) == ((20, 7), item["dtype"])
    assert check(values)


def test_seed_and_position_decide() -> None:
    program = config({"x": {"shape": (5,)}, "y": {"shape": (5,)}}).programs["main"]
    first, again, other = (made_up_inputs(program, {}, seed) for seed in ((0, 1), (0, 1), (0, 2)))
    assert np.array_equal(first["x"], again["x"])
    assert not np.array_equal(first["x"], other["x"])
    assert not np.array_equal(first["x"], first["y"])


def test_sizes_cover_both_bounds_and_one_between() -> None:
    model = config({"x": {"shape": ("batch", 3)}}, {"batch": {"min": 1, "max": 8}})
    assert list(checked_sizes(model)) == [{"batch": 1}, {"batch": 3}, {"batch": 8}]
    assert upper_sizes(model, {}) == {"batch": 8}
    assert made_up_inputs(model.programs["main"], {"batch": 4}, (0,))["x"].shape == (4, 3)


def test_given_sizes_replace_the_bounds() -> None:
    model = config(
        {"x": {"shape": ("n", "m")}}, {"n": {"max": 8}, "m": {"max": 5}}, verify={"sizes": [{"n": 2}]}
    )
    assert list(checked_sizes(model)) == [{"n": 2, "m": 5}]


def test_a_model_without_symbols_is_checked_once() -> None:
    assert list(checked_sizes(config({"x": {"shape": (1,)}}))) == [{}]
