"""Kernels that walk along one dimension: the other dimensions of their views as loops that all share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from npu_compiler.ctext import index_text, size_text
from npu_compiler.pointwise import index_type
from npu_compiler.select import Param, ScalarUse
from npu_compiler.views import View
from torch_ir.expr import Dim, product

if TYPE_CHECKING:
    from npu_compiler.emit import Emitter


@dataclass(frozen=True)
class Rows:
    """``params`` has ``kept``, ``items``, ``index_type`` and ``symbols`` of a template that includes
    ``lib/kept``; ``bases`` is where a row starts and ``steps`` how it advances, per view, as C."""

    params: dict[str, Param]
    items: Dim
    bases: tuple[str, ...]
    steps: tuple[str, ...]
    symbol_args: tuple[ScalarUse, ...]


def rows_along(e: Emitter, dim: int, views: Sequence[View], sizes: Sequence[Dim] = ()) -> Rows:
    """The rows along ``dim`` of views of one rank. The first view's shape says how many there are (the others
    are at least as large); ``sizes`` are other sizes that the kernel mentions."""
    loops: list[tuple[Dim, tuple[Dim, ...]]] = []
    for i, size in enumerate(views[0].shape):
        if i == dim or size == 1:
            continue
        strides = tuple(view.strides[i] for view in views)
        if loops and all(outer == inner * size for outer, inner in zip(loops[-1][1], strides, strict=True)):
            loops[-1] = (loops[-1][0] * size, strides)
        else:
            loops.append((size, strides))
    kind = index_type(e, views)
    names = [f"k{i}" for i in range(len(loops))]
    mentioned = [*(size for size, _ in loops), *sizes, *(view.offset for view in views)]
    mentioned += [stride for view in views for stride in view.strides]
    symbols, symbol_args = e.symbol_args(mentioned)
    items = product(size for size, _ in loops)
    params: dict[str, Param] = {
        "kept": [(name, size_text(size)) for name, (size, _) in zip(names, loops, strict=True)],
        "items": size_text(items),
        "index_type": kind,
        "symbols": symbols,
    }
    bases = tuple(
        index_text(
            [(name, strides[i]) for name, (_, strides) in zip(names, loops, strict=True)], view.offset, kind
        )
        for i, view in enumerate(views)
    )
    return Rows(
        params, items, bases, tuple(size_text(view.strides[dim]) for view in views), tuple(symbol_args)
    )
