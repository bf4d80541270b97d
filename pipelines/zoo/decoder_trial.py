"""Whether a decoder computes with a cache of ours what it computes without one: tried, on a small copy.

The copy has few layers, few words and narrow windows, and random weights. It is given two prompts, one of
them padded, and some tokens more, and its logits are compared with the library's own forward over the whole
sequences.
"""

from __future__ import annotations

import copy
import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import DummyLayer, DynamicCache, DynamicLayer, DynamicSlidingWindowLayer

from pipelines.zoo.cached_attention import NAME
from pipelines.zoo.decoder_cache import LayerShape, UnsupportedDecoderError
from pipelines.zoo.dynamic_rope import follow_lengths
from pipelines.zoo.random_weights import small_in_memory

#: Tokens of a trial's prompts, tokens after them, padding before the second prompt.
PROMPT, STEPS, PADDING = 7, 3, 2
#: The largest difference of a trial's logits, of the largest.
TOLERANCE = 1e-4
#: Sizes that ``slim`` makes smaller, how many experts a token takes, and what widths become.
_INNER = r"\w*intermediate_size\w*|(encoder_|decoder_)?ffn_dim|\w*ffn_hidden_size|n_inner"
_EXPERTS = r"num_experts|num_local_experts|n_routed_experts|moe_num_experts"
_CHOSEN = r"num_experts_per_tok\w*|moe_topk|moe_k|top_k_experts|experts_per_token"
_WIDTH = 64
#: What a window or chunk of attention is narrowed to; how many words are left.
_WINDOW, _WORDS = 4, 128


@dataclass(frozen=True)
class Arrangement:
    """How a class is called: its implementation of attention, the name of its cache's argument, whether
    positions are given (or counted by the model), and whether it gives the last logits alone."""

    implementation: str
    cache: str
    positions: bool
    keeps: bool


def calling(model_class: Any) -> list[Arrangement]:
    """The ways to call a class, the best first. Raises ``UnsupportedDecoderError`` where there is none."""
    takes = inspect.signature(model_class.forward).parameters
    cache = next((name for name in ("cache", "past_key_values", "cache_params") if name in takes), None)
    lacks = [name for name in ("input_ids", "attention_mask") if name not in takes]
    if cache is None:
        lacks.append("cache")
    if cache is None or lacks:
        raise UnsupportedDecoderError(f"{model_class.__name__} is no decoder that can be given a cache: its "
                                      f"forward takes no {', '.join(lacks)}")
    choices = (True, False) if "position_ids" in takes else (False,)
    return [Arrangement(implementation, cache, positions, "logits_to_keep" in takes)
            for implementation in (NAME, "eager") for positions in choices]


_chosen: dict[tuple[Any, str], Arrangement] = {}


def choose(
    model_class: Any, settings: Any, cached: Callable[[Any, Arrangement, int, int], Any]
) -> Arrangement:
    """The first arrangement that is right. ``cached(model, arrangement, length, batch)`` gives a model its
    cache. Raises ``UnsupportedDecoderError`` with what went wrong."""
    key = (model_class, str(settings.to_dict()))
    if key not in _chosen:
        state = torch.random.get_rng_state()
        try:
            with torch.device("cpu"), torch.no_grad():
                _chosen[key] = _first_right(model_class, settings, cached)
        finally:
            torch.random.set_rng_state(state)
    return _chosen[key]


def _first_right(
    model_class: Any, settings: Any, cached: Callable[[Any, Arrangement, int, int], Any]
) -> Arrangement:
    ways, failures = calling(model_class), []
    small, reference, ids, whole = _reference(model_class, settings)
    for how in ways:
        try:
            small._attn_implementation = how.implementation
            model = small_in_memory(model_class, copy.deepcopy(small), 7)
            wrong = _wrong(cached(model, how, PROMPT + STEPS + 2, 2), reference, ids, whole, how)
        except UnsupportedDecoderError:
            raise
        except Exception as error:
            wrong = _told(error)
        if not wrong:
            return how
        failures.append(wrong)
    hint = ""
    if getattr(settings, "is_decoder", None) is False:
        hint = ": config.is_decoder is false, so that tokens see later ones; set is_decoder: true"
    telling = [failure for failure in failures if NAME not in failure] or failures
    raise UnsupportedDecoderError(
        f"{model_class.__name__} cannot be given a cache{hint}. In a trial: {telling[0]}")


