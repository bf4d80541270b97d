"""Convolutions and linear layers with constant weights, as packed implicit matrix products; depthwise
convolutions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from npu_compiler import unfolded, winograd, winograd_strided
from npu_compiler.ctext import Step
from npu_compiler.depthwise import depthwise
from npu_compiler.errors import Unsupported
from npu_compiler.group_products import Window, emit_depthwise, emit_product
from npu_compiler.lowering import Builder, as_int, as_ints
from npu_compiler.ops import Attrs, Case, OpDef, Specs, lowers, register
from npu_compiler.ops.fused import run_body
from npu_compiler.ops.fused_norm import rows_before
from npu_compiler.ops.matmul import emit_matmul, product_expr
from npu_compiler.ops.views import tensor_input
from npu_compiler.pointwise import emit_body
from npu_compiler.products import LANES, igemm, is_vector_view, pack_rows, pads_of
from npu_compiler.shapes import may_equal, require, window_out
from npu_compiler.views import View
from npu_compiler.views import expand as expand_view
from npu_compiler.views import permute as permute_view
from npu_compiler.views import reshape as reshape_view
from npu_runtime.program import WeightExpr
from torch_ir.expr import Dim, product
from torch_ir.ir import Attr, Node, TensorSpec

if TYPE_CHECKING:
    from npu_compiler.emit import Emitter


def _infer_conv(specs: Specs, attrs: Attrs) -> tuple[TensorSpec, ...]:
    x, w = specs[0], specs[1]
    assert x is not None and w is not None
    groups, stride, dilation = as_int(attrs["groups"]), as_ints(attrs["stride"]), as_ints(attrs["dilation"])
    require(x.rank == w.rank == 4, f"a convolution of {x.rank} dimensions with a weight of {w.rank}")
    require(min(groups, *stride, *dilation) >= 1, f"groups {groups}, stride {stride}, dilation {dilation}")
    shares = may_equal(w.shape[1] * groups, x.shape[1]) and may_equal(w.shape[0] % groups, 0)
    require(shares, f"{x.shape[1]} channels, a weight of {w.shape} and {groups} groups")
    _check_extras(specs, w.shape[0])
    spatial = [
        window_out(size, int(str(kernel)), stride, pads, dilation)
        for size, kernel, stride, pads, dilation in zip(
            x.shape[2:],
            w.shape[2:],
            as_ints(attrs["stride"]),
            pads_of(attrs),
            as_ints(attrs["dilation"]),
            strict=True,
        )
    ]
    empty = any(isinstance(size, int) and size < 1 for size in spatial) and 0 not in x.shape
    require(not empty, f"an image of {x.shape[2:]} smaller than the window {w.shape[2:]}")
    return (TensorSpec((x.shape[0], w.shape[0], *spatial), x.dtype),)


def _check_extras(specs: Specs, out: Dim) -> None:
    """Refuses a bias (the third operand) that is not one number per output channel."""
    bias = specs[2] if len(specs) > 2 else None
    if bias is not None:
        require(
            bias.rank == 1 and may_equal(bias.shape[0], out), f"a bias of {bias.shape} for {out} channels"
        )


def apply_epilogue(torch: Any, y: Any, residual: Any, epilogue: Attr) -> Any:
    """The reference of a fused epilogue: the steps' own references, in order."""
    return run_body(torch, epilogue, (y, residual))


def _reference_conv(
    torch: Any,
    x: Any,
    w: Any,
    bias: Any = None,
    residual: Any = None,
    *,
    stride: Any,
    padding: Any,
    dilation: Any,
    groups: int,
    epilogue: Attr = (),
    half: str = "",
) -> Any:
    """``half`` ("float16" or "bfloat16"): in the model the operands are numbers of this dtype, and may be
    rounded to it again."""
    top, bottom, left, right = padding
    padded = torch.nn.functional.pad(x, (left, right, top, bottom))
    y = torch.nn.functional.conv2d(padded, w, bias, stride, 0, dilation, groups)
    return apply_epilogue(torch, y, residual, epilogue)


_ADD_RELU = (
    Step("add", ("i0", "i1"), {}, "float32").pack(),
    Step("relu", ("t0",), {}, "float32").pack(),
    Step("mul", ("t1", 0.5), {}, "float32").pack(),
)
_GELU = (("gelu_erf", ("i0",), (), "float32"),)


