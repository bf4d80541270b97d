"""Attention of ``transformers``' decoders over a cache of ours, as an implementation registered with that
library.

A layer attends to what a mask of ours lets it see; a sliding window and the capping of scores, which a layer
asks for when it calls, are applied here. What else a layer may ask for is refused. """

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

NAME = "npubin_cached"

#: Arguments of a layer's call that change what it computes, and have no place here.
_REFUSED = ("s_aux", "position_bias", "head_mask", "indices", "block_mask")


class Tokens:
    """The tokens of one call: ``seen`` [B, 1, Q, K] is where a query may look, ``distance`` [Q, K] how far a
    key lies before a query. Counts the layers that attended."""

    def __init__(self, seen: Tensor, distance: Tensor) -> None:
        self.seen, self._distance = seen, distance
        self.attended = 0
        self._windows: dict[int, Tensor] = {}

    def within(self, window: int | None) -> Tensor:
        """``seen``, no further back than ``window`` tokens, the query's own included."""
        if window is None:
            return self.seen
        if window not in self._windows:
            self._windows[window] = self.seen & (self._distance < window)[None, None]
        return self._windows[window]


_current: list[Tokens] = []


@contextmanager
def attending(sequence: Tokens) -> Iterator[None]:
    """While it lasts, layers attend within ``sequence``."""
    _current.append(sequence)
    try:
        yield
    finally:
        _current.pop()


def attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    softcap: float | None = None,
    sliding_window: int | None = None,
    **given: Any,
) -> tuple[Tensor, None]:
    """Attention [B, Q, heads, width] of a layer to ``key`` and ``value`` [B, groups, K, width]."""
    for name in _REFUSED:
        if given.get(name) is not None:
            raise ValueError(f"{type(module).__name__} attends with {name}, which is not supported")
    if _current:
        _current[-1].attended += 1
        attention_mask = _current[-1].within(sliding_window)
    if softcap is None and isinstance(query.shape[2], int):
        return sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling)
    groups = getattr(module, "num_key_value_groups", 1)
    key, value = repeat_kv(key, groups), repeat_kv(value, groups)
    if softcap is None:  # NOTE: the library asks whether there is one query, and so excludes that length
        y = nn.functional.scaled_dot_product_attention(query, key, value, attention_mask, scale=scaling)
        return y.transpose(1, 2).contiguous(), None
    scores = query @ key.transpose(2, 3) * (query.shape[-1] ** -0.5 if scaling is None else scaling)
    scores = torch.tanh(scores / softcap) * softcap
    if attention_mask is not None:
        scores = scores.masked_fill(~attention_mask, float("-inf"))
    shares = torch._safe_softmax(scores, -1, dtype=torch.float32).to(query.dtype)
    return (shares @ value).transpose(1, 2).contiguous(), None


AttentionInterface.register(NAME, attend)
AttentionMaskInterface.register(NAME, sdpa_mask)
