"""3x3 convolutions of stride 2 by Winograd's F(4, 2) and F(2, 2) on the samples that two taps meet.

Source: Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", 2015, for the even and the odd
samples apart; see ops/winograd_strided. The weights are transformed when they are prepared, in float64.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from npu_compiler.lowering import as_ints
from npu_compiler.ops import Cost
from npu_compiler.products import LANES, epilogue_lines, igemm, is_vector_view, pads_of, residual_view
from npu_compiler.select import BufferUse
from npu_compiler.tuning import STRIDED, STRIDED_ROWS, TILES
from npu_compiler.views import View
from npu_compiler.winograd import CHANNELS, SKEW, between, call_transform, point_products
from npu_runtime.program import WeightExpr
from torch_ir.expr import Dim, ceil_div
from torch_ir.ir import Node, TensorSpec

if TYPE_CHECKING:
    from npu_compiler.emit import Emitter

TEMPLATE = "ops/winograd_strided.cl.j2"
#: The weights' transform for the even samples, by the outputs of a tile in one dimension; for the odd ones.
_EVEN = {
    2: np.array([[1, 0, 0], [1, 0, 1], [0, 0, 1]], np.float64),
    4: np.array([[3, 0, 0], [-3, 0, -3], [-1, 0, 1], [1, 0, 2], [0, 0, 6]], np.float64) / 6,
}
_ODD = np.array([[0, 1, 0]], np.float64)


def form_of(e: Emitter, node: Node, x: View) -> int:
    """The outputs of a tile in one dimension, 2 or 4; 0 where this form does not apply, or is not chosen."""
    batch, out, height, width = node.out.shape
    weight = e.spec(str(node.inputs[1])).shape
    if weight[2:] != (3, 3) or node.attrs["groups"] != 1 or not e.options.winograd or x.dtype != "float32":
        return 0
    if as_ints(node.attrs["stride"]) != (2, 2) or as_ints(node.attrs["dilation"]) != (1, 1):
        return 0
    if max(as_ints(node.attrs["padding"], 4)) > 1:  # else odd samples may lie outside the image
        return 0
    if not (e.divides(LANES, x.shape[1]) and e.divides(LANES, out) and is_vector_view(e, x)):
        return 0
    question = {
        "pixels": e.bounds(batch * height * width)[1],
        "inner": e.bounds(x.shape[1])[1],
        "out": e.bounds(out)[1],
    }
    for name, size in TILES.items():
        rows, columns = ceil_div(height, size), ceil_div(width, size)
        counts = (rows * columns, rows * width, height * columns)
        question |= {
            key: e.bounds(batch * count)[1] for key, count in zip(STRIDED_ROWS[name], counts, strict=True)
        }
    return TILES.get(str(e.choose(STRIDED, question)["form"]), 0)


@dataclass(frozen=True)
class _Sums:
    """Products of ``points`` matrices of ``rows`` rows each: what they read and make, ``step`` elements from
    one to the next."""

    name: str
    left: np.ndarray
    right: np.ndarray
    rows: Dim

    @property
    def points(self) -> int:
        return len(self.left) * len(self.right)

    def step(self, channels: int) -> Dim:
        return self.rows * channels + SKEW


def winograd_strided(e: Emitter, node: Node, x: View, y: View, size: int) -> None:
    """Emits the transforms of tiles of ``size`` x ``size`` outputs, with four products between them. ``x``
    and ``y`` in vectors of channels."""
    batch, channels, height, width = x.shape
    _, out, out_height, out_width = y.shape
    inner, outer = int(str(channels)), int(str(out))
    rows, columns = ceil_div(out_height, size), ceil_div(out_width, size)
    (top, _), (left, _) = pads_of(node.attrs)
    even = _EVEN[size]
    sums = (
        _Sums("even", even, even, batch * rows * columns),
        _Sums("columns", even, _ODD, batch * rows * out_width),
        _Sums("rows", _ODD, even, batch * out_height * columns),
    )
    steps = [part.step(inner) for part in sums]
    read = [
        e.scratch(f"{node.name}:winograd.{part.name}.v", TensorSpec((part.points, step), x.dtype))
        for part, step in zip(sums, steps, strict=True)
    ]
    elements = sum((part.points * part.rows for part in sums), start=0 * batch)
    scalars: list[Dim] = [height, width, out_height, out_width, top, left, rows, columns]
    call_transform(
        e, node, "strided_input", TEMPLATE, {"part": "input", "size": size},
        [BufferUse(x.buffer, "r"), *(BufferUse(part.buffer, "w") for part in read)],
        [*scalars, x.offset, x.strides[0], x.strides[2], x.strides[3], *steps, inner],
        (ceil_div(inner, CHANNELS), rows, batch),
        Cost(elements * inner * 4, x.spec.nbytes, elements * inner * 4),
    )  # fmt: skip
    plain = replace(node, inputs=(node.inputs[0], node.inputs[1]), attrs={})
    made = []
    for part, v in zip(sums, read, strict=True):
        made.append(_products(e, plain, part, v, inner, outer))
    made.append(_middle(e, plain, x, y, (top, left)))
    buffers = [BufferUse(part.buffer, "r") for part in made]
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    if bias is not None:
        buffers.append(BufferUse(e.weight(bias, (outer,)).buffer, "r"))
    residual = residual_view(e, node, y, vectors=True)
    scalars = [out_height, out_width, rows, columns, *(part.step(outer) for part in sums), outer]
    scalars += [y.offset, y.strides[3]]
    if residual is not None:
        buffers.append(BufferUse(residual.buffer, "r"))
        scalars += [residual.offset, residual.strides[3]]
    params = {
        "part": "output",
        "size": size,
        "bias": bias is not None,
        "residual": residual is not None,
        "epilogue": epilogue_lines(node.attrs.get("epilogue", ())),
    }
    call_transform(
        e, node, "strided_output", TEMPLATE, params, [*buffers, BufferUse(y.buffer, "w")], scalars,
        (ceil_div(outer, CHANNELS), rows, batch),
        Cost(elements * outer * 3, elements * outer * 4 + y.spec.nbytes, y.spec.nbytes),
    )  # fmt: skip


def _products(e: Emitter, node: Node, part: _Sums, v: View, inner: int, outer: int) -> View:
    """Emits the products of all points of ``part``."""
    points, rows, step = part.points, part.rows, part.step(outer)
    made = e.scratch(f"{node.name}:winograd.{part.name}.m", TensorSpec((points, step), v.dtype))

    def prepare(expr: WeightExpr) -> WeightExpr:
        ordered = ["permute", between(part.left, expr, part.right), [2, 3, 0, 1]]
        return ["reshape", ordered, [points * outer, inner]]

    point_products(e, node, v, made, points, rows, (inner, outer), (part.step(inner), step), prepare)
    return made


def _middle(e: Emitter, node: Node, x: View, y: View, pads: tuple[int, int]) -> View:
    """Emits the product of the samples in odd rows and columns by the middle tap: every second pixel."""
    batch, inner, height, width = x.shape
    _, outer, out_height, out_width = y.shape
    made = e.scratch(
        f"{node.name}:winograd.middle", TensorSpec((batch, out_height, out_width, outer), x.dtype)
    )
    down, right = 1 - pads[0], 1 - pads[1]
    image = replace(
        x,
        shape=(batch, inner, height - down, width - right),
        offset=x.offset + down * x.strides[2] + right * x.strides[3],
    )
    target = View(
        made.buffer, x.dtype, y.shape, (out_height * out_width * outer, 1, out_width * outer, outer)
    )
    pixels = batch * out_height * out_width
    igemm(
        e,
        node,
        image,
        target,
        (1, 1),
        (2, 2),
        ((0, 0), (0, 0)),
        (1, 1),
        1,
        "conv2d",
        prepare=lambda expr: between(_ODD, expr, _ODD),
        cost=Cost(2 * pixels * inner * outer, 4 * (pixels * inner + inner * outer), 4 * pixels * outer),
    )
    return made
