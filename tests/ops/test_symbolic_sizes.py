"""Sizes that are symbols: one program gives what PyTorch gives at every size within the bounds."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import graphs
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from npu_compiler.compiler import compile_ir
from torch_ir import extract_ir

EXAMPLE, DYNAMIC = torch.ones(2, 10, 3), {"x": {1: ("s", 2, 40)}}
#: Of x [2, s, 3], with s from 2 to 40.
CALLS: dict[str, Callable[[Any], Any]] = {
    "last": lambda x: x[:, -1],
    "from_minus_half": lambda x: x[:, -(x.shape[1] // 2 + 1) :],
    "first_two": lambda x: x[:, :2],
    "middle": lambda x: x[:, 1:-1] * 2,
    "beyond_the_end": lambda x: x[:, :100] + 1,
    "every_second": lambda x: x[:, ::2] * 2,
    "up_to_size": lambda x: torch.zeros(2, 50, 3)[:, : x.shape[1]] + x,
    "slice_scatter": lambda x: torch.zeros(2, 50, 3).slice_scatter(x, 1, 0, x.shape[1]),
    "last_before_first": lambda x: torch.cat([x[:, -2:], x], 1),
    "select_the_middle": lambda x: x[:, x.shape[1] // 2],
    "add_positions": lambda x: x + torch.arange(x.shape[1])[None, :, None],
    "mean_broadcast": lambda x: x.mean(1, keepdim=True) + x,
    "flip": lambda x: x.flip(1),
    "tril": lambda x: torch.tril(x @ x.transpose(1, 2)),
    "roll": lambda x: x.roll(1, 1),
    "pad": lambda x: F.pad(x, (0, 0, 2, 1)),
    "pad_reflect": lambda x: F.pad(x.transpose(1, 2), (1, 1), "reflect"),
    "pad_replicate": lambda x: F.pad(x.transpose(1, 2), (3, -1), "replicate"),
    "pad_circular": lambda x: F.pad(x.transpose(1, 2), (2, 1), "circular"),
    "std": lambda x: torch.cat([x.std(1), x.var(1, correction=0), x.std((0, 1), correction=2)[None]]),
    "avg_pool1d": lambda x: F.avg_pool1d(x.transpose(1, 2), 3, 2, 1),
    "conv1d": lambda x: F.conv1d(x.transpose(1, 2), torch.ones(4, 3, 3), padding=1),
    "size_as_value": lambda x: x.reshape(-1, 3).sum(0) + x.reshape(2, -1).shape[1],
    "repeat": lambda x: x.repeat(1, 2, 1),
    "unfold": lambda x: x.unfold(1, 2, 1),
    "cumsum": lambda x: x.cumsum(1),
    "softmax": lambda x: x.softmax(1),
    "argmax": lambda x: x.max(1)[1],
    "gather_backwards": lambda x: x[:, torch.arange(x.shape[1] - 1, -1, -1)],
    "interleave": lambda x: torch.stack([x, x * 2], 2).reshape(2, -1, 3),
    "norm": lambda x: x.norm(dim=1),
    "einsum": lambda x: torch.einsum("bsd,btd->bst", x, x),
    "mask": lambda x: x.masked_fill(torch.arange(x.shape[1])[None, :, None] > x.shape[1] // 2, -1.0),
    "causal_attention": lambda x: F.scaled_dot_product_attention(x, x, x, is_causal=True),
}


class Sized(torch.nn.Module):
    def __init__(self, function: Callable[[Any], Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Any) -> Any:
        return self.function(x)


def test_one_program_serves_all_sizes(guarded: graphs.GuardedDevice) -> None:
    irs = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, function in CALLS.items():
            irs[name] = extract_ir(Sized(function), EXAMPLE, model_name=name, dynamic_shapes=DYNAMIC)
    program = compile_ir(graphs.merge(irs))
    wrong = []
    for size in (2, 5, 10, 37, 40):
        x = torch.randn(2, size, 3, generator=torch.Generator().manual_seed(size))
        ran = graphs.run(program, guarded, {f"{name}.x": x.numpy() for name in irs}, guarded=True)
        for name, function in CALLS.items():
            got, expected = ran.outputs[f"{name}.output"], function(x).numpy()
            if got.shape != expected.shape or not np.allclose(got, expected, 1e-4, 1e-4):
                wrong.append(f"{name} at {size}: {got.shape}, expected {expected.shape}")
        assert ran.damage == []
    assert not wrong


def test_a_graph_that_depends_on_the_size_is_refused() -> None:
    def function(x: Any) -> Any:
        return torch.cat(x.split(2, 1)[::-1], 1)

    with pytest.raises(ValueError, match="does not work for all sizes"):
        extract_ir(Sized(function), EXAMPLE, dynamic_shapes=DYNAMIC)
