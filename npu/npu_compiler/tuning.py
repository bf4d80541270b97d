"""Kernel parameters: tuned entries first, then a rule from the shape."""

from __future__ import annotations

from dataclasses import dataclass

from npu_compiler.target import Target

#: Multiply-adds that a work-item should do at least, so that starting it does not show.
WORK_PER_ITEM = 200_000


@dataclass(frozen=True, slots=True)
class Tile:
    """A matrix product's register tile: ``mr`` rows x ``nv`` vectors, ``grain`` tiles per work-item.

    ``order``: "panel" if consecutive work-items share a weight panel, "pixel" if they share rows of the
    input.
    """

    mr: int
    nv: int
    grain: int
    order: str


def igemm_tile(target: Target, op: str, *, pixels: int, out: int, inner: int) -> Tile:
    """The tile for ``pixels`` rows, ``out`` channels per group and ``inner`` products per result."""
    if pixels < 6:
        return Tile(pixels, 2 if out > 8 else 1, 1, "panel")
    nv = 1 if out <= 8 else 2
    grain = max(1, min(-(-pixels // 6) // 4, WORK_PER_ITEM // (6 * 8 * nv * inner)))
    return Tile(6, nv, grain, "panel")
