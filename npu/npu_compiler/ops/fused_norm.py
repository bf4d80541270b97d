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
from npu_compiler.select import BufferUse
from torch_ir.expr import ceil_div, product
from torch_ir.ir import Node

if TYPE_CHECKING:
    from npu_compiler.emit import Emitter


def _reference(
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
    """``rounded``: the dtype of 16 bits that rows are rounded to before the weight, if any."""
    shape = x.shape[x.dim() - count :]
    if rounded:
        y = _reference(torch, x, count=count, eps=eps, centred=centred).to(getattr(torch, rounded)).float()
        y = y if weight is None else y * weight
        return y if bias is None else y + bias
    if centred:
        return torch.nn.functional.layer_norm(x, shape, weight, bias, eps)
    y = torch.nn.functional.rms_norm(x, shape, weight, eps)
    return y if bias is None else y + bias


def _emit(e: Emitter, node: Node) -> None:
    x, count = e.dense(e.view(node.inputs[0]), node, "rows"), as_int(node.attrs["count"])
    weight, bias = (
        None if value is None else e.dense(e.view(value), node, f"affine.{place}")
        for place, value in enumerate((*node.inputs[1:], None, None)[:2])
    )
    vectors = [view for view in (weight, bias) if view is not None]
    for view in (x, *vectors):
        if view.dtype != "float32":
            raise Unsupported(f"a fused normalisation with {view.dtype}", "convert to float32 before")
    y = e.output(node)
    rows, length = product(x.shape[: len(x.shape) - count]), product(x.shape[len(x.shape) - count :])
    starts = [x.offset, *(view.offset for view in vectors)]
    symbols, symbol_args = e.symbol_args([rows, length, *starts])
    grain = max(1, e.target.grain // max(e.bounds(length)[1], 1))
    rounded = str(node.attrs.get("rounded", ""))
    vectors_fit = all(e.divides(LANES, dim) for dim in (length, *starts))
    group = e.target.group > 1 and e.bounds(length)[1] >= GROUP_LENGTH
    lanes = LANES if vectors_fit and rounded != "float16" else 1
    params = {
        "symbols": symbols,
        "length": size_text(length),
        **(
            {"group": e.target.group, "y_type": SHORT[y.dtype]}
            if group
            else {"rows": size_text(rows), "grain": grain, "lanes": lanes}
        ),
        "rounded": SHORT[rounded] if rounded else None,
        "x_base": size_text(x.offset),
        "centred": bool(node.attrs["centred"]),
        "weight": None if weight is None else size_text(weight.offset),
        "bias": None if bias is None else size_text(bias.offset),
        "eps": literal(float(as_number(node.attrs["eps"])), "float32"),
    }
    e.call(
        "layer_norm" if node.attrs["centred"] else "rms_norm",
        "group" if group else "rows",
        "ops/norm_group.cl.j2" if group else "ops/norm.cl.j2",
        params,
        node=node,
        args=[
            *(BufferUse(view.buffer, "r") for view in (x, *vectors)),
            BufferUse(y.buffer, "w"),
            *symbol_args,
        ],
        global_size=(rows * e.target.group,) if group else (ceil_div(rows, grain),),
        local_size=(e.target.group,) if group else (1,) if e.target.group == 1 else None,
        cost=Cost(8 * x.spec.numel, x.spec.nbytes, y.spec.nbytes),
    )


register(
    OpDef(
        "norm",
        like_first,
        _reference,
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
            *(
                Case(shapes, {"count": 1, "eps": 1e-5, "centred": centred, "rounded": dtype})
                for dtype, centred in (("bfloat16", False), ("float16", True))
                for shapes in (((5, 40), (40,)), ((3, 7), (7,)))
            ),
        ),
    )
)
