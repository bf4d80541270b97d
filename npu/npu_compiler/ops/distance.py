"""Distances between points, and products of three tensors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from npu_compiler.ctext import index_text, size_text
from npu_compiler.dtypes import SHORT, STORAGE_TYPE, literal
from npu_compiler.lowering import Builder, as_number, unsupported
from npu_compiler.ops import Attrs, Case, Cost, OpDef, Specs, lowers, register
from npu_compiler.ops.creation import full, numbers
from npu_compiler.ops.elementwise import cast
from npu_compiler.ops.matmul import product_of
from npu_compiler.ops.views import permute, reshape, tensor_input
from npu_compiler.pointwise import check_dtypes, index_type
from npu_compiler.select import BufferUse
from torch_ir.expr import product
from torch_ir.ir import Node, TensorSpec

if TYPE_CHECKING:
    from npu_compiler.emit import Emitter


def _infer(specs: Specs, attrs: Attrs) -> tuple[TensorSpec, ...]:
    x, y = specs[0], specs[1]
    assert x is not None and y is not None
    return (TensorSpec((x.shape[0], x.shape[1], y.shape[1]), x.dtype),)


def _norm(p: float, dtype: str) -> tuple[str, str]:
    """What a coordinate's difference ``d`` adds to ``total``, and the norm that follows."""
    if p == 0:
        return "total + (d != 0 ? 1 : 0)", "total"
    if p == 1:
        return "total + d", "total"
    if p == 2:
        return "total + d * d", "sqrt(total)"
    if p == float("inf"):
        return "d > total || d != d ? d : total", "total"
    ctype = STORAGE_TYPE[dtype]
    power, root = (f"({ctype})({literal(value, dtype)})" for value in (p, 1 / p))
    return f"total + pow(d, {power})", f"pow(total, {root})"


def _emit(e: Emitter, node: Node) -> None:
    x, y, out = e.view(node.inputs[0]), e.view(node.inputs[1]), e.output(node)
    check_dtypes(e, [x.dtype])
    step, last = _norm(float(as_number(node.attrs["p"])), x.dtype)
    kind = index_type(e, [x, y, out])
    sizes = [x.shape[2], y.shape[1], x.offset, y.offset, *x.strides, *y.strides]
    symbols, symbol_args = e.symbol_args(sizes)
    params = {
        "type": STORAGE_TYPE[x.dtype],
        "index_type": kind,
        "symbols": symbols,
        "points": size_text(y.shape[1]),
        "width": size_text(x.shape[2]),
        "step": step,
        "last": last,
        "x_base": index_text([("n", x.strides[0]), ("i", x.strides[1])], x.offset, kind),
        "x_step": size_text(x.strides[2]),
        "y_base": index_text([("n", y.strides[0]), ("j", y.strides[1])], y.offset, kind),
        "y_step": size_text(y.strides[2]),
    }
    e.call(
        "distance",
        "pairs",
        "ops/distance.cl.j2",
        params,
        node=node,
        dtype=SHORT[x.dtype],
        args=[BufferUse(x.buffer, "r"), BufferUse(y.buffer, "r"), BufferUse(out.buffer, "w"), *symbol_args],
        global_size=(y.shape[1], x.shape[1], x.shape[0]),
        cost=Cost(3 * out.spec.numel * x.shape[2], x.spec.nbytes + y.spec.nbytes, out.spec.nbytes),
    )


def _reference(torch: Any, x: Any, y: Any, p: float) -> Any:
    return torch.cdist(x, y, p, compute_mode="donot_use_mm_for_euclid_dist")


register(
    OpDef(
        "distance",
        _infer,
        _reference,
        emit=_emit,
        rtol=5e-5,
        cases=tuple(
            Case(shapes, {"p": p}, dtypes)
            for p, dtypes, shapes in (
                (2.0, ("float32", "float64"), ((2, 3, 7), (2, 5, 7))),
                (1.0, ("float32",), ((1, 113, 1), (1, 29, 1))),
                (float("inf"), ("float32",), ((2, 3, 7), (2, 1, 7))),
                (0.0, ("float32",), ((1, 3, 7), (1, 5, 7))),
                (3.5, ("float32", "float64"), ((1, 5, 13), (1, 7, 13))),
            )
        ),
    )
)


@lowers("aten.cdist.default", "aten._cdist_forward.default", "aten._euclidean_dist.default")
def lower_cdist(b: Builder, node: Node) -> str:
    """``d[.., i, j]`` is the norm of ``x[.., i] - y[.., j]``."""
    x, y = tensor_input(node), tensor_input(node, 1)
    if 0 in node.out.shape or b.shape(x)[-1] == 0:
        return full(b, node.out.shape, 0, node.out.dtype)
    batch = node.out.shape[:-2]
    flat = []
    for value in (x, y):
        points, width = b.shape(value)[-2:]
        if b.shape(value)[:-2] != batch:
            value = b.emit("expand", value, shape=(*batch, points, width))
        flat.append(reshape(b, value, (product(batch), points, width)))
    p = float(as_number(node.attrs.get("p", 2)))
    return reshape(b, b.emit("distance", *flat, p=p), node.out.shape)


@lowers("aten.pdist.default", "aten._pdist_forward.default")
def lower_pdist(b: Builder, node: Node) -> str:
    """The distances of ``cdist`` above its diagonal, row by row."""
    x = tensor_input(node)
    points, width = b.shape(x)
    if not isinstance(points, int):
        raise unsupported("pairs of a dynamic number of points", "use cdist")
    places = [i * points + j for i in range(points) for j in range(i + 1, points)]
    if not places or width == 0:
        return full(b, node.out.shape, 0, node.out.dtype)
    x = reshape(b, x, (1, points, width))
    every = b.emit("distance", x, x, p=float(as_number(node.attrs.get("p", 2))))
    table = reshape(b, every, (points * points, 1))
    return reshape(b, b.emit("gather_rows", table, numbers(b, places, "int64")), node.out.shape)


@lowers("aten.bilinear.default")
def lower_bilinear(b: Builder, node: Node) -> str:
    """``y[n, o] = sum over i, j of x[n, i] * w[o, i, j] * z[n, j] + bias[o]``."""
    x, z, weight, bias = (*node.inputs, None)[:4]
    assert x is not None and z is not None and weight is not None
    out, wide, high = b.shape(weight)
    if 0 in node.out.shape or wide == 0 or high == 0:
        raise unsupported("a bilinear layer without elements")
    table = reshape(b, permute(b, weight, (1, 0, 2)), (wide, out * high))
    lead = b.shape(x)[:-1]
    left = reshape(b, product_of(b, reshape(b, x, (*(lead or (1,)), wide)), table), (*lead, out, high))
    each = b.emit("mul", left, reshape(b, z, (*lead, 1, high)))
    y = reshape(b, b.emit("reduce_sum", each, dims=(len(lead) + 1,)), node.out.shape)
    return y if bias is None else b.emit("add", y, cast(b, bias, node.out.dtype))
