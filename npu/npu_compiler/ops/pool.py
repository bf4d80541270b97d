"""Pooling over windows and over whole images, channels last."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from npu_compiler.argument_shapes import pooled_dims, windows_of
from npu_compiler.ctext import size_text
from npu_compiler.dtypes import HALF, SHORT
from npu_compiler.errors import Unsupported
from npu_compiler.lowering import Builder, as_int, as_ints
from npu_compiler.ops import Attrs, Case, Cost, OpDef, Specs, lowers, register
from npu_compiler.ops.pool_windows import NO_WINDOW
from npu_compiler.ops.reduce import reduce
from npu_compiler.ops.views import reshape, tensor_input
from npu_compiler.products import is_vector_view, pads_of
from npu_compiler.select import BufferUse, ScalarUse
from npu_compiler.shapes import window_out
from npu_compiler.views import View, places_of, strides_of
from torch_ir.expr import Dim, ceil_div
from torch_ir.ir import ITEM_SIZE, Node, TensorSpec

if TYPE_CHECKING:
    from npu_compiler.emit import Emitter


def _infer(specs: Specs, attrs: Attrs) -> tuple[TensorSpec, ...]:
    x = specs[0]
    assert x is not None
    dilation = as_ints(attrs.get("dilation", (1, 1)))
    spatial = [
        window_out(size, kernel, stride, pads, step, bool(attrs["ceil_mode"]))
        for size, kernel, stride, pads, step in zip(
            x.shape[2:],
            as_ints(attrs["kernel"]),
            as_ints(attrs["stride"]),
            pads_of(attrs),
            dilation,
            strict=True,
        )
    ]
    return (TensorSpec((*x.shape[:2], *spatial), x.dtype),)


def _emit(e: Emitter, node: Node) -> None:
    x = e.view(node.inputs[0])
    if e.target.group > 1 and x.dtype in (*HALF, "float32"):
        _emit_point(e, node, x)
        return
    if x.dtype != "float32":
        raise Unsupported(f"pooling of dtype {x.dtype}", "convert the model to float32")
    if not is_vector_view(e, x):
        blocked = e.scratch(f"{node.name}:nhwc8", TensorSpec(x.shape, x.dtype, "nhwc8"))
        e.copy(x, blocked, node)
        x = blocked
    y = e.output(node)
    batch, channels, height, width = x.shape
    _, _, out_height, out_width = y.shape
    kernel, pads = as_ints(node.attrs["kernel"]), pads_of(node.attrs)
    average = node.op == "avg_pool"
    params: dict[str, Any] = {
        "op": "avg" if average else "max",
        "include_pad": bool(node.attrs.get("count_include_pad", True)),
        "KH": kernel[0],
        "KW": kernel[1],
        "out": "nhwc8" if is_vector_view(e, y) else "strided",
        "epilogue": [],
    }
    scalars: list[Dim] = [
        channels,
        height,
        width,
        out_height,
        out_width,
        *as_ints(node.attrs["stride"]),
        pads[0][0],
        pads[1][0],
        *as_ints(node.attrs.get("dilation", (1, 1))),
        as_int(node.attrs.get("divisor", 0)),
        x.offset,
        x.strides[0],
        x.strides[2],
        x.strides[3],
        *places_of("y", y).values(),
    ]
    e.call(
        node.op,
        params["op"],
        "ops/pool.cl.j2",
        params,
        node=node,
        args=[BufferUse(x.buffer, "r"), BufferUse(y.buffer, "w"), *(ScalarUse(value) for value in scalars)],
        global_size=(ceil_div(channels, 64), out_height, batch),
        local_size=(1, 1, 1),
        cost=Cost(
            node.out.numel * kernel[0] * kernel[1],
            x.spec.numel * ITEM_SIZE[x.dtype],
            node.out.numel * ITEM_SIZE[x.dtype],
        ),
    )


def _emit_point(e: Emitter, node: Node, x: View) -> None:
    """One work-item for each result."""
    y = e.output(node)
    kernel, stride, pads = as_ints(node.attrs["kernel"]), as_ints(node.attrs["stride"]), pads_of(node.attrs)
    dilation = as_ints(node.attrs.get("dilation", (1, 1)))
    sizes: dict[str, Dim] = {
        **dict(zip(("C", "H", "W", "OH", "OW"), (*x.shape[1:], *y.shape[2:]), strict=True)),
        "KH": kernel[0], "KW": kernel[1], "SH": stride[0], "SW": stride[1],
        "PH": pads[0][0], "PW": pads[1][0], "DH": dilation[0], "DW": dilation[1],
        **strides_of("x", x),
        **places_of("y", y),
    }
    symbols, symbol_args = e.symbol_args([*sizes.values()])
    average = node.op == "avg_pool"
    params = {
        "symbols": symbols,
        "s": {name: size_text(dim) for name, dim in sizes.items()},
        "op": "avg" if average else "max",
        "include_pad": bool(node.attrs.get("count_include_pad", True)),
        "divisor": as_int(node.attrs.get("divisor", 0)),
        "x_type": SHORT[x.dtype],
        "y_type": SHORT[y.dtype],
    }
    e.call(
        node.op, "point", "ops/pool_point.cl.j2", params,
        node=node,
        args=[BufferUse(x.buffer, "r"), BufferUse(y.buffer, "w"), *symbol_args],
        global_size=(ceil_div(x.shape[1], 32) * 32, ceil_div(y.shape[2] * y.shape[3], 4) * 4, x.shape[0]),
        local_size=(32, 4, 1),
        cost=Cost(node.out.numel * kernel[0] * kernel[1], x.spec.nbytes, y.spec.nbytes),
    )  # fmt: skip


def _reference_max(
    torch: Any, x: Any, *, kernel: Any, stride: Any, padding: Any, dilation: Any, ceil_mode: bool
) -> Any:
    top, bottom, left, right = padding
    if (top, left) == (bottom, right):
        return torch.nn.functional.max_pool2d(x, kernel, stride, (top, left), dilation, ceil_mode)
    padded = torch.nn.functional.pad(x, (left, right, top, bottom), value=float("-inf"))
    return torch.nn.functional.max_pool2d(padded, kernel, stride, 0, dilation, ceil_mode)


def _reference_avg(
    torch: Any,
    x: Any,
    *,
    kernel: Any,
    stride: Any,
    padding: Any,
    ceil_mode: bool,
    count_include_pad: bool,
    divisor: int,
) -> Any:
    return torch.nn.functional.avg_pool2d(
        x, kernel, stride, (padding[0], padding[2]), ceil_mode, count_include_pad, divisor or None
    )


def _case(
    shape: tuple[int, ...],
    kernel: tuple[int, int],
    stride: tuple[int, int],
    pad: tuple[int, int] = (0, 0),
    ceil: bool = False,
    **attrs: Any,
) -> Case:
    padding = (pad[0], pad[0], pad[1], pad[1])
    return Case(
        (shape,),
        {"kernel": kernel, "stride": stride, "padding": padding, "ceil_mode": ceil, **attrs},
        layouts=("row", "nhwc8"),
    )


register(
    OpDef(
        "max_pool",
        _infer,
        _reference_max,
        emit=_emit,
        layout=lambda node, layouts: "nhwc8",
        cases=(
            _case((1, 8, 12, 12), (3, 3), (2, 2), (1, 1), dilation=(1, 1)),
            _case((2, 13, 7, 11), (2, 3), (1, 2), (1, 0), dilation=(1, 2)),
            _case((1, 3, 10, 10), (3, 3), (2, 2), ceil=True, dilation=(1, 1)),
        ),
    )
)
register(
    OpDef(
        "avg_pool",
        _infer,
        _reference_avg,
        emit=_emit,
        layout=lambda node, layouts: "nhwc8",
        cases=(
            _case((1, 8, 12, 12), (3, 3), (2, 2), (1, 1), count_include_pad=True, divisor=0),
            _case((2, 13, 7, 11), (2, 3), (1, 2), (1, 0), count_include_pad=False, divisor=0),
            _case((1, 3, 10, 10), (3, 3), (2, 2), (1, 1), ceil=True, count_include_pad=True, divisor=0),
            _case((1, 5, 9, 9), (2, 2), (2, 2), divisor=3, count_include_pad=True),
        ),
    )
)


def _image(b: Builder, x: str, rank: int, dims: int) -> str:
    """The input as [N, C, *spatial] with ``dims`` spatial dimensions: a missing batch and dimensions of size
    1 are added."""
    shape = b.shape(x)
    if len(shape) == rank + 1:
        shape = (1, *shape)
    return reshape(b, x, (*shape[:2], *(1,) * (dims - rank), *shape[2:]))


def _filled(values: tuple[int, ...], count: int, value: int) -> tuple[int, ...]:
    """``values`` with ``value`` in front where there are fewer than ``count``."""
    return (*(value,) * (count - len(values)), *values)


@lowers(
    *(f"aten.{kind}_pool{rank}d.default" for kind in ("max", "avg") for rank in (1, 2, 3)),
    *(f"aten.max_pool{rank}d_with_indices.default" for rank in (1, 2, 3)),
)
def lower_pool(b: Builder, node: Node) -> list[str]:
    """Images of float32 whose windows' places are not asked for take the kernel for vectors of channels."""
    windows, average = windows_of(node), ".avg" in node.op
    rank, kernel, stride = windows.rank, windows.kernel, windows.stride
    pads, dilation = windows.padding, windows.dilation
    count_include_pad = bool(node.attrs.get("count_include_pad", True))
    divisor = as_int(node.attrs.get("divisor_override") or 0)
    x, indices = tensor_input(node), "with_indices" in node.op
    if rank < 3 and not indices and b.spec(x).dtype == "float32":
        top, left = _filled(pads, 2, 0)
        common: dict[str, Any] = {
            "kernel": _filled(kernel, 2, 1),
            "stride": _filled(stride, 2, 1),
            "padding": (top, top, left, left),
            "ceil_mode": windows.rounded_up,
        }
        if average:
            common |= {"count_include_pad": count_include_pad, "divisor": divisor}
        else:
            common["dilation"] = _filled(dilation, 2, 1)
        image = _image(b, x, rank, 2)
        (spec,) = _infer([b.spec(image)], common)
        if spec.shape[4 - rank :] == node.out.shape[-rank:]:
            return [
                reshape(b, b.emit("avg_pool" if average else "max_pool", image, **common), node.out.shape)
            ]
    out: tuple[Dim, ...] = (*(1,) * (3 - rank), *node.out.shape[-rank:])
    window: dict[str, Any] = {
        "out": out,
        "adaptive": False,
        "kernel": _filled(kernel, 3, 1),
        "stride": _filled(stride, 3, 1),
        "padding": _filled(pads, 3, 0),
        "dilation": _filled(dilation, 3, 1),
    }
    window |= (
        {"count_include_pad": count_include_pad, "divisor": divisor} if average else {"indices": indices}
    )
    name = "avg_windows" if average else "max_windows"
    results = b.emit_multi(name, _image(b, x, rank, 3), **window)
    return [reshape(b, result, node.out.shape) for result in results]


