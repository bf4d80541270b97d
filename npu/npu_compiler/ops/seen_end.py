"""Where the keys end that each row of an attention mask lets be seen: found once for all heads and layers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from npu_compiler.ctext import size_text
from npu_compiler.dtypes import SHORT, STORAGE_TYPE
from npu_compiler.ops import Attrs, Case, Cost, OpDef, Specs, register
from npu_compiler.pointwise import check_dtypes
from npu_compiler.rows import rows_along
from npu_compiler.select import BufferUse
from npu_compiler.shapes import require
from torch_ir.ir import Node, TensorSpec

if TYPE_CHECKING:
    from npu_compiler.emit import Emitter


def _infer(specs: Specs, attrs: Attrs) -> tuple[TensorSpec, ...]:
    mask = specs[0]
    assert mask is not None
    require(mask.rank >= 1 and mask.dtype in ("bool", "float32"), f"a mask of {mask.dtype} {mask.shape}")
    return (TensorSpec((*mask.shape[:-1], 1), "int64"),)


def _reference(torch: Any, mask: Any) -> Any:
    seen = mask if mask.dtype == torch.bool else mask != -torch.inf
    places = torch.arange(1, mask.shape[-1] + 1)
    return torch.where(seen, places, 0).amax(-1, keepdim=True)


def _emit(e: Emitter, node: Node) -> None:
    mask, out = e.view(node.inputs[0]), e.output(node)
    check_dtypes(e, [mask.dtype])
    keys = mask.shape[-1]
    rows = rows_along(e, len(mask.shape) - 1, [out, mask], [keys])
    group = e.target.group
    params: dict[str, Any] = {
        **rows.params,
        "type": STORAGE_TYPE[mask.dtype],
        "keys": size_text(keys),
        "hidden": "0" if mask.dtype == "bool" else "-INFINITY",
        "mask_base": rows.bases[1],
        "mask_step": rows.steps[1],
        "out_base": rows.bases[0],
    }
    if group > 1:
        del params["items"]
        params["group"] = group
    e.call(
        "seen_end",
        "rows" if group == 1 else "group",
        "ops/seen_end.cl.j2" if group == 1 else "ops/seen_end_group.cl.j2",
        params,
        node=node,
        dtype=SHORT[mask.dtype],
        args=[BufferUse(mask.buffer, "r"), BufferUse(out.buffer, "w"), *rows.symbol_args],
        global_size=(rows.items * group,),
        local_size=(group,),
        cost=Cost(0, mask.spec.nbytes, out.spec.nbytes),
    )


register(
    OpDef(
        "seen_end",
        _infer,
        _reference,
        emit=_emit,
        cases=(
            Case(((2, 3, 113),), values=("bool",)),
            Case(((7, 29),)),
            Case(((1, 1, 1, 64),), values=("bool",)),
            Case(((5, 1),), values=("bool",)),
        ),
    )
)
