"""Parameters of GPU kernels by rule, from the shape; the rules were measured on an H100."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

#: Most rows for which reading each weight once is what counts.
FEW_ROWS = 4
#: Tiles of 64 x 64 from which on a device is busy with tiles that share local memory.
MANY_TILES = 256
#: Work-groups below which some of its compute units have nothing to do.
BUSY_GROUPS = 132


@dataclass(frozen=True, slots=True)
class GroupTile:
    """What a work-group of a product makes: ``pixels`` x ``channels`` results with ``group`` work-items.

    ``params`` are the template's own; ``channels_first``: whether neighbouring work-groups share pixels."""

    variant: str
    template: str
    group: int
    pixels: int
    channels: int
    params: Mapping[str, int]
    shown: str
    channels_first: bool = True


def group_tile(
    *, pixels: int, out: int, products: int, groups: int, rows: bool, half: bool, stored: bool = False
) -> GroupTile:
    """The tile for ``pixels`` rows at most, ``out`` channels per group and ``products`` per result.

    ``rows``: whether a pixel's products are one vector-aligned run. ``half``: whether tensor cores may take
    the product. ``stored``: whether the input is in their dtype already, in vectors."""
    if rows and groups == 1 and pixels <= (FEW_ROWS if half else 2 * FEW_ROWS):
        return _rows(pixels, out, products)
    if half:
        return _tensor(pixels, out, products, stored)
    return GroupTile("tile", "ops/matmul_tiled.cl.j2", 256, 64, 64, {}, "64x64", channels_first=False)


def _rows(pixels: int, out: int, products: int) -> GroupTile:
    lanes = 128 if products >= 4096 else 64
    rows = 1 if out < 8192 or pixels > 2 else 2
    channels = 256 // lanes * rows
    params = {"group": 256, "lanes": lanes, "rows": rows, "pixels": pixels}
    return GroupTile("rows", "ops/matvec_group.cl.j2", 256, pixels, channels, params, f"{pixels}x{channels}")


def _tensor(pixels: int, out: int, products: int, stored: bool) -> GroupTile:
    tiles = -(-pixels // 64) * -(-out // 64)
    if tiles >= MANY_TILES:
        stages = 0
        if out < 128:
            mt, nt, wm, wn = (2, 4, 2, 2) if products < 256 else (4, 4, 2, 2)
        elif pixels < 1024:
            mt, nt, wm, wn = 2, 8, 2, 2
        elif stored and -(-pixels // 128) * -(-out // 128) < BUSY_GROUPS:
            mt, nt, wm, wn, stages = 4, 4, 2, 4, 3  # too few work-groups to hide the way to memory otherwise
        else:
            mt, nt, wm, wn = 4, 8, 2, 2
        params = {"mt": mt, "nt": nt, "wm": wm, "wn": wn, "stages": stages}
        bm, bn = 16 * mt * wm, 8 * nt * wn
        return GroupTile(
            "mma", "ops/matmul_mma.cl.j2", 32 * wm * wn, bm, bn, params, f"{bm}x{bn}", channels_first=True
        )
    if -(-pixels // 64) * -(-out // 32) >= 192:
        mt, nt, slices = 4, 4, 4
    elif tiles >= 32 or products < 2048:
        mt, nt, slices = 1, 4, 8
    else:
        mt, nt, slices = 1, 2 if pixels <= 64 else 4, 16
    params = {"mt": mt, "nt": nt, "slices": slices}
    template = "ops/matmul_mma_split.cl.j2"
    return GroupTile(
        "split", template, 32 * slices, 16 * mt, 8 * nt, params, f"{16 * mt}x{8 * nt}x{slices}"
    )
