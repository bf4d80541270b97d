"""Constant weights that are larger than a device's largest buffer are kept in parts: by the columns of a
product, by the output channels of a convolution, by the rows of a table."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

from npu_compiler.dtypes import HALF
from npu_compiler.lowering import Builder
from npu_compiler.ops.elementwise import cast
from npu_compiler.ops.views import reshape
from npu_compiler.target import Target
from npu_compiler.weights import constant_exprs, stored_bytes
from torch_ir.ir import IR, Node

#: Parts are multiples of so many rows of the weight, which fill every kernel's tiles.
TILE = 256


def split_large(ir: IR, target: Target) -> IR:
    """``linear(x, w)`` becomes ``concat(linear(x, w[:n]), linear(x, w[n:]), ...)``, ``conv(x, w)`` of one
    group likewise, and ``gather_rows(w, i)`` chooses among rows of ``w[:n]``, ``w[n:]``, ... where ``w`` is
    constant and has more than ``target.max_alloc_bytes``. A weight that two read has equal parts in both."""
    constants = constant_exprs(ir)
    specs, taken = ir.values(), set(ir.values()) | {node.name for node in ir.nodes}
    nodes: list[Node] = []
    for node in ir.nodes:
        place = 0 if node.op == "gather_rows" else 1
        weight = str(node.inputs[place]) if len(node.inputs) > place else ""
        cuts = [0]
        splits = node.op in ("linear", "conv", "gather_rows") and not node.attrs.get("wrap")
        if splits and weight in constants and node.attrs.get("groups", 1) == 1:
            nbytes = stored_bytes(constants[weight], specs[weight], ir)
            cuts = _cuts(int(str(specs[weight].shape[0])), nbytes, target.max_alloc_bytes)
        if len(cuts) < 3 or node.outputs[0] in constants:
            nodes.append(node)
            continue
        b = Builder(node, specs, taken)
        (_rows if node.op == "gather_rows" else _product)(b, node, cuts)
        *parts, last = b.nodes
        nodes += [*parts, replace(last, name=node.name, outputs=node.outputs, outs=node.outs)]
    return replace(ir, nodes=tuple(nodes))


def _cuts(rows: int, nbytes: int, most: int) -> list[int]:
    """Where the parts of a matrix begin and end: [0, rows] where it is one part."""
    row = nbytes // max(1, rows)
    if nbytes <= most or row * TILE > most:
        return [0, rows]
    count = -(-rows // (most // row // TILE * TILE))
    step = -(-rows // (count * TILE)) * TILE
    return [*range(0, rows, step), rows]


def _part(b: Builder, value: str, dim: int, start: int, stop: int) -> str:
    return b.emit("slice", value, dim=dim, start=start, step=1, length=stop - start)


def _product(b: Builder, node: Node, cuts: list[int]) -> None:
    x, channels = node.inputs[0], 1 if node.op == "conv" else node.out.rank - 1
    parts = []
    for start, stop in pairwise(cuts):
        # weight and bias by their rows, a residual by its channels
        own = [
            value and _part(b, value, 0 if at < 2 else channels, start, stop)
            for at, value in enumerate(node.inputs[1:])
        ]
        parts.append(b.emit(node.op, x, *own, **node.attrs))
    b.emit("concat", *parts, dim=channels)


def _rows(b: Builder, node: Node, cuts: list[int]) -> None:
    """Each part is asked for every row, for one of its own where the row is another part's. Indices out of
    range stay so in the first part and in the last, which notice them."""
    table, index = str(node.inputs[0]), str(node.inputs[1])
    found = ""
    for start, stop in pairwise(cuts):
        local = index if start == 0 else b.emit("sub", index, None, scalar=start)
        if start != 0:
            local = b.emit("clamp_min", local, None, scalar=0)
        if stop != cuts[-1]:
            local = b.emit("clamp_max", local, None, scalar=stop - start - 1)
        rows = b.emit("gather_rows", _part(b, table, 0, start, stop), local)
        rows = cast(b, rows, "float32") if node.out.dtype in HALF else rows
        if found:
            inside = b.emit("ge", index, None, scalar=start)
            rows = b.emit("where", reshape(b, inside, (*b.shape(index), 1)), rows, found)
        found = rows
    cast(b, found, node.out.dtype)
