"""Kernel calls of depthwise convolutions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from npu_compiler.lowering import as_ints
from npu_compiler.products import (
    LANES,
    conv_cost,
    epilogue_lines,
    is_vector_view,
    pack_bias,
    pads_of,
    residual_view,
    round_up,
)
from npu_compiler.select import BufferUse, ScalarUse
from npu_compiler.tuning import DEPTHWISE
from npu_compiler.views import View, places_of
from npu_compiler.weights import Pack
from npu_runtime.program import WeightExpr
from torch_ir.expr import Dim, ceil_div, product
from torch_ir.ir import Node

if TYPE_CHECKING:
    from npu_compiler.emit import Emitter


def pack_window(channels: int, kernel: tuple[int, int]) -> tuple[tuple[int], Pack]:
    """Packing of a weight [channels, 1, *kernel] into blocks of 8 channels, then 8 zeros: see the kernel's
    template. Returns the shape and the rearrangement."""
    blocks = round_up(channels, LANES) // LANES
    count = blocks * LANES * kernel[0] * kernel[1]

    def pack(expr: WeightExpr) -> WeightExpr:
        padded = [
            "pad",
            ["reshape", expr, [channels, *kernel]],
            [[0, blocks * LANES - channels], [0, 0], [0, 0]],
        ]
        tiles = ["permute", ["reshape", padded, [blocks, LANES, *kernel]], [0, 2, 3, 1]]
        return ["pad", ["reshape", tiles, [count]], [[0, LANES]]]

    return (count + LANES,), pack


def depthwise(e: Emitter, node: Node, x: View, y: View, kernel: tuple[int, int]) -> None:
    """Emits a convolution with one input channel per output channel; ``x`` in vectors of channels."""
    batch, channels, height, width = x.shape
    _, _, out_height, out_width = y.shape
    blocks = round_up(int(str(channels)), LANES) // LANES
    vectors = is_vector_view(e, y)
    stride, dilation, padding = (
        as_ints(node.attrs["stride"]),
        as_ints(node.attrs["dilation"]),
        pads_of(node.attrs),
    )

    weight = node.inputs[1]
    assert weight is not None
    w = e.weight(weight, *pack_window(int(str(channels)), kernel))
    buffers = [BufferUse(x.buffer, "r"), BufferUse(w.buffer, "r")]
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    if bias is not None:
        length, pack_b = pack_bias(1, int(str(channels)), LANES)
        buffers.append(BufferUse(e.weight(bias, (length,), pack_b).buffer, "r"))
    residual = residual_view(e, node, y, vectors)
    if residual is not None:
        buffers.append(BufferUse(residual.buffer, "r"))
    buffers.append(BufferUse(y.buffer, "w"))
    question = {
        "kernel_width": kernel[1],
        "kernel_height": kernel[0],
        "stride": stride[1],
        "width": e.bounds(out_width)[1],
        "height": e.bounds(out_height)[1],
        "columns": e.bounds(batch)[0] * blocks,
    }
    choice = e.choose(DEPTHWISE, question)
    scalars: list[Dim] = [
        channels,
        height,
        width,
        out_height,
        out_width,
        padding[0][0],
        padding[1][0],
        x.offset,
        x.strides[0],
        x.strides[2],
        x.strides[3],
        *places_of("y", y).values(),
    ]
    if residual is not None:
        scalars += places_of("residual", residual).values()
    rows = int(choice["rows"])
    params = {
        "kh": kernel[0],
        "kw": kernel[1],
        "sh": stride[0],
        "sw": stride[1],
        "dh": dilation[0],
        "dw": dilation[1],
        "tw": choice["tile"],
        "bias": bias is not None,
        "out": "nhwc8" if vectors else "strided",
        "residual": residual is not None,
        "epilogue": epilogue_lines(node.attrs.get("epilogue", ())),
    }
    e.call(
        "conv2d",
        "depthwise",
        "ops/conv_depthwise.cl.j2",
        params,
        node=node,
        shown={"k": f"{kernel[0]}x{kernel[1]}", "s": f"{stride[0]}x{stride[1]}"},
        args=[*buffers, *(ScalarUse(value) for value in (*scalars, rows))],
        global_size=(blocks, ceil_div(out_height, rows), batch),
        local_size=(1, 1, 1),
        cost=conv_cost(node, x.spec, channels * product(kernel), product(kernel)),
    )
