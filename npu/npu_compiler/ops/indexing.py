"""Reading and writing at computed positions, on top of gathering and scattering whole rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from npu_compiler.ctext import size_text
from npu_compiler.dtypes import SHORT, STORAGE_TYPE
from npu_compiler.lowering import Builder, as_number, unsupported, wrap_dim
from npu_compiler.ops import Attrs, Case, Cost, OpDef, Specs, lowers, register
from npu_compiler.ops.arithmetic import size_value
from npu_compiler.ops.creation import full, positions
from npu_compiler.ops.elementwise import cast, row
from npu_compiler.ops.views import permute, reshape, slice_dim, tensor_input
from npu_compiler.pointwise import check_dtypes, index_type
from npu_compiler.select import BufferUse
from torch_ir.expr import Dim, ceil_div, product
from torch_ir.ir import Node, TensorSpec

if TYPE_CHECKING:
    from npu_compiler.emit import Emitter


def _infer_scatter(specs: Specs, attrs: Attrs) -> tuple[TensorSpec, ...]:
    assert specs[0] is not None
    return (TensorSpec(specs[0].shape, specs[0].dtype),)


def _emit_scatter(e: Emitter, node: Node) -> None:
    target, index, source = (e.view(value) for value in node.inputs)
    check_dtypes(e, [target.dtype, index.dtype], stored=True)
    out = e.output(node)
    e.copy(target, out, node)
    index = e.dense(index, node, "index")
    rows, width = target.shape
    wrap = bool(node.attrs.get("wrap"))
    e.bound_input(index, rows, wrap=wrap)
    symbols, symbol_args = e.symbol_args(
        [*target.shape, *source.strides, source.offset, index.offset, *index.shape]
    )
    grain = max(min(e.target.grain, e.bounds(width)[1]), 1)
    params = {
        "type": STORAGE_TYPE[target.dtype],
        "index_storage": STORAGE_TYPE[index.dtype],
        "index_type": index_type(e, [out, source]),
        "symbols": symbols,
        "rows": size_text(rows),
        "width": size_text(width),
        "count": size_text(index.shape[0]),
        "grain": grain,
        "row_step": size_text(source.strides[0]),
        "step": size_text(source.strides[1]),
        "offset": size_text(source.offset),
        "index_offset": size_text(index.offset),
        "wrap": wrap,
    }
    e.call(
        "scatter_rows",
        "rows",
        "ops/scatter_rows.cl.j2",
        params,
        node=node,
        dtype=SHORT[target.dtype],
        args=[
            BufferUse(source.buffer, "r"),
            BufferUse(index.buffer, "r"),
            BufferUse(out.buffer, "rw"),
            *symbol_args,
        ],
        global_size=(ceil_div(width, grain),),
        cost=Cost(0, source.spec.nbytes, source.spec.nbytes),
        indexes=True,
    )


register(
    OpDef(
        "scatter_rows",
        _infer_scatter,
        reference=lambda torch, x, index, source, wrap=False: x.index_put((index,), source),
        emit=_emit_scatter,
        stored=True,
        cases=(
            Case(((11, 7), (3,), (3, 7)), values=("normal", "index:11", "normal")),
            Case(((11, 7), (5,), (5, 7)), {"wrap": True}, values=("normal", "around:11", "normal")),
            Case(
                ((5, 29), (2,), (2, 29)), values=("normal", "index:5", "normal"), dtypes=("float32", "int64")
            ),
        ),
    )
)


def rows_of(b: Builder, x: str, first: int, last: int) -> tuple[str, tuple[int, ...]]:
    """``x`` as a matrix whose rows are the dimensions ``first`` to ``last`` - 1, and the order that brought
    them to the front."""
    rank = len(b.shape(x))
    front = tuple(range(first, last))
    order = (*front, *(i for i in range(rank) if i not in front))
    moved = permute(b, x, order)
    count = product(b.shape(moved)[: last - first])
    return reshape(b, moved, (count, product(b.shape(moved)[last - first :]))), order


def take(b: Builder, x: str, index: str, first: int, last: int, wrap: bool = False) -> str:
    """``x`` with its dimensions ``first`` to ``last`` - 1 (flattened) replaced by those of ``index``.
    ``wrap``: negative indices count from the end."""
    matrix, order = rows_of(b, x, first, last)
    rest = tuple(b.shape(x)[i] for i in order[last - first :])
    found = b.emit("gather_rows", matrix, index, wrap=wrap)
    found = reshape(b, found, (*b.shape(index), *rest))
    count = len(b.shape(index))
    back = (*range(count, count + first), *range(count), *range(count + first, count + len(rest)))
    return permute(b, found, tuple(back))


def put(b: Builder, x: str, index: str, source: str, first: int, last: int, wrap: bool = False) -> str:
    """``x`` with the rows that ``index`` names replaced by those of ``source``, shaped as ``take`` gives.
    ``wrap``: negative indices count from the end."""
    matrix, order = rows_of(b, x, first, last)
    count = len(b.shape(index))
    shape = (*b.shape(x)[:first], *b.shape(index), *b.shape(x)[last:])
    if b.shape(source) != shape:
        source = b.emit("expand", source, shape=shape)
    to_front = (*range(first, first + count), *range(first), *range(first + count, len(shape)))
    rows = reshape(b, permute(b, source, to_front), (product(b.shape(index)), b.shape(matrix)[1]))
    written = b.emit("scatter_rows", matrix, reshape(b, index, (product(b.shape(index)),)), rows, wrap=wrap)
    moved = reshape(b, written, tuple(b.shape(x)[i] for i in order))
    return permute(b, moved, tuple(order.index(i) for i in range(len(order))))


def wrapped(b: Builder, index: str, size: Dim) -> str:
    """Indices counted from the end where negative."""
    if isinstance(size, int):
        from_end = b.emit("add", index, None, scalar=size)
    else:
        from_end = b.emit("add", index, cast(b, size_value(b, size), b.spec(index).dtype))
    return b.emit("where", b.emit("lt", index, None, scalar=0), from_end, index)


row(
    "flat_index",  # x < 0 (already out of range) stays below 0, as y < {size}
    "(({y} < 0) | ({y} >= {size}) ? ({T})(-1) : {x} * {size} + {y})",
    arity=2,
    reference=lambda torch, x, y, size: torch.where((y < 0) | (y >= size), -1, x * size + y),
    dtypes=("int64",),
    attrs={"size": 7},
)
row(
    "flat_index_in",  # the same for a size that is a value
    "(({y} < 0) | ({y} >= {z}) ? ({T})(-1) : {x} * {z} + {y})",
    arity=3,
    reference=lambda torch, x, y, z: torch.where((y < 0) | (y >= z), -1, x * z + y),
    dtypes=("int64",),
)


def linear(b: Builder, indices: Sequence[str], sizes: Sequence[Dim]) -> str:
    """Indices into several dimensions as one into all of them, flattened: negative where one of them is out
    of the range of its dimension."""
    if len(indices) == 1:
        return indices[0]
    total: str | None = None
    for index, size in zip((cast(b, index, "int64") for index in indices), sizes, strict=True):
        before: Attrs = {"scalar": 0} if total is None else {}
        if isinstance(size, int):
            total = b.emit("flat_index", total, index, size=size, **before)
        else:
            total = b.emit("flat_index_in", total, index, size_value(b, size), **before)
    assert total is not None
    return total


def placed(b: Builder, node: Node) -> tuple[str, str, int, int, bool]:
    """The tensor, the one index, the dimensions that it takes, and whether negative indices are still to be
    counted from the end, of an indexing operation."""
    x, slots = tensor_input(node), list(node.inputs[1:])
    if node.op != "aten.index.Tensor":
        slots.pop()
    used = [i for i, value in enumerate(slots) if value is not None]
    if not used or used != list(range(used[0], used[-1] + 1)):
        raise unsupported("indices into dimensions that are not neighbours", "permute the tensor before")
    given = [str(slots[i]) for i in used]
    if any(b.spec(value).dtype in ("bool", "uint8") for value in given):
        raise unsupported("indexing by a mask: the result's size depends on values", "use where")
    sizes = b.shape(x)[used[0] : used[-1] + 1]
    if len(given) == 1:
        return x, given[0], used[0], used[0] + 1, True
    index = linear(b, [wrapped(b, value, size) for value, size in zip(given, sizes, strict=True)], sizes)
    return x, index, used[0], used[-1] + 1, False


@lowers("aten.index.Tensor")
def lower_index(b: Builder, node: Node) -> str:
    return take(b, *placed(b, node))


@lowers("aten.index_select.default")
def lower_index_select(b: Builder, node: Node) -> str:
    x, index = tensor_input(node), tensor_input(node, 1)
    if not b.shape(x):
        return x
    dim = wrap_dim(node.attrs["dim"], len(b.shape(x)))
    return take(b, x, reshape(b, index, (product(b.shape(index)),)), dim, dim + 1)


@lowers("aten.index_put.default", "aten.index_put_.default", "aten._unsafe_index_put.default")
def lower_index_put(b: Builder, node: Node) -> str:
    if node.attrs.get("accumulate"):
        raise unsupported("index_put that accumulates")
    x, index, first, last, wrap = placed(b, node)
    return put(b, x, index, cast(b, str(node.inputs[-1]), node.out.dtype), first, last, wrap)


@lowers("aten.index_copy.default")
def lower_index_copy(b: Builder, node: Node) -> str:
    x, index, source = (tensor_input(node, i) for i in range(3))
    dim = wrap_dim(node.attrs["dim"], len(b.shape(x)))
    return put(b, x, reshape(b, index, (product(b.shape(index)),)), source, dim, dim + 1)


def _elements(b: Builder, x: str, index: str, dim: int) -> str:
    """The flattened position in ``x`` of every element that ``gather`` along ``dim`` reads."""
    shape = b.shape(x)
    given = b.shape(index)
    indices = [index if i == dim else positions(b, given, i) for i in range(len(shape))]
    return linear(b, indices, shape)


@lowers("aten.gather.default", "aten.take_along_dim.default")
def lower_gather(b: Builder, node: Node) -> str:
    x, index = tensor_input(node), tensor_input(node, 1)
    if not b.shape(x):
        return x
    dim = wrap_dim(node.attrs["dim"], len(b.shape(x)))
    if "along" in node.op:
        index = b.emit("expand", index, shape=node.out.shape)
        wide = tuple(
            s if i == dim else o for i, (s, o) in enumerate(zip(b.shape(x), node.out.shape, strict=True))
        )
        x = x if wide == b.shape(x) else b.emit("expand", x, shape=wide)
    flat = reshape(b, x, (product(b.shape(x)), 1))
    return reshape(b, b.emit("gather_rows", flat, _elements(b, x, index, dim)), node.out.shape)


@lowers("aten.scatter.src", "aten.scatter.value")
def lower_scatter(b: Builder, node: Node) -> str:
    x, index = tensor_input(node), tensor_input(node, 1)
    dim = wrap_dim(node.attrs["dim"], len(b.shape(x)))
    shape = b.shape(index)
    if "value" in node.attrs:
        number: Any = as_number(node.attrs["value"])
        source = full(b, shape, number, node.out.dtype)
    else:
        source = tensor_input(node, 2)
        for i, size in enumerate(shape):
            source = slice_dim(b, source, i, 0, size)
    where = reshape(b, _elements(b, x, index, dim), (product(shape),))
    flat = reshape(b, x, (product(b.shape(x)), 1))
    written = b.emit("scatter_rows", flat, where, reshape(b, source, (product(shape), 1)))
    return reshape(b, written, node.out.shape)
