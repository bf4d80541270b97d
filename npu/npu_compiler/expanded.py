"""Kernel calls of a convolution and the depthwise convolution of its result, fused."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from npu_compiler.depthwise import pack_window
from npu_compiler.errors import Unsupported
from npu_compiler.lowering import as_ints
from npu_compiler.ops import Cost
from npu_compiler.pointwise import index_type
from npu_compiler.products import (
    LANES,
    conv_cost,
    epilogue_lines,
    is_vector_view,
    pack_bias,
    pack_panels,
    pads_of,
    row_copy,
)
from npu_compiler.select import BufferUse, ScalarUse
from npu_compiler.spaces import Value
from npu_compiler.tuning import EXPANDED, EXPANDED_FORM, ring_rows
from npu_compiler.views import View, places_of
from npu_compiler.weights import Pack
from torch_ir.expr import Dim, ceil_div
from torch_ir.ir import Node, TensorSpec

if TYPE_CHECKING:
    from npu_compiler.emit import Emitter


def pays(e: Emitter, first: Node, second: Node) -> bool:
    """Whether the form to choose is the fused one."""
    return e.choose(EXPANDED_FORM, _question(e, first, second))["form"] == "fused"


def _question(e: Emitter, first: Node, second: Node) -> dict[str, Value]:
    batch, channels, height, width = first.out.shape
    _, inner, *kernel = e.spec(str(first.inputs[1])).shape
    *_, window_height, window_width = e.spec(str(second.inputs[1])).shape
    sizes = {
        "inner": inner * kernel[1],
        "taps": kernel[0],
        "channels": channels,
        "height": height,
        "width": width,
        "out_height": second.out.shape[2],
        "out_width": second.out.shape[3],
        "window_height": window_height,
        "window_width": window_width,
        "stride": as_ints(second.attrs["stride"])[0],
        "batch": e.bounds(batch)[0],
    }
    return {name: int(str(size)) for name, size in sizes.items()}


def emit_fused(e: Emitter, node: Node, first: Node, second: Node) -> None:
    """Emits ``node`` as one kernel; ``first`` and ``second`` are its parts, two convolutions."""
    question = _question(e, first, second)
    choice = e.choose(EXPANDED, question)
    x, y = e.view(first.inputs[0]), e.output(node)
    if (
        x.dtype != "float32"
        or index_type(e, [x, y, View("", x.dtype, first.out.shape, (0, 0, 0, 0))]) != "int"
    ):
        raise Unsupported(
            f"convolutions of {x.dtype} and {x.shape}", "convert to float32, or lower the bounds"
        )
    mr, nv, tile, rows, step = (int(choice[name]) for name in ("mr", "nv", "tile", "rows", "step"))
    channels, height, width, inner, taps = (
        int(question[name]) for name in ("channels", "height", "width", "inner", "taps")
    )
    out_height, out_width = (int(question[name]) for name in ("out_height", "out_width"))
    kernel = (int(question["window_height"]), int(question["window_width"]))
    stride, (top, left) = as_ints(second.attrs["stride"]), (pads[0] for pads in pads_of(second.attrs))
    first_stride = as_ints(first.attrs["stride"])
    prepare: Pack = lambda expr: expr  # noqa: E731
    few = int(str(x.shape[1]))
    if taps > 1 or inner != few:
        x, prepare = row_copy(e, first, x, (taps, inner // few))
    elif x.strides[1] != 1 or not isinstance(x.strides[3], int):
        blocked = e.scratch(f"{node.name}:nhwc8", TensorSpec(x.shape, x.dtype, "nhwc8"))
        e.copy(x, blocked, node)
        x = blocked
    _, count, pack = pack_panels(1, channels, inner, (taps, 1), nv * LANES, x.dtype)
    w = e.weight(str(first.inputs[1]), (count,), lambda expr: pack(prepare(expr)))
    d = e.weight(str(second.inputs[1]), *pack_window(channels, kernel))
    buffers = [BufferUse(x.buffer, "r")]
    for weights, bias, lanes in ((w, first.inputs[2], nv * LANES), (d, second.inputs[2], LANES)):
        buffers.append(BufferUse(weights.buffer, "r"))
        if bias is not None:
            length, pack_b = pack_bias(1, channels, lanes)
            buffers.append(BufferUse(e.weight(bias, (length,), pack_b).buffer, "r"))
    row_step, pixel_step = first_stride[0] * x.strides[2], first_stride[1] * x.strides[3]
    scalars: list[Dim] = [
        height, out_height, channels, top, x.offset, x.strides[0], row_step, x.strides[2],
        *places_of("y", y).values(), rows,
    ]  # fmt: skip
    params = {
        "mr": mr,
        "nv": nv,
        "depth": inner,
        "pixel": pixel_step,
        "unroll": next(steps for steps in (4, 3, 2, 1) if inner % steps == 0),
        "taps": taps,
        "joined": row_step == width * pixel_step,
        "prefetch": choice["prefetch"],
        "width": width,
        "ring": ring_rows(choice, question),
        "step": step,
        "kh": kernel[0],
        "kw": kernel[1],
        "sh": stride[0],
        "sw": stride[1],
        "left": left,
        "out_width": out_width,
        "tile": tile,
        **_tiles(width, out_width, tile, kernel[1], stride[1], left),
        "w_bias": first.inputs[2] is not None,
        "d_bias": second.inputs[2] is not None,
        "inner": epilogue_lines(first.attrs.get("epilogue", ())),
        "out": "nhwc8" if is_vector_view(e, y) else "strided",
        "epilogue": epilogue_lines(second.attrs.get("epilogue", ())),
    }
    e.call(
        "conv2d",
        "expanded",
        "ops/expanded_depthwise.cl.j2",
        params,
        node=node,
        shown={"k": f"{kernel[0]}x{kernel[1]}", "s": f"{stride[0]}x{stride[1]}", "w": width},
        args=[*buffers, BufferUse(y.buffer, "w"), *(ScalarUse(value) for value in scalars)],
        global_size=(ceil_div(channels, nv * LANES), ceil_div(out_height, rows), y.shape[0]),
        local_size=(1, 1, 1),
        cost=_cost(first, second, x.spec, inner * taps, kernel[0] * kernel[1]),
    )


def _tiles(width: int, out_width: int, tile: int, window: int, stride: int, left: int) -> dict[str, Any]:
    """The first columns of a row's tiles: of those at its ends, and of the run between them. The last one
    begins early enough to end with the row."""
    starts = list(range(0, out_width - tile + 1, tile))
    inside = [
        at for at in starts if at * stride >= left and (at + tile - 1) * stride - left + window <= width
    ]
    if starts[-1] + tile < out_width:
        starts.append(out_width - tile)
    ends = [at for at in starts if at not in inside]
    first = inside[0] if inside else out_width
    return {
        "before": [at for at in ends if at < first],
        "inside": first,
        "count": len(inside),
        "after": [at for at in ends if at > first],
    }


def _cost(first: Node, second: Node, x: TensorSpec, depth: int, window: int) -> Cost:
    """Of both, without the tensor between them."""
    channels = first.out.shape[1]
    expand, depthwise = (
        conv_cost(first, x, channels * depth, depth),
        conv_cost(second, first.out, channels * window, window),
    )
    return Cost(
        expand.flops + depthwise.flops,
        expand.bytes_read + depthwise.bytes_read - first.out.nbytes,
        depthwise.bytes_written,
    )
