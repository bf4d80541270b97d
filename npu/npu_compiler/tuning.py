"""Kernel parameters by rule, from the shape; the rules were measured on PoCL and Intel's runtime with AVX2.

The width of a tile (``nv``) follows from the weight's own shape, so that a weight is packed alike in every
program.
"""

from __future__ import annotations

from dataclasses import dataclass

#: Multiply-adds that a work-item should do at least, so that starting it does not show.
WORK_PER_ITEM = 200_000
#: Weight panels that keep both cores busy where one work-item walks all pixels of a panel.
MANY_PANELS = 8


@dataclass(frozen=True, slots=True)
class Tile:
    """A matrix product's register tile: ``mr`` rows x ``nv`` vectors, ``grain`` tiles per work-item.

    ``order``: "panel" if consecutive work-items share a weight panel, "pixel" if they share rows of the
    input. ``split`` and ``prefetch`` as in the kernel's template.
    """

    mr: int
    nv: int
    grain: int
    order: str = "panel"
    split: int = 0
    prefetch: bool = False


def panel_width(out: int) -> int:
    """Output channels per panel of a packed weight with ``out`` of them per group."""
    return 8 if out <= 8 else 16


def igemm_tile(*, pixels: int, out: int, inner: int, taps: int, groups: int) -> Tile:
    """The tile for ``pixels`` rows, ``out`` channels per group, and ``inner`` channels times ``taps``
    products per result."""
    nv = panel_width(out) // 8
    panels = groups * -(-out // (8 * nv))
    if pixels < 6:
        return Tile(pixels, nv, 1)
    if pixels <= 50 and taps > 1 and panels >= MANY_PANELS:
        tiles = -(-pixels // 5)  # 7 x 7 maps: 49 pixels fit 10 tiles; large panels pass the cache once
        return Tile(5, nv, tiles, split=tiles, prefetch=True)
    mr = 5 if 45 < pixels <= 50 else 6
    tiles = -(-pixels // mr)
    if panels >= MANY_PANELS and tiles <= 64:
        return Tile(mr, nv, tiles, prefetch=True)
    even = max(1, min(tiles // 4, WORK_PER_ITEM // (mr * 8 * nv * inner * taps)))
    if taps == 1 and groups == 1:
        return Tile(mr, nv, min(even, 8), "pixel")
    return Tile(mr, nv, even)


def depthwise_tile(
    *, kernel_width: int, stride: int, width: int, height: int, columns: int
) -> tuple[int, int]:
    """Output pixels per tile and output rows per work-item, for ``columns`` blocks of channels."""
    small = width < 14 or (kernel_width > 3 and stride > 1)
    rows = max(1, min(4 if small else 2, height * columns // 64))
    return (4, rows) if small else (7, rows)
