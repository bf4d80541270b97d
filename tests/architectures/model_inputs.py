"""Inputs that vary: tokens with padding, images that are not square, sounds, features."""

from __future__ import annotations

from collections.abc import Callable

import torch
from architecture import Inputs, Sizes
from torch import Tensor

Draw = Callable[[torch.Generator, Sizes], Inputs]


def padding_mask(batch: int, length: int, left: bool = False) -> Tensor:
    """1 for tokens, 0 for padding: row ``i`` lacks ``3 * i`` tokens, but keeps at least one."""
    position = torch.arange(length)
    kept = torch.tensor([max(length - 3 * row, 1) for row in range(batch)])[:, None]
    return ((length - 1 - position if left else position) < kept).long()


def tokens(
    vocabulary: int = 99,
    batch: int = 2,
    length: int = 7,
    *,
    mask: str = "right",
    types: int = 0,
    **extra: Draw,
) -> Draw:
    """``input_ids`` and, unless ``mask`` is "", ``attention_mask``, padded on that side."""

    def draw(generator: torch.Generator, sizes: Sizes) -> Inputs:
        shape = (sizes.get("batch", batch), sizes.get("length", length))
        found = {"input_ids": torch.randint(3, vocabulary, shape, generator=generator)}
        if mask:
            found["attention_mask"] = padding_mask(*shape, left=mask == "left")
        if types:
            found["token_type_ids"] = torch.randint(0, types, shape, generator=generator)
        for more in extra.values():
            found.update(more(generator, sizes))
        return found

    return draw


def images(
    height: int = 32, width: int = 32, *, channels: int = 3, batch: int = 2, name: str = "pixel_values"
) -> Draw:
    def draw(generator: torch.Generator, sizes: Sizes) -> Inputs:
        shape = (sizes.get("batch", batch), channels, sizes.get("height", height), sizes.get("width", width))
        return {name: torch.randn(shape, generator=generator)}

    return draw


def features(*shape: int | str, name: str = "x") -> Draw:
    """Normal values; a size may be the name of a symbol."""

    def draw(generator: torch.Generator, sizes: Sizes) -> Inputs:
        return {
            name: torch.randn(
                [sizes[size] if isinstance(size, str) else size for size in shape], generator=generator
            )
        }

    return draw


def together(*draws: Draw) -> Draw:
    return lambda generator, sizes: {
        key: tensor for draw in draws for key, tensor in draw(generator, sizes).items()
    }


def waves(samples: int = 1203, batch: int = 2, *, mask: bool = False) -> Draw:
    """``input_values``: sound of a given number of samples."""

    def draw(generator: torch.Generator, sizes: Sizes) -> Inputs:
        shape = (sizes.get("batch", batch), sizes.get("samples", samples))
        found = {"input_values": torch.randn(shape, generator=generator)}
        if mask:
            found["attention_mask"] = (
                torch.arange(shape[1])
                < torch.tensor([shape[1] - 300 * row for row in range(shape[0])])[:, None]
            ).long()
        return found

    return draw
