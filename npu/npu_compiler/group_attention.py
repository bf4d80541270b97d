"""Which attention kernel takes a node: a work-item alone, a work-group together, or tensor cores."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from npu_compiler.dtypes import SHORT
from npu_compiler.select import Param
from torch_ir.expr import Dim
from torch_ir.ir import Node

if TYPE_CHECKING:
    from npu_compiler.emit import Emitter

#: Queries that a warp's tensor cores take at once; fewer than half of that many waste them.
WARP_ROWS = 16
#: Keys in local memory at a time.
KEYS = 64
#: Warps of a work-group: more share each key in local memory, fewer leave compute units free.
WARPS = 4


@dataclass(frozen=True, slots=True)
class AttentionTile:
    """A work-group of ``group`` work-items takes ``rows`` queries; ``params`` are the template's."""

    variant: str
    template: str
    group: int
    rows: int
    params: Mapping[str, Param]


def attention_tile(
    e: Emitter, node: Node, widths: tuple[int, int], queries: Dim, rows: int, lanes: int
) -> AttentionTile:
    """The tile for heads of ``widths`` (keys', values') and at most ``rows`` queries per work-item;
    ``lanes``: vectors that rows are read in."""
    group, half = e.target.group, str(node.attrs.get("half", ""))
    plain = {"rows": rows, "lanes": lanes}
    if group == 1:
        return AttentionTile("online", "ops/attention.cl.j2", 1, rows, plain)
    width, value_width = widths
    fits = width % 32 == 0 and value_width % 16 == 0 and max(widths) <= 128 and lanes == 8
    most = e.bounds(queries)[1]
    if half and fits and "ptx" in e.target.features and most > WARP_ROWS // 2:
        params = {"half": SHORT[half], "warps": WARPS, "block": KEYS}
        return AttentionTile("mma", "ops/attention_mma.cl.j2", 32 * WARPS, WARP_ROWS * WARPS, params)
    return AttentionTile("group", "ops/attention_group.cl.j2", group, rows, {**plain, "group": group})
