"""3x3 convolutions by Winograd's F(4x4, 3x3) and F(2x2, 3x3): a quarter of the multiplications, or 4
of 9 with fewer weights, between two transforms.

Source: Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", 2015. The weights are transformed
when they are prepared, in float64.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from typing import TYPE_CHECKING

import numpy as np

from npu_compiler.lowering import as_ints
from npu_compiler.ops import Cost
from npu_compiler.pointwise import index_type
from npu_compiler.products import (
    LANES,
    epilogue_lines,
    igemm,
    is_vector_view,
    pack_panels,
    pads_of,
    residual_view,
)
from npu_compiler.select import BufferUse, ScalarUse
from npu_compiler.tuning import FORM, TILES, WINOGRAD, panel_width
from npu_compiler.views import View
from npu_compiler.weights import const_expr
from npu_runtime.program import WeightExpr
from torch_ir.expr import Dim, ceil_div
from torch_ir.ir import Node, TensorSpec

if TYPE_CHECKING:
    from npu_compiler.emit import Emitter

#: Elements between the end of a point's tiles and the next point, so that points do not share cache sets.
SKEW = 16
TEMPLATE = "ops/winograd.cl.j2"
#: Channels that a work-item transforms.
CHANNELS = 64
#: Points that a tile of half as many outputs does not need: 2 and -2, and -1.
_EXTRA = {2: (2,), 4: (3, 4)}
#: The weights' transform, by the outputs of a tile in one dimension.
_G = {
    2: np.array([[2, 0, 0], [1, 1, 1], [1, -1, 1], [0, 0, 2]], np.float64) / 2,
    4: np.array([[6, 0, 0], [-4, -4, -4], [-4, 4, -4], [1, 2, 4], [1, -2, 4], [0, 0, 24]], np.float64) / 24,
}


def form_of(e: Emitter, node: Node, x: View) -> int:
    """The outputs of a tile in one dimension, 2 or 4; 0 where Winograd's form does not apply, or is not
    chosen."""
    batch, out, height, width = node.out.shape
    channels = x.shape[1]
    weight = e.spec(str(node.inputs[1])).shape
    if weight[2:] != (3, 3) or node.attrs["groups"] != 1 or not e.options.winograd or x.dtype != "float32":
        return 0
    if as_ints(node.attrs["stride"]) != (1, 1) or as_ints(node.attrs["dilation"]) != (1, 1):
        return 0
    if not (e.divides(LANES, channels) and e.divides(LANES, out) and is_vector_view(e, x)):
        return 0
    question = {
        "pixels": e.bounds(batch * height * width)[1],
        **{
            name: e.bounds(batch * ceil_div(height, size) * ceil_div(width, size))[1]
            for name, size in TILES.items()
        },
        "inner": e.bounds(channels)[1],
        "out": e.bounds(out)[1],
    }
    return TILES.get(str(e.choose(FORM, question)["form"]), 0)


@dataclass(frozen=True)
class _Points:
    """Points of a transform, as rectangles of rows and columns, whose products have ``tiles`` rows each; they
    lie from the ``first`` on."""

    parts: tuple[tuple[Sequence[int], Sequence[int]], ...]
    tiles: Dim
    first: int

    def each(self) -> list[tuple[int, int]]:
        return [pair for part in self.parts for pair in product(*part)]


def _short(out: Dim, size: int) -> bool:
    """Whether the last of several tiles has half the outputs in one dimension."""
    return isinstance(out, int) and out > size and 2 * (out % size) == size


def _points(batch: Dim, out: tuple[Dim, Dim], size: int) -> list[_Points]:
    """All points of tiles of ``size`` x ``size``, those of as many rows together, most rows first."""
    sides = []
    for length in out:
        tiles, extra = ceil_div(length, size), _EXTRA[size] if _short(length, size) else ()
        usual = tuple(point for point in range(size + 2) if point not in extra)
        sides.append([(usual, tiles)] + [(extra, tiles - 1)] * bool(extra))
    counts: dict[Dim, list[tuple[Sequence[int], Sequence[int]]]] = {}
    for (high, rows), (wide, columns) in product(*sides):
        counts.setdefault(batch * rows * columns, []).append((high, wide))
    found, first = [], 0
    for tiles, parts in counts.items():
        found.append(_Points(tuple(parts), tiles, first))
        first += len(found[-1].each())
    return found


def _weight_of(points: _Points, size: int, outer: int, inner: int, expr: WeightExpr) -> WeightExpr:
    """[O, I, 3, 3] -> G g G' at ``points`` as [points * O, I]."""
    made: list[WeightExpr] = []
    for rows, columns in points.parts:
        ordered = ["permute", _transformed(size, expr, rows, columns), [2, 3, 0, 1]]
        made.append(["reshape", ordered, [len(rows) * len(columns) * outer, inner]])
    return made[0] if len(made) == 1 else ["concat", made, 0]


