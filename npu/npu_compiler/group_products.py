"""Kernel calls of convolutions and linear layers on GPUs, where the work-items of a work-group share tiles of
them: through local memory, on tensor cores, or, for few rows, with each weight read once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from npu_compiler.ctext import size_text, step_text, unpack_body
from npu_compiler.dtypes import SHORT, literal
from npu_compiler.errors import Unsupported
from npu_compiler.group_tuning import GroupTile, group_question, group_tile
from npu_compiler.lowering import as_number
from npu_compiler.ops import Attrs, Cost
from npu_compiler.pointwise import index_type
from npu_compiler.products import conv_cost, residual_view, round_up
from npu_compiler.select import BufferUse, ScalarUse
from npu_compiler.views import View, places_of, strides_of
from npu_runtime.program import WeightExpr
from torch_ir.expr import Dim, ceil_div, product
from torch_ir.ir import Attr, Node, TensorSpec

if TYPE_CHECKING:
    from npu_compiler.emit import Emitter

#: Products that a step of the kernels takes; rows of weights are padded to it.
STEP = 32
#: Products that are read at once.
VECTOR = 8


@dataclass(frozen=True)
class Window:
    """How a convolution walks its input; a linear layer is one of single pixels."""

    kernel: tuple[int, int] = (1, 1)
    stride: tuple[int, int] = (1, 1)
    padding: tuple[tuple[int, int], tuple[int, int]] = ((0, 0), (0, 0))
    dilation: tuple[int, int] = (1, 1)

    @property
    def bounds(self) -> bool:
        """Whether taps may lie outside the image."""
        return any(low or high for low, high in self.padding)


def epilogue_lines(epilogue: Attr) -> list[str]:
    """The steps as C statements that transform the float ``v`` and may read the float ``r``."""
    lines = []
    for step in unpack_body(epilogue or ()):
        names = ["r" if operand == "i1" else "v" for operand in step.operands]
        dtypes = [step.dtype if isinstance(operand, str) else "" for operand in step.operands]
        lines.append(f"v = {step_text(step, dtypes, names)};")
    return lines


def weight_dtype(e: Emitter, value: str, attrs: Attrs) -> str:
    """What a product's weight is in memory: the 16 bits that the model computes in, where tensor cores take
    them, else as it is stored."""
    half = str(attrs.get("half", ""))
    return half if half and "ptx" in e.target.features else e.constant(value)[1]


def row_weight(e: Emitter, node: Node, rows: int, window: Window) -> tuple[View, int]:
    """The weight [rows, inner, *kernel] as a matrix [rows, products padded to STEP], and that width. A matrix
    that needs no padding stays as it is, so that others can read it too."""
    value = str(node.inputs[1])
    inner = int(str(e.spec(value).shape[1]))
    taps = window.kernel[0] * window.kernel[1]
    width = round_up(inner * taps, STEP)

    def pack(expr: WeightExpr) -> WeightExpr:
        if len(e.spec(value).shape) == 4:
            expr = ["reshape", ["permute", expr, [0, 2, 3, 1]], [rows, inner * taps]]
        return expr if width == inner * taps else ["pad", expr, [[0, 0], [0, width - inner * taps]]]

    return e.weight(value, (rows, width), pack, dtype=weight_dtype(e, value, node.attrs)), width


def _norm(e: Emitter, node: Node, length: int) -> dict[str, Any] | None:
    """How rows of ``length`` are normalised before the product: the template's parameter."""
    if "norm_eps" not in node.attrs:
        return None
    rounded, half = str(node.attrs["norm_rounded"]), str(node.attrs.get("half", ""))
    return {
        "eps": literal(float(as_number(node.attrs["norm_eps"])), "float32"),
        "length": length,
        "rounded": SHORT[rounded] if rounded else None,
        "weight": len(node.inputs) > 4 and node.inputs[4] is not None,
        "kept": SHORT[half] if half else "f32",
    }


