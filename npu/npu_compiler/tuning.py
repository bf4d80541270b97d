"""Spaces and rules of the CPU's kernels; the rules were measured on PoCL and Intel's runtime with AVX2.

The width of a linear layer's panel follows from the weight's own shape, so that a weight is packed alike in
every program of a model.
"""

from __future__ import annotations

from npu_compiler.spaces import Choice, Question, declare

#: Multiply-adds that a work-item should do at least, so that starting it does not show.
WORK_PER_ITEM = 200_000
#: Weight panels that keep both cores busy where one work-item walks all pixels of a panel.
MANY_PANELS = 8
#: Vectors of 8 floats in an AVX2 processor's registers.
REGISTERS = 16
#: How many multiply-adds a core does in the time in which it moves a byte: from main memory, and within
#: caches.
MEMORY_BALANCE, CACHE_BALANCE = 4, 1
#: Rows of a matrix that a work-item passes below a panel of weights, at most; the bytes of a core's own
#: cache, in which both should stay.
ITEM_ROWS, CACHE_BYTES = 132, 1 << 20
#: Points of a Winograd tile's transform: 6 x 6.
POINTS = 36


def panel_width(out: int) -> int:
    """Output channels per panel of a packed weight with ``out`` of them per group."""
    return 8 if out <= 8 else 16


def _numbers(question: Question, *names: str) -> tuple[int, ...]:
    return tuple(int(question[name]) for name in names)


def _product_rule(question: Question) -> Choice:
    pixels, out, inner, taps, groups = _numbers(question, "pixels", "out", "inner", "taps", "groups")
    nv = panel_width(out) // 8
    if question["op"] == "conv2d" and not question["gate"] and out % 24 == 0 and out % 16 and pixels > 50:
        nv = 3  # 24 channels fill three vectors, and three quarters of two panels of two
    panels = groups * -(-out // (8 * nv))
    unroll = next(step for step in (4, 3, 2, 1) if inner % step == 0)

    def tile(
        mr: int, grain: int, order: str = "panel", split: bool = False, prefetch: bool = False
    ) -> Choice:
        return {
            "mr": mr, "nv": nv, "grain": grain, "order": order, "split": split, "prefetch": prefetch,
            "unroll": unroll,
        }  # fmt: skip

    if pixels < 6:
        return tile(pixels, 1)
    if pixels <= 50 and taps > 1 and panels >= MANY_PANELS:
        # 7 x 7 maps: 49 pixels fit 10 tiles; large panels pass the cache once
        return tile(5, -(-pixels // 5), split=True, prefetch=True)
    mr = 4 if nv == 3 else 5 if 45 < pixels <= 50 else 6
    tiles = -(-pixels // mr)
    if panels >= MANY_PANELS and tiles <= 64:
        return tile(mr, tiles, prefetch=True)
    if question["op"] == "linear" and panels >= MANY_PANELS:
        fitting = (CACHE_BYTES - 32 * nv * inner) // (4 * mr * inner)
        return tile(mr, max(1, min(fitting, ITEM_ROWS // mr)), prefetch=True)
    even = max(1, min(tiles // 4, WORK_PER_ITEM // (mr * 8 * nv * inner * taps)))
    if taps == 1 and groups == 1:
        return tile(mr, min(even, 8), "pixel")
    return tile(mr, even)


def _product_valid(choice: Choice, question: Question) -> bool:
    pixels, out, inner = _numbers(question, "pixels", "out", "inner")
    mr, nv, grain, unroll = _numbers(choice, "mr", "nv", "grain", "unroll")
    tiles = -(-pixels // mr) if mr >= 1 else 0
    shared = question["op"] == "linear"  # its packed weight serves other programs of the model too
    return (
        1 <= mr <= max(1, pixels)
        and (nv == panel_width(out) // 8 if shared else 1 <= nv <= 4 and 8 * (nv - 1) < out)
        and mr * nv + nv + 1 <= REGISTERS
        and 1 <= grain <= tiles
        and (not choice["split"] or (grain <= 64 and int(question["taps"]) > 1))
        and unroll >= 1
        and inner % unroll == 0
        and choice["order"] in ("panel", "pixel")
        and not (question["gate"] and nv % 2)
    )


#: Matrix products with packed weights: a register tile of ``mr`` rows x ``nv`` vectors, ``grain`` tiles per
#: work-item; ``order``: "panel" if consecutive work-items share a weight panel, "pixel" if they share rows of
#: the input; ``split``, ``prefetch`` and ``unroll`` as in the kernel's template.
PRODUCT = declare(
    "product",
    {
        "mr": (1, 2, 3, 4, 5, 6, 7, 8, 10, 12),
        "nv": (1, 2, 3),
        "grain": (1, 2, 3, 4, 6, 8, 10, 12, 16, 24, 32, 48, 64, 96, 128, 256),
        "order": ("panel", "pixel"),
        "split": (False, True),
        "prefetch": (False, True),
        "unroll": (1, 2, 3, 4, 8),
    },
    _product_rule,
    _product_valid,
    ("ops/conv_igemm.cl.j2",),
)


def _depthwise_rule(question: Question) -> Choice:
    kernel, stride, width, height, columns = _numbers(
        question, "kernel_width", "stride", "width", "height", "columns"
    )
    small = width < 14 or (kernel > 3 and stride > 1)
    rows = max(1, min(4 if small else 2, height * columns // 64))
    return {"tile": 4 if small else 7, "rows": rows}


#: Depthwise convolutions: output pixels per tile and output rows per work-item, for ``columns`` blocks of
#: channels.
DEPTHWISE = declare(
    "depthwise",
    {"tile": (2, 3, 4, 5, 6, 7, 8, 10, 14), "rows": (1, 2, 3, 4, 5, 7, 8, 14, 16, 28)},
    _depthwise_rule,
    lambda choice, question: (
        1 <= int(choice["tile"]) <= 16 and 1 <= int(choice["rows"]) <= int(question["height"])
    ),
    ("ops/conv_depthwise.cl.j2",),
)


def winograd_estimate(question: Question) -> float:
    """The work of F(4x4, 3x3) over that of the direct form, by multiply-adds and bytes."""
    pixels, tiles, inner, out = _numbers(question, "pixels", "tiles", "inner", "out")
    direct = pixels * 9 * inner * out + 9 * 4 * inner * out * MEMORY_BALANCE
    moved = tiles * POINTS * 4 * (inner + out) * 2
    transformed = POINTS * inner * out * (tiles + 4 * MEMORY_BALANCE) + moved * CACHE_BALANCE
    return transformed / direct


#: 3x3 convolutions of stride 1: by Winograd's F(4x4, 3x3), or directly.
FORM = declare(
    "conv3x3",
    {"form": ("direct", "winograd")},
    lambda question: {"form": "winograd" if winograd_estimate(question) < 1 else "direct"},
    lambda choice, question: choice["form"] in ("direct", "winograd"),
    ("ops/winograd.cl.j2", "ops/conv_igemm.cl.j2"),
    leads=True,
)
