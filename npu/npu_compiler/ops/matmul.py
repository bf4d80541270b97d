"""Matrix products of two computed tensors, with batch dimensions that broadcast."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from npu_compiler import views
from npu_compiler.ctext import index_text, size_text
from npu_compiler.dtypes import SHORT, STORAGE_TYPE, category, is_float
from npu_compiler.lowering import Builder, as_number, unsupported
from npu_compiler.ops import Attrs, Case, Cost, OpDef, Specs, lowers, register
from npu_compiler.ops.elementwise import cast
from npu_compiler.ops.views import permute, reshape, tensor_input
from npu_compiler.pointwise import check_dtypes, index_type
from npu_compiler.products import packed_rows
from npu_compiler.select import BufferUse
from npu_compiler.shapes import broadcast, may_equal, require
from npu_compiler.views import View
from npu_runtime.program import WeightExpr
from torch_ir.expr import ceil_div, product
from torch_ir.ir import ITEM_SIZE, Node, TensorSpec

if TYPE_CHECKING:
    from npu_compiler.emit import Emitter

TILE_M, TILE_N = 4, 8


def _infer(specs: Specs, attrs: Attrs) -> tuple[TensorSpec, ...]:
    x, y = specs[0], specs[1]
    assert x is not None and y is not None
    fits = min(x.rank, y.rank) >= 2 and may_equal(x.shape[-1], y.shape[-2])
    require(fits, f"the product of {x.shape} and {y.shape}")
    return (TensorSpec((*broadcast([x.shape[:-2], y.shape[:-2]]), x.shape[-2], y.shape[-1]), x.dtype),)


def emit_matmul(e: Emitter, node: Node, a: View, b: View, out: View) -> None:
    """``out[..., m, n] = sum_k a[..., m, k] * b[..., k, n]`` with any strides."""
    check_dtypes(e, [a.dtype, b.dtype])
    batch = out.shape[:-2]
    a, b = views.expand(a, (*batch, *a.shape[-2:])), views.expand(b, (*batch, *b.shape[-2:]))
    m, n, k = out.shape[-2], out.shape[-1], a.shape[-1]
    everything = [a, b, out]
    kind = index_type(e, everything)
    names = [f"b{i}" for i in range(len(batch))]
    symbols, symbol_args = e.symbol_args(
        [*out.shape, k, *(d for v in everything for d in (*v.strides, v.offset))]
    )

    def operand(view: View) -> dict[str, str]:
        base = index_text(list(zip(names, view.strides[:-2], strict=True)), view.offset, kind)
        return {"base": base, "row": size_text(view.strides[-2]), "column": size_text(view.strides[-1])}

    params = {
        "type": STORAGE_TYPE[a.dtype],
        "index_type": kind,
        "symbols": symbols,
        "tm": TILE_M,
        "tn": TILE_N,
        "m": size_text(m),
        "n": size_text(n),
        "k": size_text(k),
        "a": operand(a),
        "b": operand(b),
        "c": operand(out),
        "kept": [(name, size_text(size)) for name, size in zip(names, batch, strict=True)],
    }
    e.call(
        "matmul",
        "tile",
        "ops/matmul.cl.j2",
        params,
        node=node,
        dtype=SHORT[a.dtype],
        shown={"t": f"{TILE_M}x{TILE_N}"},
        args=[BufferUse(a.buffer, "r"), BufferUse(b.buffer, "r"), BufferUse(out.buffer, "w"), *symbol_args],
        global_size=(ceil_div(n, TILE_N), ceil_div(m, TILE_M), product(batch)),
        cost=Cost(
            2 * product(out.shape) * k,
            (product(batch) * (m * k + k * n)) * ITEM_SIZE[a.dtype],
            out.spec.nbytes,
        ),
    )


def _emit(e: Emitter, node: Node) -> None:
    emit_matmul(e, node, e.view(node.inputs[0]), e.view(node.inputs[1]), e.output(node))


def product_expr(node: Node, x: WeightExpr, y: WeightExpr) -> WeightExpr | None:
    """A product of weights, computed when they are loaded if that makes them no larger: a vector, as in the
    norm of a matrix."""
    return ["matmul", x, y] if is_float(node.out.dtype) and 1 in node.out.shape[-2:] else None


register(
    OpDef(
        "matmul",
        _infer,
        lambda torch, x, y: torch.matmul(x, y),
        emit=_emit,
        weight_expr=lambda node, exprs: product_expr(node, *exprs),
        rtol=2e-5,
        atol=2e-5,
        cases=tuple(
            Case(shapes, {}, ("float32", "int64") if index == 0 else ("float32",))
            for index, shapes in enumerate(
                (
                    ((3, 7), (7, 5)),
                    ((2, 3, 29), (2, 29, 13)),
                    ((2, 1, 4, 8), (3, 8, 9)),
                    ((1, 1), (1, 1)),
                    ((5, 64), (64, 64)),
                )
            )
        ),
    )
)


@lowers(*(f"aten.{name}.default" for name in ("matmul", "mm", "bmm", "mv", "dot", "vdot")))
def lower_matmul(b: Builder, node: Node) -> str:
    x, y = cast(b, tensor_input(node), node.out.dtype), cast(b, tensor_input(node, 1), node.out.dtype)
    if len(b.shape(x)) == 1:
        x = reshape(b, x, (1, *b.shape(x)))
    if len(b.shape(y)) == 1:
        y = reshape(b, y, (*b.shape(y), 1))
    return reshape(b, product_of(b, x, y), node.out.shape)


@lowers("aten._int_mm.default")
def lower_int_mm(b: Builder, node: Node) -> str:
    """Of int8 by int8 in int32."""
    return b.emit("matmul", *(cast(b, tensor_input(node, index), node.out.dtype) for index in range(2)))


def product_of(b: Builder, x: str, y: str) -> str:
    """``x @ y``; where ``y`` is a plain matrix this is a linear layer, whose kernel packs constant
    weights."""
    if len(b.shape(y)) == 2 and b.spec(y).dtype == "float32":
        return b.emit("linear", x, permute(b, y, (1, 0)), None)
    return b.emit("matmul", x, y)


@lowers("aten.addmm.default", "aten.baddbmm.default", "aten.addbmm.default")
def lower_addmm(b: Builder, node: Node) -> str:
    bias, x, y = (cast(b, tensor_input(node, index), node.out.dtype) for index in range(3))
    alpha, beta = as_number(node.attrs.get("alpha", 1)), as_number(node.attrs.get("beta", 1))
    result = product_of(b, x, y)
    if "addbmm" in node.op and "baddbmm" not in node.op:
        result = reshape(b, b.emit("reduce_sum", result, dims=(0,)), node.out.shape)
    if alpha != 1:
        result = b.emit("mul", result, None, scalar=alpha)
    if beta == 0:
        return result
    return b.emit("add", result, bias if beta == 1 else b.emit("mul", bias, None, scalar=beta))


@lowers("aten.embedding.default")
def lower_embedding(b: Builder, node: Node) -> str:
    table, index = tensor_input(node), tensor_input(node, 1)
    if len(b.shape(table)) != 2:
        raise unsupported("an embedding table that is not a matrix")
    return b.emit("gather_rows", table, index)


def _infer_gather(specs: Specs, attrs: Attrs) -> tuple[TensorSpec, ...]:
    table, index = specs[0], specs[1]
    assert table is not None and index is not None
    require(table.rank == 2 and category(index.dtype) == 1, f"rows of {table.shape} by {index.dtype}")
    return (TensorSpec((*index.shape, *table.shape[1:]), table.dtype),)


def _emit_gather(e: Emitter, node: Node) -> None:
    name = str(node.inputs[0])
    packed = packed_rows(e, name) if e.is_constant(name) and e.target.group == 1 else None
    table, index, out = e.view(name) if packed is None else packed[0], e.view(node.inputs[1]), e.output(node)
    check_dtypes(e, [table.dtype, index.dtype], stored=True)
    rows, width = e.spec(name).shape
    if packed is None:
        row_start, step = f"row * ({size_text(table.strides[0])})", table.strides[1]
    else:  # a tied weight lies on the device once, as the linear layer wants it
        step = packed[1]
        row_start = f"row / {step} * ({size_text(width * step)}) + row % {step}"
    index = e.dense(index, node, "index")
    wrap = bool(node.attrs.get("wrap"))
    unchecked = e.bound_input(index, rows, wrap=wrap)
    everything = [replace(table, shape=table.shape), index, out]
    symbols, symbol_args = e.symbol_args(
        [rows, width, *table.strides, table.offset, index.offset, out.offset]
    )
    params = {
        "type": STORAGE_TYPE[table.dtype],
        "index_storage": STORAGE_TYPE[index.dtype],
        "index_type": index_type(e, everything),
        "symbols": symbols,
        "rows": size_text(rows),
        "width": size_text(width),
        "row_start": row_start,
        "step": size_text(step),
        "offset": size_text(table.offset),
        "index_offset": size_text(index.offset),
        "wrap": wrap,
        "group": e.target.group,
    }
    e.call(
        "gather_rows",
        "rows",
        "ops/gather_rows.cl.j2",
        params,
        node=node,
        dtype=SHORT[table.dtype],
        args=[
            BufferUse(table.buffer, "r"),
            BufferUse(index.buffer, "r"),
            BufferUse(out.buffer, "w"),
            *symbol_args,
        ],
        global_size=(product(index.shape) * e.target.group,),
        local_size=(e.target.group,) if e.target.group > 1 else None,
        cost=Cost(0, out.spec.nbytes, out.spec.nbytes),
        indexes=unchecked,
    )


def _reference_gather(torch: Any, table: Any, index: Any, wrap: bool = False) -> Any:
    return table[index] if wrap else torch.nn.functional.embedding(index, table)


register(
    OpDef(
        "gather_rows",
        _infer_gather,
        _reference_gather,
        emit=_emit_gather,
        stored=True,
        cases=(
            Case(((11, 7), (3,)), values=("normal", "index:11"), dtypes=("float32",)),
            Case(((29, 16), (2, 5)), values=("normal", "index:29"), constant=(0,)),
            Case(((11, 7), (13,)), {"wrap": True}, values=("normal", "around:11")),
        ),
    )
)
