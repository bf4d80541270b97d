"""Rotary position embedding (Su et al., "RoFormer", 2021), as transformers writes it: halves of a head rotate
against each other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from npu_compiler.dtypes import HALF, SHORT
from npu_compiler.ops import Attrs, Case, Cost, OpDef, Specs, register
from npu_compiler.pointwise import check_dtypes
from npu_compiler.rows import rows_along
from npu_compiler.select import BufferUse
from npu_compiler.shapes import broadcast, require
from npu_compiler.views import View, expand
from torch_ir.ir import Node, TensorSpec

if TYPE_CHECKING:
    from npu_compiler.emit import Emitter

#: Most work-items that share a row.
GROUP = 64


def rotated(torch: Any, x: Any, cos: Any, sin: Any) -> Any:
    """``x * cos + (-second half of x, first half of x) * sin``, in float32."""
    first, second = x.chunk(2, -1)
    return x * cos.float() + torch.cat((-second, first), -1) * sin.float()


def check_rotation(x: TensorSpec, cos: TensorSpec | None, sin: TensorSpec | None) -> None:
    """Refuses tables that do not rotate rows of ``x``."""
    width = x.shape[-1]
    require(isinstance(width, int) and width % 2 == 0, f"a rotation of {width} numbers")
    for table in (cos, sin):
        require(
            table is not None
            and table.shape[-1] == width
            and broadcast([x.shape, table.shape]) == x.shape
            and (table.dtype == "float32" or table.dtype in HALF),
            f"a rotation of {x.shape} by {table and table.shape}",
        )


def tables(e: Emitter, node: Node, values: tuple[str | None, ...], x: View) -> tuple[View, View]:
    """The cosines and sines, expanded to the shape of ``x``."""
    cos, sin = (expand(e.view(value), x.shape) for value in values)
    check_dtypes(e, [cos.dtype, sin.dtype], stored=True)
    return cos, sin


def _infer(specs: Specs, attrs: Attrs) -> tuple[TensorSpec, ...]:
    x = specs[0]
    assert x is not None
    check_rotation(x, specs[1], specs[2])
    return (TensorSpec(x.shape, "float32"),)


def _emit(e: Emitter, node: Node) -> None:
    x, y = e.view(node.inputs[0]), e.output(node)
    check_dtypes(e, [x.dtype])
    cos, sin = tables(e, node, node.inputs[1:3], x)
    rows = rows_along(e, len(x.shape) - 1, [y, x, cos, sin])
    group, names = min(e.target.group, GROUP), ("y", "x", "cos", "sin")
    params = {
        **rows.params,
        "width": x.shape[-1],
        "group": group,
        "cos_type": SHORT[cos.dtype],
        "sin_type": SHORT[sin.dtype],
        **{f"{name}_base": base for name, base in zip(names, rows.bases, strict=True)},
        **{f"{name}_step": step for name, step in zip(names, rows.steps, strict=True)},
    }
    e.call(
        "rotary",
        "rows",
        "ops/rotary.cl.j2",
        params,
        node=node,
        args=[
            *(BufferUse(view.buffer, "r") for view in (x, cos, sin)),
            BufferUse(y.buffer, "w"),
            *rows.symbol_args,
        ],
        global_size=(rows.items * group,),
        local_size=(group,),
        cost=Cost(3 * x.spec.numel, x.spec.nbytes, y.spec.nbytes),
    )


register(
    OpDef(
        "rotary",
        _infer,
        lambda torch, x, cos, sin: rotated(torch, x, cos, sin),
        emit=_emit,
        cases=(
            Case(((2, 3, 5, 8), (1, 1, 5, 8), (5, 8))),
            Case(((7, 6), (7, 6), (6,)), values=("normal", "float16", "float16")),
            Case(((1, 2, 1, 64), (1, 1, 1, 64), (1, 1, 1, 64)), values=("normal", "float16", "normal")),
            Case(((3, 2), (2,), (1, 2))),
        ),
    )
)