def _transformed(
    size: int, expr: WeightExpr, rows: Sequence[int] | None = None, columns: Sequence[int] | None = None
) -> WeightExpr:
    """[O, I, 3, 3] -> G g G' as [O, I, n, n], or the ``rows`` and ``columns`` of it."""
    high, wide = (_G[size] if wanted is None else _G[size][list(wanted)] for wanted in (rows, columns))
    return between(high, expr, wide)


def between(left: np.ndarray, expr: WeightExpr, right: np.ndarray) -> WeightExpr:
    """[O, I, 3, 3] -> left w right' as [O, I, p, q], for left [p, 3] and right [q, 3] in float64."""
    first = const_expr(left.tobytes(), "float64", left.shape)
    last = const_expr(np.ascontiguousarray(right.T).tobytes(), "float64", right.shape[::-1])
    return ["matmul", ["matmul", first, expr], last]


def point_products(
    e: Emitter,
    node: Node,
    read: View,
    made: View,
    points: int,
    rows: Dim,
    channels: tuple[int, int],
    steps: tuple[Dim, Dim],
    prepare: Callable[[WeightExpr], WeightExpr],
    first: int = 0,
) -> None:
    """Emits a product of ``rows`` rows for each of ``points`` points, from the ``first`` on. ``channels`` and
    ``steps``, elements from point to point, of what is read and of what is made."""
    inner, outer = channels

    def image(view: View, count: int, step: Dim) -> View:
        return View(
            view.buffer, view.dtype, (1, points * count, 1, rows), (0, 1, 0, count), first * step
        )  # fmt: skip

    igemm(
        e,
        node,
        image(read, inner, steps[0]),
        image(made, outer, steps[1]),
        (1, 1),
        (1, 1),
        ((0, 0), (0, 0)),
        (1, 1),
        points,
        "winograd",
        prepare=prepare,
        cost=Cost(
            2 * points * rows * inner * outer,
            4 * points * (rows * inner + inner * outer),
            rows * points * outer * 4,
        ),
        group_steps=steps,
    )


def winograd(e: Emitter, node: Node, x: View, y: View, size: int) -> None:
    """Emits input transform, a matrix product for each point and output transform, of tiles of ``size`` x
    ``size`` outputs, in one to three kernels. ``x`` and ``y`` in vectors of channels."""
    batch, channels, height, width = x.shape
    _, out, out_height, out_width = y.shape
    inner, outer = int(str(channels)), int(str(out))
    rows, columns = ceil_div(out_height, size), ceil_div(out_width, size)
    tiles, points = batch * rows * columns, (size + 2) ** 2
    v_step, m_step = tiles * inner + SKEW, tiles * outer + SKEW
    (top, _), (left, _) = pads_of(node.attrs)
    residual = residual_view(e, node, y, vectors=True)
    if _whole(e, node, x, y, residual, size):
        return
    groups = _points(batch, (out_height, out_width), size)
    ordered = [point for group in groups for point in group.each()]
    form = {
        "size": size,
        "low": _short(out_height, size),
        "narrow": _short(out_width, size),
        "order": [ordered.index(point) for point in product(range(size + 2), range(size + 2))],
    }
    transformed = e.scratch(f"{node.name}:winograd.v", TensorSpec((points, v_step), x.dtype))
    call_transform(
        e,
        node,
        "input",
        TEMPLATE,
        {"part": "input", **form},
        [BufferUse(x.buffer, "r"), BufferUse(transformed.buffer, "w")],
        [
            height,
            width,
            top,
            left,
            rows,
            columns,
            x.offset,
            x.strides[0],
            x.strides[2],
            x.strides[3],
            v_step,
            inner,
        ],
        (ceil_div(inner, CHANNELS), rows, batch),
        Cost(tiles * inner * points * 4, x.spec.nbytes, tiles * points * inner * 4),
    )
    products = e.scratch(f"{node.name}:winograd.m", TensorSpec((points, m_step), x.dtype))
    plain = replace(node, inputs=(node.inputs[0], node.inputs[1]), attrs={})
    for group in groups:
        point_products(
            e,
            plain,
            transformed,
            products,
            len(group.each()),
            group.tiles,
            (inner, outer),
            (v_step, m_step),
            partial(_weight_of, group, size, outer, inner),
            group.first,
        )
    buffers = [BufferUse(products.buffer, "r")]
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    if bias is not None:
        buffers.append(BufferUse(e.weight(bias, (outer,)).buffer, "r"))
    scalars: list[Dim] = [out_height, out_width, rows, columns, m_step, outer, y.offset, y.strides[3]]
    if residual is not None:
        buffers.append(BufferUse(residual.buffer, "r"))
        scalars += [residual.offset, residual.strides[3]]
    call_transform(
        e,
        node,
        "output",
        TEMPLATE,
        {
            "part": "output",
            **form,
            "bias": bias is not None,
            "residual": residual is not None,
            "epilogue": epilogue_lines(node.attrs.get("epilogue", ())),
        },
        [*buffers, BufferUse(y.buffer, "w")],
        scalars,
        (ceil_div(outer, CHANNELS), rows, batch),
        Cost(tiles * outer * points * 3, tiles * points * outer * 4, y.spec.nbytes),
    )


