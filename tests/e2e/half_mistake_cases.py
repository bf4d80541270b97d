"""Known mistakes with 16-bit floating point: see ``mistake_cases``."""

from __future__ import annotations

import torch
from mistake_cases import IDS, POSITIONS, Mistake, Rotary, call, n, rounded_frequencies
from torch import Tensor, nn


class RotaryOfBfloat16(Rotary):
    """As in a bfloat16 model: angles in float32, what they turn in bfloat16."""

    def forward(self, x: Tensor, positions: Tensor) -> Tensor:
        cos, sin = (t.to(x.dtype) for t in self.angles(positions))
        half = x.shape[-1] // 2
        return x * cos + torch.cat([-x[..., half:], x[..., :half]], -1) * sin


def bf16(mistake: Mistake) -> Mistake:
    """The case in bfloat16: parameters, buffers and inputs."""
    inputs = tuple(x.bfloat16() if x.is_floating_point() else x for x in mistake.inputs)
    return Mistake(mistake.module.bfloat16(), inputs, mistake.mistaken)


HALF = {
    "to_bfloat16": call(
        lambda m, x: x.to(torch.bfloat16).float(), (n(5, 7) * 1e5,), lambda m, x: x.half().float()
    ),
    "to_float16": call(
        lambda m, x: x.to(torch.float16).float(), (n(5, 7) * 9,), lambda m, x: x.bfloat16().float()
    ),
    "token_ids_of_a_bfloat16_model": bf16(
        call(
            lambda m, ids: m.embedding(ids).float(), (IDS,),
            lambda m, ids: m.embedding(ids.bfloat16().long().clamp(max=4999)).float(),
            embedding=nn.Embedding(5000, 6),
        )
    ),
    "linear_layer_of_a_bfloat16_model": bf16(
        call(
            lambda m, x: m.a(x), (torch.tensor([[1e5, 2.0, -3e4]]),),
            lambda m, x: m.a(x.half().bfloat16()), a=nn.Linear(3, 5),
        )
    ),
    "rotary_of_a_bfloat16_model": Mistake(
        RotaryOfBfloat16(1e6), (n(1, 5, 16).bfloat16(), POSITIONS), rounded_frequencies
    ),
}  # fmt: skip
