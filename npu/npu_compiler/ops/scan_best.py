"""Running maxima and minima with their places."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from npu_compiler.ctext import size_text
from npu_compiler.dtypes import SHORT, STORAGE_TYPE, is_float
from npu_compiler.lowering import Builder, as_int, wrap_dim
from npu_compiler.ops import Case, Cost, OpDef, like_first_with_places, lowers, register
from npu_compiler.ops.views import reshape, tensor_input
from npu_compiler.pointwise import check_dtypes
from npu_compiler.rows import rows_along
from npu_compiler.select import BufferUse
from torch_ir.ir import Node

if TYPE_CHECKING:
    from npu_compiler.emit import Emitter


def _emit(e: Emitter, node: Node) -> None:
    x, dim = e.view(node.inputs[0]), as_int(node.attrs["dim"])
    values, indices = e.output(node, 0), e.output(node, 1)
    check_dtypes(e, [x.dtype])
    rows = rows_along(e, dim, [x, values], [x.shape[dim]])
    compare = "v >= best" if node.attrs["largest"] else "v <= best"
    params = {
        **rows.params,
        "type": STORAGE_TYPE[x.dtype],
        "length": size_text(x.shape[dim]),
        "x_base": rows.bases[0],
        "x_step": rows.steps[0],
        "y_base": rows.bases[1],
        "y_step": rows.steps[1],
        "better": f"{compare} || v != v" if is_float(x.dtype) else compare,
    }
    e.call(
        "scan_best",
        "max" if node.attrs["largest"] else "min",
        "ops/scan_best.cl.j2",
        params,
        node=node,
        dtype=SHORT[x.dtype],
        args=[
            BufferUse(x.buffer, "r"),
            BufferUse(values.buffer, "w"),
            BufferUse(indices.buffer, "w"),
            *rows.symbol_args,
        ],
        global_size=(rows.items,),
        cost=Cost(x.spec.numel, x.spec.nbytes, values.spec.nbytes + indices.spec.nbytes),
    )


def _reference(torch: Any, x: Any, dim: int, largest: bool) -> Any:
    return tuple((torch.cummax if largest else torch.cummin)(x, dim))


register(
    OpDef(
        "scan_best",
        like_first_with_places,
        _reference,
        emit=_emit,
        cases=tuple(
            Case((shape,), {"dim": dim, "largest": largest}, dtypes, values, layouts=layouts)
            for largest in (True, False)
            for shape, dim, dtypes, values, layouts in (
                ((3, 29), 1, ("float32", "float64", "int64", "bool"), "normal", ("row",)),
                ((7, 3), 0, ("int32",), "index:3", ("row",)),
                ((2, 13, 3, 5), 1, ("float32",), "normal", ("row", "nhwc8")),
                ((113,), 0, ("float32",), "index:9", ("row",)),
                ((1, 1), 0, ("float32",), "normal", ("row",)),
            )
        ),
    )
)


@lowers("aten.cummax.default", "aten.cummin.default")
def lower_cummax(b: Builder, node: Node) -> list[str]:
    x = tensor_input(node)
    x = x if b.shape(x) else reshape(b, x, (1,))
    dim = wrap_dim(node.attrs["dim"], len(b.shape(x)))
    both = b.emit_multi("scan_best", x, dim=dim, largest="cummax" in node.op)
    return [reshape(b, value, out.shape) for value, out in zip(both, node.outs, strict=True)]
