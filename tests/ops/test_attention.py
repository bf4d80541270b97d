"""Attention as users write it: masks, shared heads, 16-bit caches, rows that see nothing."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import graphs
import msgspec
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from npu_compiler.compiler import compile_ir
from npu_compiler.ops import fused_attention
from npu_runtime.buffer import to_array
from torch_ir import extract_ir
from torch_ir.ir import IR, Node, Output, TensorSpec


def n(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed + sum(shape)))


def repeated(x: Tensor, times: int) -> Tensor:
    batch, heads, *rest = x.shape
    return x[:, :, None].expand(batch, heads, times, *rest).reshape(batch, heads * times, *rest)


def capped(q: Tensor, k: Tensor, seen: Tensor) -> Tensor:
    scores = torch.tanh(q @ k.mT * 0.3 / 2.5) * 2.5
    return torch._safe_softmax(scores.masked_fill(~seen, -torch.inf), -1) @ k


LENGTHS = (torch.arange(37)[None] < torch.tensor([[37], [5]]))[:, None, None]
NONE_SEEN = torch.ones(1, 1, 5, 13, dtype=torch.bool).tril(-1)
SOME_HEADS_SEE = (n(2, 6, 5, 37) > 0) & (torch.arange(60).reshape(2, 6, 5, 1) % 7 > 2)

#: A function of tensors, those tensors, and how many kernels that are attention it takes.
CALLS: dict[str, tuple[Callable[..., Any], tuple[Tensor, ...], int]] = {
    "plain": (F.scaled_dot_product_attention, (n(2, 3, 7, 16), n(2, 3, 9, 16), n(2, 3, 9, 8)), 1),
    "one_head": (F.scaled_dot_product_attention, (n(2, 7, 16), n(2, 9, 16), n(2, 9, 16)), 1),
    "odd_width": (F.scaled_dot_product_attention, (n(1, 2, 7, 5), n(1, 2, 9, 5), n(1, 2, 9, 3)), 1),
    "causal": (lambda x: F.scaled_dot_product_attention(x, x, x, is_causal=True), (n(1, 2, 41, 8),), 1),
    "causal_wide": (
        lambda q, k: F.scaled_dot_product_attention(q, k, k, is_causal=True),
        (n(1, 2, 5, 8), n(1, 2, 33, 8)),
        1,
    ),
    "lengths": (
        lambda q, k, m: F.scaled_dot_product_attention(q, k, k, m),
        (n(2, 2, 3, 8), n(2, 2, 37, 8), LENGTHS),
        1,
    ),
    "none_seen": (
        lambda q, k, m: F.scaled_dot_product_attention(q, k, k, m),
        (n(1, 2, 5, 8), n(1, 2, 13, 8), NONE_SEEN),
        1,
    ),
    "added": (
        lambda q, k, m: F.scaled_dot_product_attention(q, k, k, m, scale=0.3),
        (n(1, 4, 5, 16), n(1, 4, 65, 16), n(4, 5, 65) * 3),
        1,
    ),
    "added_infinity": (
        lambda q, k, m: F.scaled_dot_product_attention(q, k, k, m.masked_fill(m > 0.5, -torch.inf)),
        (n(1, 4, 5, 16), n(1, 4, 33, 16), n(1, 1, 5, 33)),
        1,
    ),
    "gqa": (
        lambda q, k, v: F.scaled_dot_product_attention(q, k, v, enable_gqa=True),
        (n(2, 6, 5, 8), n(2, 2, 7, 8), n(2, 2, 7, 8, seed=1)),
        1,
    ),
    "repeated_heads": (
        lambda q, k, v: F.scaled_dot_product_attention(q, repeated(k, 3), repeated(v, 3)),
        (n(2, 6, 5, 8), n(2, 2, 7, 8), n(2, 2, 7, 8, seed=1)),
        1,
    ),
    "shared_heads_none_seen": (
        lambda q, k, m: F.scaled_dot_product_attention(q, k, k, m, enable_gqa=True),
        (n(2, 6, 5, 8), n(2, 2, 37, 8), SOME_HEADS_SEE),
        1,
    ),
    "one_key_head": (
        lambda q, k, m: F.scaled_dot_product_attention(q, k, k, m, enable_gqa=True),
        (n(1, 11, 1, 16), n(1, 1, 70, 16), n(1, 1, 70) > 0),
        1,
    ),
    "capped_lanes": (capped, (n(1, 2, 19, 8), n(1, 2, 37, 8), n(19, 37) > 0), 1),
    "capped": (
        lambda q, k, m: capped(q, repeated(k, 3), m),
        (n(2, 6, 5, 8) * 3, n(2, 2, 37, 8) * 3, SOME_HEADS_SEE),
        1,
    ),
    "half_cache": (
        lambda q, k, v: F.scaled_dot_product_attention(q, repeated(k, 2).float(), repeated(v, 2).float()),
        (n(1, 4, 3, 16), n(1, 2, 41, 16).half(), n(1, 2, 41, 16, seed=1).bfloat16()),
        1,
    ),
    "half_odd_width": (
        lambda q, k, v: F.scaled_dot_product_attention(q, k.float(), v.float()),
        (n(1, 2, 3, 5), n(1, 2, 41, 5).half(), n(1, 2, 41, 5, seed=1).bfloat16()),
        1,
    ),
    "projected": (
        lambda x: (
            F.scaled_dot_product_attention(*(x.unflatten(2, (3, 2, 8)).permute(2, 0, 3, 1, 4)))
            .transpose(1, 2)
            .flatten(2)
        ),
        (n(2, 11, 48),),
        1,
    ),
    "nan": (
        lambda q, k: F.scaled_dot_product_attention(q, k, k),
        (torch.tensor([[[[0.0] * 8, [float("nan")] * 8]]]), n(1, 1, 3, 8)),
        1,
    ),
    "large_scores": (
        lambda q, k: F.scaled_dot_product_attention(q * 60, k * 60, k),
        (n(1, 2, 5, 8), n(1, 2, 70, 8)),
        1,
    ),
    "float64": (F.scaled_dot_product_attention, (n(1, 2, 3, 8).double(),) * 3, 0),
    "wide": (F.scaled_dot_product_attention, (n(1, 2, 3, 264),) * 3, 0),
}


class Calling(nn.Module):
    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *xs: Tensor) -> Any:
        return self.function(*xs)


@pytest.mark.parametrize("shared", ["rows", "keys"])
def test_attention_gives_what_pytorch_gives(
    shared: str, guarded: graphs.GuardedDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where work-items are so few that each takes a part of the keys."""
    target = graphs.CPU
    if shared == "keys":
        for name, value in {"WORTH_KEYS": 4, "LEAST_KEYS": 32}.items():
            monkeypatch.setattr(fused_attention, name, value)
        target = msgspec.structs.replace(target, busy_groups=100)
    irs, arrays = {}, {}
    for name, (function, inputs, _) in CALLS.items():
        irs[name] = graphs.passed(extract_ir(Calling(function), inputs, model_name=name))
        arrays.update({f"{name}.{k}": to_array(x) for k, x in zip(irs[name].inputs, inputs, strict=True)})
    program = graphs.emit(graphs.merge(irs), target=target)
    combined = sum(step.kernel.startswith("attention_f32_combine") for step in program.steps)
    assert combined == (17 if shared == "keys" else 0)
    ran = graphs.run(program, guarded, arrays, guarded=True)
    for name, (function, inputs, _) in CALLS.items():
        with sdpa_kernel(SDPBackend.MATH):  # another one loses a query's NaN
            got, expected = ran.outputs[f"{name}.output"], function(*inputs).numpy()
        np.testing.assert_allclose(got, expected, 2e-5, 2e-5, err_msg=name)
    assert ran.damage == []


