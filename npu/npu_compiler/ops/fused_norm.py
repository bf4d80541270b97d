"""Normalisation of rows as one kernel: layer normalisation, and by the root mean square."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from npu_compiler.ctext import size_text
from npu_compiler.dtypes import SHORT, literal
from npu_compiler.errors import Unsupported
from npu_compiler.lowering import as_int, as_number
from npu_compiler.ops import Case, Cost, OpDef, like_first, register
from npu_compiler.ops.reduce import GROUP_LENGTH
from npu_compiler.products import LANES
from npu_compiler.rows import rows_along
from npu_compiler.select import BufferUse, Param
from npu_compiler.views import View, reshape
from torch_ir.expr import Dim, ceil_div, product
from torch_ir.ir import Node

if TYPE_CHECKING:
    from npu_compiler.emit import Emitter


def normalised(
    torch: Any,
    x: Any,
    weight: Any = None,
    bias: Any = None,
    *,
    count: int,
    eps: float,
    centred: bool,
    rounded: str = "",
) -> Any:
    """``(x - mean) / sqrt(variance + eps) * weight + bias`` over the last ``count`` dimensions, without the
    mean unless ``centred``; ``rounded``: the dtype of 16 bits that rows are rounded to before the weight, if
    any."""
    shape = x.shape[x.dim() - count :]
    if rounded:
        y = normalised(torch, x, count=count, eps=eps, centred=centred).to(getattr(torch, rounded)).float()
        y = y if weight is None else y * weight
        return y if bias is None else y + bias
    if centred:
        return torch.nn.functional.layer_norm(x, shape, weight, bias, eps)
    y = torch.nn.functional.rms_norm(x, shape, weight, eps)
    return y if bias is None else y + bias


def rows_before(torch: Any, x: Any, weight: Any, eps: float | None, rounded: str) -> Any:
    """What a product takes for ``x``: its rows, normalised by the root mean square if there is an ``eps``."""
    if eps is None:
        return x
    return normalised(torch, x, weight, count=1, eps=eps, centred=False, rounded=rounded)


def _emit(e: Emitter, node: Node) -> None:
    x, count = e.view(node.inputs[0]), as_int(node.attrs["count"])
    vectors = [
        None if value is None else e.dense(e.view(value), node, f"affine.{place}")
        for place, value in enumerate((*node.inputs[1:], None, None)[:2])
    ]
    for view in (x, *vectors):
        if view is not None and view.dtype != "float32":
            raise Unsupported(f"a fused normalisation with {view.dtype}", "convert to float32 before")
    lead, length = x.shape[: len(x.shape) - count], product(x.shape[len(x.shape) - count :])
    out = e.output(node)
    # a row per work-item is for short rows of float32
    group = e.target.group > 1 and (e.bounds(length)[1] >= GROUP_LENGTH or out.dtype != "float32")
    x = _in_rows(e, node, x, (*lead, length), dense=group)
    y = reshape(out, x.shape)
    assert y is not None
    starts = [view.offset for view in vectors if view is not None]
    rounded = str(node.attrs.get("rounded", ""))
    sizes = (length, *starts, *x.strides[:-1], x.offset, *y.strides[:-1], y.offset)
    lanes = LANES if all(e.divides(LANES, dim) for dim in sizes) and rounded != "float16" else 1
    params: dict[str, Param] = {
        "length": size_text(length),
        "rounded": SHORT[rounded] if rounded else None,
        "centred": bool(node.attrs["centred"]),
        "weight": None if vectors[0] is None else size_text(vectors[0].offset),
        "bias": None if vectors[1] is None else size_text(vectors[1].offset),
        "eps": literal(float(as_number(node.attrs["eps"])), "float32"),
    }
    grain = max(1, e.target.grain // max(e.bounds(length)[1], 1))
    if group:
        items = product(lead)
        symbols, symbol_args = e.symbol_args([items, length, x.offset, *starts])
        params |= {"symbols": symbols, "x_base": size_text(x.offset)}
        params |= {"group": e.target.group, "y_type": SHORT[y.dtype]}
    else:
        rows = rows_along(e, len(lead), [y, x], [length, *starts])
        items, symbol_args = rows.items, list(rows.symbol_args)
        params |= {**rows.params, "grain": grain, "lanes": lanes}
        params |= {"y_base": rows.bases[0], "x_base": rows.bases[1]}
    e.call(
        "layer_norm" if node.attrs["centred"] else "rms_norm",
        "group" if group else "rows",
        "ops/norm_group.cl.j2" if group else "ops/norm.cl.j2",
        params,
        node=node,
        args=[
            *(BufferUse(view.buffer, "r") for view in (x, *vectors) if view is not None),
            BufferUse(out.buffer, "w"),
            *symbol_args,
        ],
        global_size=(items * e.target.group,) if group else (ceil_div(items, grain),),
        local_size=(e.target.group,) if group else (1,) if e.target.group == 1 else None,
        cost=Cost(8 * x.spec.numel, x.spec.nbytes, y.spec.nbytes),
    )


def _in_rows(e: Emitter, node: Node, x: View, shape: tuple[Dim, ...], *, dense: bool) -> View:
    """The view in this shape, whose last dimension is what is normalised together, or a copy that has it
    without gaps."""
    found = None if dense else reshape(x, shape)
    if found is None or (found.strides[-1] != 1 and found.shape[-1] != 1):
        found = reshape(e.dense(x, node, "rows"), shape)
    assert found is not None
    return found


register(
    OpDef(
        "norm",
        like_first,
        normalised,
        emit=_emit,
        rtol=2e-5,
        atol=2e-6,
        cases=(
            *(
                Case(shapes, {"count": count, "eps": 1e-5, "centred": centred})
                for centred in (True, False)
                for shapes, count in (
                    (((3, 7), (7,), (7,)), 1),
                    (((2, 5, 64), (64,), None), 1),
                    (((113, 24), None, None), 1),
                    (((2, 3, 4, 6), (4, 6), (4, 6)), 2),
                    (((1, 1), (1,), None), 1),
                    (((5, 29), None, (29,)), 1),
                )
            ),
            Case(((2, 8, 3, 7), (7,)), {"count": 1, "eps": 1e-5, "centred": True}, layouts=("nhwc8",)),
            *(
                Case(shapes, {"count": 1, "eps": 1e-5, "centred": centred, "rounded": dtype})
                for dtype, centred in (("bfloat16", False), ("float16", True))
                for shapes in (((5, 40), (40,)), ((3, 7), (7,)))
            ),
        ),
    )
)
