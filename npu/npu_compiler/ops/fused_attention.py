"""Attention as one kernel: scores never leave a work-item, and key heads serve several query heads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from npu_compiler.ctext import index_text, size_text
from npu_compiler.dtypes import HALF, SHORT, literal
from npu_compiler.errors import Unsupported
from npu_compiler.group_attention import AttentionTile, attention_tile
from npu_compiler.lowering import as_int, as_number
from npu_compiler.ops import Attrs, Case, Cost, OpDef, Specs, register
from npu_compiler.ops.rotary import rotated, tables
from npu_compiler.pointwise import check_dtypes, index_type
from npu_compiler.products import CHAINS
from npu_compiler.rows import rows_along
from npu_compiler.select import BufferUse
from npu_compiler.views import View, expand
from torch_ir.expr import Dim, ceil_div, product
from torch_ir.ir import ITEM_SIZE, Node, TensorSpec

if TYPE_CHECKING:
    from npu_compiler.emit import Emitter

#: Rows per work-item, keys per block of the online softmax; queries per work-group of a wide machine.
ROWS, BLOCK, LANES, GROUP_ROWS = 8, 32, 8, 4
#: Of the kernel with a query in each lane: vectors of queries, keys of a block, keys and numbers of a value
#: in registers (measured).
LANES_TILE = {"wide": 2, "block": 64, "ahead": 6, "abreast": 6}
#: Keys of a part, where work-items share those of a row: in a run at least, by the longest run at least. From
#: how many keys on reading them once is worth more than a kernel less (measured).
LEAST_KEYS, WORTH_KEYS, LONG_KEYS = 128, 512, 8192
#: Wider heads do not fit a work-item's private memory well.
MAX_WIDTH = 256


def _infer(specs: Specs, attrs: Attrs) -> tuple[TensorSpec, ...]:
    q, v = specs[0], specs[2]
    assert q is not None and v is not None
    return (TensorSpec((*q.shape[:-1], v.shape[-1]), "float32"),)


def _reference(
    torch: Any,
    q: Any,
    k: Any,
    v: Any,
    mask: Any = None,
    end: Any = None,
    cos: Any = None,
    sin: Any = None,
    *,
    scale: float,
    causal: bool,
    cap: float = 0.0,
    half: str = "",
) -> Any:
    """PyTorch's, with rows that see nothing set to 0 where it gives NaN. ``end`` [.., queries, 1]: how many
    keys a row may see at most. ``cos``, ``sin``: queries are rotated by them. ``cap``: scores are brought
    between -cap and cap, by a hyperbolic tangent. ``half``: in the model the operands are numbers of this
    dtype, and may be rounded to it."""
    if cos is not None:
        q = rotated(torch, q, cos, sin)
    k, v = (x.float().repeat_interleave(q.shape[1] // x.shape[1], 1) for x in (k, v))
    scores = q @ k.transpose(-1, -2) * scale
    if cap:
        scores = torch.tanh(scores / cap) * cap
    if causal:
        scores = scores.masked_fill(~torch.ones(scores.shape[-2:], dtype=torch.bool).tril(), -torch.inf)
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else scores + mask
    if end is not None:
        scores = scores.masked_fill(torch.arange(k.shape[2]) >= end, -torch.inf)
    return torch.ops.aten._safe_softmax(scores, -1) @ v


def _emit(e: Emitter, node: Node) -> None:
    q, k, v = (e.view(value) for value in node.inputs[:3])
    mask, end = (e.view(v) if v else None for v in (*node.inputs[3:5], None, None)[:2])
    check_dtypes(e, [q.dtype])
    check_dtypes(e, [view.dtype for view in (k, v)], stored=True)
    width, value_width = as_int(q.shape[-1]), as_int(v.shape[-1])
    batch, heads, queries = q.shape[:3]
    if any(e.bounds(size)[1] == 0 for size in node.out.shape):
        e.output(node)
        return
    turned = len(node.inputs) > 5
    lanes = LANES if width % (LANES << turned) == 0 and value_width % LANES == 0 else 1
    q, k, v = (readable(e, node, view, lanes, tag) for view, tag in ((q, "q"), (k, "k"), (v, "v")))
    k, v = (expand(view, (batch, *view.shape[1:])) for view in (k, v))
    out = made = e.output(node, order=(0, 2, 1, 3))
    if mask is not None:
        mask = expand(mask, (batch, heads, queries, k.shape[2]))
    if end is not None:
        end = expand(end, (batch, heads, queries, 1))
    rotation: list[View] = []
    if turned:
        named = zip(tables(e, node, node.inputs[5:7], q), ("cos", "sin"), strict=True)
        rotation = [readable(e, node, view, lanes, tag) for view, tag in named]
    given = [view for view in (mask, end, *rotation) if view is not None]
    group, groups = e.target.group, as_int(heads) // as_int(k.shape[1])
    most = e.bounds(queries)[1]
    rows, parts = min(GROUP_ROWS, most), 1
    cap = float(as_number(node.attrs.get("cap", 0.0)))
    if cap and group > 1:
        raise Unsupported("attention with capped scores", "compile it for another target")
    if group == 1:
        rows, parts = _shares(e, most * groups, e.bounds(batch * k.shape[1])[1], e.bounds(k.shape[2])[1])
    if parts > 1:
        shape = (batch, heads, queries, parts * (value_width + LANES))
        made = e.scratch(f"{node.name}:parts", TensorSpec(shape, "float32"))
    everything = [q, k, v, made, *given]
    kind = index_type(e, everything)
    tile = attention_tile(e, node, (width, value_width), queries, rows, lanes)
    whole = all(view.dtype == "float32" for view in (k, v))
    if group == 1 and whole and parts == 1 and rows == ROWS and most * groups > ROWS:
        tile = _lanes_tile(mask, groups, vectors=lanes == LANES)
    symbols, symbol_args = e.symbol_args(
        [queries, k.shape[2], *(dim for view in everything for dim in (*view.strides, view.offset))]
    )

    params = {
        "index_type": kind,
        "symbols": symbols,
        **(
            {"out_type": SHORT[out.dtype]}
            if group > 1
            else {"cap": literal(cap, "float32") if cap else None}
        ),
        **(
            {**_chains(rows, value_width // lanes), "parts": parts, "least": LEAST_KEYS}
            if tile.variant == "online"
            else {}
        ),
        **tile.params,
        **({"step": None} if tile.variant == "group" else {}),
        "queries": size_text(queries),
        "causal": bool(node.attrs["causal"]),
        **operands(kind, node, q, k, v, mask, end, rotation, made),
    }
    if tile.variant == "lanes":
        del params["key_type"], params["value_type"]
    e.call(
        "attention",
        tile.variant,
        tile.template,
        params,
        node=node,
        shown={"d": width},
        args=[
            *(BufferUse(view.buffer, "r") for view in (q, k, v, *given)),
            BufferUse(made.buffer, "w"),
            *symbol_args,
        ],
        global_size=(
            (ceil_div(queries * groups, tile.rows) * parts, k.shape[1], batch)
            if group == 1
            else (ceil_div(queries, tile.rows) * tile.group, heads, batch)
        ),
        local_size=(tile.group, 1, 1),
        cost=_cost(node, q.shape, k, v),
    )
    if parts > 1:
        _combine(e, node, made, out, parts)


def _lanes_tile(mask: View | None, groups: int, *, vectors: bool) -> AttentionTile:
    """A query in each lane: the tile where there are more of them than the other kernel keeps apart."""
    uniform = mask is not None and mask.strides[2] == 0 and (groups == 1 or mask.strides[1] == 0)
    params = {**LANES_TILE, "uniform": uniform, "vectors": vectors}
    return AttentionTile("lanes", "ops/attention_lanes.cl.j2", 1, LANES * LANES_TILE["wide"], params)


def operands(
    kind: str,
    node: Node,
    q: View,
    k: View,
    v: View,
    mask: View | None,
    end: View | None,
    turn: Sequence[View],
    out: View,
) -> dict[str, Any]:
    """What every template of attention is told of its operands; ``turn``: the tables that rotate queries."""
    return {
        "width": as_int(q.shape[-1]),
        "value_width": as_int(v.shape[-1]),
        "groups": as_int(q.shape[1]) // as_int(k.shape[1]),
        "scale": literal(float(as_number(node.attrs["scale"])), "float32"),
        "keys": size_text(k.shape[2]),
        "mask": None if mask is None else "bool" if mask.dtype == "bool" else "add",
        "bounded": end is not None,
        "tables": tuple(SHORT[view.dtype] for view in turn),
        "key_type": SHORT[k.dtype],
        "value_type": SHORT[v.dtype],
        "q": operand(kind, q, "h"),
        "k": operand(kind, k, "g"),
        "v": operand(kind, v, "g"),
        "m": None if mask is None else operand(kind, mask, "h"),
        "e": None if end is None else operand(kind, end, "h"),
        "turn": tuple(operand(kind, view, "h") for view in turn),
        "out": operand(kind, out, "h"),
    }


def operand(kind: str, view: View, head: str) -> dict[str, str]:
    """Where rows of ``view`` [B, heads, rows, width] lie: ``head`` is the head's variable in the kernel."""
    base = index_text([("b", view.strides[0]), (head, view.strides[1])], view.offset, kind)
    return {"base": base, "row": size_text(view.strides[2]), "column": size_text(view.strides[3])}