def _reference(model_class: Any, settings: Any) -> tuple[Any, Any, Tensor, Tensor]:
    """The configuration of a trial, its model as the library runs it, tokens [2, S], and the logits of the
    first row's last ones. A configuration that does not bear being made smaller is tried as it is."""
    failure: Exception | None = None
    for shrink in (lambda given: slim(shrunk(given), narrow=True), shrunk, _as_it_is):
        try:
            small = shrink(settings)
            small._attn_implementation = "eager"
            reference = small_in_memory(model_class, copy.deepcopy(small), 7)
            words = int(getattr(small.get_text_config(decoder=True), "vocab_size", 0) or 96)
            ids = torch.randint(3, min(words, 90), (2, PROMPT + STEPS),
                                generator=torch.Generator().manual_seed(1))
            return small, reference, ids, _plain(reference, ids[:1])
        except UnsupportedDecoderError:
            raise
        except Exception as error:
            failure = failure or error
    assert failure is not None
    raise UnsupportedDecoderError(
        f"{model_class.__name__}: transformers itself does not compute with a small copy of this "
        f"configuration, so that it cannot be tried: {_told(failure)}") from failure


def _told(error: Exception | None) -> str:
    text = str(error).strip().split("\n")[0]
    return f"{type(error).__name__}: {text[:300]}"


def _plain(model: Any, ids: Tensor, **more: Tensor) -> Tensor:
    out = model(input_ids=ids, use_cache=False, **more)
    if getattr(out, "logits", None) is None:
        raise UnsupportedDecoderError(
            f"{type(model).__name__} is no decoder that can be given a cache: it gives no logits")
    logits: Tensor = out.logits[:, PROMPT - 1:].float()
    if not logits.isfinite().all() or not logits.std() > 1e-4:
        raise ValueError("its logits with random weights are not finite, or all alike")
    return logits


def _wrong(model: Any, reference: Any, ids: Tensor, whole: Tensor, arrangement: Arrangement) -> str:
    """Where logits with a cache differ; "" where they do not."""
    mask = torch.ones_like(ids)
    mask[1, :PADDING] = 0
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    given = {"position_ids": positions} if arrangement.positions else {}
    padded = _plain(reference, ids, attention_mask=mask, **given)[1:]
    wanted = torch.cat([whole, padded])
    room = torch.nn.functional.pad(mask, (0, 2))
    for step in range(STEPS + 1):
        end = PROMPT + step
        if step == 0:
            got = model.prefill(ids[:, :end], mask[:, :end], positions[:, :end])
        else:
            used = room * (torch.arange(room.shape[1]) < end)
            got = model.decode(ids[:, end - 1:end], torch.tensor([end - 1]), positions[:, end - 1:end], used)
        gaps = (got[:, -1] - wanted[:, step]).abs().amax(-1) / wanted.abs().max()
        for row, prompt in enumerate(("", ", padded on the left,")):
            if not gaps[row] <= TOLERANCE:
                place = f"token {step} after a prompt" if step else "a prompt"
                return (f"its logits of {place}{prompt} differ by {float(gaps[row]):.1e} of the largest from "
                        "those of the whole sequence without a cache")
    return ""


def layers_of(model_class: Any, settings: Any, how: Arrangement) -> tuple[LayerShape | None, ...]:
    """What each layer keeps, as a call without values shows it; None for a layer that keeps nothing. Raises
    ``UnsupportedDecoderError`` for one that keeps something else than keys and values of all tokens."""
    cache: DynamicCache | None = None
    failure: Exception | None = None
    for number, shape in enumerate((copy.deepcopy, lambda given: slim(_as_it_is(given)), _as_it_is)):
        try:
            if number:  # a forward that asks for values, as experts do
                with torch.device("cpu"):
                    cache = _used_cache(small_in_memory(model_class, shape(settings), 7), how)
            else:
                with torch.device("meta"):
                    cache = _used_cache(model_class._from_config(shape(settings)).eval(), how)
            break
        except UnsupportedDecoderError:
            raise
        except Exception as error:
            failure = failure or error
    if cache is None:
        raise UnsupportedDecoderError(f"{model_class.__name__}: what its layers keep cannot be found out: "
                                      f"{_told(failure)}") from failure
    found = tuple(_shape_of(model_class.__name__, number, layer) for number, layer in enumerate(cache.layers))
    if not any(found):
        raise UnsupportedDecoderError(f"{model_class.__name__} keeps no keys and values in a cache")
    return found


