"""Small modules for the passes that act for GPUs alone."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from decoder_cases import attend, cached, rms
from pass_cases import PassCase, call, values

LIMIT = 8192  # 256 rows of 8 floats
TABLE = torch.tensor([[0, 255, 256], [511, 512, 599]])

GPU_CASES: dict[str, PassCase] = {
    "fuse_step": PassCase("fuse_step", cached(attend), target="gpu"),
    "fuse_step_not_on_a_cpu": PassCase("fuse_step", cached(attend), False),
    "fuse_norm_rows": PassCase(
        "fuse_norm_rows",
        call(lambda m, x: F.linear(m.w * rms(x), m.v), values(3, 8), w=values(8), v=values(5, 8)),
        target="gpu",
    ),
    "fuse_norm_rows_gated_rounded": PassCase(
        "fuse_norm_rows",
        call(
            lambda m, x: (lambda y: F.silu(F.linear(y, m.u)) * F.linear(y, m.v))(
                (m.w * rms(x).bfloat16()).float()
            ),
            values(2, 16),
            w=values(16).bfloat16(),
            u=values(8, 16),
            v=values(8, 16, seed=1),
        ),
        rounds=True,
        target="gpu",
    ),
    "fuse_norm_rows_not_used_twice": PassCase(
        "fuse_norm_rows",
        call(lambda m, x: (lambda y: (F.linear(y, m.v), y))(rms(x)), values(3, 8), v=values(5, 8)),
        False,
        target="gpu",
    ),
    "fuse_norm_rows_not_of_many": PassCase(
        "fuse_norm_rows",
        call(lambda m, x: F.linear(rms(x), m.v), values(5, 8), v=values(5, 8)),
        False,
        target="gpu",
    ),
    "fuse_gate_not_into_a_large_weight": PassCase(
        "fuse_gate",
        call(
            lambda m, x: F.silu(F.linear(x, m.w)) * F.linear(x, m.v),
            values(3, 8),
            w=values(256, 8),
            v=values(256, 8, seed=1),
        ),
        False,
        limit=LIMIT,
    ),
    "split_large_product": PassCase(
        "split_large",
        call(lambda m, x: F.linear(x, m.w, m.b).relu(), values(3, 8), w=values(600, 8), b=values(600)),
        limit=LIMIT,
    ),
    "split_large_convolution": PassCase(
        "split_large",
        call(
            lambda m, x: F.conv2d(x, m.w, m.b).relu() + F.conv2d(x, m.v),
            values(1, 2, 3, 5),
            w=values(600, 2, 2, 2),
            b=values(600),
            v=values(600, 2, 2, 2, seed=1),
        ),
        limit=LIMIT,
    ),
    "split_large_not_by_groups": PassCase(
        "split_large",
        call(lambda m, x: F.conv2d(x, m.w, groups=2), values(1, 2, 9, 9), w=values(600, 1, 3, 3)),
        False,
        limit=LIMIT,
    ),
    "split_large_table": PassCase(
        "split_large",
        call(lambda m, i: F.linear(F.embedding(i, m.w), m.w), TABLE, w=values(600, 8)),
        limit=LIMIT,
        target="gpu",
    ),
    "split_large_half": PassCase(
        "split_large",
        call(lambda m, i: F.embedding(i, m.w), TABLE, w=values(600, 8).bfloat16()),
        limit=LIMIT // 2,
    ),
    "split_large_not_what_fits": PassCase(
        "split_large", call(lambda m, x: F.linear(x, m.w), values(3, 8), w=values(256, 8)), False, limit=LIMIT
    ),
    "fuse_norm_rows_not_on_a_cpu": PassCase(
        "fuse_norm_rows", call(lambda m, x: F.linear(rms(x), m.v), values(3, 8), v=values(5, 8)), False
    ),
}
