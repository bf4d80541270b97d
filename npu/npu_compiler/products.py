"""Kernel calls of convolutions and linear layers: packed implicit matrix products, and depthwise windows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from npu_compiler.ctext import step_text, unpack_body
from npu_compiler.dtypes import SHORT, literal
from npu_compiler.errors import Unsupported
from npu_compiler.lowering import as_ints
from npu_compiler.ops import Attrs, Cost
from npu_compiler.pointwise import index_type
from npu_compiler.select import BufferUse, ScalarUse
from npu_compiler.spaces import Value
from npu_compiler.tuning import PRODUCT, panel_width
from npu_compiler.views import View, places_of, reshape
from npu_compiler.weights import Pack
from npu_runtime.program import WeightExpr
from torch_ir.expr import Dim, ceil_div
from torch_ir.ir import ITEM_SIZE, Attr, Node, TensorSpec

if TYPE_CHECKING:
    from npu_compiler.emit import Emitter

LANES = 8
#: Sums that run side by side, so that none waits for its own last multiply-add.
CHAINS = 8
#: Rows of a second tile, by those of the first, for the last rows of a linear layer and of Winograd's
#: products: 128 are 20 tiles of 6 and 2 of 4.
TAILS = {5: 3, 6: 4}
#: Steps that keep a vector above or below a number, as macros of the kernels.
BOUNDING = {"relu": "NPU_RAISED8", "clamp_min": "NPU_RAISED8", "clamp_max": "NPU_LOWERED8"}
#: Types that packed weights may have in memory.
PANEL_TYPES = frozenset({"float16", "bfloat16", "float32"})


def round_up(number: int, multiple: int) -> int:
    return -(-number // multiple) * multiple


def pads_of(attrs: Attrs) -> tuple[tuple[int, int], tuple[int, int]]:
    """Padding before and after, for height and width."""
    top, bottom, left, right = as_ints(attrs["padding"], 4)
    return (top, bottom), (left, right)


def epilogue_lines(epilogue: Attr) -> list[str]:
    """The steps as C statements that transform the float8 ``v`` and may read the float8 ``r``."""
    lines = []
    for step in unpack_body(epilogue or ()):
        bound = 0.0 if step.op == "relu" else step.operands[-1]
        if step.op in BOUNDING and step.operands[0] != "i1" and not isinstance(bound, str) and bound == bound:
            lines.append(f"v = {BOUNDING[step.op]}(v, (float8)({literal(bound, 'float32')}));")
            continue
        names = [
            "r" if operand == "i1" else "v" if isinstance(operand, str) else "" for operand in step.operands
        ]
        dtypes = [step.dtype if isinstance(operand, str) else "" for operand in step.operands]
        lines.append(f"v = {step_text(step, dtypes, names, LANES)};")
    return lines


def pack_panels(
    groups: int, out: int, inner: int, kernel: tuple[int, int], width: int, dtype: str
) -> tuple[int, int, Any]:
    """Packing of a weight [groups*out, inner, *kernel] of ``dtype`` into panels of ``width`` channels, then
    zeros for taps outside the image: see the kernel's template. Returns where the zeros start, the element
    count and the rearrangement."""
    panels = -(-out // width)
    body = groups * panels * width * inner * kernel[0] * kernel[1]
    tail = round_up(inner, LANES) * ITEM_SIZE["float32"] // ITEM_SIZE[dtype]

    def pack(expr: WeightExpr) -> WeightExpr:
        split = ["reshape", expr, [groups, out, inner, *kernel]]
        padded = ["pad", split, [[0, 0], [0, panels * width - out], [0, 0], [0, 0], [0, 0]]]
        tiles = ["reshape", padded, [groups, panels, width, inner, *kernel]]
        ordered = ["permute", tiles, [0, 1, 4, 5, 3, 2]]
        return ["pad", ["reshape", ordered, [body]], [[0, tail]]]

    return body, body + tail, pack


def pack_bias(groups: int, out: int, width: int) -> tuple[int, Any]:
    """Packing of a bias [groups*out] into panels of ``width`` channels. Returns the element count and the
    rearrangement."""
    panels = -(-out // width)

    def pack(expr: WeightExpr) -> WeightExpr:
        padded = ["pad", ["reshape", expr, [groups, out]], [[0, 0], [0, panels * width - out]]]
        return ["reshape", padded, [groups * panels * width]]

    return groups * panels * width, pack


def packed_rows(e: Emitter, value: str) -> tuple[View, int] | None:
    """The weight matrix ``value`` as a linear layer of this graph has it packed, and its panels' width: row
    ``r``, column ``k`` of K is element ``r // width * K * width + k * width + r % width``. None where no
    layer reads it."""
    layers = (str(node.inputs[1]) for node in e.ir.nodes if node.op == "linear")
    read = (e.constant(weight) for weight in layers if e.is_constant(weight))
    dtype = e.spec(value).dtype
    if dtype not in PANEL_TYPES or e.constant(value) not in read:
        return None
    rows, columns = (int(str(size)) for size in e.spec(value).shape)
    width = panel_width(rows)
    _, count, pack = pack_panels(1, rows, columns, (1, 1), width, dtype)
    return e.weight(value, (count,), pack), width


def is_vector_view(e: Emitter, view: View) -> bool:
    """Whether every pixel's channels start at a vector's alignment and lie one after the other."""
    n, c, h, w = view.strides
    return c == 1 and all(e.divides(LANES, dim) for dim in (n, h, w, view.offset))


def uniform_stride(view: View) -> Dim | None:
    """How far apart all pixels of an image [N, C, H, W] lie, from one image to the next as well; None where
    they do not lie evenly."""
    n, _, h, w = view.shape
    strides = (view.strides[0], *view.strides[2:])
    line = reshape(replace(view, shape=(n, h, w), strides=strides), (n * h * w,))
    return None if line is None else line.strides[0]


def residual_view(e: Emitter, node: Node, y: View, vectors: bool) -> View | None:
    """The residual operand, laid out as the output where that is needed."""
    value = node.inputs[3] if len(node.inputs) > 3 else None
    if value is None:
        return None
    view = e.view(value)
    if view.shape != y.shape:  # a linear layer's rows, as images of one pixel
        matrix = y.shape[:2]
        rows = reshape(view, matrix) or reshape(e.dense(view, node, "residual.rows"), matrix)
        assert rows is not None
        row, column = rows.strides
        view = replace(rows, shape=y.shape, strides=(row, column, row, row))
    n, _, h, w = view.strides
    dense_pixels = h == w * view.shape[3] or view.shape[2] == 1
    if (
        (is_vector_view(e, view) and dense_pixels and n == w * view.shape[2] * view.shape[3])
        if vectors
        else dense_pixels
    ):
        return view
    made = e.scratch(f"{node.name}:residual", TensorSpec(y.shape, y.dtype, "nhwc8" if vectors else "row"))
    e.copy(view, made, node)
    return made


def conv_cost(node: Node, x: TensorSpec, weights: Dim, taps: Dim, stored: str = "float32") -> Cost:
    """2 operations per multiply-add; each input, output and weight element (of dtype ``stored``) once."""
    size = ITEM_SIZE[x.dtype]
    residual = node.out.numel * size if len(node.inputs) > 3 and node.inputs[3] else 0
    return Cost(
        flops=2 * node.out.numel * taps,
        bytes_read=x.numel * size + weights * ITEM_SIZE[stored] + residual,
        bytes_written=node.out.numel * size,
    )


def igemm(
    e: Emitter,
    node: Node,
    x: View,
    y: View,
    kernel: tuple[int, int],
    stride: Sequence[int],
    padding: tuple[tuple[int, int], tuple[int, int]],
    dilation: Sequence[int],
    groups: int,
    op: str,
    prepare: Pack = lambda expr: expr,
    cost: Cost | None = None,
    group_steps: tuple[Dim, Dim] | None = None,
) -> None:
    """Emits the implicit matrix product: ``x`` [N, C, H, W] and ``y`` [N, O, OH, OW] in any strides.

    ``group_steps``: elements of input and output from group to group, where groups do not lie one after the
    other among the channels. ``prepare`` turns the weight into [O, C / groups, *kernel] before it is packed.
    With an attribute "gate" the weight has 2 * O rows, as ``ops.gated`` says."""
    if x.dtype != "float32":
        raise Unsupported(f"{op} of dtype {x.dtype}", "convert the model to float32")
    if index_type(e, [x, y]) != "int":
        raise Unsupported(f"{op} over more than 2**31 elements", "lower the bounds of the dynamic dimensions")
    batch, channels, height, width = x.shape
    _, out, out_height, out_width = y.shape
    inner, out_group = int(str(channels)) // groups, int(str(out)) // groups
    pixels = batch * out_height * out_width
    vectors = is_vector_view(e, y) and (groups == 1 or out_group % LANES == 0)
    taps = kernel[0] * kernel[1]
    depth = inner * taps
    gate = node.attrs.get("gate")
    rows = out_group if gate is None else 2 * out_group
    weight = str(node.inputs[1])
    _, stored = e.constant(weight)
    question: dict[str, Value] = {
        "op": op,
        "pixels": e.bounds(pixels)[1],
        "out": rows,
        "inner": inner,
        "taps": taps,
        "groups": groups,
        "stride": stride[1],
        "weight": SHORT[stored],
        "gate": gate is not None,
    }
    choice = e.choose(PRODUCT, question)
    mr, nv, grain, unroll = (int(choice[name]) for name in ("mr", "nv", "grain", "unroll"))
    wide = nv * LANES
    body, count, pack = pack_panels(groups, rows, inner, kernel, wide, stored)
    w = e.weight(weight, (count,), lambda expr: pack(prepare(expr)), stored=True)
    panels = -(-rows // wide)
    buffers = [BufferUse(x.buffer, "r"), BufferUse(w.buffer, "r")]
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    if bias is not None:
        length, pack_b = pack_bias(groups, rows, wide)
        buffers.append(BufferUse(e.weight(bias, (length,), pack_b).buffer, "r"))
    residual = residual_view(e, node, y, vectors)
    if residual is not None:
        buffers.append(BufferUse(residual.buffer, "r"))
    buffers.append(BufferUse(y.buffer, "w"))
    bounds = any(low or high for low, high in padding)
    # a window's row of a copied image is one tap over wider rows than the output has
    flat = taps == 1 and tuple(stride) == (1, 1) and (height, width) == (out_height, out_width)
    row = uniform_stride(x) if flat else None
    scalars: list[Dim] = [pixels, out_height, out_width, inner, out_group, x.offset, x.strides[1]]
    scalars.append(inner * x.strides[1] if group_steps is None else group_steps[0])
    if row is None:
        scalars += [height, width, *kernel, *stride, padding[0][0], padding[1][0], *dilation]
        scalars += [x.strides[0], x.strides[2], x.strides[3], body]
    else:
        scalars.append(row)
    scalars += places_of("y", y).values()
    scalars.append(out_group * y.strides[1] if group_steps is None else group_steps[1])
    if residual is not None:
        scalars += places_of("residual", residual).values()
    parts = next(part for part in (4, 2, 1) if unroll % part == 0 and (part == 1 or part * mr * nv <= CHAINS))
    if choice["split"]:
        parts = 1
    chunks = ceil_div(ceil_div(pixels, mr), grain)
    columns = groups * panels
    params = {
        "mr": mr,
        "nv": nv,
        "weight": SHORT[stored],
        "flat": row is not None,
        "whole": rows % wide == 0,
        "bounds": bounds,
        "x_unit": x.strides[1] == 1,
        "tail": TAILS.get(mr, 0) if op in ("linear", "winograd") and not choice["split"] else 0,
        "unroll": unroll,
        "parts": parts,
        "split": grain if choice["split"] else 0,
        "prefetch": choice["prefetch"],
        "out": "nhwc8" if vectors else "strided",
        "order": choice["order"],
        "bias": bias is not None,
        "residual": residual is not None,
        "gate": None if gate is None else epilogue_lines(gate),
        "epilogue": epilogue_lines(node.attrs.get("epilogue", ())),
    }
    e.call(
        op,
        "igemm",
        "ops/conv_igemm.cl.j2",
        params,
        node=node,
        shown={"t": f"{mr}x{wide}"},
        args=[*buffers, *(ScalarUse(value) for value in (*scalars, panels, grain))],
        global_size=(chunks, columns) if choice["order"] == "panel" else (columns, chunks),
        local_size=(1, 1),
        cost=cost or conv_cost(node, x.spec, groups * rows * depth, depth * (rows // out_group), stored),
    )


def row_copy(e: Emitter, node: Node, x: View, kernel: tuple[int, int]) -> tuple[View, Pack]:
    """Emits a copy of an image of few channels to padded rows of pixels, where a window's row is one
    contiguous run, so that a product's inner loop covers its columns and channels together. Returns the copy
    as an image whose channels are such runs, and what turns the weight of the convolution ``node`` into that
    of a window of one column over it."""
    batch, channels, height, width = x.shape
    few = int(str(channels))
    (top, bottom), (left, right) = pads_of(node.attrs)
    rows, columns = height + (top + bottom), width + (left + right)
    copy = e.scratch(f"{node.name}:rows", TensorSpec((batch, rows, columns, few), x.dtype))
    scalars = [
        height,
        width,
        top,
        left,
        rows,
        columns,
        x.offset,
        x.strides[0],
        x.strides[2],
        x.strides[3],
        x.strides[1],
    ]
    e.call(
        "pack_rows",
        "",
        "ops/pack_rows.cl.j2",
        {"channels": few},
        node=node,
        shown={"c": few},
        args=[
            BufferUse(x.buffer, "r"),
            BufferUse(copy.buffer, "w"),
            *(ScalarUse(value) for value in scalars),
        ],
        global_size=(rows, batch),
        local_size=(1, 1),
        cost=Cost(0, x.spec.nbytes, copy.spec.nbytes),
    )
    run = few * kernel[1]
    view = View(
        copy.buffer, x.dtype, (batch, run, rows, columns), (rows * columns * few, 1, columns * few, few)
    )
    out = int(str(node.out.shape[1]))

    def prepare(expr: WeightExpr) -> WeightExpr:
        return ["reshape", ["permute", expr, [0, 3, 1, 2]], [out, run, kernel[0], 1]]

    return view, prepare


def pack_rows(e: Emitter, node: Node, x: View, y: View, kernel: tuple[int, int]) -> None:
    """Emits a convolution of few channels: a product over the rows of ``row_copy``."""
    view, prepare = row_copy(e, node, x, kernel)
    depth = int(str(view.shape[1])) * kernel[0]
    igemm(
        e,
        node,
        view,
        y,
        (kernel[0], 1),
        as_ints(node.attrs["stride"]),
        ((0, 0), (0, 0)),
        (as_ints(node.attrs["dilation"])[0], 1),
        1,
        "conv2d",
        prepare=prepare,
        cost=conv_cost(node, x.spec, y.shape[1] * depth, depth),
    )
