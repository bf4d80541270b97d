"""Rotary frequencies that follow the length of the sequence, computed in the graph."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from pipelines.zoo.decoder_cache import UnsupportedDecoderError


def follow_lengths(model: Any) -> None:
    """Gives each module of rotary embeddings whose frequencies change with the length of the sequence a
    forward without branches and without memory. ``transformers`` computes the frequencies anew where a call
    reaches further than all calls before; one sequence only grows, so that the furthest position decides."""
    for module in model.modules():
        kind = getattr(module, "rope_type", None)
        if isinstance(kind, dict) and "dynamic" in kind.values():
            raise UnsupportedDecoderError(
                f"{type(model).__name__}: rope_type dynamic for some layers alone is not supported; choose "
                "linear, llama3, yarn or longrope")
        if kind == "dynamic":
            _follow(module, ROPE_INIT_FUNCTIONS[kind])
        elif kind == "longrope":
            _follow(module, None)


def _follow(module: Any, dynamic: Any) -> None:
    original = type(module).forward
    if dynamic is None:
        limit = module.config.rope_parameters["original_max_position_embeddings"]
        with torch.device("cpu"):
            long, _ = ROPE_INIT_FUNCTIONS["longrope"](module.config, torch.device("cpu"), seq_len=limit + 1)
            short, _ = ROPE_INIT_FUNCTIONS["longrope"](module.config, torch.device("cpu"), seq_len=limit)
        module.register_buffer("long_frequencies", long, persistent=False)
        module.register_buffer("short_frequencies", short, persistent=False)
    module.rope_type = "default"  # the library's own update has nothing to do

    def frequencies(position_ids: Tensor) -> Tensor:
        length = position_ids.max() + 1
        if dynamic is None:
            return torch.where(length > limit, module.long_frequencies, module.short_frequencies)
        found: Tensor = dynamic(module.config, position_ids.device, seq_len=length)[0]
        return found

    def forward(x: Tensor, position_ids: Tensor, *args: Any, **kwargs: Any) -> Any:
        own = module._buffers["inv_freq"]
        module._buffers["inv_freq"] = frequencies(position_ids)
        try:
            return original(module, x, position_ids, *args, **kwargs)
        finally:
            module._buffers["inv_freq"] = own

    module.forward = forward