def _whole(e: Emitter, node: Node, x: View, y: View, residual: View | None, size: int) -> bool:
    """Emits all three as one kernel, where that is the choice."""
    batch, channels, height, width = x.shape
    _, out, out_height, out_width = y.shape
    inner, outer, points = int(str(channels)), int(str(out)), (size + 2) ** 2
    rows, columns = ceil_div(out_height, size), ceil_div(out_width, size)
    choice = e.choose(
        WINOGRAD,
        {
            "rows": rows if isinstance(rows, int) else 0,
            "columns": columns if isinstance(columns, int) else 0,
            "strips": e.bounds(batch * rows)[0],
            "size": size,
            "inner": inner,
            "out": outer,
        },
    )
    if not choice["whole"] or index_type(e, [x, y]) != "int":
        return False
    nv, strip = panel_width(outer) // LANES, int(choice["rows"])
    panels = -(-outer // (nv * LANES))
    _, count, pack = pack_panels(1, outer, inner, (size + 2, size + 2), nv * LANES, x.dtype)
    w = e.weight(str(node.inputs[1]), (count,), lambda expr: pack(_transformed(size, expr)))
    buffers = [BufferUse(x.buffer, "r"), BufferUse(w.buffer, "r")]
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    if bias is not None:
        buffers.append(BufferUse(e.weight(bias, (outer,)).buffer, "r"))
    (top, _), (left, _) = pads_of(node.attrs)
    scalars: list[Dim] = [height, width, top, left, x.offset, x.strides[0], x.strides[2], x.strides[3]]
    scalars += [out_height, out_width, outer, panels, y.offset, y.strides[3]]
    if residual is not None:
        buffers.append(BufferUse(residual.buffer, "r"))
        scalars += [residual.offset, residual.strides[3]]
    params: dict[str, object] = {
        "size": size,
        "mr": choice["mr"],
        "nv": nv,
        "TH": rows,
        "TW": columns,
        "rows": strip,
        "IC": inner,
        "unroll": 4,
        "bias": bias is not None,
        "residual": residual is not None,
        "epilogue": epilogue_lines(node.attrs.get("epilogue", ())),
    }
    read = x.spec.nbytes + 4 * points * inner * outer + (0 if residual is None else y.spec.nbytes)
    e.call(
        "winograd",
        "whole",
        "ops/winograd_whole.cl.j2",
        params,
        node=node,
        args=[*buffers, BufferUse(y.buffer, "w"), *(ScalarUse(value) for value in scalars)],
        global_size=(rows // strip, batch),
        local_size=(1, 1),
        cost=Cost(
            batch * rows * columns * points * (2 * inner * outer + 4 * inner + 3 * outer),
            read,
            y.spec.nbytes,
        ),
    )
    return True


def call_transform(
    e: Emitter,
    node: Node,
    variant: str,
    template: str,
    params: dict[str, object],
    buffers: list[BufferUse],
    scalars: list[Dim],
    size: tuple[Dim, ...],
    cost: Cost,
) -> None:
    """Calls a transform's kernel: ``size`` work-items, each a row of tiles."""
    args: list[BufferUse | ScalarUse] = [*buffers, *(ScalarUse(value) for value in scalars)]
    e.call(
        "winograd",
        variant,
        template,
        params,
        node=node,
        args=args,
        global_size=size,
        local_size=(1, 1, 1),
        cost=cost,
    )
