"""3x3 convolutions by Winograd's F(4x4, 3x3): a quarter of the multiplications, between two transforms.

Source: Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", 2015. The weights are transformed
when they are prepared, in float64.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from npu_compiler.lowering import as_ints
from npu_compiler.ops import Cost
from npu_compiler.products import (
    LANES,
    epilogue_lines,
    igemm,
    is_vector_view,
    pads_of,
    residual_view,
)
from npu_compiler.select import BufferUse, ScalarUse
from npu_compiler.tuning import FORM, POINTS
from npu_compiler.views import View
from npu_compiler.weights import const_expr
from npu_runtime.program import WeightExpr
from torch_ir.expr import Dim, ceil_div
from torch_ir.ir import Node, TensorSpec

if TYPE_CHECKING:
    from npu_compiler.emit import Emitter

#: Elements between the end of a tile's row and the next one, so that rows do not share cache sets.
SKEW = 16
_G = np.array([[6, 0, 0], [-4, -4, -4], [-4, 4, -4], [1, 2, 4], [1, -2, 4], [0, 0, 24]], np.float64) / 24


def pays(e: Emitter, node: Node, x: View) -> bool:
    """Whether F(4x4, 3x3) applies, and is the form to choose."""
    batch, out, height, width = node.out.shape
    channels = x.shape[1]
    weight = e.spec(str(node.inputs[1])).shape
    if weight[2:] != (3, 3) or node.attrs["groups"] != 1 or not e.options.winograd or x.dtype != "float32":
        return False
    if as_ints(node.attrs["stride"]) != (1, 1) or as_ints(node.attrs["dilation"]) != (1, 1):
        return False
    if not (e.divides(LANES, channels) and e.divides(LANES, out) and is_vector_view(e, x)):
        return False
    question = {
        "pixels": e.bounds(batch * height * width)[1],
        "tiles": e.bounds(batch * ceil_div(height, 4) * ceil_div(width, 4))[1],
        "inner": e.bounds(channels)[1],
        "out": e.bounds(out)[1],
    }
    return e.choose(FORM, question)["form"] == "winograd"


def transform_weight(channels_out: int, channels_in: int, expr: WeightExpr) -> WeightExpr:
    """[O, I, 3, 3] -> G g G' as [36 * O, I]."""
    left = const_expr(_G.tobytes(), "float64", (6, 3))
    right = const_expr(np.ascontiguousarray(_G.T).tobytes(), "float64", (3, 6))
    product = ["matmul", ["matmul", left, expr], right]
    return ["reshape", ["permute", product, [2, 3, 0, 1]], [POINTS * channels_out, channels_in]]


def winograd(e: Emitter, node: Node, x: View, y: View) -> None:
    """Emits input transform, 36 matrix products and output transform. ``x`` and ``y`` in vectors of
    channels."""
    batch, channels, height, width = x.shape
    _, out, out_height, out_width = y.shape
    inner, outer = int(str(channels)), int(str(out))
    rows, columns = ceil_div(out_height, 4), ceil_div(out_width, 4)
    tiles = batch * rows * columns
    v_step, m_step = POINTS * inner + SKEW, POINTS * outer + SKEW
    transformed = e.scratch(f"{node.name}:winograd.v", TensorSpec((tiles, v_step), x.dtype))
    products = e.scratch(f"{node.name}:winograd.m", TensorSpec((tiles, m_step), x.dtype))
    (top, _), (left, _) = pads_of(node.attrs)
    residual = residual_view(e, node, y, vectors=True)
    _call(
        e,
        node,
        "input",
        {},
        [BufferUse(x.buffer, "r"), BufferUse(transformed.buffer, "w")],
        [
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
            v_step,
            inner,
        ],
        (inner // LANES, rows, batch),
        Cost(tiles * inner * 144, x.spec.nbytes, tiles * POINTS * inner * 4),
    )
    plain = replace(node, inputs=(node.inputs[0], node.inputs[1]), attrs={})
    igemm(
        e,
        plain,
        View(transformed.buffer, x.dtype, (1, POINTS * inner, 1, tiles), (0, 1, 0, v_step)),
        View(products.buffer, x.dtype, (1, POINTS * outer, 1, tiles), (0, 1, 0, m_step)),
        (1, 1),
        (1, 1),
        ((0, 0), (0, 0)),
        (1, 1),
        POINTS,
        "winograd",
        prepare=lambda expr: transform_weight(outer, inner, expr),
        cost=Cost(
            2 * POINTS * tiles * inner * outer,
            4 * POINTS * (tiles * inner + inner * outer),
            tiles * POINTS * outer * 4,
        ),
    )
    buffers = [BufferUse(products.buffer, "r")]
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    if bias is not None:
        buffers.append(BufferUse(e.weight(bias, (outer,)).buffer, "r"))
    scalars: list[Dim] = [out_height, out_width, rows, columns, m_step, outer, y.offset, y.strides[3]]
    if residual is not None:
        buffers.append(BufferUse(residual.buffer, "r"))
        scalars += [residual.offset, residual.strides[3]]
    _call(
        e,
        node,
        "output",
        {
            "bias": bias is not None,
            "residual": residual is not None,
            "epilogue": epilogue_lines(node.attrs.get("epilogue", ())),
        },
        [*buffers, BufferUse(y.buffer, "w")],
        scalars,
        (outer // LANES, rows, batch),
        Cost(tiles * outer * 112, tiles * POINTS * outer * 4, y.spec.nbytes),
    )


def _call(
    e: Emitter,
    node: Node,
    part: str,
    params: dict[str, object],
    buffers: list[BufferUse],
    scalars: list[Dim],
    size: tuple[Dim, ...],
    cost: Cost,
) -> None:
    args: list[BufferUse | ScalarUse] = [*buffers, *(ScalarUse(value) for value in scalars)]
    whole = {"part": part, **params}
    e.call(
        "winograd",
        part,
        "ops/winograd.cl.j2",
        whole,
        node=node,
        args=args,
        global_size=size,
        local_size=(1, 1, 1),
        cost=cost,
    )
