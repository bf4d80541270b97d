"""New keys and values of attention, written to their places in the cache by one kernel."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from npu_compiler.ctext import index_text, size_text
from npu_compiler.dtypes import HALF, SHORT, STORAGE_TYPE
from npu_compiler.ops import Attrs, Case, Cost, OpDef, Specs, register
from npu_compiler.ops.rotary import GROUP, check_rotation, rotated, tables
from npu_compiler.pointwise import check_dtypes, index_type
from npu_compiler.select import BufferUse
from npu_compiler.shapes import require
from npu_compiler.views import View
from torch_ir.expr import ceil_div
from torch_ir.ir import Node, TensorSpec

if TYPE_CHECKING:
    from npu_compiler.emit import Emitter


def _infer(specs: Specs, attrs: Attrs) -> tuple[TensorSpec, ...]:
    """Without an index rows go to the first places. ``kept``: the rotated keys are a result as well."""
    keys, values, k, v, index, *turn = (*specs, None)[: max(5, len(specs))]
    assert keys is not None and values is not None and k is not None and v is not None
    for held, new in ((keys, k), (values, v)):
        rows = (*held.shape[:2], new.shape[2], *held.shape[3:])
        fits = held.rank == new.rank == 4 and new.shape == rows
        stored = held.dtype == "float32" or held.dtype in HALF
        require(fits and stored and new.dtype == "float32", f"rows of {new.shape} in a cache of {held.shape}")
    same = keys.shape[:3] == values.shape[:3] and k.shape[2] == v.shape[2]
    places = index is None or (index.dtype == "int64" and index.shape == (k.shape[2],))
    require(same and places, f"places of {index and index.shape} for rows of {k.shape}")
    if turn:
        check_rotation(k, *turn)
    require(bool(turn) or not attrs.get("kept"), "keys that are not rotated are no result")
    results = (keys, values, k) if attrs.get("kept") else (keys, values)
    return tuple(TensorSpec(spec.shape, spec.dtype) for spec in results)


def _reference(
    torch: Any,
    keys: Any,
    values: Any,
    k: Any,
    v: Any,
    index: Any = None,
    cos: Any = None,
    sin: Any = None,
    *,
    kept: bool = False,
) -> Any:
    if cos is not None:
        k = rotated(torch, k, cos, sin)
    if index is None:
        index = torch.arange(k.shape[2])
    held = ((keys, k), (values, v))
    results = tuple(cache.index_copy(2, index, new.to(cache.dtype)) for cache, new in held)
    return (*results, k) if kept else results


def _emit(e: Emitter, node: Node) -> None:
    k, v = (e.view(value) for value in node.inputs[2:4])
    place, *turn = (*node.inputs[4:], None)[: max(1, len(node.inputs) - 4)]
    index = None if place is None else e.dense(e.view(place), node, "index")
    keys, values = e.updated(node), e.updated(node, 1)
    check_dtypes(e, [keys.dtype, values.dtype, k.dtype, v.dtype], stored=True)
    turned = bool(turn)
    everything = {"keys": keys, "values": values, "k": k, "v": v}
    if turned:
        everything |= dict(zip(("cos", "sin"), tables(e, node, tuple(turn), k), strict=True))
    if node.attrs.get("kept"):
        everything["kept"] = e.output(node, 2)
    given = [] if index is None else [index]
    views = list(everything.values())
    kind = index_type(e, [*views, *given])
    unchecked = index is not None and e.bound_input(index, keys.shape[2], wrap=False)
    starts = [dim for view in views for dim in (*view.strides, view.offset)]
    starts += [view.offset for view in given]
    symbols, symbol_args = e.symbol_args([*k.shape, keys.shape[2], *starts])
    widest = max(e.bounds(size)[1] for size in (k.shape[3], v.shape[3], 1))
    grain = max(1, e.target.grain // widest) if index is None else 0

    def operand(view: View) -> dict[str, str]:
        base = index_text([("b", view.strides[0]), ("h", view.strides[1])], view.offset, kind)
        return {
            "type": STORAGE_TYPE[view.dtype],
            "kind": SHORT[view.dtype],
            "base": base,
            "row": size_text(view.strides[2]),
            "column": size_text(view.strides[3]),
        }

    group = min(e.target.group, GROUP)
    params = {
        "index_type": kind,
        "group": group,
        "symbols": symbols,
        "operands": {name: operand(view) for name, view in everything.items()},
        "rotary": turned,
        "width": k.shape[3],
        "value_width": size_text(v.shape[3]),
        "rows": size_text(k.shape[2]),
        "size": size_text(keys.shape[2]),
        "index_offset": None if index is None else size_text(index.offset),
        "grain": grain,
    }
    if not turned:
        params["width"] = size_text(k.shape[3])
    e.call(
        "cache_rows",
        "rotary" if turned else "plain",
        "ops/cache_rows.cl.j2",
        params,
        node=node,
        dtype=SHORT[keys.dtype],
        args=[
            *(BufferUse(view.buffer, "r") for view in (k, v, *given)),
            *(BufferUse(everything[name].buffer, "r") for name in ("cos", "sin") if turned),
            *(BufferUse(view.buffer, "rw") for view in (keys, values)),
            *(BufferUse(everything[name].buffer, "w") for name in ("kept",) if name in everything),
            *symbol_args,
        ],
        global_size=(k.shape[1] * group, ceil_div(k.shape[2], grain) if grain else 1, k.shape[0]),
        local_size=(group, 1, 1),
        cost=Cost(3 * k.spec.numel * turned, k.spec.nbytes + v.spec.nbytes, k.spec.nbytes + v.spec.nbytes),
        indexes=unchecked,
    )


register(
    OpDef(
        "cache_rows",
        _infer,
        _reference,
        emit=_emit,
        updates=2,
        cases=(
            Case(
                ((2, 3, 11, 8), (2, 3, 11, 5), (2, 3, 2, 8), (2, 3, 2, 5), (2,), (1, 1, 2, 8), (8,)),
                values=("normal", "float16", "normal", "normal", "index:11", "normal", "float16"),
            ),
            Case(
                ((2, 3, 113, 8), (2, 3, 113, 5), (2, 3, 71, 8), (2, 3, 71, 5), None, (1, 1, 71, 8), (8,)),
                {"kept": True},
                values=("normal", "float16", "normal", "normal", "normal", "normal", "float16"),
            ),
            Case(
                ((1, 1, 29, 7), (1, 1, 29, 7), (1, 1, 29, 7), (1, 1, 29, 7)),
                values=("float16", "normal", "normal", "normal"),
            ),
            Case(
                ((1, 2, 29, 7), (1, 2, 29, 7), (1, 2, 1, 7), (1, 2, 1, 7), (1,)),
                values=("float16", "normal", "normal", "normal", "index:29"),
            ),
            Case(
                ((1, 3, 113, 64), (1, 3, 113, 64), (1, 3, 1, 64), (1, 3, 1, 64), (1,), (1, 64), (1, 64)),
                values=("float16", "float16", "normal", "normal", "index:113", "float16", "float16"),
            ),
        ),
    )
)
