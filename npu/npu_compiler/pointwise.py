"""Elementwise kernels over strided views: fused bodies, copies and fills."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from npu_compiler import views
from npu_compiler.ctext import Step, body_lines, index_text, size_text, unpack_body
from npu_compiler.dtypes import COMPUTE_TYPE, HALF, REAL, SHORT, STORAGE_TYPE, reader, writer
from npu_compiler.errors import Unsupported
from npu_compiler.ops import Cost
from npu_compiler.select import BufferUse
from npu_compiler.views import View
from torch_ir.expr import Dim, ceil_div, product
from torch_ir.ir import ITEM_SIZE, Attr, Node

if TYPE_CHECKING:
    from npu_compiler.emit import Emitter

TEMPLATE = "ops/pointwise.cl.j2"


@dataclass(frozen=True)
class Loops:
    """An iteration space shared by several views: sizes from outer to inner, and each view's stride per
    dimension."""

    sizes: tuple[Dim, ...]
    strides: tuple[tuple[Dim, ...], ...]


def collapse(e: Emitter, views_: Sequence[View]) -> Loops:
    """The fewest loops that walk views of one shape together, in the first view's memory order.

    Dimensions of size 1 go; dimensions that every view walks as one become one.
    """
    dims = [
        (size, tuple(view.strides[i] for view in views_))
        for i, size in enumerate(views_[0].shape)
        if size != 1
    ]
    dims.sort(key=lambda dim: -e.bounds(dim[1][0])[1])
    merged: list[tuple[Dim, tuple[Dim, ...]]] = []
    for size, strides in dims:
        if merged and all(outer == inner * size for outer, inner in zip(merged[-1][1], strides, strict=True)):
            merged[-1] = (merged[-1][0] * size, strides)
        else:
            merged.append((size, strides))
    if not merged:
        merged = [(1, tuple(0 for _ in views_))]
    return Loops(
        tuple(size for size, _ in merged),
        tuple(tuple(strides[i] for _, strides in merged) for i in range(len(views_))),
    )


def index_type(e: Emitter, views_: Sequence[View]) -> str:
    """ "int" where every element index of every view provably fits, else "long"."""
    for view in views_:
        reach = e.bounds(view.offset)[1] + sum(
            max(e.bounds(size)[1] - 1, 0) * abs(e.bounds(stride)[1])
            for size, stride in zip(view.shape, view.strides, strict=True)
        )
        if reach >= 1 << 31:
            return "long"
    return "int"


def check_dtypes(e: Emitter, dtypes: Sequence[str], *, stored: bool = False) -> None:
    """Refuses dtypes that the target does not have, and those of 16 bits in floating point unless the kernel
    takes elements as they are ``stored`` (or converts them itself)."""
    for dtype in dtypes:
        if dtype in HALF and not stored:
            raise Unsupported(f"arithmetic in {dtype}", "convert to float32 before")
        if dtype not in e.target.dtypes or dtype not in STORAGE_TYPE:
            raise Unsupported(
                f"dtype {dtype} on target {e.target.name}", f"use one of {', '.join(e.target.dtypes)}"
            )


def emit(e: Emitter, node: Node) -> None:
    """A node of an elementwise op, or of several fused ones."""
    if node.op == "pointwise":
        body = unpack_body(node.attrs["body"])
        inputs = [value for value in node.inputs if value is not None]
    else:
        inputs = [value for value in node.inputs if value is not None]
        positions = iter(range(len(inputs)))
        operands: Any = tuple(
            f"i{next(positions)}" if value is not None else node.attrs["scalar"] for value in node.inputs
        )
        body = (Step(node.op, operands, node.attrs, node.out.dtype),)
    sources = [views.expand(e.view(value), node.out.shape) for value in inputs]
    emit_body(e, body, sources, e.output(node), node)


def emit_copy(e: Emitter, source: View, target: View, node: Node) -> None:
    """Copies one view to another, converting dtype. Complex numbers are copied as pairs of real ones."""
    if target.dtype in REAL and source.dtype == target.dtype:
        source, target = _as_pairs(source), _as_pairs(target)
    body = (
        ()
        if source.dtype == target.dtype
        else (Step("cast", ("i0",), {"dtype": target.dtype}, target.dtype),)
    )
    emit_body(e, body, [source], target, node)


def _as_pairs(view: View) -> View:
    """Complex numbers as their real and imaginary parts, in a last dimension of 2."""
    wide = replace(view, shape=(*view.shape, 1), strides=(*view.strides, 1))
    pairs = views.reinterpret(wide, REAL[view.dtype])
    assert pairs is not None
    return pairs


def emit_fill(e: Emitter, target: View, value: Attr, node: Node) -> None:
    """Sets every element."""
    assert isinstance(value, (int, float))
    emit_body(e, (Step("add", (value, 0), {}, target.dtype),), [], target, node)


def emit_body(e: Emitter, body: Sequence[Step], sources: Sequence[View], target: View, node: Node) -> None:
    """``target[...] = body(sources[...])``; all views have the target's shape."""
    dtypes = [target.dtype, *(view.dtype for view in sources), *(step.dtype for step in body)]
    check_dtypes(e, dtypes, stored=True)
    if any(e.bounds(size)[1] == 0 for size in target.shape):
        return
    everything = [target, *(replace(view, shape=target.shape) for view in sources)]
    loops = collapse(e, everything)
    inner, outer = loops.sizes[-1], loops.sizes[:-1]
    rows = product(outer)
    longest = e.bounds(inner)[1]
    grain = max(min(e.target.grain, longest), 1)
    rows_per_item = max(e.target.grain // longest, 1)
    kind = index_type(e, everything)
    symbols, symbol_args = e.symbol_args(
        [
            *loops.sizes,
            *(s for strides in loops.strides for s in strides),
            *(view.offset for view in everything),
        ]
    )
    names = [f"o{i}" for i in range(len(outer))]
    operands = [
        {
            "type": STORAGE_TYPE[view.dtype],
            "value_type": (COMPUTE_TYPE if body else STORAGE_TYPE)[view.dtype],
            "convert": convert(view.dtype) if body else "",
            "row": index_text(list(zip(names, strides[:-1], strict=True)), view.offset, kind),
            "step": "i"
            if strides[-1] == 1
            else "0"
            if strides[-1] == 0
            else f"{'(long)' if kind == 'long' else ''}i * {size_text(strides[-1])}",
        }
        for view, strides, convert in zip(
            everything, loops.strides, (writer, *(reader for _ in sources)), strict=True
        )
    ]
    lines = body_lines(body, [view.dtype for view in sources])
    params = {
        "target": operands[0],
        "sources": operands[1:],
        "lines": lines,
        "half": bool(body) and not HALF.isdisjoint(dtypes),
        "index_type": kind,
        "symbols": symbols,
        "result": f"t{len(body) - 1}" if body else "i0",
        "inner": size_text(inner),
        "grain": grain,
        "rows": size_text(rows),
        "rows_per_item": rows_per_item,
        "outer": [(name, size_text(size)) for name, size in zip(names, outer, strict=True)],
    }
    ops = [step.op for step in body] or ["copy"]
    cost = Cost(
        flops=node.out.numel * len(body) if node.outs else 0,
        bytes_read=sum((_distinct(view) * ITEM_SIZE[view.dtype] for view in sources), 0),
        bytes_written=target.spec.nbytes,
    )
    e.call(
        "_".join(ops[:4]),
        "pointwise",
        TEMPLATE,
        params,
        node=node,
        dtype=SHORT[target.dtype],
        cost=cost,
        args=[
            *(BufferUse(view.buffer, "r") for view in sources),
            BufferUse(target.buffer, "w"),
            *symbol_args,
        ],
        **item_sizes(e, ceil_div(inner, grain), ceil_div(rows, rows_per_item)),
    )


def item_sizes(e: Emitter, columns: Dim, rows: Dim) -> dict[str, Any]:
    """Global and local size for ``columns`` x ``rows`` work-items of a kernel that leaves out those beyond:
    work-groups of the target's size, as wide as the columns where these are fewer."""
    if e.target.group == 1:
        return {"global_size": (columns, rows), "local_size": None}
    wide = 1
    while wide < min(e.target.group, e.bounds(columns)[1]):
        wide *= 2
    high = e.target.group // wide
    sizes = (ceil_div(columns, wide) * wide, ceil_div(rows, high) * high)
    return {"global_size": sizes, "local_size": (wide, high)}


def _distinct(view: View) -> Dim:
    """Elements of a view without its repetitions."""
    return product(size for size, stride in zip(view.shape, view.strides, strict=True) if stride != 0)
