"""A convolution and the depthwise convolution of its result, as one: the first half of an inverted
bottleneck.

Sandler et al., "MobileNetV2: Inverted Residuals and Linear Bottlenecks", 2018.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from npu_compiler.ctext import Step
from npu_compiler.expanded import emit_fused, pays
from npu_compiler.ops import Attrs, Case, OpDef, Specs, op_def, register
from torch_ir.ir import Node, TensorSpec

if TYPE_CHECKING:
    from npu_compiler.emit import Emitter

#: Attributes of the two convolutions, as the fused node has them and as they have them themselves.
FIRST = {"stride": "stride", "padding": "padding", "inner": "epilogue"}
SECOND = {"window_stride": "stride", "window_padding": "padding", "epilogue": "epilogue"}


def _first(attrs: Attrs) -> dict[str, Any]:
    own = {own: attrs[name] for name, own in FIRST.items() if name in attrs}
    return {"dilation": (1, 1), "groups": 1, **own}


def _second(attrs: Attrs, channels: Any) -> dict[str, Any]:
    own = {own: attrs[name] for name, own in SECOND.items() if name in attrs}
    return {"dilation": (1, 1), "groups": channels, **own}


def parts_of(node: Node, x: TensorSpec, weight: TensorSpec) -> tuple[Node, Node]:
    """The two convolutions that ``node`` is made of, for its first two inputs' shapes."""
    value, first_weight, bias, window, window_bias = node.inputs
    first, second = _first(node.attrs), _second(node.attrs, weight.shape[0])
    (out,) = op_def("conv").infer((x, weight), first)
    between = f"{node.name}:expanded"
    expand = replace(
        node,
        name=between,
        op="conv",
        inputs=(value, first_weight, bias),
        outputs=(between,),
        outs=(replace(out, layout="nhwc8"),),
        attrs=first,
    )
    return expand, replace(node, op="conv", inputs=(between, window, window_bias), attrs=second)


def _infer(specs: Specs, attrs: Attrs) -> tuple[TensorSpec, ...]:
    x, weight, bias, window, window_bias = specs
    assert weight is not None
    conv = op_def("conv").infer
    (between,) = conv((x, weight, bias), _first(attrs))
    return conv((between, window, window_bias), _second(attrs, weight.shape[0]))


def _reference(torch: Any, x: Any, w: Any, bias: Any, d: Any, d_bias: Any, **attrs: Any) -> Any:
    conv = op_def("conv").reference
    return conv(torch, conv(torch, x, w, bias, **_first(attrs)), d, d_bias, **_second(attrs, w.shape[0]))


def _emit(e: Emitter, node: Node) -> None:
    first, second = parts_of(node, e.view(node.inputs[0]).spec, e.spec(str(node.inputs[1])))
    if e.target.group == 1 and e.options.fuse_depthwise and pays(e, first, second):
        emit_fused(e, node, first, second)
        return
    emit = op_def("conv").emit
    assert emit is not None
    emit(e, first)
    emit(e, second)


_RELU6 = (
    Step("relu", ("i0",), {}, "float32").pack(),
    Step("clamp_max", ("t0", 6.0), {}, "float32").pack(),
)


def _case(
    x: tuple[int, ...], first: tuple[int, ...], window: tuple[int, int], bias: bool = True,
    stride: tuple[int, int] = (1, 1), padding: tuple[int, ...] = (0, 0, 0, 0),
    window_stride: tuple[int, int] = (1, 1), window_padding: tuple[int, ...] = (0, 0, 0, 0),
) -> Case:
    """``first``: [out, kernel height, kernel width]."""
    channels = first[0]
    biases = (channels,) if bias else None
    attrs: Attrs = {
        "stride": stride, "padding": padding,
        "window_stride": window_stride, "window_padding": window_padding,
        **({"inner": _RELU6, "epilogue": _RELU6[:1]} if bias else {}),
    }
    shapes = (x, (channels, x[1], *first[1:]), biases, (channels, 1, *window), biases)
    return Case(shapes, attrs, constant=(1, 2, 3, 4), layouts=("row", "nhwc8"))


register(
    OpDef(
        "expanded_depthwise",
        _infer,
        _reference,
        emit=_emit,
        layout=lambda node, layouts: "nhwc8",
        rtol=5e-5,
        atol=5e-5,
        cases=(
            _case((1, 16, 31, 113), (24, 1, 1), (3, 3), window_padding=(1, 1, 1, 1)),
            _case((1, 8, 61, 113), (16, 1, 1), (5, 5), window_stride=(2, 2), window_padding=(1, 2, 1, 2)),
            _case((1, 16, 13, 29), (24, 1, 1), (3, 3), False, window_padding=(1, 1, 1, 1)),
            _case((2, 24, 31, 11), (40, 1, 1), (5, 5), window_stride=(2, 2), window_padding=(1, 2, 1, 2)),
            _case((1, 12, 7, 7), (96, 1, 1), (5, 5), False, window_padding=(2, 2, 2, 2)),
            _case((2, 9, 5, 3), (7, 1, 1), (3, 2), window_padding=(0, 2, 1, 0)),
            _case((1, 8, 14, 14), (32, 1, 1), (3, 3), window_stride=(2, 1), window_padding=(0, 1, 3, 3)),
            _case((1, 16, 13, 15), (16, 1, 1), (3, 3), stride=(2, 2), window_padding=(1, 1, 1, 1)),
            _case((1, 3, 29, 31), (16, 3, 3), (3, 3), stride=(2, 2), padding=(0, 1, 0, 1),
                  window_padding=(1, 1, 1, 1)),
            _case((1, 64, 29, 31), (8, 1, 1), (9, 9), window_padding=(4, 4, 4, 4)),  # is left as two kernels
        ),
    )
)