def _shares(e: Emitter, rows: int, key_heads: int, keys: int) -> tuple[int, int]:
    """How many of the ``rows`` of a key head a work-item takes, and in how many parts the keys.

    Where whole tiles would leave the device idle, work-items share first the rows, then the keys, and keys
    first where they are long; keys only where a part has enough of them."""
    wanted = e.target.busy_groups // key_heads
    tiles = -(-rows // ROWS)
    if keys < LONG_KEYS:
        tiles = max(tiles, min(wanted, rows // (ROWS // 2)))
    parts = min(wanted // tiles, keys // WORTH_KEYS)
    if parts < 2:
        parts, tiles = 1, max(tiles, min(wanted, rows))
    return -(-rows // tiles), parts


def _combine(e: Emitter, node: Node, made: View, out: View, parts: int) -> None:
    """What the parts of the keys gave, put together."""
    rows = rows_along(e, 3, [out, made])
    params = {
        **rows.params,
        "parts": parts,
        "value_width": as_int(out.shape[3]),
        "parts_base": rows.bases[1],
        "out_base": rows.bases[0],
        "out_step": rows.steps[0],
    }
    numbers = parts * product(out.shape)
    e.call(
        "attention",
        "combine",
        "ops/attention_combine.cl.j2",
        params,
        node=node,
        shown={"p": parts},
        args=[BufferUse(made.buffer, "r"), BufferUse(out.buffer, "w"), *rows.symbol_args],
        global_size=(rows.items,),
        local_size=(1,),
        cost=Cost(2 * numbers, 4 * numbers, out.spec.nbytes),
    )


def _chains(rows: int, vectors: int) -> dict[str, int]:
    """How many keys (ahead) and how many of a value's vectors (abreast) a work-item takes at a time."""
    fitting = [n for n in (4, 2, 1) if rows * n <= CHAINS or n == 1]
    abreast = next(n for n in fitting if vectors % n == 0)
    return {"block": BLOCK, "ahead": fitting[0], "abreast": abreast}


def _cost(node: Node, q: tuple[Dim, ...], k: View, v: View) -> Cost:
    pairs = product(q[:3]) * k.shape[2]
    return Cost(
        2 * pairs * (q[3] + v.shape[3]),
        product(q) * 4 + sum((product(view.shape) * ITEM_SIZE[view.dtype] for view in (k, v)), 0),
        node.out.nbytes,
    )


def readable(e: Emitter, node: Node, view: View, lanes: int, tag: str) -> View:
    """The view, or a copy of it, whose rows are contiguous and start at a vector's alignment."""
    contiguous = view.strides[3] == 1 or view.shape[3] == 1
    if contiguous and all(e.divides(lanes, dim) for dim in (*view.strides[:3], view.offset)):
        return view
    made = e.scratch(f"{node.name}:{tag}", view.spec)
    e.copy(view, made, node)
    return made


def fits(q: TensorSpec, k: TensorSpec, v: TensorSpec, mask: TensorSpec | None) -> bool:
    """Whether the kernel takes these operands: [batch, heads, length, width], float32 (keys and values in 16
    bits as well), numbers of heads and widths known, a mask of booleans or of what is added to the scores."""
    widths = (q.shape[-1], v.shape[-1])
    return (
        q.rank == k.rank == v.rank == 4
        and q.dtype == "float32"
        and all(spec.dtype == "float32" or spec.dtype in HALF for spec in (k, v))
        and all(isinstance(width, int) and 0 < width <= MAX_WIDTH for width in widths)
        and all(isinstance(spec.shape[1], int) and spec.shape[1] > 0 for spec in (q, k, v))
        and k.shape[1] == v.shape[1]
        and all(spec.shape[0] in (1, q.shape[0]) for spec in (k, v))
        and as_int(q.shape[1]) % as_int(k.shape[1]) == 0
        and (mask is None or (mask.rank <= 4 and mask.dtype in ("bool", "float32")))
    )


_PLAIN = {"scale": 0.125, "causal": False}
_CAUSAL = {"scale": 0.5, "causal": True}

register(
    OpDef(
        "attention",
        _infer,
        _reference,
        emit=_emit,
        half=True,
        rtol=2e-5,
        atol=2e-5,
        cases=(
            Case(((1, 2, 7, 16), (1, 2, 7, 16), (1, 2, 7, 16)), _PLAIN),
            Case(((2, 6, 5, 8), (2, 2, 37, 8), (2, 2, 37, 24)), _PLAIN),
            Case(((1, 4, 1, 64), (1, 2, 113, 64), (1, 2, 113, 64)), _PLAIN),
            Case(((1, 3, 33, 16), (1, 3, 33, 16), (1, 3, 33, 16)), _CAUSAL),
            Case(((2, 2, 3, 5), (2, 1, 29, 5), (2, 1, 29, 7)), _CAUSAL),
            Case(((1, 1, 1, 1), (1, 1, 1, 1), (1, 1, 1, 1)), _PLAIN),
            Case(((2, 2, 7, 8), (2, 2, 65, 8), (2, 2, 65, 8), (2, 1, 7, 65)), _PLAIN),
            Case(
                ((1, 4, 3, 8), (1, 2, 41, 8), (1, 2, 41, 8)), _PLAIN, values=("normal", "float16", "float16")
            ),
            Case(
                ((1, 2, 3, 5), (1, 2, 9, 5), (1, 2, 9, 3)), _CAUSAL, values=("normal", "float16", "float16")
            ),
            Case(((1, 1, 2, 37), (1, 1, 5, 37), (1, 1, 5, 3)), _PLAIN),
            Case(
                ((2, 4, 5, 16), (2, 2, 71, 16), (2, 2, 71, 16), (2, 1, 5, 71), (2, 1, 5, 1)),
                _PLAIN,
                values=("normal", "float16", "float16", "bool", "index:71"),
            ),
            Case(
                ((1, 2, 7, 32), (1, 1, 7, 32), (1, 1, 7, 32), None, None, (1, 1, 7, 32), (7, 32)),
                _CAUSAL,
                values=("normal", "normal", "normal", "normal", "normal", "float16", "normal"),
            ),
            Case(
                ((1, 3, 1, 6), (1, 1, 41, 6), (1, 1, 41, 4), (41,), (1,), (6,), (1, 6)),
                _PLAIN,
                values=("normal", "normal", "normal", "normal", "index:41", "normal", "normal"),
            ),
            Case(
                ((1, 3, 1, 8), (1, 1, 1031, 8), (1, 1, 1031, 16), None, (1,)),
                _PLAIN,
                values=("normal", "float16", "float16", "normal", "index:1031"),
            ),
            Case(
                ((2, 4, 13, 6), (2, 2, 71, 6), (2, 2, 71, 5), (2, 4, 13, 71), (2, 1, 13, 1)),
                _PLAIN,
                values=("normal", "normal", "normal", "normal", "index:71"),
            ),
            Case(
                ((2, 4, 12, 16), (2, 2, 130, 16), (2, 2, 130, 16), (2, 1, 1, 130)),
                _PLAIN,
                values=("normal", "normal", "normal", "bool"),
            ),
            Case(
                ((1, 2, 19, 8), (1, 1, 67, 8), (1, 1, 67, 8), (19, 67), (1, 1, 1, 1)),
                _CAUSAL,
                values=("normal", "normal", "normal", "bool", "index:67"),
            ),
            Case(((1, 2, 21, 7), (1, 2, 67, 7), (1, 2, 67, 3), (1, 1, 1, 67)), _PLAIN),
            Case(
                ((1, 2, 17, 32), (1, 1, 17, 32), (1, 1, 17, 32), None, None, (1, 1, 17, 32), (17, 32)),
                _CAUSAL,
                values=("normal", "normal", "normal", "normal", "normal", "float16", "normal"),
            ),
            Case(((1, 2, 1, 5), (1, 1, 1027, 5), (1, 1, 1027, 3), (2, 1, 1027)), _PLAIN),
            Case(
                ((2, 4, 5, 16), (2, 2, 13, 16), (2, 2, 13, 16), (2, 1, 1, 13)),
                _PLAIN,
                values=("normal", "normal", "normal", "bool"),
            ),
            # a query in each lane
            Case(((2, 4, 33, 7), (2, 2, 67, 7), (2, 2, 67, 5), (1, 1, 1, 67)), _PLAIN),
            Case(((2, 2, 67, 8), (2, 2, 65, 8), (2, 2, 65, 8), (2, 2, 67, 65)), _PLAIN),
            Case(
                ((2, 4, 34, 6), (2, 2, 34, 6), (2, 2, 34, 6), None, (2, 1, 34, 1), (1, 1, 34, 6), (34, 6)),
                _PLAIN,
                values=("normal", "normal", "normal", "normal", "index:34", "float16", "normal"),
            ),
        ),
    )
)
