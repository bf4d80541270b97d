"""Spaces and rules of the GPUs' product kernels; the rules were measured on an H100."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from npu_compiler.spaces import Choice, Question, Space, Value, declare

#: Most rows for which reading each weight once is what counts.
FEW_ROWS = 4
#: Tiles of 64 x 64 from which on a device is busy with tiles that share local memory.
MANY_TILES = 256
#: Work-groups below which some of its compute units have nothing to do.
BUSY_GROUPS = 132
#: Bytes of local memory that every device of compute capability 8.0 gives a work-group.
LOCAL_BYTES = 49152
#: Float32 sums and operands of 32 bits that a work-item of a tensor core's tile can hold in registers.
REGISTERS = 208
#: Products of a step.
STEP = 32


@dataclass(frozen=True, slots=True)
class GroupTile:
    """What a work-group of a product makes: ``pixels`` x ``channels`` results with ``group`` work-items.

    ``params`` are the template's own; ``channels_first``: whether neighbouring work-groups share pixels;
    ``parts``: how many work-groups share the products of a tile."""

    variant: str
    template: str
    group: int
    pixels: int
    channels: int
    params: Mapping[str, int]
    shown: str
    channels_first: bool = True
    parts: int = 1


def group_tile(question: Question, choose: Callable[[Space, Question], Choice]) -> GroupTile:
    """The tile for a product: see ``question``. ``choose`` answers with a value for each knob."""
    form = choose(FORM, question)["form"]
    if form == "rows":
        return _rows_tile(question, choose(ROWS, question))
    if form == "mma":
        return _mma_tile(choose(MMA, question))
    if form == "split":
        return _split_tile(choose(SPLIT, question))
    return GroupTile("tile", "ops/matmul_tiled.cl.j2", 256, 64, 64, {}, "64x64", channels_first=False)


def group_question(
    *,
    op: str,
    pixels: int,
    out: int,
    products: int,
    groups: int,
    rows: bool,
    half: bool,
    stored: bool,
    gate: bool,
    norm: bool,
) -> Question:
    """A product of ``pixels`` rows at most, ``out`` channels per group and ``products`` per result.

    ``rows``: whether a pixel's products are one vector-aligned run. ``half``: whether tensor cores may take
    the product. ``stored``: whether the input is in their dtype already, in vectors. ``gate``: whether two
    channels make one result. ``norm``: whether rows are normalised before."""
    return {
        "op": op, "pixels": pixels, "out": out, "products": products, "groups": groups, "rows": rows,
        "half": half, "stored": stored, "gate": gate, "norm": norm,
    }  # fmt: skip


def _numbers(question: Question, *names: str) -> tuple[int, ...]:
    return tuple(int(question[name]) for name in names)


def _few(question: Question) -> bool:
    """Whether a kernel that reads each weight once can take the product."""
    return bool(question["rows"]) and question["groups"] == 1 and int(question["pixels"]) <= 8


def _tiles(question: Question, pixels: int, channels: int) -> int:
    return -(-int(question["pixels"]) // pixels) * -(-int(question["out"]) // channels)


def _form_rule(question: Question) -> Choice:
    if _few(question) and int(question["pixels"]) <= (FEW_ROWS if question["half"] else 2 * FEW_ROWS):
        return {"form": "rows"}
    if not question["half"]:
        return {"form": "tile"}
    return {"form": "mma" if _tiles(question, 64, 64) >= MANY_TILES or _many_rows(question) else "split"}


def _many_rows(question: Question) -> bool:
    """Whether there are rows, in 16 bits, for tiles that share local memory."""
    pixels, out = _numbers(question, "pixels", "out")
    return bool(question["stored"] and question["rows"]) and min(pixels, out) >= 128


def _form_valid(choice: Choice, question: Question) -> bool:
    form = choice["form"]
    if question["norm"]:
        return form == "rows" and _few(question)
    return (
        form == "tile"
        or (form == "rows" and _few(question))
        or (form in ("mma", "split") and bool(question["half"]))
    )


def _rows_rule(question: Question) -> Choice:
    pixels, out, products = _numbers(question, "pixels", "out", "products")
    return {
        "lanes": 128 if products >= 4096 else 64,
        "rows": 1 if out < 8192 or pixels > 2 else 2,
    }


def _rows_valid(choice: Choice, question: Question) -> bool:
    lanes, rows = _numbers(choice, "lanes", "rows")
    sums = int(question["pixels"]) * rows * (2 if question["gate"] else 1)
    local = sums * (256 // lanes) * (lanes + 1) * 4 if 1 <= lanes <= 256 else LOCAL_BYTES + 1
    return 256 % lanes == 0 and 1 <= rows <= 8 and sums <= 32 and local <= LOCAL_BYTES


def _rows_tile(question: Question, choice: Choice) -> GroupTile:
    pixels = int(question["pixels"])
    lanes, rows = _numbers(choice, "lanes", "rows")
    channels = 256 // lanes * rows
    params = {"group": 256, "lanes": lanes, "rows": rows, "pixels": pixels}
    return GroupTile("rows", "ops/matvec_group.cl.j2", 256, pixels, channels, params, f"{pixels}x{channels}")


def _mma_rule(question: Question) -> Choice:
    pixels, out, products = _numbers(question, "pixels", "out", "products")
    stages, parts, order = 0, 1, "channels"
    if _many_rows(question):
        tiles, order = _tiles(question, 128, 128), "pixels"  # weights, the larger part, are read once
        if tiles >= 2 * BUSY_GROUPS or products >= 4096:
            mt, nt, wm, wn, stages = 4, 8, 2, 2, 3
            parts = 1 if tiles >= BUSY_GROUPS else max(1, min(2 * BUSY_GROUPS // tiles, products // 512, 8))
        else:
            # narrower tiles where all of them run at once
            mt, nt, wm, wn, stages = 2, 6 if _tiles(question, 64, 96) <= BUSY_GROUPS else 8, 2, 2, 4
    elif out < 128:
        mt, nt, wm, wn = (2, 4, 2, 2) if products < 256 else (4, 4, 2, 2)
    elif pixels < 1024:
        mt, nt, wm, wn = 2, 8, 2, 2
    elif question["stored"] and _tiles(question, 128, 128) < BUSY_GROUPS:
        mt, nt, wm, wn, stages = 4, 4, 2, 4, 3  # too few work-groups to hide the way to memory otherwise
    else:
        mt, nt, wm, wn = 4, 8, 2, 2
    return {"mt": mt, "nt": nt, "wm": wm, "wn": wn, "stages": stages, "parts": parts, "order": order}


def _mma_valid(choice: Choice, question: Question) -> bool:
    mt, nt, wm, wn, stages, parts = _numbers(choice, "mt", "nt", "wm", "wn", "stages", "parts")
    if not (1 <= mt <= 4 and 1 <= nt <= 8 and wm * wn in (2, 4, 8) and wm >= 1 and parts >= 1):
        return False
    rows, columns = 16 * mt * wm, 8 * nt * wn
    steps = -(-int(question["products"]) // STEP)
    return (
        rows % (8 * wm * wn) == 0
        and columns % (8 * wm * wn) == 0
        and 4 * mt * nt + 8 * mt + 4 * nt <= REGISTERS
        and (stages == 0 or (stages >= 2 and nt % 2 == 0 and bool(question["stored"])))
        and (rows + columns) * 2 * STEP * (stages or 2) <= LOCAL_BYTES
        and (parts == 1 or (question["groups"] == 1 and 2 * parts <= steps))
        and not (question["gate"] and nt % 2)
        and choice["order"] in ("channels", "pixels")
    )


def _mma_tile(choice: Choice) -> GroupTile:
    mt, nt, wm, wn, parts = _numbers(choice, "mt", "nt", "wm", "wn", "parts")
    names = ("mt", "nt", "wm", "wn", "stages", "parts")
    params = {**{name: int(choice[name]) for name in names}, "channels_first": choice["order"] == "channels"}
    bm, bn = 16 * mt * wm, 8 * nt * wn
    shown = f"{bm}x{bn}" + (f"x{parts}" if parts > 1 else "")
    return GroupTile(
        "mma",
        "ops/matmul_mma.cl.j2",
        32 * wm * wn,
        bm,
        bn,
        params,
        shown,
        choice["order"] == "channels",
        parts,
    )


def _split_rule(question: Question) -> Choice:
    pixels, products = _numbers(question, "pixels", "products")
    if _tiles(question, 64, 32) >= 192:
        mt, nt, slices = 4, 4, 4
    elif _tiles(question, 64, 64) >= 32 or products < 2048:
        mt, nt, slices = 1, 4, 8
    else:
        mt, nt, slices = 1, 2 if pixels <= 64 else 4, 16
    return {"mt": mt, "nt": nt, "slices": slices}


def _split_valid(choice: Choice, question: Question) -> bool:
    mt, nt, slices = _numbers(choice, "mt", "nt", "slices")
    return (
        1 <= mt <= 4
        and 1 <= nt <= 8
        and 1 <= slices <= 32
        and slices * 16 * mt * (8 * nt + 2) * 4 <= LOCAL_BYTES
        and mt * nt * slices <= 80
        and not (question["gate"] and nt % 2)
    )


def _split_tile(choice: Choice) -> GroupTile:
    mt, nt, slices = _numbers(choice, "mt", "nt", "slices")
    shown = f"{16 * mt}x{8 * nt}x{slices}"
    params = {"mt": mt, "nt": nt, "slices": slices}
    return GroupTile("split", "ops/matmul_mma_split.cl.j2", 32 * slices, 16 * mt, 8 * nt, params, shown)


_SIZES: tuple[Value, ...] = (1, 2, 3, 4, 5, 6, 7, 8)

#: How a work-group goes about a product: "rows" reads each weight once; "mma" and "split" use tensor cores,
#: with local memory shared by a tile's warps or a tile per warp's share of the products; "tile" neither.
FORM = declare(
    "group_form",
    {"form": ("rows", "mma", "split", "tile")},
    _form_rule,
    _form_valid,
    (
        "ops/matvec_group.cl.j2",
        "ops/matmul_mma.cl.j2",
        "ops/matmul_mma_split.cl.j2",
        "ops/matmul_tiled.cl.j2",
    ),
    leads=True,
)
#: Products of few rows: ``lanes`` work-items share ``rows`` channels.
ROWS = declare(
    "group_rows",
    {"lanes": (16, 32, 64, 128, 256), "rows": (1, 2, 4)},
    _rows_rule,
    _rows_valid,
    ("ops/matvec_group.cl.j2",),
)
#: Tensor cores through local memory: as in the template; ``parts`` work-groups share a tile's products;
#: ``order``: what neighbouring work-groups differ in.
MMA = declare(
    "group_mma",
    {
        "mt": (1, 2, 3, 4), "nt": _SIZES, "wm": (1, 2, 4), "wn": (1, 2, 4), "stages": (0, 2, 3, 4),
        "parts": (1, 2, 3, 4, 5, 6, 8), "order": ("channels", "pixels"),
    },
    _mma_rule,
    _mma_valid,
    ("ops/matmul_mma.cl.j2", "ops/matmul_sum.cl.j2"),
)  # fmt: skip
#: Tensor cores straight from memory: ``slices`` warps share a tile's products.
SPLIT = declare(
    "group_split",
    {"mt": (1, 2, 3, 4), "nt": _SIZES, "slices": (2, 4, 8, 16)},
    _split_rule,
    _split_valid,
    ("ops/matmul_mma_split.cl.j2",),
)
