"""What ``gpu.py`` here measures beside: PyTorch eager and compiled with CUDA graphs, on the same card."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Rival:
    """What a peer does in a step, and untimed before it."""

    step: Callable[[], object]
    before: Callable[[], None] | None = None


def convolutional(model: Any, x: Any) -> dict[str, Rival]:
    """The model itself, in either order of the image's dimensions."""
    import torch

    model, x = model.cuda(), x.cuda()
    last, x_last = (each.to(memory_format=torch.channels_last) for each in (copy.deepcopy(model), x))
    return {
        "eager": Rival(lambda: model(x)),
        "eager_channels_last": Rival(lambda: last(x_last)),
        "compile_cuda_graphs": graphed(model, lambda step: step(x)),
        "compile_cuda_graphs_channels_last": graphed(last, lambda step: step(x_last)),
    }


def transformers_qwen(settings: Any, prompt: int | None, position: int) -> dict[str, Rival]:
    """The library's own model: ``prompt`` tokens, or else a step at ``position`` over a static cache."""
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM, StaticCache

    config: Any = Qwen2Config(**settings)
    torch.manual_seed(0)
    with torch.device("cuda"):
        model = Qwen2ForCausalLM._from_config(config, attn_implementation="sdpa", dtype=torch.bfloat16).eval()
        ids = torch.randint(0, config.vocab_size, (1, prompt or 1))

    def static(at: int) -> tuple[Any, Callable[[], None]]:
        cache: Any = StaticCache(config=config, max_cache_len=2048)
        width = config.hidden_size // config.num_attention_heads
        cache.early_initialization(1, config.num_key_value_heads, width, torch.bfloat16, torch.device("cuda"))

        def rewind() -> None:
            for layer in cache.layers:
                layer.cumulative_length.fill_(at)

        return cache, rewind

    def over(at: int) -> dict[str, Rival]:
        (first, rewind), (second, rewind_graph) = static(at), static(at)
        return {
            "eager_static_cache": Rival(lambda: model(ids, cache=first, logits_to_keep=1), rewind),
            "compile_cuda_graphs_static_cache": graphed(
                model, lambda step: step(ids, cache=second, logits_to_keep=1), rewind_graph
            ),
        }

    if prompt is None:
        return over(position)
    return {
        "eager": Rival(lambda: model(ids, use_cache=True, logits_to_keep=1)),
        "compile_cuda_graphs": graphed(model, lambda step: step(ids, use_cache=True, logits_to_keep=1)),
        **over(0),
    }


def graphed(model: Any, call: Callable[[Any], object], before: Callable[[], None] | None = None) -> Rival:
    import torch

    def ready() -> None:
        torch.compiler.cudagraph_mark_step_begin()
        if before:
            before()

    torch._dynamo.config.cache_size_limit = 64
    step = torch.compile(model, mode="reduce-overhead", dynamic=False)
    return Rival(lambda: call(step), ready)
