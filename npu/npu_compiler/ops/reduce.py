"""Reductions over any dimensions, read in place whatever the strides."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from npu_compiler.ctext import index_text, size_text
from npu_compiler.dtypes import COMPUTE_TYPE, SHORT, STORAGE_TYPE, is_float, literal
from npu_compiler.errors import Unsupported
from npu_compiler.lowering import Builder, as_ints, wrap_dims
from npu_compiler.ops import Attrs, Case, Cost, OpDef, Specs, lowers, register
from npu_compiler.ops.elementwise import cast
from npu_compiler.ops.views import reshape, tensor_input
from npu_compiler.pointwise import check_dtypes, index_type
from npu_compiler.select import BufferUse
from npu_compiler.shapes import require
from npu_compiler.views import View
from npu_runtime.program import WeightExpr
from torch_ir.expr import Dim, ceil_div, product
from torch_ir.ir import ITEM_SIZE, Node, TensorSpec

if TYPE_CHECKING:
    from npu_compiler.emit import Emitter

LANES = 8
#: Elements of a row from which on the work-items of a work-group share it.
GROUP_LENGTH = 64
_LOWEST = {
    "float32": "(-INFINITY)",
    "float64": "(-INFINITY)",
    "int64": "LONG_MIN",
    "int32": "INT_MIN",
    "bool": "0",
    "int16": "SHRT_MIN",
    "int8": "CHAR_MIN",
    "uint8": "0",
}
_HIGHEST = {
    "float32": "INFINITY",
    "float64": "INFINITY",
    "int64": "LONG_MAX",
    "int32": "INT_MAX",
    "bool": "1",
    "int16": "SHRT_MAX",
    "int8": "CHAR_MAX",
    "uint8": "255",
}


@dataclass(frozen=True)
class Reduction:
    """How values combine: start (by dtype), ``{a}`` with ``{x}``, and what is stored of ``{a}`` (``{n}``
    elements)."""

    start: dict[str, str] | str
    combine: str
    store: str = "{a}"
    nan: bool = False
    """Whether comparisons must let NaN through, as PyTorch does."""

    def first(self, dtype: str) -> str:
        if isinstance(self.start, dict):
            return self.start[dtype]
        return literal(float(self.start), dtype)


REDUCTIONS = {
    "sum": Reduction("0", "{a} + {x}"),
    "mean": Reduction("0", "{a} + {x}", "{a} / {n}"),
    "prod": Reduction("1", "{a} * {x}"),
    "amax": Reduction(_LOWEST, "({x} > {a}{nan} ? {x} : {a})", nan=True),
    "amin": Reduction(_HIGHEST, "({x} < {a}{nan} ? {x} : {a})", nan=True),
    "any": Reduction("0", "({a} | ({x} != 0))"),
    "all": Reduction("1", "({a} & ({x} != 0))"),
}


@dataclass(frozen=True)
class Plan:
    """Loops of a reduction: kept dimensions (size, stride in x, stride in y), reduced ones (size, stride in
    x)."""

    kept: tuple[tuple[Dim, Dim, Dim], ...]
    reduced: tuple[tuple[Dim, Dim], ...]


def plan_loops(e: Emitter, x: View, y: View, dims: tuple[int, ...]) -> Plan:
    """Dimensions of size 1 dropped, in the input's memory order, merged where both sides walk them as one."""
    kept = [
        (x.shape[i], x.strides[i], y.strides[i])
        for i in range(len(x.shape))
        if i not in dims and x.shape[i] != 1
    ]
    reduced = [(x.shape[i], x.strides[i]) for i in dims if x.shape[i] != 1]
    kept.sort(key=lambda d: -e.bounds(d[1])[1])
    reduced.sort(key=lambda d: -e.bounds(d[1])[1])
    merged: list[tuple[Dim, Dim, Dim]] = []
    for size, in_step, out_step in kept:
        if merged and merged[-1][1] == in_step * size and merged[-1][2] == out_step * size:
            merged[-1] = (merged[-1][0] * size, in_step, out_step)
        else:
            merged.append((size, in_step, out_step))
    flat: list[tuple[Dim, Dim]] = []
    for size, step in reduced:
        if flat and flat[-1][1] == step * size:
            flat[-1] = (flat[-1][0] * size, step)
        else:
            flat.append((size, step))
    return Plan(tuple(merged), tuple(flat) or ((1, 0),))


