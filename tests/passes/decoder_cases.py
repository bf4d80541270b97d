"""Small modules for the passes that fuse what language models are made of."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from pass_cases import PassCase, X, call, values

U = values(16, 7)
#: The second row sees nothing.
SEEN = torch.tensor([[True, False, True, True, False], [False] * 5, [True, True, True, False, False]])


def shared(k: torch.Tensor) -> torch.Tensor:
    """Every head of [B, H, L, D] twice, one after the other."""
    batch, heads, *rest = k.shape
    return k[:, :, None].expand(batch, heads, 2, *rest).reshape(batch, 2 * heads, *rest)


def rms(x: torch.Tensor) -> torch.Tensor:
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6)


def turned(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Rotary embedding as transformers writes it."""
    half = x.shape[-1] // 2
    return x * cos + torch.cat((-x[..., half:], x[..., :half]), -1) * sin


def capped(q: torch.Tensor, k: torch.Tensor, seen: torch.Tensor, by: float = 2.0) -> torch.Tensor:
    """Attention whose scores are capped, as our decoders write it out."""
    scores = torch.tanh(q @ k.mT * 0.7 / 2.0) * by
    shares = torch._safe_softmax(scores.masked_fill(~seen, -torch.inf), -1, dtype=torch.float32)
    return shares.to(q.dtype) @ k


def attend(m: Any, x: torch.Tensor, at: torch.Tensor, seen: torch.Tensor, *, later: int = 0) -> torch.Tensor:
    """Attention over a cache that new rows (x: queries, keys and values) are written to first."""
    keys = m.keys.index_copy_(2, at, turned(x, m.cos, m.sin).to(m.keys.dtype))
    values = m.values.index_copy_(2, at + later if later else at, x.to(m.values.dtype))
    return F.scaled_dot_product_attention(turned(x, m.cos, m.sin), keys.float(), values.float(), seen)


def attend_prompt(
    m: Any, x: torch.Tensor, *, start: int = 0, early: bool = False, whole: bool = False
) -> torch.Tensor:
    """Attention within new rows, which the cache keeps from ``start`` on."""
    keys = turned(x, m.cos, m.sin)
    for held, rows in ((m.keys, keys), (m.values, x)):
        held.copy_(torch.slice_scatter(held, rows.to(held.dtype), 2, start, start + x.shape[2]))
    query = turned(x, m.cos, m.sin) + (m.keys[:, :, :1].float() if early else 0)
    if whole:
        return F.scaled_dot_product_attention(query, m.keys.float(), m.values.float())
    return F.scaled_dot_product_attention(query, keys, x, is_causal=True)


def prompt(dtype: torch.dtype, **options: Any) -> Any:
    """A maker of a ``Holder`` that is given 3 rows, with a cache of 5 places."""
    return call(
        lambda m, x: attend_prompt(m, x, **options),
        values(1, 2, 3, 16),
        keys=values(1, 2, 5, 16).to(dtype),
        values=values(1, 2, 5, 16, seed=1).to(dtype),
        cos=values(3, 16).cos(),
        sin=values(3, 16).sin(),
    )


def cached(function: Callable[..., Any]) -> Any:
    """A maker of a ``Holder`` with a cache of 5 places in bfloat16."""
    table = values(1, 16)
    return lambda: call(
        function,
        values(1, 2, 1, 16),
        torch.tensor([3]),
        torch.tensor([[True, False, True, True, False]]),
        keys=values(1, 2, 5, 16).bfloat16(),
        values=values(1, 2, 5, 16, seed=1).bfloat16(),
        cos=table.cos(),
        sin=table.sin(),
    )()


