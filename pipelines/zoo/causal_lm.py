"""Causal language models of ``transformers`` with a key/value cache of ours, which programs share as state.

The model keeps its own state_dict keys. Two methods are its programs:

    prefill(input_ids, attention_mask, position_ids)                 a prompt, from position 0
    decode(input_ids, cache_position, position_ids, attention_mask)  one more token

``prefill_best`` and ``decode_best`` are the same with a second output: the best token, chosen on the device.

A model is built on the meta device, without memory for its weights.
"""

from __future__ import annotations

import types
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pipelines import huggingface
from pipelines.zoo.decoder_cache import UnsupportedDecoderError, cache_of, hold
from pipelines.zoo.decoder_trial import Arrangement, choose, layers_of
from pipelines.zoo.dynamic_rope import follow_lengths
from pipelines.zoo.random_weights import fill_tables, random_tensor, randomize

__all__ = ["causal_lm", "continuation", "from_folder", "random_tensor", "randomize"]


def prefill(self: Any, input_ids: Tensor, attention_mask: Tensor, position_ids: Tensor) -> Tensor:
    """A prompt [B, S]. ``attention_mask`` [B, S] is 0 where a token is padding. Returns logits
    [B, 1, vocabulary], or [B, S, vocabulary], in float32."""
    return _logits(self, input_ids, attention_mask, position_ids, None)


def decode(
    self: Any, input_ids: Tensor, cache_position: Tensor, position_ids: Tensor, attention_mask: Tensor
) -> Tensor:
    """One token [B, 1], kept at ``cache_position`` [1]. ``attention_mask`` [B, length of the cache] is 1
    where the cache is used, the new token's place included. Returns logits [B, 1, vocabulary] in float32."""
    return _logits(self, input_ids, attention_mask, position_ids, cache_position)


def prefill_best(
    self: Any, input_ids: Tensor, attention_mask: Tensor, position_ids: Tensor
) -> tuple[Tensor, Tensor]:
    """``prefill``'s logits, and the best token [B, 1] (int64) of the last position."""
    return _with_best(prefill(self, input_ids, attention_mask, position_ids))


def decode_best(
    self: Any, input_ids: Tensor, cache_position: Tensor, position_ids: Tensor, attention_mask: Tensor
) -> tuple[Tensor, Tensor]:
    """``decode``'s logits, and the best token [B, 1] (int64)."""
    return _with_best(decode(self, input_ids, cache_position, position_ids, attention_mask))


def _with_best(logits: Tensor) -> tuple[Tensor, Tensor]:
    return logits, logits[:, -1].argmax(-1, keepdim=True)


def _logits(
    self: Any, input_ids: Tensor, attention_mask: Tensor, position_ids: Tensor, position: Tensor | None
) -> Tensor:
    how: Arrangement = self.arrangement
    last = {"logits_to_keep": 0 if self.all_logits else 1} if how.keeps else {}
    places = {"position_ids": position_ids} if how.positions else {}
    logits: Tensor = self.architecture.forward(
        self, input_ids=input_ids, attention_mask=attention_mask, use_cache=True, **places, **last,
        **{how.cache: cache_of(self, position)}).logits
    return (logits if how.keeps or self.all_logits else logits[:, -1:]).float()


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
    every position of a prompt instead of the last. Raises ``UnsupportedDecoderError`` (a ``ValueError``)
    for an architecture that is unknown, or whose logits would not be the same with a cache: a small copy is
    tried first (``decoder_trial``).
    """
    model_class = _class_of(architecture)
    try:
        settings = model_class.config_class(**config)
    except Exception as error:
        raise UnsupportedDecoderError(f"{architecture}: transformers makes no configuration of these "
                                      f"entries: {type(error).__name__}: {error}") from error
    return _cached(model_class, settings, max_cache, batch, dtype, all_logits)


def from_folder(
    *, folder: str, max_cache: int, batch: int = 1, dtype: str | None = None, all_logits: bool = False
) -> nn.Module:
    """The model that ``config.json`` in ``folder`` (as Hugging Face publishes it) describes; the rest as for
    ``causal_lm``. ``dtype``: what the file says, unless it is given. Raises ``ValueError`` for a file that is
    missing, or describes no model of ``causal_lm``'s, or quantised weights."""
    content = huggingface.description(Path(folder))
    names = content.get("architectures") or ["none"]
    if content.get("quantization_config"):
        raise ValueError(f"{folder}: its weights are quantised, which cannot be read; take the original ones")
    model_class = _class_of(str(names[0]))
    settings = model_class.config_class.from_dict(content)
    held = str(settings.dtype or "float32").removeprefix("torch.")
    return _cached(model_class, settings, max_cache, batch, dtype or held, all_logits)


def _class_of(architecture: str) -> Any:
    import transformers

    found = getattr(transformers, architecture, None)
    if found is None or getattr(found, "config_class", None) is None:
        raise UnsupportedDecoderError(f"transformers {transformers.__version__} has no class {architecture}")
    return found


def _cached(
    model_class: Any, settings: Any, max_cache: int, batch: int, dtype: str, all_logits: bool
) -> nn.Module:
    how = choose(model_class, settings, _tried)
    settings._attn_implementation = how.implementation
    settings.dtype = getattr(torch, dtype)
    try:
        return _with_cache(model_class._from_config(settings).eval(), how, max_cache, batch, all_logits)
    except (ArithmeticError, AttributeError, LookupError, TypeError) as error:
        raise UnsupportedDecoderError(f"{model_class.__name__}: transformers makes no model of this "
                                      f"configuration: {type(error).__name__}: {error}") from error


def _tried(model: Any, how: Arrangement, max_cache: int, batch: int) -> Any:
    """``model`` as a program has it."""
    return _with_cache(model, how, max_cache, batch, False)


def _with_cache(model: Any, how: Arrangement, max_cache: int, batch: int, all_logits: bool) -> Any:
    model_class = type(model)
    layers = layers_of(model_class, model.config, how)
    with torch.device("cpu"), torch.no_grad():
        fill_tables(model)
        hold(model, layers, batch, max_cache, model.config.dtype)
    follow_lengths(model)
    model.all_logits, model.architecture, model.arrangement = all_logits, model_class, how
    methods = {"prefill": prefill, "decode": decode, "prefill_best": prefill_best, "decode_best": decode_best}
    name = f"Cached{model_class.__name__}"
    model.__class__ = types.new_class(name, (model_class,), {}, lambda body: body.update(methods))
    return model


def continuation(
    model: Any, prompt: Sequence[int], count: int, forced: Sequence[int] | None = None
) -> tuple[list[int], Tensor]:
    """The ``count`` best tokens behind ``prompt``, and the logits [count, vocabulary] (float32) that chose
    them, by the library's own forward with its own cache. With ``forced`` each step is given that token for
    the one before it."""
    own, attention = type(model), model.config._attn_implementation
    capped = getattr(model.config, "attn_logit_softcapping", None) is not None
    model.__class__ = model.architecture
    capped = capped or attention == "eager"
    model.set_attn_implementation("eager" if capped else "sdpa")
    try:
        given, cache, tokens, logits = torch.tensor([list(prompt)]), None, [], []
        with torch.no_grad():
            for step in range(count):
                out = model(input_ids=given, use_cache=True, **{model.arrangement.cache: cache})
                cache = out[model.arrangement.cache]
                logits.append(out.logits[0, -1].float())
                tokens.append(int(logits[-1].argmax()))
                given = torch.tensor([[tokens[-1] if forced is None else forced[step]]])
    finally:
        model.__class__ = own
        model.set_attn_implementation(attention)
    return tokens, torch.stack(logits)