def _conv_case(
    x: tuple[int, ...],
    w: tuple[int, ...],
    bias: bool = True,
    stride: tuple[int, int] = (1, 1),
    padding: tuple[int, int, int, int] = (0, 0, 0, 0),
    dilation: tuple[int, int] = (1, 1),
    groups: int = 1,
    residual: tuple[int, ...] | None = None,
) -> Case:
    shapes: list[tuple[int, ...] | None] = [x, w, (w[0],) if bias else None]
    attrs: Attrs = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    if residual is None:
        return Case(tuple(shapes), attrs, constant=(1, 2), layouts=("row", "nhwc8"))
    return Case(
        (*shapes, residual), {**attrs, "epilogue": _ADD_RELU}, constant=(1, 2), layouts=("row", "nhwc8")
    )


def _emit_conv(e: Emitter, node: Node) -> None:
    _, per_group, kernel_height, kernel_width = e.spec(str(node.inputs[1])).shape
    constant = all(e.is_constant(value) for value in node.inputs[1:3] if value is not None)
    if not constant or node.out.dtype != "float32":
        unfolded.convolve(e, node)
        return
    x, y = e.view(node.inputs[0]), e.output(node)
    kernel = (int(str(kernel_height)), int(str(kernel_width)))
    groups = as_int(node.attrs["groups"])
    depthwise_fits = groups > 1 and per_group == 1 and x.shape[1] == y.shape[1]
    if e.target.group > 1:
        stride, dilation = as_ints(node.attrs["stride"], 2), as_ints(node.attrs["dilation"], 2)
        window = Window(kernel, (stride[0], stride[1]), pads_of(node.attrs), (dilation[0], dilation[1]))
        if depthwise_fits:
            emit_depthwise(e, node, x, y, window)
        else:
            emit_product(e, node, x, y, window, groups, "conv2d")
    elif depthwise_fits and max(kernel) <= 9:
        if not is_vector_view(e, x):
            blocked = e.scratch(f"{node.name}:nhwc8", TensorSpec(x.shape, x.dtype, "nhwc8"))
            e.copy(x, blocked, node)
            x = blocked
        depthwise(e, node, x, y, kernel)
    elif (
        groups == 1
        and int(str(per_group)) < LANES
        and kernel[1] > 1
        and as_ints(node.attrs["dilation"])[1] == 1
    ):
        pack_rows(e, node, x, y, kernel)
    elif is_vector_view(e, y) and (size := winograd.form_of(e, node, x)):
        winograd.winograd(e, node, x, y, size)
    elif is_vector_view(e, y) and (size := winograd_strided.form_of(e, node, x)):
        winograd_strided.winograd_strided(e, node, x, y, size)
    else:
        igemm(
            e,
            node,
            x,
            y,
            kernel,
            as_ints(node.attrs["stride"]),
            pads_of(node.attrs),
            as_ints(node.attrs["dilation"]),
            groups,
            "conv2d",
        )


