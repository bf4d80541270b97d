"""Writing at computed positions where several elements may meet: added, multiplied, or the largest kept."""

from __future__ import annotations

from collections.abc import Callable

from npu_compiler.dtypes import held, is_float
from npu_compiler.lowering import Builder, as_number, unsupported, wrap_dim
from npu_compiler.ops import lowers
from npu_compiler.ops.creation import full
from npu_compiler.ops.elementwise import cast
from npu_compiler.ops.indexing import put, taken_shape
from npu_compiler.ops.views import reshape, slice_dim, tensor_input
from npu_compiler.shapes import may_equal, require
from torch_ir.expr import Dim, product
from torch_ir.ir import ITEM_SIZE, Node

#: Writes a source into a target by the named rule of ``along.combine_text``.
Write = Callable[[str, str, str], str]
#: PyTorch's names of reductions, by its operations' own, and ours.
_NAMES = {"add": "sum", "multiply": "prod"}


def extreme(dtype: str, *, largest: bool) -> float:
    """The largest or smallest number of a dtype."""
    if is_float(dtype):
        return float("inf") if largest else -float("inf")
    bits = 8 * ITEM_SIZE[dtype]
    if dtype == "bool":
        return int(largest)
    if dtype.startswith("u"):
        return (1 << bits) - 1 if largest else 0
    return (1 << (bits - 1)) - 1 if largest else -(1 << (bits - 1))


def neutral(name: str, dtype: str) -> float:
    """What a reduction starts from."""
    if name in ("amax", "amin"):
        return extreme(dtype, largest=name == "amin")
    return 1 if name == "prod" else 0


def combined(
    b: Builder, x: str, source: str, written: tuple[Dim, ...], name: str, include_self: bool, write: Write
) -> str:
    """``x`` with the elements of ``source`` combined into it. Without ``include_self`` the elements of ``x``
    that something is written to do not count. ``written``: the shape of what ``write`` takes."""
    dtype = b.spec(x).dtype
    name = _NAMES.get(name, name)
    kind = "sum" if name == "mean" else name
    if not include_self:
        x = write(x, full(b, written, neutral(kind, dtype), dtype), "set")
    result = write(x, source, kind)
    if name != "mean":
        return result
    counts = write(full(b, b.shape(x), int(include_self), dtype), full(b, written, 1, dtype), "sum")
    counts = b.emit("clamp_min", counts, None, scalar=1)
    return b.emit("div" if is_float(dtype) else "floor_div", result, counts)


@lowers(
    "aten.scatter.src",
    "aten.scatter.value",
    "aten.scatter.reduce",
    "aten.scatter.value_reduce",
    "aten.scatter_add.default",
    "aten.scatter_reduce.two",
)
def lower_scatter(b: Builder, node: Node) -> str:
    x, index, dtype = tensor_input(node), tensor_input(node, 1), node.out.dtype
    if not b.shape(x):
        x = reshape(b, x, (1,))
    shape = b.shape(index) or (1,)
    if 0 in shape:
        return reshape(b, x, node.out.shape)
    index = reshape(b, index, shape)
    dim = wrap_dim(node.attrs["dim"], len(b.shape(x)))
    if "value" in node.attrs:
        source = full(b, shape, held(as_number(node.attrs["value"]), dtype), dtype)
    else:
        source = cast(b, tensor_input(node, 2), dtype)
        source = source if b.shape(source) else reshape(b, source, (1,))
        for i, size in enumerate(shape):
            source = slice_dim(b, source, i, 0, size)

    def write(target: str, values: str, combine: str) -> str:
        if combine == "set":
            return b.emit("scatter_along", target, index, values, dim=dim)
        return b.emit("combine_along", target, index, values, dim=dim, combine=combine)

    name = "sum" if "scatter_add" in node.op else str(node.attrs.get("reduce", "set"))
    include_self = bool(node.attrs.get("include_self", True))
    return reshape(b, combined(b, x, source, shape, name, include_self, write), node.out.shape)


@lowers(
    "aten.index_add.default",
    "aten.index_reduce.default",
    "aten.index_copy.default",
    "aten.index_fill.int_Scalar",
    "aten.index_fill.int_Tensor",
)
def lower_index_rows(b: Builder, node: Node) -> str:
    x, index, dtype = tensor_input(node), tensor_input(node, 1), node.out.dtype
    if not b.shape(x):
        x = reshape(b, x, (1,))
    index = reshape(b, index, (product(b.shape(index)),))
    dim = wrap_dim(node.attrs["dim"], len(b.shape(x)))
    shape = taken_shape(b, x, index, (dim,))
    if 0 in shape:
        return reshape(b, x, node.out.shape)
    if "value" in node.attrs:
        source = full(b, (), held(as_number(node.attrs["value"]), dtype), dtype)
    else:
        source = cast(b, tensor_input(node, 2), dtype)
    fills = "fill" in node.op  # of these operations the only one that counts negative indices from the end
    if not fills and not b.shape(source):
        source = reshape(b, source, (1,))
    alpha = as_number(node.attrs.get("alpha", 1))
    if alpha != 1:
        source = b.emit("mul", source, None, scalar=alpha)

    def write(target: str, values: str, combine: str) -> str:
        if dim == 0 or fills:
            return put(b, target, index, values, (dim,), combine, fills)
        # rows that lie apart are written where they are: bringing them together would copy the whole tensor
        line = reshape(b, index, tuple(size if i == dim else 1 for i, size in enumerate(shape)))
        line, values = (
            v if b.shape(v) == shape else b.emit("expand", v, shape=shape) for v in (line, values)
        )
        if combine == "set":
            return b.emit("scatter_along", target, line, values, dim=dim)
        return b.emit("combine_along", target, line, values, dim=dim, combine=combine)

    name = "sum" if "index_add" in node.op else str(node.attrs.get("reduce", "set"))
    include_self = bool(node.attrs.get("include_self", True))
    return reshape(b, combined(b, x, source, shape, name, include_self, write), node.out.shape)


@lowers("aten.put.default")
def lower_put(b: Builder, node: Node) -> str:
    """Writes into the flattened tensor."""
    x, index, source = (tensor_input(node, i) for i in range(3))
    count = product(b.shape(index))
    require(may_equal(count, product(b.shape(source))), f"{b.shape(source)} put at {b.shape(index)}")
    if count == 0:
        return x
    flat = reshape(b, x, (product(b.shape(x)),))
    index = reshape(b, index, (count,))
    source = reshape(b, cast(b, source, node.out.dtype), (count,))
    written = put(b, flat, index, source, (0,), "sum" if node.attrs.get("accumulate") else "set", True)
    return reshape(b, written, node.out.shape)


@lowers("aten.take.default")
def lower_take(b: Builder, node: Node) -> str:
    """Reads from the flattened tensor."""
    x, index = tensor_input(node), tensor_input(node, 1)
    count = product(b.shape(x))
    if count == 0:
        raise unsupported("taking from a tensor without elements")
    table = reshape(b, x, (count, 1))
    return reshape(b, b.emit("gather_rows", table, index, wrap=True), node.out.shape)
