"""What looks like a pattern of language models and is left stands among the decisions, with the reason; what
is fused does not."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from decoder_cases import DECODER_CASES, attend, cached, rms, turned
from pass_cases import X, call, values

from npu_compiler.compiler import compile_with_report
from torch_ir import extract_ir

N = values(1, 2, 3, 8)


def pairs_turned(x: torch.Tensor, angles: torch.Tensor) -> torch.Tensor:
    """Neighbours rotate against each other."""
    crossed = torch.stack((-x[..., 1::2], x[..., ::2]), -1).flatten(-2)
    return x * angles.cos() + crossed * angles.sin()


def curved(m: Any, q: torch.Tensor) -> torch.Tensor:
    return torch.tanh(q @ q.transpose(-1, -2)).softmax(-1) @ q


CASES: dict[str, tuple[Callable[..., Any], str]] = {
    "rotary": (
        call(lambda m, q, a: F.scaled_dot_product_attention(pairs_turned(q, a), q, q), N, values(3, 8)),
        r"^rotary embedding: not found as x \* cos \+ cat",
    ),
    "cache": (
        cached(lambda m, x, at, seen: attend(m, x, at, seen, later=1)),
        r"^scaled_dot_product_attention: its cache is updated by two kernels",
    ),
    "cache_of_a_prompt": (
        DECODER_CASES["fuse_cache_of_a_prompt_not_when_read_before"].make,
        r"^scaled_dot_product_attention: its cache is updated by two kernels",
    ),
    "attention": (call(curved, N), r"^matmul_1: attention by several kernels"),
    "attention_rotation": (
        call(
            lambda m, q: F.scaled_dot_product_attention(turned(q, m.c, m.c), q, q),
            N,
            c=values(3, 8),
        ),
        r"its queries are rotated before: heads of \w+ are no multiple of 16 wide$",
    ),
    "norm": (call(lambda m, x: rms(x.transpose(0, 1)).transpose(0, 1), X[0]), ""),
    "norm_of_another_dimension": (
        call(lambda m, x: x * torch.rsqrt(x.pow(2).mean(1, keepdim=True) + 1e-6), X),
        r"^\w+: normalised by several kernels",
    ),
    "gate": (
        DECODER_CASES["fuse_gate_not_when_the_gate_is_read"].make,
        r"^mul: not one product with \w+: something else reads",
    ),
    "products": (
        DECODER_CASES["join_linear_not_of_odd_columns"].make,
        r"^linear, linear_1: not one product: their columns are no multiples of 8$",
    ),
    **{
        name: (DECODER_CASES[name].make, "")
        for name in (
            "fuse_cache",
            "fuse_cache_of_a_prompt",
            "fuse_rotary",
            "fuse_norm_rounded",
            "fuse_gate",
            "join_linear_biases",
        )
    },
}


@pytest.mark.parametrize("name", CASES)
def test_what_is_left_is_reported(name: str) -> None:
    make, pattern = CASES[name]
    module, inputs = make()
    report = compile_with_report(extract_ir(module, inputs, model_name=name))
    lines = [line for line in report.decisions if not line.startswith("product ")]
    if pattern:
        assert len([line for line in lines if re.search(pattern, line)]) == 1, lines
    else:
        assert lines == []
