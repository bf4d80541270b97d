"""Causal language models of ``transformers`` with a key/value cache of ours, which programs share as state.

The model keeps its own state_dict keys. Two methods are its programs:

    prefill(input_ids, attention_mask, position_ids)                 a prompt, from position 0
    decode(input_ids, cache_position, position_ids, attention_mask)  one more token

A model is built on the meta device, without memory for its weights.
"""

from __future__ import annotations

import types
import zlib
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn


class StaticCache:
    """What a ``transformers`` model takes for its cache: each layer's keys and values
    [B, heads, length, width], in buffers of the model.

    A prompt's positions are the first ones, and attend to each other alone. A later token is written to
    ``position`` ([1], int64) and attends to the whole cache, of which the mask lets the used part be seen.
    """

    def __init__(self, model: nn.Module, position: Tensor | None) -> None:
        self._model, self._position = model, position

    def update(self, keys: Tensor, values: Tensor, layer: int, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Writes a layer's new keys and values; returns those to attend to."""
        held = [getattr(self._model, f"cache_{kind}_{layer}") for kind in ("keys", "values")]
        for buffer, new in zip(held, (keys, values), strict=True):
            if self._position is None:
                buffer.copy_(torch.slice_scatter(buffer, new, 2, 0, new.shape[2]))
            else:
                buffer.index_copy_(2, self._position, new)
        return (keys, values) if self._position is None else (held[0], held[1])

    def get_seq_length(self, *_: Any) -> int:
        """Positions are given, never counted."""
        return 0


def prefill(self: Any, input_ids: Tensor, attention_mask: Tensor, position_ids: Tensor) -> Tensor:
    """A prompt [B, S]. ``attention_mask`` [B, S] is 0 where a token is padding. Returns logits
    [B, 1, vocabulary], or [B, S, vocabulary], in float32."""
    order = torch.arange(input_ids.shape[1], device=input_ids.device)
    seen = (order[None, :] <= order[:, None])[None, None] & attention_mask.bool()[:, None, None, :]
    return _logits(self, input_ids, seen, position_ids, StaticCache(self, None))


def decode(
    self: Any, input_ids: Tensor, cache_position: Tensor, position_ids: Tensor, attention_mask: Tensor
) -> Tensor:
    """One token [B, 1], kept at ``cache_position`` [1]. ``attention_mask`` [B, length of the cache] is 1
    where the cache is used, the new token's place included. Returns logits [B, 1, vocabulary] in float32."""
    seen = attention_mask.bool()[:, None, None, :]
    return _logits(self, input_ids, seen, position_ids, StaticCache(self, cache_position))


def _logits(self: Any, input_ids: Tensor, seen: Tensor, position_ids: Tensor, cache: StaticCache) -> Tensor:
    out = self.architecture.forward(
        self, input_ids=input_ids, attention_mask=seen, position_ids=position_ids, cache=cache,
        use_cache=True, logits_to_keep=0 if self.all_logits else 1)
    return out.logits.float()


def causal_lm(
    *,
    architecture: str,
    config: dict[str, Any],
    max_cache: int,
    batch: int = 1,
    dtype: str = "float32",
    all_logits: bool = False,
) -> nn.Module:
    """A ``transformers`` class such as ``Qwen2ForCausalLM`` with the entries of ``config``.

    ``max_cache``: positions that the cache has room for. ``dtype``: of weights and cache. ``all_logits``: of
    every position of a prompt instead of the last. Raises ``ValueError`` for an unknown architecture.
    """
    import transformers

    model_class = getattr(transformers, architecture, None)
    if model_class is None:
        raise ValueError(f"transformers {transformers.__version__} has no class {architecture}")
    settings = model_class.config_class(**config)
    settings._attn_implementation = "sdpa"
    settings.dtype = getattr(torch, dtype)
    model = model_class(settings).to(settings.dtype).eval()
    with torch.device("cpu"):
        for module in model.modules():  # what no checkpoint holds is computed, in float32
            if "inv_freq" in dict(module.named_buffers(recurse=False)):
                module.__init__(settings)
        heads = getattr(settings, "num_key_value_heads", settings.num_attention_heads)
        width = getattr(settings, "head_dim", None) or settings.hidden_size // settings.num_attention_heads
        for layer in range(settings.num_hidden_layers):
            for kind in ("keys", "values"):
                empty = torch.zeros(batch, heads, max_cache, width, dtype=settings.dtype)
                model.register_buffer(f"cache_{kind}_{layer}", empty, persistent=False)
    model.all_logits, model.architecture = all_logits, model_class
    methods = {"prefill": prefill, "decode": decode}
    name = f"Cached{architecture}"
    model.__class__ = types.new_class(name, (model_class,), {}, lambda body: body.update(methods))
    return model


def random_tensor(name: str, shape: Sequence[int], seed: int) -> Tensor:
    """The parameter ``name`` of a model with random weights, in float32: a scale near 1, or a matrix that
    keeps the size of what it is applied to."""
    generator = torch.Generator().manual_seed(zlib.crc32(name.encode(), seed))
    noise = torch.randn(tuple(shape), generator=generator)
    if noise.dim() > 1:
        return noise.mul_(noise.shape[1] ** -0.5)
    return noise.mul_(0.1).add_(1.0 if "norm" in name else 0.0)


def randomize(model: nn.Module, seed: int) -> nn.Module:
    """Fills every parameter from ``seed`` and its name."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(random_tensor(name, parameter.shape, seed))
    return model