@pytest.mark.parametrize("name", CALLS)
def test_attention_is_one_kernel(name: str) -> None:
    function, inputs, kernels = CALLS[name]
    program = compile_ir(extract_ir(Calling(function), inputs, model_name=name))
    if name.startswith("capped") and program.target != "cpu":
        kernels = 0  # its steps: kernels for work-groups know no cap
    assert sum(step.kernel.startswith("attention") for step in program.steps) == kernels


@pytest.mark.parametrize(
    ("heads", "key_heads", "keys", "items", "kernels"),
    [
        (9, 3, 8192, 3, 1),  # enough key heads
        (12, 2, 8192, 2, 1),
        (8, 1, 2048, 2, 1),  # rows are shared
        (8, 1, 8192, 2, 2),  # keys are
        (3, 1, 1024, 2, 2),
        (3, 1, 1023, 2, 1),  # too short: rows
        (1, 1, 1023, 1, 1),
        (1, 1, 1024, 2, 2),
        (71, 1, 8192, 9, 1),
    ],
)
def test_work_items_share_where_they_would_be_too_few(
    heads: int, key_heads: int, keys: int, items: int, kernels: int
) -> None:
    q, k = TensorSpec((1, heads, 1, 16), "float32"), TensorSpec((1, key_heads, keys, 16), "bfloat16")
    node = Node("y", "attention", ("q", "k", "k"), ("y",), (q,), {"scale": 1.0, "causal": False})
    program = graphs.emit(IR("one", {"q": q, "k": k}, (Output("y", "y"),), (node,)))
    sizes = [math.prod(map(int, step.global_size)) for step in program.steps]
    assert sizes == [items, heads][:kernels]


def test_no_row_of_the_cache_is_copied() -> None:
    program = compile_ir(extract_ir(Calling(CALLS["half_cache"][0]), CALLS["half_cache"][1]))
    assert len(program.steps) == 1