def emit_product(e: Emitter, node: Node, x: View, y: View, window: Window, groups: int, op: str) -> None:
    """Emits the product: ``x`` [N, C, H, W] and ``y`` [N, O, OH, OW] in any strides."""
    check_product(e, node, x, y, op)
    out, inner = int(str(y.shape[1])) // groups, int(str(x.shape[1])) // groups
    products = inner * window.kernel[0] * window.kernel[1]
    rows = out if node.attrs.get("gate") is None else 2 * out
    w, width = row_weight(e, node, rows * groups, window)
    residual = residual_view(e, node, y, vectors=False)
    image = any(size != 1 for size in (*window.kernel, *x.shape[2:], *y.shape[2:]))
    pixels = product((y.shape[0], *y.shape[2:]))
    strides = (x.strides[0], *x.strides[2:]) if image else x.strides[:1]
    unit = x.strides[1] == 1 and inner % VECTOR == 0
    vector = unit and all(e.divides(VECTOR, dim) for dim in (*strides, x.offset))
    half = "ptx" in e.target.features and bool(node.attrs.get("half"))
    norm = _norm(e, node, products)
    question = group_question(
        op=op, pixels=e.bounds(pixels)[1], out=rows, products=products, groups=groups,
        rows=vector and not image, half=half, stored=vector and x.dtype == w.dtype,
        gate=node.attrs.get("gate") is not None, norm=norm is not None,
    )  # fmt: skip
    tile = group_tile(question, e.choose)
    symbol_args, common = _common(e, node, x, y, w, residual, window, groups, width)
    params = {
        **common,
        "image": image,
        **dict(tile.params),
        **(
            {"norm": norm, "warp": "ptx" in e.target.features}
            if tile.variant == "rows"
            else {"bounds": window.bounds, "vector": vector}
        ),
    }
    counts = (ceil_div(out if tile.variant == "rows" else rows, tile.channels), ceil_div(pixels, tile.pixels))
    first, second = counts if tile.channels_first else counts[::-1]
    global_size = (first * tile.group, *(() if tile.variant == "rows" else (second, groups * tile.parts)))
    cost = conv_cost(node, x.spec, rows * groups * width, products * rows // out, w.dtype)
    if tile.parts == 1:
        _call(e, node, tile, params, [x, w], y, residual, symbol_args, global_size, op, cost)
        return
    sums = e.scratch(f"{node.name}:sums", TensorSpec((tile.parts, pixels, rows), "float32"))
    none: dict[str, Any] = {"bias": False, "residual": None, "gate": None, "epilogue": []}
    e.call(
        op, tile.variant, tile.template, {**params, **none, "y_type": "f32"},
        node=node, shown={"t": tile.shown}, dtype=SHORT[w.dtype],
        args=[*(BufferUse(view.buffer, "r") for view in (x, w)), BufferUse(sums.buffer, "w"), *symbol_args],
        global_size=global_size, local_size=(tile.group, 1, 1), cost=cost,
    )  # fmt: skip
    end = {name: common[name] for name in ("symbols", "s", "y_type", "bias", "residual", "gate", "epilogue")}
    whole = GroupTile("sum", "ops/matmul_sum.cl.j2", 64, 1, 64, {}, str(tile.parts))
    moved = Cost(sums.spec.numel, sums.spec.nbytes, y.spec.nbytes)
    _call(
        e, node, whole, {**end, "image": image, "parts": tile.parts}, [sums], y, residual, symbol_args,
        (round_up(out, 64), pixels), op, moved,
    )  # fmt: skip


def emit_depthwise(e: Emitter, node: Node, x: View, y: View, window: Window) -> None:
    """Emits a convolution with one input channel per output channel."""
    check_product(e, node, x, y, "conv2d")
    channels, taps = int(str(y.shape[1])), window.kernel[0] * window.kernel[1]

    def pack(expr: WeightExpr) -> WeightExpr:
        return ["permute", ["reshape", expr, [channels, taps]], [1, 0]]

    w = e.weight(str(node.inputs[1]), (taps, channels), pack, stored=True)
    residual = residual_view(e, node, y, vectors=False)
    symbol_args, common = _common(e, node, x, y, w, residual, window, 1, channels)
    params = {
        **common,
        "image": True,
        "bounds": window.bounds,
        "KH": window.kernel[0],
    }
    tile = GroupTile("point", "ops/conv_depthwise_point.cl.j2", 32, 1, 32, {}, "32")
    pixels = product((y.shape[0], *y.shape[2:]))
    _call(
        e, node, tile, params, [x, w], y, residual, symbol_args, (round_up(channels, 32), pixels),
        "conv2d", conv_cost(node, x.spec, channels * taps, taps, w.dtype),
    )  # fmt: skip


def check_product(e: Emitter, node: Node, x: View, y: View, op: str) -> None:
    """Refuses what the kernels do not take."""
    if x.dtype not in ("float32", node.attrs.get("half")):
        raise Unsupported(f"{op} of dtype {x.dtype}", "convert the model to float32")
    if index_type(e, [x, y]) != "int":
        raise Unsupported(f"{op} over more than 2**31 elements", "lower the bounds of the dynamic dimensions")


def _common(
    e: Emitter, node: Node, x: View, y: View, w: View, residual: View | None, window: Window, groups: int,
    width: int,
) -> tuple[list[ScalarUse], dict[str, Any]]:  # fmt: skip
    """The symbols' arguments, and the parameters that every template of products takes."""
    inner, out = int(str(x.shape[1])) // groups, int(str(y.shape[1])) // groups
    gate = node.attrs.get("gate")
    sizes: dict[str, Dim] = {
        "P": product((y.shape[0], *y.shape[2:])),
        **dict(zip(("H", "W", "OH", "OW"), (*x.shape[2:], *y.shape[2:]), strict=True)),
        "R": out if gate is None else 2 * out,
        "IC": inner,
        "OC": out,
        "K": inner * window.kernel[0] * window.kernel[1],
        "wk": width,
        "KW": window.kernel[1],
        "SH": window.stride[0],
        "SW": window.stride[1],
        "PH": window.padding[0][0],
        "PW": window.padding[1][0],
        "DH": window.dilation[0],
        "DW": window.dilation[1],
        **strides_of("x", x),
        **places_of("y", y),
        **({} if residual is None else places_of("r", residual)),
    }
    symbols, symbol_args = e.symbol_args([*sizes.values()])
    return symbol_args, {
        "symbols": symbols,
        "s": {name: size_text(dim) for name, dim in sizes.items()},
        "x_type": SHORT[x.dtype],
        "weight": SHORT[w.dtype],
        "y_type": SHORT[y.dtype],
        "bias": len(node.inputs) > 2 and node.inputs[2] is not None,
        "residual": None if residual is None else SHORT[residual.dtype],
        "gate": None if gate is None else epilogue_lines(gate),
        "epilogue": epilogue_lines(node.attrs.get("epilogue", ())),
    }


def _call(
    e: Emitter, node: Node, tile: GroupTile, params: dict[str, Any], reads: Sequence[View], y: View,
    residual: View | None, symbol_args: list[ScalarUse], global_size: tuple[Dim, ...], op: str, cost: Cost,
) -> None:  # fmt: skip
    buffers = [BufferUse(view.buffer, "r") for view in reads]
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    if bias is not None:
        buffers.append(BufferUse(e.weight(bias, (int(str(e.spec(bias).numel)),)).buffer, "r"))
    if residual is not None:
        buffers.append(BufferUse(residual.buffer, "r"))
    scale = node.inputs[4] if len(node.inputs) > 4 else None
    if scale is not None:
        buffers.append(BufferUse(e.weight(scale, (int(str(e.spec(scale).numel)),)).buffer, "r"))
    e.call(
        op, tile.variant, tile.template, params,
        node=node, shown={"t": tile.shown}, dtype=SHORT[reads[0].dtype],
        args=[*buffers, BufferUse(y.buffer, "w"), *symbol_args],
        global_size=global_size, local_size=(tile.group, *(1 for _ in global_size[1:])), cost=cost,
    )  # fmt: skip
