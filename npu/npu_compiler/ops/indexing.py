"""Reading and writing at computed positions, on top of gathering and scattering whole rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from npu_compiler.ctext import size_text
from npu_compiler.dtypes import SHORT, STORAGE_TYPE, category
from npu_compiler.lowering import Builder, unsupported, wrap_dim
from npu_compiler.ops import Attrs, Case, Cost, OpDef, Specs, lowers, register
from npu_compiler.ops.along import combine_text
from npu_compiler.ops.arithmetic import size_value
from npu_compiler.ops.creation import full
from npu_compiler.ops.elementwise import cast, row
from npu_compiler.ops.views import permute, reshape, tensor_input
from npu_compiler.pointwise import check_dtypes, index_type
from npu_compiler.select import BufferUse
from npu_compiler.shapes import may_equal, require
from torch_ir.expr import Dim, ceil_div, product
from torch_ir.ir import Node, TensorSpec

if TYPE_CHECKING:
    from npu_compiler.emit import Emitter


def _infer_scatter(specs: Specs, attrs: Attrs) -> tuple[TensorSpec, ...]:
    x, index, source = specs[:3]
    assert x is not None and index is not None and source is not None
    fits = x.rank == source.rank == 2 and index.rank == 1 and category(index.dtype) == 1
    fits = fits and may_equal(source.shape[0], index.shape[0]) and may_equal(source.shape[1], x.shape[1])
    require(fits, f"rows {source.shape} for {index.dtype} indices of {index.shape} into {x.shape}")
    return (TensorSpec(x.shape, x.dtype),)


def _emit_scatter(e: Emitter, node: Node) -> None:
    combine = str(node.attrs.get("combine", "set"))
    target, index, source = (e.view(value) for value in node.inputs)
    check_dtypes(e, [target.dtype, index.dtype], stored=combine == "set")
    out = e.updated(node, dense=True)
    index = e.dense(index, node, "index")
    rows, width = target.shape
    wrap = bool(node.attrs.get("wrap"))
    unchecked = e.bound_input(index, rows, wrap=wrap)
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
        "combine": combine_text(combine, target.dtype),
    }
    e.call(
        node.op,
        "rows" if combine == "set" else combine,
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
        indexes=unchecked,
    )


register(
    OpDef(
        "scatter_rows",
        _infer_scatter,
        reference=lambda torch, x, index, source, wrap=False: x.index_put((index,), source),
        emit=_emit_scatter,
        updates=1,
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


def _reference_combine(torch: Any, x: Any, index: Any, source: Any, combine: str, wrap: bool = False) -> Any:
    index = torch.where(index < 0, index + len(x), index) if wrap else index
    return x.scatter_reduce(0, index[:, None].expand(source.shape), source, combine)


register(
    OpDef(
        "combine_rows",
        _infer_scatter,
        _reference_combine,
        emit=_emit_scatter,
        updates=1,
        cases=(
            *(
                Case(((5, 29), (7,), (7, 29)), {"combine": combine}, dtypes, ("normal", "index:5", "normal"))
                for combine, dtypes in (
                    ("sum", ("float32", "int64", "bool")),
                    ("prod", ("float32",)),
                    ("amax", ("float32", "int32")),
                    ("amin", ("float32",)),
                )
            ),
            Case(
                ((11, 1), (13,), (13, 1)),
                {"combine": "sum", "wrap": True},
                values=("normal", "around:11", "normal"),
            ),
        ),
    )
)


def rows_of(b: Builder, x: str, dims: Sequence[int]) -> tuple[str, tuple[int, ...]]:
    """``x`` as a matrix whose rows are ``dims``, flattened, and the order that brought them to the front."""
    order = (*dims, *(i for i in range(len(b.shape(x))) if i not in dims))
    moved = permute(b, x, order)
    count = product(b.shape(moved)[: len(dims)])
    return reshape(b, moved, (count, product(b.shape(moved)[len(dims) :]))), order


def place_of(dims: Sequence[int]) -> int:
    """Before which of the other dimensions the indices' own stand: where ``dims`` were if they are
    neighbours, else in front."""
    return dims[0] if list(dims) == list(range(dims[0], dims[-1] + 1)) else 0


def take(b: Builder, x: str, index: str, dims: Sequence[int], wrap: bool = False) -> str:
    """``x`` with ``dims`` (flattened) replaced by the dimensions of ``index``; see ``place_of``. ``wrap``:
    negative indices count from the end."""
    matrix, order = rows_of(b, x, dims)
    rest = tuple(b.shape(x)[i] for i in order[len(dims) :])
    found = reshape(b, b.emit("gather_rows", matrix, index, wrap=wrap), (*b.shape(index), *rest))
    count, first = len(b.shape(index)), place_of(dims)
    back = (*range(count, count + first), *range(count), *range(count + first, count + len(rest)))
    return permute(b, found, tuple(back))


def taken_shape(b: Builder, x: str, index: str, dims: Sequence[int]) -> tuple[Dim, ...]:
    """The shape that ``take`` gives."""
    rest = [size for i, size in enumerate(b.shape(x)) if i not in dims]
    first = place_of(dims)
    return (*rest[:first], *b.shape(index), *rest[first:])


def put(
    b: Builder,
    x: str,
    index: str,
    source: str,
    dims: Sequence[int],
    combine: str = "set",
    wrap: bool = False,
) -> str:
    """``x`` with the rows that ``index`` names combined with those of ``source``, which broadcasts to what
    ``take`` gives. "set" replaces them. ``wrap``: negative indices count from the end."""
    matrix, order = rows_of(b, x, dims)
    count, first = len(b.shape(index)), place_of(dims)
    shape = taken_shape(b, x, index, dims)
    if b.shape(source) != shape:
        source = b.emit("expand", source, shape=shape)
    to_front = (*range(first, first + count), *range(first), *range(first + count, len(shape)))
    rows = reshape(b, permute(b, source, to_front), (product(b.shape(index)), b.shape(matrix)[1]))
    flat = reshape(b, index, (product(b.shape(index)),))
    if combine == "set":
        written = b.emit("scatter_rows", matrix, flat, rows, wrap=wrap)
    else:
        written = b.emit("combine_rows", matrix, flat, rows, wrap=wrap, combine=combine)
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


def is_mask(b: Builder, value: str) -> bool:
    return b.spec(value).dtype in ("bool", "uint8")


def slots(b: Builder, node: Node) -> list[tuple[int, str]]:
    """The indices of an indexing operation, each with the dimension of the tensor that it starts at."""
    found, dim = [], 0
    for value in node.inputs[1:-1] if "index_put" in node.op else node.inputs[1:]:
        if value is not None:
            found.append((dim, value))
        dim += len(b.shape(value)) if value is not None and is_mask(b, value) else 1
    return found


def one_index(b: Builder, x: str, found: Sequence[tuple[int, str]]) -> tuple[str, list[int], bool]:
    """Several indices as one into all their dimensions, flattened, these dimensions, and whether negative
    indices are still to be counted from the end."""
    dims = [dim for dim, _ in found]
    if len(found) == 1:
        return found[0][1], dims, True
    sizes = [b.shape(x)[dim] for dim in dims]
    indices = [wrapped(b, value, size) for (_, value), size in zip(found, sizes, strict=True)]
    return linear(b, indices, sizes), dims, False


@lowers("aten.index.Tensor", "aten._unsafe_index.Tensor")
def lower_index(b: Builder, node: Node) -> str:
    x, found = tensor_input(node), slots(b, node)
    if any(is_mask(b, value) for _, value in found):
        raise unsupported(
            "indexing by a mask: the result's size depends on values",
            "use where or masked_fill, which keep the shape",
        )
    return take(b, x, *one_index(b, x, found)) if found else x


@lowers("aten.index_select.default")
def lower_index_select(b: Builder, node: Node) -> str:
    x, index = tensor_input(node), tensor_input(node, 1)
    if not b.shape(x):
        return x
    dim = wrap_dim(node.attrs["dim"], len(b.shape(x)))
    return take(b, x, reshape(b, index, (product(b.shape(index)),)), (dim,))


@lowers("aten.index_put.default", "aten.index_put_.default", "aten._unsafe_index_put.default")
def lower_index_put(b: Builder, node: Node) -> str:
    x, found = tensor_input(node), slots(b, node)
    source = cast(b, str(node.inputs[-1]), node.out.dtype)
    adds = bool(node.attrs.get("accumulate"))
    if not found:
        source = b.emit("expand", source, shape=b.shape(x)) if b.shape(source) != b.shape(x) else source
        return b.emit("add", x, source) if adds else source
    if any(is_mask(b, value) for _, value in found):
        return put_by_mask(b, x, found, source, adds)
    index, dims, wrap = one_index(b, x, found)
    return put(b, x, index, source, dims, "sum" if adds else "set", wrap)


def put_by_mask(b: Builder, x: str, found: Sequence[tuple[int, str]], source: str, adds: bool) -> str:
    """Elements of ``source`` where a mask over some dimensions holds: the one that stands for all, or the
    next one for every true element in turn."""
    if len(found) > 1:
        raise unsupported("index_put by a mask and other indices at once", "write it with where")
    ((first, mask),) = found
    count = len(b.shape(mask))
    before, after = b.shape(x)[:first], b.shape(x)[first + count :]
    mask = cast(b, mask, "bool")
    given = (*(1,) * (len(before) + 1 + len(after) - len(b.shape(source))), *b.shape(source))
    source = reshape(b, source, given)
    if given[first] == 1:
        source = reshape(b, source, (*given[:first], *(1,) * count, *given[first + 1 :]))
    elif given[first] == 0:
        return x
    else:
        order = cast(b, reshape(b, mask, (product(b.shape(mask)),)), "int64")
        number = b.emit("add", b.emit("cumsum", order, dim=0), None, scalar=-1)
        number = b.emit("clamp_min", number, None, scalar=0)  # before the first true element
        source = take(b, source, reshape(b, number, b.shape(mask)), (first,))
    where = reshape(b, mask, (*(1,) * len(before), *b.shape(mask), *(1,) * len(after)))
    return b.emit("where", where, b.emit("add", x, source) if adds else source, x)


@lowers("aten.masked_scatter.default")
def lower_masked_scatter(b: Builder, node: Node) -> str:
    x, mask, source = (tensor_input(node, i) for i in range(3))
    shape = node.out.shape
    x, mask = (
        value if b.shape(value) == shape else b.emit("expand", value, shape=shape) for value in (x, mask)
    )
    count = product(b.shape(source))
    if count == 0 or 0 in shape:
        return x
    x, mask = reshape(b, x, (product(shape),)), reshape(b, mask, (product(shape),))
    return reshape(b, put_by_mask(b, x, [(0, mask)], reshape(b, source, (count,)), False), shape)


@lowers("aten.gather.default", "aten.take_along_dim.default")
def lower_gather(b: Builder, node: Node) -> str:
    x, index = tensor_input(node), tensor_input(node, 1)
    if 0 in node.out.shape:
        return full(b, node.out.shape, 0, node.out.dtype)
    if not b.shape(x):
        return x
    if "along" in node.op and node.attrs.get("dim") is None:
        x, index = (reshape(b, value, (product(b.shape(value)),)) for value in (x, index))
    dim = wrap_dim(node.attrs.get("dim") or 0, len(b.shape(x)))
    if "along" in node.op and b.shape(index) != node.out.shape:
        index = b.emit("expand", index, shape=node.out.shape)
    if "along" in node.op:
        wide = tuple(
            s if i == dim else o for i, (s, o) in enumerate(zip(b.shape(x), node.out.shape, strict=True))
        )
        x = x if wide == b.shape(x) else b.emit("expand", x, shape=wide)
        index = wrapped(b, index, wide[dim])
    return reshape(b, b.emit("gather_along", x, index, dim=dim), node.out.shape)