register(
    OpDef(
        "conv",
        _infer_conv,
        _reference_conv,
        emit=_emit_conv,
        layout=lambda node, layouts: "nhwc8",
        epilogue=True,
        over=3,
        half=True,
        rtol=5e-5,
        atol=5e-5,
        cases=(
            _conv_case((1, 3, 7, 7), (8, 3, 3, 3), padding=(1, 1, 1, 1)),
            _conv_case((2, 5, 13, 11), (7, 5, 3, 3), bias=False, stride=(2, 2), padding=(0, 1, 0, 1)),
            _conv_case((3, 8, 9, 9), (29, 8, 1, 1)),
            _conv_case((1, 16, 14, 14), (40, 16, 3, 3), padding=(2, 2, 2, 2), dilation=(2, 2)),
            _conv_case((1, 6, 10, 10), (12, 3, 3, 3), padding=(1, 1, 1, 1), groups=2),
            _conv_case((2, 16, 7, 7), (32, 4, 3, 3), padding=(1, 1, 1, 1), groups=4),
            _conv_case((1, 3, 29, 31), (16, 3, 7, 7), stride=(2, 2), padding=(3, 3, 3, 3)),
            _conv_case((1, 8, 5, 12), (9, 8, 1, 5), stride=(1, 3), padding=(0, 0, 4, 2)),
            _conv_case((1, 12, 13, 13), (12, 1, 3, 3), padding=(1, 1, 1, 1), groups=12),
            _conv_case((2, 16, 9, 9), (16, 1, 5, 5), stride=(2, 2), padding=(1, 2, 1, 2), groups=16),
            _conv_case((1, 4, 6, 6), (8, 1, 3, 3), groups=4),
            _conv_case((1, 64, 13, 15), (64, 64, 3, 3), padding=(1, 1, 1, 1)),
            _conv_case((2, 40, 9, 29), (24, 40, 3, 3), False, padding=(0, 2, 1, 1), residual=(2, 24, 9, 29)),
            _conv_case((2, 64, 9, 29), (72, 64, 3, 3), False, padding=(0, 2, 1, 1), residual=(2, 72, 9, 29)),
            _conv_case((1, 128, 3, 29), (128, 128, 3, 3), padding=(0, 1, 1, 1), residual=(1, 128, 2, 29)),
            _conv_case((1, 64, 45, 41), (24, 64, 3, 3), padding=(1, 1, 1, 1), residual=(1, 24, 45, 41)),
            _conv_case((2, 64, 47, 39), (40, 64, 3, 3), False, padding=(0, 1, 2, 1)),
            _conv_case((1, 128, 14, 18), (64, 128, 3, 3), padding=(1, 1, 1, 1), residual=(1, 64, 14, 18)),
            _conv_case((1, 128, 14, 17), (72, 128, 3, 3), False, padding=(1, 1, 1, 1)),
            _conv_case((1, 192, 7, 7), (192, 192, 3, 3), padding=(1, 1, 1, 1)),
            _conv_case(
                (1, 64, 29, 57), (64, 64, 3, 3), False, (2, 2), (1, 1, 1, 1), residual=(1, 64, 15, 29)
            ),
            _conv_case((2, 40, 30, 29), (96, 40, 3, 3), stride=(2, 2), padding=(0, 1, 1, 1)),
            _conv_case((1, 136, 26, 27), (136, 136, 3, 3), stride=(2, 2), padding=(1, 0, 0, 0)),
            _conv_case((2, 5, 7, 9), (13, 5, 3, 3), residual=(2, 13, 5, 7)),
            _conv_case(
                (1, 13, 7, 11), (13, 1, 3, 3), padding=(1, 1, 1, 1), groups=13, residual=(1, 13, 7, 11)
            ),
            _conv_case((1, 7, 1, 1), (31, 7, 1, 1), residual=(1, 31, 1, 1)),
            _conv_case((7, 3, 5, 5), (8, 3, 5, 5)),
            _conv_case((1, 64, 31, 29), (48, 64, 1, 1), stride=(2, 2)),
            _conv_case((1, 8, 7, 7), (128, 8, 3, 3), padding=(1, 1, 1, 1)),
            _conv_case((1, 16, 5, 29), (16, 1, 3, 3), False, stride=(1, 5), groups=16),
            *(  # images of one row, as convolutions over one dimension make them
                _conv_case((2, channels, 1, length), (8 + channels, channels, 1, width), channels % 2 == 1,
                           padding=(0, 0, width // 2, width // 2))
                for channels, length in zip(range(1, 9), (7, 13, 29, 31, 113, 5, 3, 61), strict=True)
                for width in (1, 3)
            ),
            *(  # weights that are computed during the run
                replace(case, constant=constant)
                for case in (
                    _conv_case((2, 6, 13, 11), (8, 3, 3, 3), stride=(2, 1), padding=(0, 1, 2, 1), groups=2),
                    _conv_case((1, 5, 9, 7), (7, 5, 3, 2), bias=False, dilation=(2, 3)),
                    _conv_case((2, 5, 7, 9), (13, 5, 3, 3), residual=(2, 13, 5, 7)),
                )
                for constant in ((), (1,), (2,))
            ),
        ),
    )
)


def _infer_linear(specs: Specs, attrs: Attrs) -> tuple[TensorSpec, ...]:
    x, w = specs[0], specs[1]
    assert x is not None and w is not None
    fits = x.rank >= 1 and w.rank == 2 and may_equal(x.shape[-1], w.shape[1])
    require(fits, f"a linear layer over {x.shape} with a weight of {w.shape}")
    _check_extras(specs, w.shape[0])
    return (TensorSpec((*x.shape[:-1], w.shape[0]), x.dtype),)


def _reference_linear(
    torch: Any,
    x: Any,
    w: Any,
    bias: Any = None,
    residual: Any = None,
    scale: Any = None,
    *,
    epilogue: Attr = (),
    half: str = "",
    norm_eps: float | None = None,
    norm_rounded: str = "",
) -> Any:
    """With ``norm_eps``, rows are normalised by their root mean square (and ``scale``) before."""
    x = rows_before(torch, x, scale, norm_eps, norm_rounded)
    return apply_epilogue(torch, torch.nn.functional.linear(x, w, bias), residual, epilogue)


def _emit_linear(e: Emitter, node: Node) -> None:
    x = e.view(node.inputs[0])
    if (
        not all(e.is_constant(value) for value in node.inputs[1:3] if value is not None)
        or node.out.dtype != "float32"
    ):
        _emit_product(e, node, x)
        return
    packed_linear(e, node, x)


def packed_linear(e: Emitter, node: Node, x: View) -> None:
    """Emits the product of rows [.., K] by a packed constant weight."""
    rows, inner = product(x.shape[:-1]), x.shape[-1]
    out = node.out.shape[-1]
    if "norm_eps" in node.attrs:
        if e.target.group == 1:
            raise Unsupported("rows normalised by their product", "compile for a GPU")
        x = e.dense(x, node, "rows")
    matrix = reshape_view(x, (rows, inner)) or reshape_view(e.dense(x, node, "rows"), (rows, inner))
    assert matrix is not None
    flat = replace(matrix, shape=(rows, inner, 1, 1), strides=(*matrix.strides, 0, 0))
    y = e.output(node)
    target = View(y.buffer, y.dtype, (rows, out, 1, 1), (out, 1, out, out), y.offset)
    if e.target.group > 1:
        emit_product(e, node, flat, target, Window(), 1, "linear")
    else:
        igemm(e, node, flat, target, (1, 1), (1, 1), ((0, 0), (0, 0)), (1, 1), 1, "linear")


def row_of(view: View) -> View:
    """A vector as a matrix of one row."""
    return replace(view, shape=(1, *view.shape), strides=(view.shape[0], *view.strides))


def _emit_product(e: Emitter, node: Node, x: View) -> None:
    """A linear layer whose weight is computed during the run: a general matrix product."""
    weight, y = permute_view(e.view(node.inputs[1]), (1, 0)), e.output(node)
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    flat = len(x.shape) == 1
    x, out = (row_of(x), row_of(y)) if flat else (x, y)
    if bias is None:
        emit_matmul(e, node, x, weight, out)
        return
    plain = e.scratch(f"{node.name}:product", out.spec)
    emit_matmul(e, node, x, weight, plain)
    step = Step("add", ("i0", "i1"), {}, y.dtype)
    emit_body(e, (step,), [plain, expand_view(e.view(bias), out.shape)], out, node)


def _linear_expr(node: Node, exprs: Sequence[WeightExpr]) -> WeightExpr | None:
    plain = not node.attrs.get("epilogue") and all(value is None for value in node.inputs[2:])
    if not plain or node.out.rank < 2:
        return None
    return product_expr(node, exprs[0], ["permute", exprs[1], [1, 0]])


register(
    OpDef(
        "linear",
        _infer_linear,
        _reference_linear,
        emit=_emit_linear,
        weight_expr=_linear_expr,
        epilogue=True,
        half=True,
        rtol=2e-5,
        atol=2e-5,
        cases=(
            *(
                Case((x, w, (w[0],) if bias else None), constant=(1, 2))
                for x, w, bias in (
                    ((3, 7), (5, 7), True),
                    ((1, 512), (1000, 512), True),
                    ((2, 3, 29), (16, 29), False),
                    ((13,), (3, 13), True),
                    ((113, 64), (40, 64), True),
                    ((21, 31), (136, 31), True),
                    ((5, 64), (16, 64), True),
                    ((2, 64), (24, 64), True),
                    ((6, 31), (17, 31), True),
                    ((7, 8), (8, 8), False),
                )
            ),
            Case(((3, 7), (5, 7), (5,)), dtypes=("float32", "float64")),
            Case(((13,), (3, 13), (3,))),
            Case(((2, 3, 7), (5, 7), None)),
            Case(((1, 7), (5, 7), None)),
            Case(((2, 3, 16), (24, 16), (24,), (2, 3, 24)), {"epilogue": _ADD_RELU}, constant=(1, 2)),
            Case(((5, 7), (13, 7), None, (5, 13)), {"epilogue": _ADD_RELU}, constant=(1,)),
            Case(((7, 29), (24, 29), (24,)), {"epilogue": _GELU}, constant=(1, 2)),
        ),
    )
)


@lowers("aten.linear.default")
def lower_linear(b: Builder, node: Node) -> str:
    x, w = tensor_input(node), tensor_input(node, 1)
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    y = b.emit("linear", x, w, None)  # fold_affine takes the bias in where the weight is constant
    return y if bias is None else b.emit("add", y, bias)
