"""Pooling over windows of any dtype in one to three dimensions: with the places of the largest elements, and
over windows that divide an image evenly."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from npu_compiler.dtypes import SHORT, STORAGE_TYPE, is_float
from npu_compiler.errors import Unsupported
from npu_compiler.lowering import as_dims, as_int, as_ints
from npu_compiler.ops import Attrs, Case, Cost, OpDef, Specs, register
from npu_compiler.pointwise import check_dtypes, index_type
from npu_compiler.select import BufferUse, ScalarUse
from torch_ir.expr import Dim, product
from torch_ir.ir import Node, TensorSpec

if TYPE_CHECKING:
    from npu_compiler.emit import Emitter

#: The fixed window of an adaptive pooling, which has none.
NO_WINDOW: Attrs = {"kernel": (1, 1, 1), "stride": (1, 1, 1), "padding": (0, 0, 0), "dilation": (1, 1, 1)}


def _infer(specs: Specs, attrs: Attrs) -> tuple[TensorSpec, ...]:
    x = specs[0]
    assert x is not None
    shape = (*x.shape[:2], *as_dims(attrs["out"]))
    values = TensorSpec(shape, x.dtype)
    return (values, TensorSpec(shape, "int64")) if attrs.get("indices") else (values,)


def _emit(e: Emitter, node: Node) -> None:
    x, y = e.view(node.inputs[0]), e.output(node)
    indices = e.output(node, 1) if node.attrs.get("indices") else None
    adaptive, average = bool(node.attrs["adaptive"]), node.op == "avg_windows"
    check_dtypes(e, [x.dtype])
    if index_type(e, [x, y]) != "int":
        raise Unsupported(
            "pooling over more than 2**31 elements", "lower the bounds of the dynamic dimensions"
        )
    if any(e.bounds(size)[0] == 0 for size in x.shape[2:]):
        raise Unsupported("pooling over no elements", "make the dimension's lower bound 1")
    params = {
        "op": "avg" if average else "max",
        "x_type": STORAGE_TYPE[x.dtype],
        "acc_type": STORAGE_TYPE[x.dtype] if is_float(x.dtype) else "long",
        "adaptive": adaptive,
        "indices": indices is not None,
        "include_pad": bool(node.attrs.get("count_include_pad", False)),
    }
    window = [as_ints(node.attrs[name], 3) for name in ("kernel", "stride", "padding", "dilation")]
    scalars: list[Dim] = []
    for i in range(3):
        scalars += [x.shape[2 + i], y.shape[2 + i], *(values[i] for values in window)]
    scalars += [x.shape[1], as_int(node.attrs.get("divisor", 0))]
    scalars += [x.offset, *x.strides, y.offset, *y.strides]
    batch, channels, depth, height, width = y.shape
    outputs = [BufferUse(view.buffer, "w") for view in (y, indices) if view is not None]
    e.call(
        node.op,
        "adaptive" if adaptive else "fixed",
        "ops/pool_windows.cl.j2",
        params,
        node=node,
        dtype=SHORT[x.dtype],
        args=[BufferUse(x.buffer, "r"), *outputs, *(ScalarUse(value) for value in scalars)],
        global_size=(width, depth * height, batch * channels),
        cost=Cost(
            x.spec.numel if adaptive else y.spec.numel * product(window[0]), x.spec.nbytes, y.spec.nbytes
        ),
    )


def _reference_max(torch: Any, x: Any, *, out: Any, adaptive: bool, indices: bool, **window: Any) -> Any:
    functional = torch.nn.functional
    if adaptive:
        both = functional.adaptive_max_pool3d(x, out, return_indices=True)
    else:
        ceil = out != _floors(x.shape[2:], window)
        both = functional.max_pool3d(
            x,
            window["kernel"],
            window["stride"],
            window["padding"],
            window["dilation"],
            ceil,
            return_indices=True,
        )
    return tuple(both) if indices else both[0]


def _floors(sizes: Any, window: Any) -> tuple[int, ...]:
    """The numbers of windows without ceil mode."""
    return tuple(
        (size + 2 * pad - dilation * (kernel - 1) - 1) // stride + 1
        for size, kernel, stride, pad, dilation in zip(
            sizes, *(window[name] for name in ("kernel", "stride", "padding", "dilation")), strict=True
        )
    )


def _reference_avg(
    torch: Any,
    x: Any,
    *,
    out: Any,
    adaptive: bool,
    count_include_pad: bool = False,
    divisor: int = 0,
    **window: Any,
) -> Any:
    functional = torch.nn.functional
    if adaptive:
        return functional.adaptive_avg_pool3d(x, out)
    ceil = out != _floors(x.shape[2:], window)
    arguments = (
        window["kernel"],
        window["stride"],
        window["padding"],
        ceil,
        count_include_pad,
        divisor or None,
    )
    return functional.avg_pool3d(x, *arguments)


def _fixed(
    out: tuple[int, int, int],
    kernel: tuple[int, int, int],
    stride: tuple[int, int, int],
    padding: tuple[int, int, int] = (0, 0, 0),
    dilation: tuple[int, int, int] = (1, 1, 1),
    **more: Any,
) -> Attrs:
    window = {"kernel": kernel, "stride": stride, "padding": padding, "dilation": dilation}
    return {"out": out, "adaptive": False, **window, **more}


register(
    OpDef(
        "max_windows",
        _infer,
        _reference_max,
        emit=_emit,
        cases=(
            Case(
                ((2, 3, 5, 7, 11),),
                _fixed((2, 4, 5), (2, 2, 3), (2, 2, 2), (0, 1, 0), indices=True),
                ("float32", "float64", "int64"),
            ),
            Case(
                ((1, 2, 1, 7, 9),),
                _fixed((1, 5, 3), (1, 2, 3), (1, 1, 3), (0, 1, 1), (1, 4, 1), indices=True),
            ),
            Case(
                ((1, 3, 1, 8, 8),), _fixed((1, 4, 4), (1, 3, 3), (1, 2, 2), indices=False), values="index:3"
            ),
            Case(((1, 3, 5, 7, 1),), {"out": (2, 3, 1), "adaptive": True, **NO_WINDOW, "indices": True}),
        ),
    )
)
register(
    OpDef(
        "avg_windows",
        _infer,
        _reference_avg,
        emit=_emit,
        cases=(
            Case(
                ((2, 3, 5, 7, 11),),
                _fixed((2, 4, 5), (2, 2, 3), (2, 2, 2), (0, 1, 0), count_include_pad=True),
                ("float32", "float64"),
            ),
            Case(
                ((1, 2, 6, 7, 9),), _fixed((4, 3, 5), (3, 3, 3), (2, 3, 2), (1, 1, 1), count_include_pad=True)
            ),
            Case(((1, 2, 6, 7, 9),), _fixed((4, 3, 5), (3, 3, 3), (2, 3, 2), (1, 1, 1))),
            Case(((1, 1, 4, 4, 4),), _fixed((2, 2, 2), (2, 2, 2), (2, 2, 2), divisor=3)),
            Case(((2, 3, 1, 7, 13),), {"out": (1, 3, 29), "adaptive": True, **NO_WINDOW}),
        ),
    )
)
