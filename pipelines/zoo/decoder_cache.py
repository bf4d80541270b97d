"""A decoder's cache in buffers of the model, as ``transformers`` calls a cache."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers.cache_utils import Cache, CacheLayerMixin, DummyLayer

from pipelines.factory import FactoryError


class UnsupportedDecoderError(FactoryError):
    """A model that cannot be given a cache of ours, or would not compute the same with it."""


@dataclass(frozen=True)
class LayerShape:
    """What a layer keeps of every token: heads, numbers of a head's key and of its value."""

    heads: int
    key: int
    value: int


class HeldLayer(CacheLayerMixin):
    """Keys and values [B, heads, length, width] of one layer.

    A prompt's tokens are the first ones, and attend to each other alone. A later token is written to
    ``position`` ([1], int64) and attends to the whole cache, of which the mask lets the used part be seen.
    """

    def __init__(self, keys: Tensor, values: Tensor, position: Tensor | None) -> None:
        super().__init__()
        self._held, self._position = (keys, values), position
        self.is_initialized = True

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """The buffers are there."""

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Writes new keys and values; returns those to attend to."""
        for buffer, new in zip(self._held, (key_states, value_states), strict=True):
            if self._position is None:
                buffer.copy_(torch.slice_scatter(buffer, new, 2, 0, new.shape[2]))
            else:
                buffer.index_copy_(2, self._position, new)
        return (key_states, value_states) if self._position is None else self._held

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """How many keys there are to attend to, and the place of the first."""
        return (query_length if self._position is None else self._held[0].shape[2]), 0

    def get_seq_length(self) -> Any:
        """How many tokens lie before the ones of this call: 0, or a tensor without dimensions."""
        return 0 if self._position is None else self._position.reshape(())

    def get_max_length(self) -> int:
        """How many tokens there is room for."""
        return int(self._held[0].shape[2])


def cache_of(model: nn.Module, position: Tensor | None) -> Cache:
    """The cache that ``hold`` has given to ``model``, for a prompt or for one token at ``position``."""
    layers: list[Any] = []
    for number, shape in enumerate(model.cache_layers):
        if shape is None:
            layers.append(DummyLayer())
        else:
            layers.append(HeldLayer(getattr(model, f"cache_keys_{number}"),
                                    getattr(model, f"cache_values_{number}"), position))
    return Cache(layers=layers)


def hold(
    model: Any, layers: tuple[LayerShape | None, ...], batch: int, length: int, dtype: torch.dtype
) -> None:
    """Gives ``model`` the buffers of a cache."""
    model.cache_layers = layers
    with torch.device("cpu"):
        for number, shape in enumerate(layers):
            if shape is not None:
                for kind, width in (("keys", shape.key), ("values", shape.value)):
                    empty = torch.zeros(batch, shape.heads, length, width, dtype=dtype)
                    model.register_buffer(f"cache_{kind}_{number}", empty, persistent=False)
