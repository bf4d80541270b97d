"""Softmax and log-softmax over any dimension."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from npu_compiler.ctext import index_text, size_text
from npu_compiler.dtypes import SHORT, STORAGE_TYPE, is_float
from npu_compiler.errors import Unsupported
from npu_compiler.lowering import Builder, as_int, wrap_dim
from npu_compiler.ops import Case, Cost, OpDef, like_first, lowers, register
from npu_compiler.ops.elementwise import cast
from npu_compiler.ops.reduce import GROUP_LENGTH, plan_loops
from npu_compiler.ops.views import reshape, tensor_input
from npu_compiler.pointwise import check_dtypes, index_type
from npu_compiler.select import BufferUse
from torch_ir.expr import ceil_div, product
from torch_ir.ir import Node

if TYPE_CHECKING:
    from npu_compiler.emit import Emitter


def _emit(e: Emitter, node: Node) -> None:
    x, y, dim = e.view(node.inputs[0]), e.output(node), as_int(node.attrs["dim"])
    check_dtypes(e, [x.dtype])
    if not is_float(x.dtype):
        raise Unsupported(f"softmax of dtype {x.dtype}", "convert to float32 before")
    plan = plan_loops(e, x, y, (dim,))
    ((length, step),) = plan.reduced
    kind = index_type(e, [x, y])
    symbols, symbol_args = e.symbol_args(
        [d for row in (*plan.kept, *plan.reduced) for d in row] + [x.offset, y.offset, y.strides[dim]]
    )
    names = [f"k{i}" for i in range(len(plan.kept))]
    items = product(size for size, _, _ in plan.kept)
    grain = max(1, e.target.grain // max(4 * e.bounds(length)[1], 1))
    params = {
        "type": STORAGE_TYPE[x.dtype],
        "index_type": kind,
        "symbols": symbols,
        "items": size_text(items),
        "grain": grain,
        "kept": [(n, size_text(row[0])) for n, row in zip(names, plan.kept, strict=True)],
        "x_base": index_text([(n, row[1]) for n, row in zip(names, plan.kept, strict=True)], x.offset, kind),
        "y_base": index_text([(n, row[2]) for n, row in zip(names, plan.kept, strict=True)], y.offset, kind),
        "length": size_text(length),
        "x_step": size_text(step),
        "y_step": size_text(y.strides[dim] if length != 1 else 0),
        "log": node.op == "log_softmax",
        "safe": node.op == "safe_softmax",
    }
    if e.target.group > 1 and step == 1 and e.bounds(length)[1] >= GROUP_LENGTH:
        shared = {name: value for name, value in params.items() if name not in ("items", "grain")}
        e.call(
            node.op, "group", "ops/softmax_group.cl.j2", {**shared, "group": e.target.group},
            node=node, dtype=SHORT[x.dtype],
            args=[BufferUse(x.buffer, "r"), BufferUse(y.buffer, "w"), *symbol_args],
            global_size=(items * e.target.group,), local_size=(e.target.group,),
            cost=Cost(5 * x.spec.numel, 3 * x.spec.nbytes, y.spec.nbytes),
        )  # fmt: skip
        return
    e.call(
        node.op,
        "rows",
        "ops/softmax.cl.j2",
        params,
        node=node,
        dtype=SHORT[x.dtype],
        args=[BufferUse(x.buffer, "r"), BufferUse(y.buffer, "w"), *symbol_args],
        global_size=(ceil_div(items, grain),),
        cost=Cost(5 * x.spec.numel, x.spec.nbytes, y.spec.nbytes),
    )


def _reference(name: str) -> Any:
    function = "_safe_softmax" if name == "safe_softmax" else name
    return lambda torch, x, dim: getattr(torch, function)(x, dim)


for _name in ("softmax", "log_softmax", "safe_softmax"):  # safe: 0 where a row has only -inf
    register(
        OpDef(
            _name,
            like_first,
            _reference(_name),
            emit=_emit,
            rtol=2e-5,
            layout=lambda node, layouts: layouts[0] or "row",
            cases=(
                Case(((3, 7),), {"dim": 1}, ("float32", "float64")),
                Case(((1, 1001),), {"dim": 1}),
                Case(((5, 3),), {"dim": 0}),
                Case(((2, 13, 5, 5),), {"dim": 1}, layouts=("row", "nhwc8")),
                Case(((2, 8, 33, 33),), {"dim": 3}),
                Case(((1,),), {"dim": 0}),
            ),
        )
    )


@lowers(
    "aten.softmax.int",
    "aten._softmax.default",
    "aten._safe_softmax.default",
    "aten.log_softmax.int",
    "aten._log_softmax.default",
)
def lower_softmax(b: Builder, node: Node) -> str:
    x = cast(b, tensor_input(node), node.out.dtype)
    name = node.op.split(".")[1].lstrip("_")
    dim = wrap_dim(node.attrs["dim"], len(b.shape(x)))
    if not b.shape(x):
        return reshape(b, b.emit(name, reshape(b, x, (1,)), dim=0), ())
    return b.emit(name, x, dim=dim)
