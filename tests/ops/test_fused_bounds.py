"""Bounds that are fused into a convolution treat NaN, infinities and signs of zero as PyTorch does."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from npu_compiler import compile_ir
from npu_runtime import Device, Executor, load_weights
from torch_ir import extract_ir

VALUES = (float("nan"), -float("inf"), float("inf"), -0.0, 0.0, -7.5, 3.25, 6.0, 1e30)


class Bounded(torch.nn.Module):
    """Channels as they are (a 1x1 convolution by the identity), then each way to bound them."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("weight", torch.ones(len(VALUES), 1, 1, 1))

    def forward(self, x: torch.Tensor) -> Any:
        bounds = (F.relu, F.relu6, lambda v: v.clamp(min=-1.5), lambda v: v.clamp(-2.0, 0.5), F.hardtanh)
        return tuple(bound(F.conv2d(x, self.weight, groups=len(VALUES))) for bound in bounds)


@pytest.fixture(scope="module")
def results() -> list[tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]]:
    module = Bounded().eval()
    x = torch.tensor(VALUES).reshape(1, -1, 1, 1).expand(1, -1, 3, 5).contiguous()
    program = compile_ir(extract_ir(module, (x,), model_name="bounded"))
    device = Device()
    state = {key: value.numpy() for key, value in module.state_dict().items()}
    weights = load_weights(state, program, device)
    outputs = Executor(program, device).run({program.input_specs[0].name: x.numpy()}, weights)
    return [
        (got.to_numpy(), expected.numpy()) for got, expected in zip(outputs.values(), module(x), strict=True)
    ]


@pytest.mark.parametrize("index", range(5))
def test_fused_bounds_are_pytorchs(results: Any, index: int) -> None:
    got, expected = results[index]
    np.testing.assert_array_equal(got, expected)
    assert np.isnan(got).any() and np.unique(got[~np.isnan(got)]).size > 2
