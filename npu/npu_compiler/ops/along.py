"""Gathering and scattering along one dimension, every row by indices of its own."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

from npu_compiler.ctext import size_text
from npu_compiler.dtypes import SHORT, STORAGE_TYPE, category, is_float
from npu_compiler.lowering import as_int
from npu_compiler.ops import Attrs, Case, Cost, OpDef, Specs, register
from npu_compiler.pointwise import check_dtypes
from npu_compiler.rows import rows_along
from npu_compiler.select import BufferUse
from npu_compiler.shapes import require
from torch_ir.expr import ceil_div
from torch_ir.ir import Node, TensorSpec

if TYPE_CHECKING:
    from npu_compiler.emit import Emitter

_COMBINE: Mapping[str, str] = MappingProxyType(
    {
        "set": "v",
        "sum": "a + v",
        "prod": "a * v",
        "amax": "v > a{nan} ? v : a",
        "amin": "v < a{nan} ? v : a",
    }
)
_COMBINE_BOOL: Mapping[str, str] = MappingProxyType(
    {"set": "v", "sum": "a | v", "prod": "a & v", "amax": "a | v", "amin": "a & v"}
)


def combine_text(name: str, dtype: str) -> str:
    """How what stands in memory (``a``) and what is written (``v``) combine, as C; NaN wins a comparison."""
    if dtype == "bool":
        return _COMBINE_BOOL[name]
    return _COMBINE[name].replace("{nan}", " || v != v" if is_float(dtype) else "")


def check_index(index: TensorSpec, x: TensorSpec, dim: int) -> None:
    """Refuses an index that reaches outside ``x`` in a dimension other than ``dim``."""
    fits = index.rank == x.rank and all(
        i == dim or not isinstance(size - of, int) or as_int(size - of) <= 0
        for i, (size, of) in enumerate(zip(index.shape, x.shape, strict=True))
    )
    require(fits and dim < x.rank, f"indices of {index.shape} into {x.shape} along {dim}")
    require(category(index.dtype) == 1, f"indices of {index.dtype}")


def _infer_gather(specs: Specs, attrs: Attrs) -> tuple[TensorSpec, ...]:
    x, index = specs[0], specs[1]
    assert x is not None and index is not None
    check_index(index, x, as_int(attrs["dim"]))
    return (TensorSpec(index.shape, x.dtype),)


def _emit_gather(e: Emitter, node: Node) -> None:
    x, index, dim = e.view(node.inputs[0]), e.view(node.inputs[1]), as_int(node.attrs["dim"])
    out = e.output(node)
    check_dtypes(e, [x.dtype, index.dtype], stored=True)
    unchecked = e.bound_input(index, x.shape[dim], wrap=False)
    length = index.shape[dim]
    rows = rows_along(e, dim, [index, out, x], [length, x.shape[dim]])
    grain = max(min(e.target.grain, e.bounds(length)[1]), 1)
    params = {
        **rows.params,
        "type": STORAGE_TYPE[x.dtype],
        "index_storage": STORAGE_TYPE[index.dtype],
        "size": size_text(x.shape[dim]),
        "length": size_text(length),
        "grain": grain,
        **dict(zip(("index_base", "out_base", "x_base"), rows.bases, strict=True)),
        **dict(zip(("index_step", "out_step", "x_step"), rows.steps, strict=True)),
    }
    e.call(
        "gather_along",
        "rows",
        "ops/gather_along.cl.j2",
        params,
        node=node,
        dtype=SHORT[x.dtype],
        args=[
            BufferUse(x.buffer, "r"),
            BufferUse(index.buffer, "r"),
            BufferUse(out.buffer, "w"),
            *rows.symbol_args,
        ],
        global_size=(ceil_div(length, grain), rows.items),
        cost=Cost(0, out.spec.nbytes + index.spec.nbytes, out.spec.nbytes),
        indexes=unchecked,
    )


register(
    OpDef(
        "gather_along",
        _infer_gather,
        lambda torch, x, index, dim: torch.gather(x, dim, index),
        emit=_emit_gather,
        stored=True,
        cases=(
            Case(((3, 11), (3, 5)), {"dim": 1}, ("float32", "int64", "bool"), ("normal", "index:11")),
            Case(((7, 5, 3), (4, 2, 3)), {"dim": 0}, ("float32",), ("normal", "index:7")),
            Case(((113,), (29,)), {"dim": 0}, ("int32",), ("normal", "index:113")),
            Case(
                ((2, 13, 3, 5), (2, 4, 3, 5)),
                {"dim": 1},
                ("float32",),
                ("normal", "index:13"),
                (),
                ("row", "nhwc8"),
            ),
        ),
    )
)


def _infer_scatter(specs: Specs, attrs: Attrs) -> tuple[TensorSpec, ...]:
    x, index, source = specs[:3]
    assert x is not None and index is not None and source is not None
    check_index(index, x, as_int(attrs["dim"]))
    check_index(index, source, -1)
    return (TensorSpec(x.shape, x.dtype),)


def _emit_scatter(e: Emitter, node: Node) -> None:
    target, index, source = (e.view(value) for value in node.inputs)
    dim, combine = as_int(node.attrs["dim"]), str(node.attrs.get("combine", "set"))
    check_dtypes(e, [target.dtype, index.dtype], stored=combine == "set")
    out = e.updated(node)
    unchecked = e.bound_input(index, out.shape[dim], wrap=False)
    length = index.shape[dim]
    rows = rows_along(e, dim, [index, source, out], [length, out.shape[dim]])
    params = {
        **rows.params,
        "type": STORAGE_TYPE[out.dtype],
        "index_storage": STORAGE_TYPE[index.dtype],
        "size": size_text(out.shape[dim]),
        "length": size_text(length),
        "combine": combine_text(combine, out.dtype),
        **dict(zip(("index_base", "source_base", "out_base"), rows.bases, strict=True)),
        **dict(zip(("index_step", "source_step", "out_step"), rows.steps, strict=True)),
    }
    e.call(
        node.op,
        "rows" if combine == "set" else combine,
        "ops/scatter_along.cl.j2",
        params,
        node=node,
        dtype=SHORT[out.dtype],
        args=[
            BufferUse(source.buffer, "r"),
            BufferUse(index.buffer, "r"),
            BufferUse(out.buffer, "rw"),
            *rows.symbol_args,
        ],
        global_size=(rows.items,),
        cost=Cost(index.spec.numel, source.spec.nbytes + index.spec.nbytes, source.spec.nbytes),
        indexes=unchecked,
    )


register(
    OpDef(
        "scatter_along",
        _infer_scatter,
        lambda torch, x, index, source, dim: x.scatter(dim, index, source),
        emit=_emit_scatter,
        updates=1,
        stored=True,
        cases=(
            Case(
                ((113, 1), (1, 1), (1, 1)), {"dim": 0}, ("float32", "bool"), ("normal", "index:113", "normal")
            ),
            Case(((3, 1, 7), (3, 1, 2), (3, 1, 2)), {"dim": 1}, values=("normal", "index:1", "normal")),
        ),
    )
)
register(
    OpDef(
        "combine_along",
        _infer_scatter,
        lambda torch, x, index, source, dim, combine: x.scatter_reduce(dim, index, source, combine),
        emit=_emit_scatter,
        updates=1,
        cases=(
            *(
                Case(
                    ((3, 11), (3, 7), (3, 7)),
                    {"dim": 1, "combine": combine},
                    dtypes,
                    ("normal", "index:11", "normal"),
                )
                for combine, dtypes in (
                    ("sum", ("float32", "float64", "int64", "int8", "bool")),
                    ("prod", ("float32", "int32")),
                    ("amax", ("float32", "int64", "uint8")),
                    ("amin", ("float32", "int16")),
                )
            ),
            Case(
                ((7, 5, 3), (2, 4, 3), (2, 4, 3)),
                {"dim": 0, "combine": "sum"},
                values=("normal", "index:7", "normal"),
            ),
            Case(
                ((29,), (113,), (113,)),
                {"dim": 0, "combine": "sum"},
                values=("normal", "index:29", "normal"),
            ),
        ),
    )
)