@lowers(
    *(f"aten.adaptive_{kind}_pool{rank}d.default" for kind in ("avg", "max") for rank in (1, 2, 3)),
    "aten._adaptive_avg_pool2d.default",
    "aten._adaptive_avg_pool3d.default",
)
def lower_adaptive(b: Builder, node: Node) -> list[str]:
    """Window ``i`` of ``n`` reaches from floor(i * size / n) to ceil((i + 1) * size / n); equal windows are
    plain pooling, one window is a reduction."""
    rank, average = pooled_dims(node), "_avg_" in node.op
    x = tensor_input(node)
    spatial, out = b.shape(x)[-rank:], node.out.shape[-rank:]
    if average and all(size == 1 for size in out):
        dims = tuple(range(len(b.shape(x)) - rank, len(b.shape(x))))
        return [reduce(b, "mean", x, dims, node.out.shape)]
    static = all(isinstance(size, int) for size in (*spatial, *out))
    if average and static and rank < 3 and b.spec(x).dtype == "float32":
        pairs = list(zip(as_ints(tuple(spatial)), as_ints(tuple(out)), strict=True))
        if all(count and size % count == 0 for size, count in pairs):
            kernel = _filled(tuple(size // count for size, count in pairs), 2, 1)
            y = b.emit(
                "avg_pool",
                _image(b, x, rank, 2),
                kernel=kernel,
                stride=kernel,
                padding=(0, 0, 0, 0),
                ceil_mode=False,
                count_include_pad=True,
                divisor=0,
            )
            return [reshape(b, y, node.out.shape)]
    more: dict[str, Any] = {} if average else {"indices": True}
    window: dict[str, Any] = {"out": (*(1,) * (3 - rank), *out), "adaptive": True, **NO_WINDOW, **more}
    results = b.emit_multi("avg_windows" if average else "max_windows", _image(b, x, rank, 3), **window)
    return [reshape(b, result, node.out.shape) for result in results]
