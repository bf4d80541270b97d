"""Views that PyTorch states in terms of memory: the same bits as another dtype, and strides over a tensor's
storage."""

from __future__ import annotations

from typing import Any

from npu_compiler import views
from npu_compiler.dtypes import attr_dtype
from npu_compiler.lowering import Builder, as_int, as_ints, unsupported
from npu_compiler.ops import Attrs, Case, OpDef, Specs, lowers, register
from npu_compiler.ops.views import reshape, tensor_input
from npu_compiler.shapes import require
from npu_compiler.view_shapes import first_spec
from npu_compiler.views import View
from torch_ir.expr import Dim
from torch_ir.ir import ITEM_SIZE, Node, TensorSpec

#: Of a node whose input is known to be its whole storage, row-major: ``passes/resolve_strides.py`` sets it.
OF_STORAGE = "_of_storage"
AS_STRIDED = ("aten.as_strided.default", "aten.as_strided_copy.default")


def _reinterpreted(specs: Specs, attrs: Attrs) -> tuple[TensorSpec, ...]:
    spec, dtype = first_spec(specs, attrs), attr_dtype(attrs["dtype"])
    old, new = ITEM_SIZE[spec.dtype], ITEM_SIZE[dtype]
    if old == new:
        return (TensorSpec(spec.shape, dtype),)
    require(spec.rank > 0, f"a tensor of rank 0 of {spec.dtype} as {dtype}")
    last: Dim = spec.shape[-1]
    if old > new:
        return (TensorSpec((*spec.shape[:-1], last * (old // new)), dtype),)
    require(isinstance(last, int) and last % (new // old) == 0, f"{last} elements of {spec.dtype} as {dtype}")
    return (TensorSpec((*spec.shape[:-1], last // (new // old)), dtype),)


register(
    OpDef(
        "reinterpret",
        _reinterpreted,
        reference=lambda torch, x, dtype: x.view(getattr(torch, attr_dtype(dtype))),
        alias=lambda view, node: views.reinterpret(view, node.out.dtype),
        cases=(
            Case(((3, 7),), {"dtype": "torch.int32"}),
            Case(((3, 7),), {"dtype": "torch.uint8"}),
            Case(((3, 14),), {"dtype": "torch.int64"}, ("float32", "int32")),
        ),
    )
)


@lowers("aten.view.dtype")
def lower_view_dtype(b: Builder, node: Node) -> str:
    x = tensor_input(node)
    if b.spec(x).dtype == node.out.dtype:
        return x
    return b.emit("reinterpret", x, dtype=f"torch.{node.out.dtype}")


def _strided(specs: Specs, attrs: Attrs) -> tuple[TensorSpec, ...]:
    spec, shape, strides = first_spec(specs, attrs), as_ints(attrs["shape"]), as_ints(attrs["strides"])
    start = as_int(attrs["start"])
    require(spec.rank == 1 and isinstance(spec.shape[0], int), f"strides over a tensor of shape {spec.shape}")
    fits = len(shape) == len(strides) and min((start, *shape, *strides)) >= 0
    require(fits, f"the shape {shape} with strides {strides} from {start}")
    last = start + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
    inside = 0 in shape or last < as_int(spec.shape[0])
    require(inside, f"element {last} of a storage of {spec.shape[0]}")
    return (TensorSpec(shape, spec.dtype),)


def _strided_view(view: View, node: Node) -> View:
    (step,) = view.strides
    return View(
        view.buffer,
        view.dtype,
        node.out.shape,
        tuple(step * stride for stride in as_ints(node.attrs["strides"])),
        view.offset + step * as_int(node.attrs["start"]),
    )


def _reference_strided(torch: Any, x: Any, shape: Any, strides: Any, start: int) -> Any:
    return x.contiguous().as_strided(shape, strides, start)


register(
    OpDef(
        "strided",
        _strided,
        reference=_reference_strided,
        alias=_strided_view,
        cases=(
            Case(((31,),), {"shape": (5, 7), "strides": (3, 2), "start": 4}, ("float32", "int64")),
            Case(((13,),), {"shape": (3, 2, 5), "strides": (1, 0, 2), "start": 1}),
        ),
    )
)


@lowers(*AS_STRIDED)
def lower_as_strided(b: Builder, node: Node) -> str:
    """NOTE: the strides are over the input's memory, so it must be known how PyTorch arranges that."""
    if OF_STORAGE not in node.attrs:
        raise unsupported(
            "strides over memory whose arrangement in PyTorch is not known here",
            "take them of a contiguous tensor (x.contiguous()), or use unfold, slices or an index",
        )
    x = tensor_input(node)
    flat = reshape(b, x, (b.spec(x).numel,))
    start = as_int(node.attrs.get("storage_offset", 0))
    return b.emit(
        "strided", flat, shape=as_ints(node.attrs["size"]), strides=as_ints(node.attrs["stride"]), start=start
    )
