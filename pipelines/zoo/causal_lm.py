"""Causal language models of ``transformers`` with a key/value cache of ours, which programs share as state.

The model keeps its own state_dict keys. Two methods are its programs:

    prefill(input_ids, attention_mask, position_ids)                 a prompt, from position 0
    decode(input_ids, cache_position, position_ids, attention_mask)  one more token

``prefill_best`` and ``decode_best`` are the same with a second output: the best token, chosen on the device.

A model is built on the meta device, without memory for its weights.
"""

from __future__ import annotations

import inspect
import types
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pipelines import huggingface
from pipelines.zoo.cached_attention import NAME, Tokens, attending


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
            if (buffer.shape[1], buffer.shape[3]) != (new.shape[1], new.shape[3]):
                raise ValueError(
                    f"layer {layer} keeps {new.shape[1]} heads of {new.shape[3]} numbers, and the "
                    f"configuration has {buffer.shape[1]} of {buffer.shape[3]}; such a cache is not supported"
                )
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
    distance = order[:, None] - order[None, :]
    seen = (distance >= 0)[None, None] & attention_mask.bool()[:, None, None, :]
    return _logits(self, input_ids, Tokens(seen, distance), position_ids, StaticCache(self, None))


def decode(
    self: Any, input_ids: Tensor, cache_position: Tensor, position_ids: Tensor, attention_mask: Tensor
) -> Tensor:
    """One token [B, 1], kept at ``cache_position`` [1]. ``attention_mask`` [B, length of the cache] is 1
    where the cache is used, the new token's place included. Returns logits [B, 1, vocabulary] in float32."""
    order = torch.arange(attention_mask.shape[1], device=input_ids.device)
    distance = cache_position[:, None] - order[None, :]
    seen = attention_mask.bool()[:, None, None, :]
    return _logits(
        self, input_ids, Tokens(seen, distance), position_ids, StaticCache(self, cache_position)
    )


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
    self: Any, input_ids: Tensor, sequence: Tokens, position_ids: Tensor, cache: StaticCache
) -> Tensor:
    with attending(sequence):
        out = self.architecture.forward(
            self, input_ids=input_ids, attention_mask=sequence.seen, position_ids=position_ids,
            use_cache=True, logits_to_keep=0 if self.all_logits else 1, **{self.cache_argument: cache})
    if sequence.attended != self.config.num_hidden_layers:
        raise ValueError(
            f"{self.architecture.__name__}: {sequence.attended} of {self.config.num_hidden_layers} layers "
            "attend by the interface of transformers; the others cannot be given a cache"
        )
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
    every position of a prompt instead of the last. Raises ``ValueError`` for an architecture that is unknown,
    or has layers that keep more than keys and values.
    """
    model_class = _class_of(architecture)
    return _cached(model_class, model_class.config_class(**config), max_cache, batch, dtype, all_logits)


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
        raise ValueError(f"transformers {transformers.__version__} has no class {architecture}")
    wanted = {"input_ids", "attention_mask", "position_ids", "logits_to_keep"}
    lacks = wanted - set(inspect.signature(found.forward).parameters)
    if lacks:
        raise ValueError(f"{architecture} is no decoder that can be given a cache: its forward takes no "
                         f"{', '.join(sorted(lacks))}")
    return found


def _cached(
    model_class: Any, settings: Any, max_cache: int, batch: int, dtype: str, all_logits: bool
) -> nn.Module:
    kinds = set(getattr(settings, "layer_types", None) or ()) - {"full_attention", "sliding_attention"}
    if kinds:
        raise ValueError(f"{model_class.__name__} has layers of {', '.join(sorted(kinds))}, which keep "
                         "something else than keys and values of all tokens; this is not supported")
    scaling = getattr(settings, "rope_parameters", None) or {}
    for rope in (scaling, *scaling.values()):
        if isinstance(rope, dict) and rope.get("rope_type") in ("dynamic", "longrope"):
            raise ValueError(
                f"{model_class.__name__}: the frequencies of rope_type {rope['rope_type']} change with the "
                "length of the sequence, which one program cannot follow; choose linear, llama3 or yarn"
            )
    settings._attn_implementation = NAME
    settings.dtype = getattr(torch, dtype)
    try:
        model = model_class._from_config(settings).eval()
    except KeyError as error:
        if error.args != (NAME,):
            raise
        raise ValueError(f"{model_class.__name__} does not attend by the interface of transformers, and so "
                         "cannot be given a cache") from None
    with torch.device("cpu"), torch.no_grad():
        _fill_tables(model)
        heads = getattr(settings, "num_key_value_heads", None) or settings.num_attention_heads
        width = getattr(settings, "head_dim", None) or settings.hidden_size // settings.num_attention_heads
        for layer in range(settings.num_hidden_layers):
            for kind in ("keys", "values"):
                empty = torch.zeros(batch, heads, max_cache, width, dtype=settings.dtype)
                model.register_buffer(f"cache_{kind}_{layer}", empty, persistent=False)
    model.all_logits, model.architecture = all_logits, model_class
    parameters = inspect.signature(model_class.forward).parameters
    model.cache_argument = "cache" if "cache" in parameters else "past_key_values"
    methods = {"prefill": prefill, "decode": decode, "prefill_best": prefill_best, "decode_best": decode_best}
    name = f"Cached{model_class.__name__}"
    model.__class__ = types.new_class(name, (model_class,), {}, lambda body: body.update(methods))
    return model


def _fill_tables(model: Any) -> None:
    """Computes what no checkpoint holds (rotary frequencies) where the model was built on the meta device, by
    the library's own initialisation."""
    for module in model.modules():
        names = [name for name in module._non_persistent_buffers_set
                 if module._buffers[name] is not None and module._buffers[name].is_meta]
        for name in names:
            shape, dtype = module._buffers[name].shape, module._buffers[name].dtype
            module._buffers[name] = torch.full(shape, float("nan")).to(dtype)
        if names:
            model._init_weights(module)
        unknown = [name for name in names if module._buffers[name].isnan().any()]
        if unknown:
            raise ValueError(f"{type(model).__name__}: how {', '.join(unknown)} of {type(module).__name__} "
                             "is computed is not known")


def continuation(
    model: Any, prompt: Sequence[int], count: int, forced: Sequence[int] | None = None
) -> tuple[list[int], Tensor]:
    """The ``count`` best tokens behind ``prompt``, and the logits [count, vocabulary] (float32) that chose
    them, by the library's own forward with its own cache. With ``forced`` each step is given that token for
    the one before it."""
    own, attention = type(model), model.config._attn_implementation
    capped = getattr(model.config, "attn_logit_softcapping", None) is not None
    model.__class__ = model.architecture
    model.set_attn_implementation("eager" if capped else "sdpa")
    try:
        given, cache, tokens, logits = torch.tensor([list(prompt)]), None, [], []
        with torch.no_grad():
            for step in range(count):
                out = model(input_ids=given, use_cache=True, **{model.cache_argument: cache})
                cache = out[model.cache_argument]
                logits.append(out.logits[0, -1].float())
                tokens.append(int(logits[-1].argmax()))
                given = torch.tensor([[tokens[-1] if forced is None else forced[step]]])
    finally:
        model.__class__ = own
        model.set_attn_implementation(attention)
    return tokens, torch.stack(logits)


def random_tensor(name: str, shape: Iterable[int], seed: int) -> Tensor:
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
