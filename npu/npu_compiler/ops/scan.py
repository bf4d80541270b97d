"""Running sums and products along a dimension."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from npu_compiler.ctext import index_text, size_text
from npu_compiler.dtypes import SHORT, STORAGE_TYPE
from npu_compiler.lowering import Builder, as_int, wrap_dim
from npu_compiler.ops import Case, Cost, OpDef, like_first, lowers, register
from npu_compiler.ops.elementwise import cast
from npu_compiler.ops.reduce import plan_loops
from npu_compiler.ops.views import tensor_input
from npu_compiler.pointwise import check_dtypes, index_type
from npu_compiler.select import BufferUse
from torch_ir.expr import ceil_div, product
from torch_ir.ir import Node

if TYPE_CHECKING:
    from npu_compiler.emit import Emitter

#: The C operator and what it starts from.
SCANS = {"cumsum": ("+", "0"), "cumprod": ("*", "1")}


def _emit(e: Emitter, node: Node) -> None:
    x, y, dim = e.view(node.inputs[0]), e.output(node), as_int(node.attrs["dim"])
    check_dtypes(e, [x.dtype])
    operator, start = SCANS[node.op]
    plan = plan_loops(e, x, y, (dim,))
    ((length, step),) = plan.reduced
    kind = index_type(e, [x, y])
    symbols, symbol_args = e.symbol_args(
        [d for row in (*plan.kept, *plan.reduced) for d in row] + [x.offset, y.offset, y.strides[dim]]
    )
    names = [f"k{i}" for i in range(len(plan.kept))]
    items = product(size for size, _, _ in plan.kept)
    grain = max(1, e.target.grain // max(e.bounds(length)[1], 1))
    x_terms = [(n, row[1]) for n, row in zip(names, plan.kept, strict=True)]
    y_terms = [(n, row[2]) for n, row in zip(names, plan.kept, strict=True)]
    wide = x.dtype == "float32" and "float64" in e.target.dtypes  # as PyTorch adds up on CPUs
    params = {
        "type": STORAGE_TYPE[x.dtype],
        "total": "double" if wide else STORAGE_TYPE[x.dtype],
        "index_type": kind,
        "symbols": symbols,
        "kept": [(n, size_text(row[0])) for n, row in zip(names, plan.kept, strict=True)],
        "items": size_text(items),
        "grain": grain,
        "x_base": index_text(x_terms, x.offset, kind),
        "y_base": index_text(y_terms, y.offset, kind),
        "length": size_text(length),
        "x_step": size_text(step),
        "y_step": size_text(y.strides[dim] if length != 1 else 0),
        "start": start,
        "operator": operator,
    }
    e.call(
        node.op,
        "rows",
        "ops/scan.cl.j2",
        params,
        node=node,
        dtype=SHORT[x.dtype],
        args=[BufferUse(x.buffer, "r"), BufferUse(y.buffer, "w"), *symbol_args],
        global_size=(ceil_div(items, grain),),
        cost=Cost(x.spec.numel, x.spec.nbytes, y.spec.nbytes),
    )


def _reference(name: str) -> Any:
    return lambda torch, x, dim: getattr(torch, name)(x, dim)


for _name in SCANS:
    register(
        OpDef(
            _name,
            like_first,
            _reference(_name),
            emit=_emit,
            layout=lambda node, layouts: layouts[0] or "row",
            cases=(
                Case(((3, 7),), {"dim": 1}, ("float32", "int64")),
                Case(((113,),), {"dim": 0}),
                Case(((2, 13, 3, 5),), {"dim": 1}, layouts=("row", "nhwc8")),
                Case(((5, 1),), {"dim": 1}),
            ),
        )
    )


@lowers("aten.cumsum.default", "aten.cumprod.default")
def lower_scan(b: Builder, node: Node) -> str:
    x = cast(b, tensor_input(node), node.out.dtype)
    if not b.shape(x):
        return x
    return b.emit(node.op.split(".")[1], x, dim=wrap_dim(node.attrs["dim"], len(b.shape(x))))