def _used_cache(model: Any, how: Arrangement) -> DynamicCache:
    """The library's own cache after two tokens."""
    with torch.no_grad():
        cache = DynamicCache(config=model.config)
        plain = (DynamicLayer, DynamicSlidingWindowLayer, DummyLayer)
        other = [f"layer {number} ({type(layer).__name__})" for number, layer in enumerate(cache.layers)
                 if type(layer) not in plain]
        if other:
            raise UnsupportedDecoderError(
                f"{type(model).__name__}: {other[0]} and {len(other) - 1} more keep something else than keys "
                "and values of all tokens, which is not supported; choose a model of attention layers alone")
        follow_lengths(model)
        ids = torch.ones(1, 2, dtype=torch.long)
        places = {"position_ids": torch.arange(2)[None]} if how.positions else {}
        model(input_ids=ids, attention_mask=ids, use_cache=True, **places, **{how.cache: cache})
    return cache


def _shape_of(name: str, number: int, layer: Any) -> LayerShape | None:
    keys, values = getattr(layer, "keys", None), getattr(layer, "values", None)
    if keys is None or values is None:
        return None
    if keys.dim() != 4 or values.dim() != 4 or keys.shape[:2] != values.shape[:2] or keys.shape[0] != 1:
        raise UnsupportedDecoderError(f"{name}: layer {number} keeps keys {list(keys.shape)} and values "
                                      f"{list(values.shape)} instead of [B, heads, length, width]")
    return LayerShape(keys.shape[1], keys.shape[3], values.shape[3])


def slim(settings: Any, narrow: bool = False) -> Any:
    """``settings`` with few experts and narrow hidden layers, which change nothing of what a layer keeps.
    ``narrow``: with narrow heads as well where their width follows from the whole's."""
    for part in _parts(settings):
        held = dict(vars(part))
        numbers = {key: value for key, value in held.items() if type(value) is int and value > 0}
        chosen = max((numbers[key] for key in numbers if re.fullmatch(_CHOSEN, key)), default=1)
        for key, value in numbers.items():
            if re.fullmatch(_INNER, key):
                setattr(part, key, min(value, _WIDTH))
            elif re.fullmatch(_EXPERTS, key):
                setattr(part, key, min(value, max(16, 2 * chosen)))
        if "hidden_size" in numbers and "num_attention_heads" in numbers:
            heads = numbers["num_attention_heads"]
            if "head_dim" in held:
                part.head_dim = held["head_dim"] or part.hidden_size // heads
                part.hidden_size = min(part.hidden_size, _WIDTH)
            elif narrow:
                part.hidden_size = min(part.hidden_size, 8 * heads)
    return settings


def _parts(settings: Any) -> list[Any]:
    """A configuration, and the one of its decoder where that is another."""
    text = settings.get_text_config(decoder=True)
    return [settings] if text is settings else [settings, text]


def _as_it_is(settings: Any) -> Any:
    small = copy.deepcopy(settings)
    small.dtype = torch.float32
    small._experts_implementation = "eager"  # grouped products do not take weights of little memory
    return small


def shrunk(settings: Any) -> Any:
    """``settings`` with as few layers as have one of each kind, a small vocabulary and narrow windows."""
    small = _as_it_is(settings)
    text = small.get_text_config(decoder=True)
    layers = int(text.num_hidden_layers)
    few = min(layers, max(2, _first_of_all(text, layers)))
    for part in _parts(small):
        _shrink(part, layers, few)
    return small


def _shrink(part: Any, layers: int, few: int) -> None:
    vocabulary = min(int(getattr(part, "vocab_size", 0) or _WORDS), _WORDS)
    for key, value in list(vars(part).items()):
        if key.startswith("_") or isinstance(value, bool):
            continue
        if isinstance(value, (list, tuple)) and len(value) == layers and layers > few:
            setattr(part, key, value[:few])
        elif isinstance(value, int) and key.endswith("_token_id"):
            setattr(part, key, min(value, vocabulary - 1))
        elif isinstance(value, int) and ("window" in key or "chunk_size" in key) and "layers" not in key:
            setattr(part, key, min(value, _WINDOW) if value > 0 else value)
        elif isinstance(value, int) and "shared_layers" in key and layers > few:
            setattr(part, key, value * few // layers)
    if hasattr(part, "vocab_size"):
        part.vocab_size = vocabulary
    if hasattr(part, "num_hidden_layers") and layers > few:
        part.num_hidden_layers = few


def _first_of_all(settings: Any, layers: int) -> int:
    """How many layers there are up to the first of the last kind."""
    most = 0
    for key, value in vars(settings).items():
        if isinstance(value, (list, tuple)) and len(value) == layers:
            kinds = [repr(item) for item in value]
            most = max(most, *(kinds.index(kind) + 1 for kind in set(kinds)))
        elif key in ("first_k_dense_replace", "num_dense_layers") and isinstance(value, int):
            most = max(most, value + 1)
    return most
