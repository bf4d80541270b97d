"""The largest or smallest element along a dimension, and where it is."""

from __future__ import annotations

from math import isqrt
from typing import TYPE_CHECKING, Any

from npu_compiler.ctext import index_text, size_text
from npu_compiler.dtypes import SHORT, STORAGE_TYPE, is_float
from npu_compiler.errors import Unsupported
from npu_compiler.lowering import Builder, as_int, wrap_dims
from npu_compiler.ops import Attrs, Case, Cost, OpDef, Specs, lowers, register
from npu_compiler.ops.reduce import plan_loops
from npu_compiler.ops.views import reshape, tensor_input
from npu_compiler.pointwise import check_dtypes, index_type
from npu_compiler.products import LANES, round_up
from npu_compiler.select import BufferUse
from torch_ir.expr import Dim, ceil_div, product
from torch_ir.ir import ITEM_SIZE, Node, TensorSpec

if TYPE_CHECKING:
    from npu_compiler.emit import Emitter

#: So many rows are enough work-items without cutting them into chunks.
MANY_ROWS = 16
#: Shorter rows are not worth a second kernel.
LONG_ROW = 8192


def _infer_arg(specs: Specs, attrs: Attrs) -> tuple[TensorSpec, ...]:
    x, dim = specs[0], as_int(attrs["dim"])
    assert x is not None
    shape = tuple(1 if i == dim else size for i, size in enumerate(x.shape))
    return TensorSpec(shape, x.dtype), TensorSpec(shape, "int64")


def _bounds(node: Node, specs: Specs) -> tuple[None, tuple[Dim, Dim]]:
    assert specs[0] is not None
    return None, (0, specs[0].shape[as_int(node.attrs["dim"])] - 1)


def _emit_arg(e: Emitter, node: Node) -> None:
    x, dim = e.view(node.inputs[0]), as_int(node.attrs["dim"])
    values, indices = e.output(node, 0), e.output(node, 1)
    check_dtypes(e, [x.dtype])
    if e.bounds(x.shape[dim])[0] == 0:
        raise Unsupported("the largest or smallest of no elements", "make the dimension's lower bound 1")
    plan = plan_loops(e, x, values, (dim,))
    ((length, step),) = plan.reduced
    symbols, symbol_args = e.symbol_args([d for row in (*plan.kept, *plan.reduced) for d in row] + [x.offset])
    names = [f"k{i}" for i in range(len(plan.kept))]
    items = product(size for size, _, _ in plan.kept)
    compare = "v > best" if node.attrs["largest"] else "v < best"
    kind = index_type(e, [x, values])
    longest = e.bounds(length)[1]
    grain = round_up(max(min(e.target.grain, longest // LANES), isqrt(longest), 1), LANES)
    split = longest >= LONG_ROW and e.bounds(items)[1] < MANY_ROWS
    aligned = all(e.divides(LANES, dim) for dim in (x.offset, *(row[1] for row in plan.kept)))
    params = {
        "part": "whole",
        "x_type": STORAGE_TYPE[x.dtype],
        "index_type": kind,
        "symbols": symbols,
        "items": size_text(items),
        "kept": [(n, size_text(row[0])) for n, row in zip(names, plan.kept, strict=True)],
        "x_base": index_text([(n, row[1]) for n, row in zip(names, plan.kept, strict=True)], x.offset, kind),
        "y_base": index_text(
            [(n, row[2]) for n, row in zip(names, plan.kept, strict=True)], values.offset, kind
        ),
        "length": size_text(length),
        "step": size_text(step),
        "grain": grain,
        "chunks": "0",
        "lanes": 1,
        "better": f"({compare} || v != v) && best == best" if is_float(x.dtype) else compare,
        "floating": is_float(x.dtype),
    }
    read, results = [BufferUse(x.buffer, "r")], [BufferUse(view.buffer, "w") for view in (values, indices)]
    name = "max" if node.attrs["largest"] else "min"
    cost = Cost(x.spec.numel, x.spec.numel * ITEM_SIZE[x.dtype], values.spec.nbytes + indices.spec.nbytes)
    if split:
        chunks = ceil_div(length, grain)
        shape = (items, chunks)
        best = e.scratch(f"{node.name}:best", TensorSpec(shape, x.dtype))
        found = e.scratch(f"{node.name}:found", TensorSpec(shape, "int64"))
        vectors = x.dtype == "float32" and step == 1 and aligned
        e.call(
            "arg_reduce",
            f"{name}_chunks",
            "ops/arg_reduce.cl.j2",
            {**params, "part": "chunks", "chunks": size_text(chunks), "lanes": LANES if vectors else 1},
            node=node,
            dtype=SHORT[x.dtype],
            global_size=(chunks, items),
            local_size=(1, 1),
            args=[*read, BufferUse(best.buffer, "w"), BufferUse(found.buffer, "w"), *symbol_args],
            cost=cost,
        )
        params |= {"part": "merge", "length": size_text(chunks), "step": "1"}
        read, cost = [BufferUse(best.buffer, "r"), BufferUse(found.buffer, "r")], Cost()
        name = f"{name}_merge"
    e.call(
        "arg_reduce",
        name,
        "ops/arg_reduce.cl.j2",
        params,
        node=node,
        dtype=SHORT[x.dtype],
        global_size=(items,),
        args=[*read, *results, *symbol_args],
        cost=cost,
    )


def _reference_arg(torch: Any, x: Any, dim: int, largest: bool) -> Any:
    return tuple((torch.max if largest else torch.min)(x, dim, keepdim=True))


register(
    OpDef(
        "arg_reduce",
        _infer_arg,
        _reference_arg,
        emit=_emit_arg,
        bounds=_bounds,
        cases=tuple(
            Case((shape,), {"dim": dim, "largest": largest}, ("float32", "int64"), layouts=layouts)
            for largest in (True, False)
            for shape, dim, layouts in (
                ((3, 7), 1, ("row",)),
                ((3, 7), 0, ("row",)),
                ((113,), 0, ("row",)),
                ((2, 13, 3, 3), 1, ("row", "nhwc8")),
                ((1, 1), 0, ("row",)),
                ((2, 9001), 1, ("row",)),
                ((8200, 3), 0, ("row",)),
                ((1, 8208), 1, ("row",)),
            )
        ),
    )
)


@lowers("aten.argmax.default", "aten.argmin.default")
def lower_argmax(b: Builder, node: Node) -> str:
    x, dim = tensor_input(node), node.attrs.get("dim")
    dims: tuple[int, ...] = (0,)
    if dim is None or not b.shape(x):
        x = reshape(b, x, (product(b.shape(x)),))
    else:
        dims = wrap_dims(dim, len(b.shape(x)))
    _, index = b.emit_multi("arg_reduce", x, dim=dims[0], largest="max" in node.op)
    return reshape(b, index, node.out.shape)


@lowers("aten.max.dim", "aten.min.dim")
def lower_max_dim(b: Builder, node: Node) -> list[str]:
    x = tensor_input(node)
    if not b.shape(x):
        x = reshape(b, x, (1,))
    dims = wrap_dims(node.attrs["dim"], len(b.shape(x)))
    values = b.emit_multi("arg_reduce", x, dim=dims[0], largest=".max" in node.op)
    return [reshape(b, value, out.shape) for value, out in zip(values, node.outs, strict=True)]
