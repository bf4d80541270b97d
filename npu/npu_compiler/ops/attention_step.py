"""One step of a decoder's attention: a new key and value enter the cache, and one query attends to it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from npu_compiler.ctext import size_text
from npu_compiler.dtypes import SHORT
from npu_compiler.lowering import as_int
from npu_compiler.ops import Attrs, Case, Cost, OpDef, Specs, op_def, register
from npu_compiler.ops.fused_attention import LANES, operand, operands, readable
from npu_compiler.ops.rotary import tables
from npu_compiler.pointwise import check_dtypes, index_type
from npu_compiler.select import BufferUse
from npu_compiler.views import expand
from torch_ir.expr import product
from torch_ir.ir import ITEM_SIZE, Node, TensorSpec

if TYPE_CHECKING:
    from npu_compiler.emit import Emitter


def _infer(specs: Specs, attrs: Attrs) -> tuple[TensorSpec, ...]:
    q, values = specs[5], specs[1]
    assert q is not None and values is not None
    kept = op_def("cache_rows").infer((*specs[:5], *specs[8:]), {})
    return (*kept, TensorSpec((*q.shape[:-1], values.shape[-1]), "float32"))


def _reference(
    torch: Any,
    keys: Any,
    values: Any,
    k: Any,
    v: Any,
    index: Any,
    q: Any,
    mask: Any = None,
    end: Any = None,
    cos: Any = None,
    sin: Any = None,
    *,
    scale: float,
    half: str = "",
) -> Any:
    """``cache_rows``, then ``attention`` of ``q`` [.., 1, width] over the cache; the tables rotate the new
    key and the query."""
    keys, values = op_def("cache_rows").reference(torch, keys, values, k, v, index, cos, sin)
    out = op_def("attention").reference(
        torch, q, keys, values, mask, end, cos, sin, scale=scale, causal=False
    )
    return keys, values, out


def _emit(e: Emitter, node: Node) -> None:
    if e.target.group == 1:
        _emit_apart(e, node)
        return
    k, v, q = (e.view(node.inputs[at]) for at in (2, 3, 5))
    index = e.dense(e.view(node.inputs[4]), node, "index")
    mask, end = (e.view(value) if value else None for value in (*node.inputs, None, None)[6:8])
    keys, values = e.updated(node), e.updated(node, 1)
    check_dtypes(e, [q.dtype])
    check_dtypes(e, [view.dtype for view in (keys, values, k, v)], stored=True)
    width, value_width = as_int(q.shape[-1]), as_int(v.shape[-1])
    batch, heads = q.shape[:2]
    turned = len(node.inputs) > 8
    vectors = width % (LANES << turned) == 0 and value_width % LANES == 0
    aligned = all(
        view.strides[3] == 1 and all(e.divides(LANES, dim) for dim in (*view.strides[:3], view.offset))
        for view in (keys, values)
    )
    lanes = LANES if vectors and aligned else 1
    q = readable(e, node, q, lanes, "q")
    out = e.output(node, 2, order=(0, 2, 1, 3))
    if mask is not None:
        mask = expand(mask, (batch, heads, 1, keys.shape[2]))
    if end is not None:
        end = expand(end, (batch, heads, 1, 1))
    turn = tables(e, node, node.inputs[8:10], q) if turned else ()
    new_turn = tables(e, node, node.inputs[8:10], k) if turned else ()
    given = [view for view in (mask, end, *turn) if view is not None]
    everything = [q, keys, values, out, *given, k, v, *new_turn]
    kind = index_type(e, [*everything, index])
    unchecked = e.bound_input(index, keys.shape[2], wrap=False)
    places = [dim for view in everything for dim in (*view.strides, view.offset)]
    symbols, symbol_args = e.symbol_args([keys.shape[2], index.offset, *places])

    params = {
        "index_type": kind,
        "symbols": symbols,
        "group": e.target.group,
        "rows": 1,
        "lanes": lanes,
        "queries": "1",
        "causal": False,
        "out_type": SHORT[out.dtype],
        **operands(kind, node, q, keys, values, mask, end, turn, out),
        "step": {
            "k": operand(kind, k, "g"),
            "v": operand(kind, v, "g"),
            "turn": tuple(operand(kind, view, "g") for view in new_turn),
            "index_offset": size_text(index.offset),
        },
    }
    cached = product(keys.shape) * ITEM_SIZE[keys.dtype] + product(values.shape) * ITEM_SIZE[values.dtype]
    e.call(
        "attention",
        "step",
        "ops/attention_group.cl.j2",
        params,
        node=node,
        shown={"d": width},
        args=[
            BufferUse(q.buffer, "r"),
            *(BufferUse(view.buffer, "rw") for view in (keys, values)),
            *(BufferUse(view.buffer, "r") for view in given),
            *(BufferUse(view.buffer, "r") for view in (k, v, index)),
            BufferUse(out.buffer, "w"),
            *symbol_args,
        ],
        global_size=(e.target.group, heads, batch),
        local_size=(e.target.group, 1, 1),
        cost=Cost(2 * product(q.shape[:2]) * keys.shape[2] * (width + value_width), cached, out.spec.nbytes),
        indexes=unchecked,
    )


def _emit_apart(e: Emitter, node: Node) -> None:
    """As the two nodes that it stands for."""
    cache = replace(
        node,
        op="cache_rows",
        inputs=(*node.inputs[:5], *node.inputs[8:]),
        outputs=node.outputs[:2],
        outs=node.outs[:2],
        attrs={},
    )
    rest = (*node.inputs, None, None)[6:8] if len(node.inputs) <= 8 else node.inputs[6:]
    attention = replace(
        node,
        op="attention",
        inputs=(node.inputs[5], *node.outputs[:2], *rest),
        outputs=node.outputs[2:],
        outs=node.outs[2:],
        attrs={**node.attrs, "causal": False},
    )
    for part in (cache, attention):
        emit = op_def(part.op).emit
        assert emit is not None
        emit(e, part)


_PLAIN = {"scale": 0.25}

register(
    OpDef(
        "attention_step",
        _infer,
        _reference,
        emit=_emit,
        updates=2,
        rtol=2e-5,
        atol=2e-5,
        cases=(
            Case(
                (
                    *((2, 2, 29, 16), (2, 2, 29, 8), (2, 2, 1, 16), (2, 2, 1, 8), (1,), (2, 6, 1, 16)),
                    *((2, 1, 1, 29), (2, 1, 1, 1), (1, 1, 1, 16), (16,)),
                ),
                _PLAIN,
                values=(
                    *("normal", "float16", "normal", "normal", "index:29", "normal", "bool", "index:29"),
                    *("normal", "float16"),
                ),
            ),
            Case(
                ((1, 1, 300, 64), (1, 1, 300, 64), (1, 1, 1, 64), (1, 1, 1, 64), (1,), (1, 4, 1, 64)),
                _PLAIN,
                values=("float16", "float16", "normal", "normal", "index:300", "normal"),
            ),
            Case(
                (
                    *((1, 3, 7, 6), (1, 3, 7, 5), (1, 3, 1, 6), (1, 3, 1, 5), (1,), (1, 3, 1, 6), (7,)),
                    *(None, (6,), (1, 6)),
                ),
                _PLAIN,
                values=(*("normal",) * 4, "index:7", *("normal",) * 5),
            ),
            Case(
                ((1, 2, 5, 40), (1, 2, 5, 40), (1, 2, 1, 40), (1, 2, 1, 40), (1,), (1, 2, 1, 40)),
                _PLAIN,
                values=(*("normal",) * 4, "index:5", "normal"),
            ),
        ),
    )
)
