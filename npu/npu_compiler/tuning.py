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
#: And until the next kernel starts.
LAUNCH_BALANCE = 1_500_000
#: The part of the shorter of computing and reading weights that the longer one does not hide (measured).
NOT_HIDDEN = 0.35
#: Rows of a matrix that a work-item passes below a panel of weights, at most; the bytes of a core's own
#: cache, in which both should stay.
ITEM_ROWS, CACHE_BYTES = 132, 1 << 20
#: Work-items that two threads should have, so that they end together.
ITEMS = 12
#: Outputs of a Winograd tile in one dimension, by the name of the form (and of the count of tiles).
TILES = {"winograd2": 2, "winograd4": 4}


def panel_width(out: int) -> int:
    """Output channels per panel of a packed weight with ``out`` of them per group."""
    return 8 if out <= 8 else 16


def _numbers(question: Question, *names: str) -> tuple[int, ...]:
    return tuple(int(question[name]) for name in names)


def _product_rule(question: Question) -> Choice:
    pixels, out, inner, taps, groups = _numbers(question, "pixels", "out", "inner", "taps", "groups")
    nv = panel_width(out) // 8
    if question["op"] == "conv2d" and not question["gate"] and pixels > 50:
        # 24 and 40 channels fill three and five vectors, and less of two or three panels of two
        nv = 3 if out % 24 == 0 and out % 16 else 5 if out == 40 else nv
    panels = groups * -(-out // (8 * nv))
    unroll = next(step for step in (4, 7, 3, 2, 1) if inner % step == 0)

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
    mr = {3: 4, 5: 2}.get(nv, 5 if 45 < pixels <= 50 else 6)
    tiles = -(-pixels // mr)
    # consecutive work-items share pixels where they can: a thread has computed them in the step before
    conv = question["op"] == "conv2d"
    if panels >= MANY_PANELS and tiles <= 64:
        if conv and taps == 1 and groups == 1 and pixels > 50:
            return tile(mr, -(-tiles // 2), "pixel", prefetch=True)
        return tile(mr, tiles, prefetch=True)
    if question["op"] == "linear" and panels >= MANY_PANELS:
        fitting = (CACHE_BYTES - 32 * nv * inner) // (4 * mr * inner)
        return tile(mr, max(1, min(fitting, ITEM_ROWS // mr)), prefetch=True)
    even = max(1, min(tiles // 4, WORK_PER_ITEM // (mr * 8 * nv * inner * taps)))
    if taps == 1 and groups == 1:
        return tile(mr, min(even, 24 // mr), "pixel")
    return tile(mr, even, "pixel" if conv else "panel")


def _product_valid(choice: Choice, question: Question) -> bool:
    pixels, out, inner = _numbers(question, "pixels", "out", "inner")
    mr, nv, grain, unroll = _numbers(choice, "mr", "nv", "grain", "unroll")
    tiles = -(-pixels // mr) if mr >= 1 else 0
    shared = question["op"] == "linear"  # its packed weight serves other programs of the model too
    return (
        1 <= mr <= max(1, pixels)
        and (nv == panel_width(out) // 8 if shared else 1 <= nv <= 5 and 8 * (nv - 1) < out)
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
        "nv": (1, 2, 3, 5),
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


#: Products and normalisations of the same rows as one kernel: rows of a register tile, rows of a work-item at
#: most, and how many a thread must have at least for the stages to be one kernel. With fewer, that every
#: thread reads all weights costs more than threads that do not meet save (measured: with 4 rows a thread it
#: took 1.4 times as long, with 20 as long).
CHAIN = declare(
    "row_chain",
    {"mr": (5, 6), "most": (24, 32, 48, 64, 96, 128, 192), "least": (12, 24, 48, 96)},
    lambda question: {"mr": 6, "most": 64, "least": 24},
    lambda choice, question: (
        int(choice["mr"]) in (5, 6) and int(choice["most"]) >= 1 and int(choice["least"]) >= 1
    ),
    ("ops/row_chain.cl.j2", "ops/conv_igemm.cl.j2", "ops/norm.cl.j2"),
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


def form_estimates(question: Question) -> dict[str, float]:
    """The time of each form of a 3x3 convolution, in multiply-adds."""
    pixels, inner, out = _numbers(question, "pixels", "inner", "out")
    estimates = {"direct": _product_time(9 * inner * out, pixels)}
    for name, size in TILES.items():
        tiles, points = int(question[name]), (size + 2) ** 2
        moved = tiles * points * 4 * (inner + out) * 2
        product = _product_time(points * inner * out, tiles)
        estimates[name] = product + moved * CACHE_BALANCE + 2 * LAUNCH_BALANCE
    return estimates


def _product_time(weights: int, rows: int) -> float:
    """Multiply-adds of as many ``rows``, and reading ``weights`` from main memory meanwhile."""
    return _overlapped(weights * rows, weights)


def _overlapped(adds: int, weights: int) -> float:
    """Multiply-adds of both, where ``weights`` are read while ``adds`` are computed."""
    first, second = sorted((adds, 4 * weights * MEMORY_BALANCE))
    return second + NOT_HIDDEN * first


def _form_rule(question: Question) -> Choice:
    estimates = form_estimates(question)
    return {"form": min(estimates, key=lambda name: estimates[name])}


#: 3x3 convolutions of stride 1: directly, or by Winograd's F(2x2, 3x3) or F(4x4, 3x3).
FORM = declare(
    "conv3x3",
    {"form": ("direct", *TILES)},
    _form_rule,
    lambda choice, question: choice["form"] in ("direct", *TILES),
    ("ops/winograd.cl.j2", "ops/conv_igemm.cl.j2"),
    leads=True,
)


#: What the rows of the products of a convolution of stride 2 are called: tiles, rows of tiles by columns of
#: pixels, and rows of pixels by columns of tiles.
STRIDED_ROWS = {name: (name, f"{name}_columns", f"{name}_rows") for name in TILES}


def strided_estimates(question: Question) -> dict[str, float]:
    """The time of each form of a 3x3 convolution of stride 2, in multiply-adds."""
    pixels, inner, out = _numbers(question, "pixels", "inner", "out")
    estimates = {"direct": _product_time(9 * inner * out, pixels)}
    for name, size in TILES.items():
        points = size + 1
        tiles, columns, rows = _numbers(question, *STRIDED_ROWS[name])
        transformed = points * points * tiles + points * (columns + rows)
        product = _overlapped((transformed + pixels) * inner * out, (size + 2) ** 2 * inner * out)
        moved = transformed * 4 * (inner + out) * 2
        estimates[name] = product + moved * CACHE_BALANCE + 2 * LAUNCH_BALANCE
    return estimates


def _strided_rule(question: Question) -> Choice:
    estimates = strided_estimates(question)
    return {"form": min(estimates, key=lambda name: estimates[name])}


#: 3x3 convolutions of stride 2: directly, or by Winograd's F(2, 2) or F(4, 2) on the even samples.
STRIDED = declare(
    "conv3x3_strided",
    {"form": ("direct", *TILES)},
    _strided_rule,
    lambda choice, question: choice["form"] in ("direct", *TILES),
    ("ops/winograd_strided.cl.j2", "ops/conv_igemm.cl.j2"),
    leads=True,
)


#: Bytes that a work-item may keep of a Winograd convolution's image and products, and bytes of its weights,
#: which it reads again and again: they fit a core's own cache.
POINT_BYTES, POINT_WEIGHTS = 1 << 18, 600_000


def _winograd_rule(question: Question) -> Choice:
    columns = int(question["columns"])
    # a tile of fewer than four rows waits for its own sums
    cost = {
        mr: columns // mr * max(4, mr) + (max(4, columns % mr) if columns % mr else 0)
        for mr in (6, 5, 4, 3, 2)
    }
    choice: Choice = {"whole": True, "rows": 1, "mr": min(cost, key=lambda mr: cost[mr])}
    weights = 4 * (int(question["size"]) + 2) ** 2 * int(question["inner"]) * int(question["out"])
    pays = weights <= POINT_WEIGHTS and columns >= 4 and int(question["strips"]) >= ITEMS
    return {**choice, "whole": pays and _winograd_valid(choice, question)}


def _winograd_valid(choice: Choice, question: Question) -> bool:
    columns, inner, out, size, height = _numbers(question, "columns", "inner", "out", "size", "rows")
    mr, rows = _numbers(choice, "mr", "rows")
    nv = panel_width(out) // 8
    kept = (size + 2) ** 2 * (rows * columns + 1) * (4 * inner + 32 * nv)
    fits = 1 <= mr <= REGISTERS // nv - 2 and kept <= POINT_BYTES
    return not choice["whole"] or (fits and columns >= 1 and 1 <= rows <= height and height % rows == 0)


#: Winograd's form as one kernel whose work-items do ``rows`` rows of tiles each, with a register tile of
#: ``mr`` tiles, or as two transforms with a product between them. Unknown rows and columns are 0.
WINOGRAD = declare(
    "winograd",
    {"whole": (False, True), "mr": (2, 3, 4, 5, 6), "rows": (1, 2, 4)},
    _winograd_rule,
    _winograd_valid,
    ("ops/winograd.cl.j2", "ops/winograd_whole.cl.j2", "ops/conv_igemm.cl.j2"),
    leads=True,
)


#: Bytes of expanded rows that a work-item keeps, by the rule and at most: they fit a core's own caches.
KEPT_BYTES, MOST_KEPT = 1 << 15, 1 << 17


def ring_rows(choice: Choice, question: Question) -> int:
    """Rows that a work-item keeps: what ``step`` output rows need, in whole steps; at most the image."""
    height, window, stride = _numbers(question, "height", "window_height", "stride")
    new = int(choice["step"]) * stride
    return min(height, -(-(new - stride + window) // new) * new)


def _kept_bytes(choice: Choice, question: Question) -> int:
    return 32 * int(choice["nv"]) * ring_rows(choice, question) * int(question["width"])


def _expanded_rule(question: Question) -> Choice:
    inner, taps, channels, height, width, out_height, out_width, stride, batch = _numbers(
        question, "inner", "taps", "channels", "height", "width", "out_height", "out_width", "stride", "batch"
    )
    nv = panel_width(channels) // 8
    panels = -(-channels // (8 * nv))
    work = height * width * channels * inner * taps // WORK_PER_ITEM
    strips = max(1, min(out_height, -(-ITEMS // (panels * max(1, batch))), work))
    rows = -(-out_height // strips)
    tile = next((size for size in (8, 7, 6, 5, 4) if out_width % size == 0), min(7, out_width))

    def choice(mr: int, step: int) -> Choice:
        return {
            "mr": mr, "nv": nv, "tile": tile, "rows": rows, "step": step,
            "prefetch": strips == 1,
        }  # fmt: skip

    step = next((s for s in range(rows, 1, -1) if _kept_bytes(choice(1, s), question) <= KEPT_BYTES), 1)
    run = min(step * stride, ring_rows(choice(1, step), question)) * width  # pixels of a product
    mr = min(range(1, min(6, width) + 1), key=lambda rows: -(-run // rows) * (rows + 1))
    return choice(mr, step)


def _expanded_valid(choice: Choice, question: Question) -> bool:
    width, out_height, out_width, window = _numbers(
        question, "width", "out_height", "out_width", "window_width"
    )
    mr, nv, tile, rows, step = _numbers(choice, "mr", "nv", "tile", "rows", "step")
    return (
        1 <= mr <= width
        and 1 <= nv <= 4
        and mr * nv + nv + 1 <= REGISTERS
        and 1 <= tile <= out_width
        and tile + window + 1 <= REGISTERS + 1
        and 1 <= step <= rows <= out_height
        and _kept_bytes(choice, question) <= MOST_KEPT
    )


#: A convolution with the depthwise one behind it: register tile of the product, output pixels per tile of the
#: window, output rows per work-item and between two products; ``prefetch`` as in the kernel's template.
EXPANDED = declare(
    "expanded",
    {
        "mr": (1, 2, 3, 4, 5, 6),
        "nv": (1, 2, 3),
        "tile": (2, 3, 4, 5, 6, 7, 8),
        "rows": (1, 2, 4, 7, 10, 14, 19, 28, 56),
        "step": (1, 2, 4, 7, 14),
        "prefetch": (False, True),
    },
    _expanded_rule,
    _expanded_valid,
    ("ops/expanded_depthwise.cl.j2",),
)


def _fused(question: Question) -> Choice | None:
    """How both run as one kernel, by the rule; None where they cannot."""
    choice = _expanded_rule(question)
    return choice if _expanded_valid(choice, question) else None


def _repeated(choice: Choice, question: Question) -> float:
    """What fusing repeats, rows at the ends of strips, over what it saves, the bytes of the tensor between
    the convolutions, both as multiply-adds."""
    inner, taps, height, window, stride, out_height = _numbers(
        question, "inner", "taps", "height", "window_height", "stride", "out_height"
    )
    strips = -(-out_height // int(choice["rows"]))
    repeated = (strips - 1) * max(0, window - stride) * inner * taps
    return repeated / (2 * 4 * height * CACHE_BALANCE)


def _expanded_form_rule(question: Question) -> Choice:
    choice = _fused(question)
    return {"form": "fused" if choice is not None and _repeated(choice, question) < 1 else "apart"}


#: A convolution with the depthwise one behind it: as one kernel, or apart.
EXPANDED_FORM = declare(
    "expanded_form",
    {"form": ("fused", "apart")},
    _expanded_form_rule,
    lambda choice, question: (
        choice["form"] == "apart" or (choice["form"] == "fused" and _fused(question) is not None)
    ),
    ("ops/expanded_depthwise.cl.j2", "ops/conv_igemm.cl.j2", "ops/conv_depthwise.cl.j2"),
    leads=True,
)