DECODER_CASES: dict[str, PassCase] = {
    "fuse_attention_shared_heads": PassCase(
        "fuse_attention",
        call(
            lambda m, q, k: F.scaled_dot_product_attention(q, shared(k), shared(k)),
            values(1, 4, 3, 8),
            values(1, 2, 5, 8),
        ),
    ),
    "fuse_attention_half": PassCase(
        "fuse_attention",
        call(
            lambda m, q, k: F.scaled_dot_product_attention(q, k.float(), k.float()),
            values(1, 2, 3, 8),
            values(1, 2, 5, 8).half(),
        ),
    ),
    "fuse_attention_not_of_interleaved_heads": PassCase(
        "fuse_attention",
        call(
            lambda m, q, k: F.scaled_dot_product_attention(q, k.repeat(1, 2, 1, 1), k.repeat(1, 2, 1, 1)),
            values(1, 4, 3, 8),
            values(1, 2, 5, 8),
        ),
        False,
    ),
    "fuse_attention_mask_of_two": PassCase(
        "fuse_attention",
        call(
            lambda m, q, k, seen: (
                F.scaled_dot_product_attention(q, k, k, seen) + F.scaled_dot_product_attention(q, q, q, seen)
            ),
            values(1, 2, 3, 8),
            values(1, 2, 3, 8, seed=1),
            torch.tensor([[True, True, False], [False, False, False], [True, False, False]]),
        ),
    ),
    "fuse_attention_rotation": PassCase("fuse_attention", cached(attend)),
    "fuse_attention_not_without_a_mask": PassCase(
        "fuse_attention",
        call(lambda m, q: F.scaled_dot_product_attention(q, q, q), values(1, 2, 3, 8)),
        False,
    ),
    "join_attention": PassCase(
        "join_attention",
        call(lambda m, q, k: capped(q, shared(k), m.seen), values(1, 4, 3, 8), values(1, 2, 5, 8), seen=SEEN),
    ),
    "join_attention_in_half": PassCase(
        "join_attention",
        call(
            lambda m, q, k: capped(q, k, m.seen),
            values(1, 2, 3, 8).bfloat16(),
            values(1, 2, 5, 8).bfloat16(),
            seen=SEEN,
        ),
        rounds=True,
    ),
    "join_attention_without_cap": PassCase(
        "join_attention",
        call(lambda m, q: torch._safe_softmax(q @ q.mT * 0.5, -1) @ q, values(1, 2, 3, 8)),
    ),
    "join_attention_not_of_two_caps": PassCase(
        "join_attention",
        call(lambda m, q: capped(q, q, m.seen[:, :3], 1.5), values(1, 2, 3, 8), seen=SEEN),
        False,
    ),
    "join_attention_not_of_softmax": PassCase(
        "join_attention", call(lambda m, q: (q @ q.mT * 0.5).softmax(-1) @ q, values(1, 2, 3, 8)), False
    ),
    "fuse_rotary": PassCase(
        "fuse_rotary",
        call(lambda m, x: turned(x, m.c.cos(), m.c.sin()) + 1, values(2, 3, 5, 8), c=values(5, 8)),
    ),
    "fuse_rotary_half_tables": PassCase(
        "fuse_rotary",
        call(
            lambda m, x: turned(x.bfloat16() * 2, m.c.cos().bfloat16(), m.c.sin().bfloat16()),
            values(2, 3, 5, 8),
            c=values(5, 8),
        ),
        rounds=True,
    ),
    "fuse_rotary_not_of_pairs": PassCase(
        "fuse_rotary",
        call(
            lambda m, x: x * m.c + torch.stack((-x[..., 1::2], x[..., ::2]), -1).flatten(-2) * m.c,
            values(3, 8),
            c=values(8),
        ),
        False,
    ),
    "fuse_rotary_not_of_another_tensor": PassCase(
        "fuse_rotary",
        call(
            lambda m, x: x * m.c + torch.cat((-m.y[..., 4:], m.y[..., :4]), -1) * m.c,
            values(3, 8),
            y=values(3, 8, seed=1),
            c=values(8),
        ),
        False,
    ),
    "fuse_rotary_not_backwards": PassCase(
        "fuse_rotary",
        call(lambda m, x: x * m.c + torch.cat((x[..., 4:], -x[..., :4]), -1) * m.c, values(8), c=values(8)),
        False,
    ),
    "fuse_cache": PassCase("fuse_cache", cached(attend)),
    "fuse_cache_of_a_prompt": PassCase("fuse_cache", prompt(torch.float32)),
    "fuse_cache_of_a_prompt_in_half": PassCase("fuse_cache", prompt(torch.bfloat16)),
    "fuse_cache_of_a_prompt_not_behind_another": PassCase(
        "fuse_cache", prompt(torch.float32, start=1), False
    ),
    "fuse_cache_of_a_prompt_not_when_read_before": PassCase(
        "fuse_cache", prompt(torch.float32, early=True), False
    ),
    "fuse_cache_of_a_prompt_not_when_all_is_attended_to": PassCase(
        "fuse_cache", prompt(torch.float32, whole=True), False
    ),
    "fuse_cache_not_at_two_places": PassCase(
        "fuse_cache", cached(lambda m, x, at, seen: attend(m, x, at, seen, later=1)), False
    ),
    "fuse_cache_not_when_read_before": PassCase(
        "fuse_cache",
        cached(
            lambda m, x, at, seen: F.scaled_dot_product_attention(
                x,
                (keys := m.keys.index_copy(2, at, x.bfloat16())).float(),
                m.values.index_copy(2, at, keys[:, :, :1] * 2).float(),
            )
        ),
        False,
    ),
    "fuse_norm_rounded": PassCase(
        "fuse_norm", call(lambda m, x: m.w * rms(x).bfloat16(), values(3, 8), w=values(8).bfloat16())
    ),
    "fuse_norm_weight": PassCase("fuse_norm", call(lambda m, x: m.w * rms(x), values(3, 8), w=values(8))),
    "fuse_norm_used_twice": PassCase(
        "fuse_norm", call(lambda m, x: (m.w * rms(x)) + rms(x), values(3, 8), w=values(8))
    ),
    "fuse_norm_not_over_rows": PassCase(
        "fuse_norm", call(lambda m, x: x * torch.rsqrt((x * x).mean(0, keepdim=True) + 1e-6), X), False
    ),
    "fuse_norm_not_when_the_mean_is_an_output": PassCase(
        "fuse_norm",
        call(lambda m, x: (lambda v: (x * torch.rsqrt(v + 1e-6), v))((x * x).mean(-1, keepdim=True)), X),
        False,
    ),
    "fuse_norm_not_of_another_tensor": PassCase(
        "fuse_norm",
        call(lambda m, x, y: y * torch.rsqrt((x * x).mean(-1, keepdim=True) + 1e-6), X, X * 2),
        False,
    ),
    "split_linear": PassCase(
        "split_linear",
        call(
            lambda m, x: (lambda a, b: b * F.silu(a))(*F.linear(x, m.w, m.b).chunk(2, -1)),
            values(3, 7),
            w=values(32, 7),
            b=values(32),
        ),
    ),
    "split_linear_not_when_both_are_bent": PassCase(
        "split_linear",
        call(
            lambda m, x: (lambda a, b: b.exp() * F.silu(a))(*F.linear(x, m.w).chunk(2, -1)),
            values(3, 7),
            w=values(32, 7),
        ),
        False,
    ),
    "split_linear_not_when_all_is_read": PassCase(
        "split_linear",
        call(
            lambda m, x: (lambda y: y[..., :16] * F.silu(y[..., 16:]) + y.sum())(F.linear(x, m.w)),
            values(3, 7),
            w=values(32, 7),
        ),
        False,
    ),
    "fuse_gate_of_halves": PassCase(
        "fuse_gate",
        call(
            lambda m, x: (lambda a, b: b * F.silu(a))(*F.linear(x, m.w).chunk(2, -1)),
            values(3, 7),
            w=values(32, 7),
        ),
    ),
    "split_linear_not_of_a_shared_weight": PassCase(
        "split_linear",
        call(
            lambda m, x: (
                (lambda a, b: b * F.silu(a))(*F.linear(x, m.w).chunk(2, -1)) + F.linear(x + 1, m.w).sum()
            ),
            values(3, 7),
            w=values(32, 7),
        ),
        False,
    ),
    "fuse_gate": PassCase(
        "fuse_gate",
        call(lambda m, x: F.silu(F.linear(x, m.w)) * F.linear(x, m.v), values(3, 7), w=U, v=U.flip(0)),
    ),
    "fuse_gate_biases": PassCase(
        "fuse_gate",
        call(
            lambda m, x: F.linear(x, m.v, m.b) * F.gelu(F.linear(x, m.w, m.c)) + 1,
            values(2, 3, 7),
            w=U,
            v=U.flip(0),
            b=values(16),
            c=values(16, seed=1),
        ),
    ),
    "fuse_gate_not_when_the_gate_is_read": PassCase(
        "fuse_gate",
        call(
            lambda m, x: (g := F.silu(F.linear(x, m.w))) * F.linear(x, m.v) + g.sum(),
            values(3, 7),
            w=U,
            v=U.flip(0),
        ),
        False,
    ),
    "fuse_gate_not_of_other_inputs": PassCase(
        "fuse_gate",
        call(lambda m, x, y: F.silu(F.linear(x, m.w)) * F.linear(y, m.v), *(values(3, 7),) * 2, w=U, v=U),
        False,
    ),
    "fuse_gate_not_of_a_shared_weight": PassCase(
        "fuse_gate",
        call(
            lambda m, x: F.silu(F.linear(x, m.w)) * F.linear(x, m.v) + F.linear(x + 1, m.w),
            values(3, 7),
            w=U,
            v=U.flip(0),
        ),
        False,
    ),
    "join_linear": PassCase(
        "join_linear",
        call(
            lambda m, x: F.linear(x, m.w).softmax(-1) @ F.linear(x, m.v).softmax(-1).transpose(-1, -2),
            values(2, 3, 7),
            w=U,
            v=U.flip(1),
        ),
    ),
    "join_linear_biases": PassCase(
        "join_linear",
        call(
            lambda m, x: (F.linear(x, m.w, m.b).softmax(-1)[..., :8], F.linear(x, m.v, m.c).softmax(-1)),
            values(3, 7),
            w=U,
            v=U[:8],
            b=values(16),
            c=values(8),
        ),
    ),
    "join_linear_not_of_odd_columns": PassCase(
        "join_linear",
        call(
            lambda m, x: F.linear(x, m.w).sum() + F.linear(x, m.v).sum(),
            values(3, 7),
            w=values(5, 7),
            v=U,
        ),
        False,
    ),
    "join_linear_not_of_a_table": PassCase(
        "join_linear",
        call(
            lambda m, i: (lambda x: F.linear(x, m.w).sum() + F.linear(x, m.v).sum())(F.embedding(i, m.w)),
            torch.tensor([3, 0, 15]),
            w=U,
            v=U.flip(0),
        ),
        False,
    ),
    "join_linear_not_a_result": PassCase(
        "join_linear",
        call(lambda m, x: (F.linear(x, m.w), F.linear(x, m.v).sum()), values(3, 7), w=U, v=U.flip(0)),
        False,
    ),
}
