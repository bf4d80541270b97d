"""Distances between all pairs of rows, and products of three tensors."""

from __future__ import annotations

from npu_compiler.lowering import Builder, as_number, unsupported
from npu_compiler.ops import lowers
from npu_compiler.ops.creation import full, numbers
from npu_compiler.ops.elementwise import cast
from npu_compiler.ops.indexing import take
from npu_compiler.ops.matmul import product_of
from npu_compiler.ops.statistics import vector_norm
from npu_compiler.ops.views import permute, reshape, tensor_input
from torch_ir.ir import Node


@lowers("aten.cdist.default", "aten._cdist_forward.default")
def lower_cdist(b: Builder, node: Node) -> str:
    """``d[.., i, j]`` is the norm of ``x[.., i] - y[.., j]``."""
    x, y = tensor_input(node), tensor_input(node, 1)
    if 0 in node.out.shape or b.shape(x)[-1] == 0:
        return full(b, node.out.shape, 0, node.out.dtype)
    left = reshape(b, x, (*b.shape(x)[:-1], 1, b.shape(x)[-1]))
    right = reshape(b, y, (*b.shape(y)[:-2], 1, *b.shape(y)[-2:]))
    step = b.emit("sub", left, right)
    length = vector_norm(b, step, (len(b.shape(step)) - 1,), float(as_number(node.attrs["p"])))
    return reshape(b, length, node.out.shape)


@lowers("aten.pdist.default", "aten._pdist_forward.default")
def lower_pdist(b: Builder, node: Node) -> str:
    """The distances of ``cdist`` above its diagonal, row by row."""
    x = tensor_input(node)
    rows, width = b.shape(x)
    if not isinstance(rows, int):
        raise unsupported("distances between a dynamic number of rows")
    pairs = [(i, j) for i in range(rows) for j in range(i + 1, rows)]
    if not pairs or width == 0:
        return full(b, node.out.shape, 0, node.out.dtype)
    left, right = (take(b, x, numbers(b, side, "int64"), (0,)) for side in zip(*pairs, strict=True))
    order = float(as_number(node.attrs.get("p", 2)))
    return reshape(b, vector_norm(b, b.emit("sub", left, right), (1,), order), node.out.shape)


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
