"""Attention of ``transformers``' decoders over a cache of ours, as an implementation registered with that
library.

A layer attends to what the mask lets it see that the model itself makes, so that windows, chunks and whatever
else a model asks for are its own. Capped scores and attention sinks, which a layer asks for when it calls,
are applied here. What else a layer may ask for is refused. """

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import create_position_bias_mask, repeat_kv

NAME = "npubin_cached"

#: Arguments of a layer's call that change what it computes, and have no place here.
_REFUSED = ("head_mask", "indices", "block_mask")


def attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    position_bias: Tensor | None = None,
    **given: Any,
) -> tuple[Tensor, None]:
    """Attention [B, Q, heads, width of a value] of a layer to ``key`` and ``value`` [B, groups, K, width].
    ``s_aux`` [heads]: the score of a place that has no value, which takes its share of the attention."""
    for name in _REFUSED:
        if given.get(name) is not None:
            raise ValueError(f"{type(module).__name__} attends with {name}, which is not supported")
    groups = getattr(module, "num_key_value_groups", 1)
    key, value = repeat_kv(key, groups), repeat_kv(value, groups)
    if position_bias is not None:
        attention_mask = create_position_bias_mask(position_bias, attention_mask, False, query, key)
    if softcap is None and s_aux is None:
        y = nn.functional.scaled_dot_product_attention(query, key, value, attention_mask, scale=scaling)
        return y.transpose(1, 2).contiguous(), None
    scores = query @ key.transpose(2, 3) * (query.shape[-1] ** -0.5 if scaling is None else scaling)
    if softcap is not None:
        scores = torch.tanh(scores / softcap) * softcap
    if attention_mask is not None:
        hidden = attention_mask.dtype == torch.bool
        scores = scores.masked_fill(~attention_mask, float("-inf")) if hidden else scores + attention_mask
    if s_aux is None:
        shares = torch._safe_softmax(scores, -1, dtype=torch.float32)
    else:
        sink = s_aux.reshape(1, -1, 1, 1).expand(*scores.shape[:3], 1)
        shares = torch.softmax(torch.cat([scores, sink], -1), -1, dtype=torch.float32)[..., :-1]
    return (shares.to(value.dtype) @ value).transpose(1, 2).contiguous(), None


def seen(
    batch_size: int,
    q_length: int,
    kv_length: int,
    q_offset: int | Tensor = 0,
    kv_offset: int = 0,
    mask_function: Callable[..., Tensor] | None = None,
    attention_mask: Tensor | None = None,
    device: Any = "cpu",
    **_: Any,
) -> Tensor:
    """What a query sees of the keys, bool [B or 1, 1, Q, K]: what ``mask_function`` (batch, head,
    place of the query, place of the key) says, and no padding (0 in ``attention_mask`` [B, K])."""
    assert mask_function is not None
    rows = torch.arange(batch_size, device=device)[:, None, None, None]
    queries = (torch.arange(q_length, device=device) + q_offset)[None, None, :, None]
    keys = (torch.arange(kv_length, device=device) + kv_offset)[None, None, None, :]
    mask = mask_function(rows, torch.zeros_like(rows[:1]), queries, keys)
    if attention_mask is not None:
        mask = mask & attention_mask.bool()[:, None, None, :]
    return mask


AttentionInterface.register(NAME, attend)
AttentionMaskInterface.register(NAME, seen)