def _emit_reduce(name: str) -> Any:
    rule = REDUCTIONS[name]

    def emit(e: Emitter, node: Node) -> None:
        x, y = e.view(node.inputs[0]), e.output(node)
        check_dtypes(e, [x.dtype, y.dtype])
        if name in ("amax", "amin") and any(
            e.bounds(x.shape[d])[0] == 0 for d in as_ints(node.attrs["dims"])
        ):
            raise Unsupported("the largest or smallest of no elements", "make the dimension's lower bound 1")
        plan = plan_loops(e, x, y, as_ints(node.attrs["dims"]))
        lane_outputs = bool(plan.kept) and plan.kept[-1][1] == 1 and plan.reduced[-1][1] != 1
        variant = "lanes" if lane_outputs else "split" if plan.reduced[-1][1] == 1 else "scalar"
        kind = index_type(e, [x, y])
        kept = plan.kept[:-1] if lane_outputs else plan.kept
        lane = plan.kept[-1] if lane_outputs else None
        dims = [d for row in (*plan.kept, *plan.reduced) for d in row]
        symbols, symbol_args = e.symbol_args([*dims, x.offset, y.offset])
        accumulator = y.dtype if not is_float(x.dtype) or name in ("any", "all") else x.dtype
        nan = " || {x} != {x}" if rule.nan and is_float(x.dtype) else ""
        names = [f"k{i}" for i in range(len(kept))]
        items = product(size for size, _, _ in kept)
        lanes = LANES if e.target.group == 1 else 1
        work = max(e.bounds(product(size for size, _ in plan.reduced))[1], 1) * (lanes if lane else 1)
        grain = max(1, e.target.grain // work)
        params = {
            "variant": variant,
            "x_type": STORAGE_TYPE[x.dtype],
            "y_type": STORAGE_TYPE[y.dtype],
            "acc_type": COMPUTE_TYPE[accumulator],
            "index_type": kind,
            "symbols": symbols,
            "lanes": lanes,
            "kept": [(n, size_text(row[0])) for n, row in zip(names, kept, strict=True)],
            "items": size_text(items),
            "grain": grain,
            "x_base": index_text([(n, row[1]) for n, row in zip(names, kept, strict=True)], x.offset, kind),
            "y_base": index_text([(n, row[2]) for n, row in zip(names, kept, strict=True)], y.offset, kind),
            "lane": (size_text(lane[0]), size_text(lane[2])) if lane else None,
            "reduced": [
                (f"r{i}", size_text(size), size_text(step)) for i, (size, step) in enumerate(plan.reduced)
            ],
            "start": rule.first(accumulator),
            "combine": rule.combine.replace("{nan}", nan),
            "store": rule.store,
            "count": f"({COMPUTE_TYPE[accumulator]})({size_text(product(size for size, _ in plan.reduced))})",
        }
        if variant == "split" and e.target.group > 1 and e.bounds(plan.reduced[-1][0])[1] >= GROUP_LENGTH:
            kinds = ("x_type", "y_type", "acc_type", "index_type", "symbols", "kept", "x_base", "y_base")
            rest = ("reduced", "start", "combine", "store", "count")
            group_params = {"group": e.target.group, **{name: params[name] for name in (*kinds, *rest)}}
            e.call(
                f"reduce_{name}", "group", "ops/reduce_group.cl.j2", group_params,
                node=node, dtype=SHORT[x.dtype],
                args=[BufferUse(x.buffer, "r"), BufferUse(y.buffer, "w"), *symbol_args],
                global_size=(items * e.target.group,), local_size=(e.target.group,),
                cost=_cost(node, x, y),
            )  # fmt: skip
            return
        chunks = ceil_div(lane[0], lanes) if lane else 1
        e.call(
            f"reduce_{name}",
            variant,
            "ops/reduce.cl.j2",
            params,
            node=node,
            dtype=SHORT[x.dtype],
            args=[BufferUse(x.buffer, "r"), BufferUse(y.buffer, "w"), *symbol_args],
            global_size=(chunks, ceil_div(items, grain)),
            cost=_cost(node, x, y),
        )

    return emit


def _cost(node: Node, x: View, y: View) -> Cost:
    return Cost(x.spec.numel, x.spec.numel * ITEM_SIZE[x.dtype], node.out.numel * ITEM_SIZE[y.dtype])


def _infer(name: str) -> Any:
    def infer(specs: Specs, attrs: Attrs) -> tuple[TensorSpec, ...]:
        x = specs[0]
        assert x is not None
        dims = as_ints(attrs["dims"])
        require(all(0 <= dim < x.rank for dim in dims), f"dimensions {dims} of {x.rank}")
        dtype = "bool" if name in ("any", "all") else x.dtype
        return (TensorSpec(tuple(1 if i in dims else size for i, size in enumerate(x.shape)), dtype),)

    return infer


def _reference(name: str) -> Any:
    def reference(torch: Any, x: Any, dims: tuple[int, ...]) -> Any:
        if name == "prod":
            for dim in dims:
                x = x.prod(dim, keepdim=True, dtype=x.dtype)
            return x
        if name in ("any", "all"):
            return getattr(torch, name)(x, dims, keepdim=True)
        options = {"dtype": x.dtype} if name == "sum" else {}
        return getattr(torch, name)(x, dims, keepdim=True, **options)

    return reference


def _weight_expr(name: str) -> Any:
    def expr(node: Node, exprs: Sequence[WeightExpr]) -> WeightExpr | None:
        return [name, exprs[0], list(as_ints(node.attrs["dims"]))] if is_float(node.out.dtype) else None

    return expr if name in ("sum", "mean") else None


for _name in REDUCTIONS:
    register(
        OpDef(
            f"reduce_{_name}",
            _infer(_name),
            _reference(_name),
            emit=_emit_reduce(_name),
            weight_expr=_weight_expr(_name),
            rtol=2e-5,
            atol=2e-6,
            layout=lambda node, layouts: (
                "nhwc8" if layouts[0] == "nhwc8" and 1 not in as_ints(node.attrs["dims"]) else "row"
            ),
            cases=tuple(
                Case((shape,), {"dims": dims}, dtypes, values, layouts=layouts)
                for dtypes, values in [
                    (
                        ("bool", "int64")
                        if _name in ("any", "all")
                        else ("float32", "int64")
                        if _name in ("sum", "amax", "amin")
                        else ("float32",),
                        "positive" if _name == "prod" else "normal",
                    )
                ]
                for shape, dims, layouts in (
                    ((3, 7), (1,), ("row",)),
                    ((3, 7), (0,), ("row",)),
                    ((113,), (0,), ("row",)),
                    ((2, 5, 29), (0, 2), ("row",)),
                    ((2, 9, 7, 7), (2, 3), ("row", "nhwc8")),
                    ((2, 13, 3, 3), (1,), ("row", "nhwc8")),
                    ((2, 3, 4, 5), (0, 1, 2, 3), ("row",)),
                    ((1, 1), (1,), ("row",)),
                )
            ),
        )
    )


def reduce(b: Builder, name: str, x: str, dims: tuple[int, ...], shape: tuple[Dim, ...]) -> str:
    """A reduction over ``dims`` in its final shape (with the reduced dimensions dropped, or kept as 1)."""
    return reshape(b, b.emit(f"reduce_{name}", x, dims=dims) if dims else x, shape)


@lowers(
    "aten.sum.default",
    "aten.sum.dim_IntList",
    "aten.mean.default",
    "aten.mean.dim",
    "aten.amax.default",
    "aten.amin.default",
    "aten.prod.default",
    "aten.prod.dim_int",
    "aten.any.default",
    "aten.any.dim",
    "aten.any.dims",
    "aten.all.default",
    "aten.all.dim",
    "aten.max.default",
    "aten.min.default",
)
def lower_reduce(b: Builder, node: Node) -> str:
    x = tensor_input(node)
    kind = node.op.split(".")[1]
    name = {"max": "amax", "min": "amin"}.get(kind, kind)
    dims = wrap_dims(node.attrs.get("dim"), len(b.shape(x))) if b.shape(x) else ()
    x = cast(b, x, "bool" if name in ("any", "all") else node.out.dtype)
    return cast(b, reduce(b, name, x, dims, node.out.shape), node.out.dtype)
