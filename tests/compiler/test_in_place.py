"""Changes in place: where nothing reads the old value any more, and nowhere else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from graphs import GuardedDevice, passed
from torch import Tensor, nn

from npu_compiler.compiler import compile_ir
from npu_compiler.in_place import in_place
from npu_compiler.weights import constant_exprs
from npu_runtime.executor import Executor
from npu_runtime.weight_loader import load_weights
from torch_ir import IR, extract_ir

#: What one call does with its input ([3, 4]) and a state ([3, 8]); how many of its nodes work in place.
CALLS: dict[str, tuple[Callable[[Any, Any], Any], int]] = {
    "state_slice": (lambda s, x: s.held.copy_(s.held.slice_scatter(x, 1, 2, 6)) * 2, 1),
    "state_row": (lambda s, x: s.held.index_copy_(1, torch.tensor([5, 1]), x[:, :2]) + 1, 1),
    "state_twice": (
        lambda s, x: s.held.copy_(s.held.slice_scatter(x, 1, 0, 4).slice_scatter(x * 2, 1, 4, 8)).sum(1),
        2,
    ),
    "old_value_read_before": (
        lambda s, x: (s.held.sum(1, keepdim=True) + x, s.held.copy_(s.held.slice_scatter(x, 1, 2, 6)).sum(0)),
        1,
    ),
    "old_value_read_after": (
        lambda s, x: s.held.clone() * s.held.copy_(s.held.slice_scatter(x, 1, 2, 6)).sum(),
        0,
    ),
    "shifted": (lambda s, x: s.held.copy_(s.held.slice_scatter(s.held[:, :-1], 1, 1, 8)) + x.sum(), 0),
    "new_value_is_an_output": (lambda s, x: s.held.copy_(s.held.slice_scatter(x, 1, 2, 6)).clone(), 0),
    "scratch": (lambda s, x: torch.cumsum(x, 1).slice_scatter(x[:, :2], 1, 1, 3) * 3 + s.held[:, :4], 1),
    "scratch_read_after": (lambda s, x: (lambda y: y.slice_scatter(x[:, :2], 1, 1, 3) * y)(x.cumsum(1)), 0),
    "scratch_view_read_after": (
        lambda s, x: (lambda y: y.slice_scatter(x[:, :2], 1, 1, 3).sum(0) + y.t().reshape(4, 3)[:, 1])(
            x.cumsum(1)
        ),
        0,
    ),
    "scratch_is_an_output": (
        lambda s, x: (lambda y: (y.slice_scatter(x[:, :2], 1, 1, 3), y))(x.cumsum(1)),
        0,
    ),
    "an_input": (lambda s, x: x.slice_scatter(x[:, :2] * 2, 1, 1, 3) + 1, 0),
    "a_weight": (lambda s, x: s.weight.slice_scatter(x[:, :2] * 2, 1, 1, 3) + 1, 0),
    "scratch_repeated": (lambda s, x: x.cumsum(1)[:1].tile(3, 1).select_scatter(x[1], 0, 0) * 2, 1),
    "scratch_windows": (
        lambda s, x: x.cumsum(1).unfold(1, 2, 1).contiguous().select_scatter(x[:, :3], 2, 0) * 2,
        1,
    ),
    "through_a_view": (lambda s, x: x.cumsum(1).t().slice_scatter(x.t()[:2], 0, 1, 3).sum(0), 1),
}


#: Convolutions `c` of one image, and how many of them write over what they add.
RESIDUALS: dict[str, tuple[Callable[[Any, Any], Any], int]] = {
    "block": (lambda c, x: (lambda a: c(c(c(a)) + a))(c(x)), 1),
    "two_blocks": (lambda c, x: (lambda a: (lambda b: c(c(c(b)) + b))(c(c(a)) + a))(c(x)), 2),
    "own_input": (lambda c, x: (lambda a: c(c(a) + a))(c(x)), 0),
    "read_after": (lambda c, x: (lambda a: c(c(c(c(a)) + a)).sin() * a)(c(x)), 0),
    "result": (lambda c, x: (lambda a: c(c(a)) + a)(c(x)), 0),
    "program_input": (lambda c, x: c(c(c(x)) + x), 0),
    "other_layout": (lambda c, x: (lambda a: c(c(c(a)) + a.transpose(2, 3)))(c(x)), 1),
}


class Held(nn.Module):
    """A call that may change the buffer ``held``."""

    def __init__(self, function: Callable[[Any, Any], Any]) -> None:
        super().__init__()
        self.function = function
        self.register_buffer("held", torch.arange(24.0).reshape(3, 8) / 7)
        self.weight = nn.Parameter(torch.arange(12.0).reshape(3, 4))

    def forward(self, x: Tensor) -> Any:
        return self.function(self, x)


def extracted(name: str) -> tuple[IR, Held]:
    module = Held(CALLS[name][0]).eval()
    return extract_ir(module, torch.ones(3, 4), model_name=name), module


@pytest.mark.parametrize("name", CALLS)
def test_what_is_changed_in_place(name: str) -> None:
    ir = passed(extracted(name)[0])
    assert len(in_place(ir, constant_exprs(ir))) == CALLS[name][1]


@pytest.mark.parametrize("name", CALLS)
def test_runs_equal_pytorch_one_after_another(name: str, guarded: GuardedDevice) -> None:
    ir, module = extracted(name)
    program = compile_ir(ir)
    weights = load_weights({k: v.numpy().copy() for k, v in module.state_dict().items()}, program, guarded)
    executor = Executor(program, guarded)
    for run in range(3):
        x = torch.randn(3, 4, generator=torch.Generator().manual_seed(run))
        with torch.no_grad():
            expected = module(x.clone())
        got = executor.run({program.input_specs[0].name: x.numpy()}, weights)
        for found, wanted in zip(
            got.values(), expected if isinstance(expected, tuple) else [expected], strict=True
        ):
            np.testing.assert_allclose(found.to_numpy(), wanted.numpy(), 1e-5, 1e-5)


class Convolutions(nn.Module):
    """One convolution, called several times."""

    def __init__(self, function: Callable[[Any, Any], Any]) -> None:
        super().__init__()
        self.function = function
        self.conv = nn.Conv2d(16, 16, 3, padding=1)

    def forward(self, x: Tensor) -> Any:
        return self.function(self.conv, x)


@pytest.mark.parametrize("name", RESIDUALS)
def test_a_convolution_writes_over_what_it_adds(name: str, guarded: GuardedDevice) -> None:
    torch.manual_seed(0)
    module = Convolutions(RESIDUALS[name][0]).eval()
    x = torch.randn(1, 16, 13, 13)
    ir = extract_ir(module, x, model_name=name)
    lowered = passed(ir)
    assert len(in_place(lowered, constant_exprs(lowered))) == RESIDUALS[name][1]
    program = compile_ir(ir)
    weights = load_weights({k: v.detach().numpy() for k, v in module.state_dict().items()}, program, guarded)
    executor = Executor(program, guarded)
    for _ in range(2):
        found = executor.run({program.input_specs[0].name: x.numpy()}, weights)
        np.testing.assert_allclose(
            next(iter(found.values())).to_numpy(), module(x).detach().numpy(), 1e-4, 1e-5
        )
