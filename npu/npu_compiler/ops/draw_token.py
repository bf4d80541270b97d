"""A token per row of logits, by the rules of ``npu_runtime.sampling``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from npu_compiler.errors import Unsupported
from npu_compiler.ops import Attrs, Case, Cost, OpDef, Specs, register
from npu_compiler.select import BufferUse, Param, ScalarUse
from torch_ir.expr import Dim, product
from torch_ir.ir import Node, TensorSpec

if TYPE_CHECKING:
    from npu_compiler.emit import Emitter

#: log2(e) in units of 2**-31, and the polynomial for 2**-f in units of 2**-32: as the runtime's sampler.
LOG2_E = 3098164009
EXP2 = (4294967296, 2977044471, 1031764939, 238387495, 41304489, 5712048, 639488, 48550)
#: The sum of as many of the largest weights, 2**40, fits into 64 bits; float32 holds their number.
MOST_TOKENS = 1 << 23
LEVELS = range(4)


def _infer(specs: Specs, attrs: Attrs) -> tuple[TensorSpec, ...]:
    assert specs[0] is not None
    return TensorSpec(specs[0].shape[:-1], "int64"), TensorSpec(specs[0].shape[:-1], "float32")


def _bounds(node: Node, specs: Specs) -> tuple[tuple[Dim, Dim], None]:
    assert specs[0] is not None
    return (0, specs[0].shape[-1] - 1), None


def _emit(e: Emitter, node: Node) -> None:
    x, rules, chance = (e.dense(e.view(value), node, f"dense{at}") for at, value in enumerate(node.inputs))
    token, best = e.output(node, 0), e.output(node, 1)
    length, rows = x.shape[-1], product(x.shape[:-1])
    if not isinstance(length, int) or not isinstance(rows, int) or not 0 < length <= MOST_TOKENS:
        raise Unsupported(f"a token of {length} logits", f"fix the sizes, {MOST_TOKENS} logits at most")
    if (x.dtype, rules.dtype, chance.dtype) != ("float32", "float32", "int64") or any(
        view.offset != 0 for view in (x, rules, chance)
    ):
        raise Unsupported("logits that are not float32 in memory of their own", "convert them before")
    group = e.target.group
    grain = 4 * group if group > 1 else 4 * e.target.grain
    chunks = -(-length // grain)
    scratch = {
        "tops": TensorSpec((rows, chunks), "int32"),
        "bins": TensorSpec((rows, 4, 3, 256), "int32"),
        "found": TensorSpec((rows, 8, 2), "int64"),
        "sums": TensorSpec((rows, chunks, 2), "int64"),
    }
    buffers = {name: e.scratch(f"{node.name}:{name}", spec) for name, spec in scratch.items()}
    buffers |= {"x": x, "rules": rules, "chance": chance, "token": token, "best": best}
    arguments = {
        "best": "r:x w:tops w:bins",
        "rank": "r:x r:rules rw:bins rw:found",
        "mass": "r:x r:rules r:tops rw:bins rw:found",
        "sums": "r:x r:rules r:tops r:bins rw:found w:sums",
        "draw": "r:x r:rules r:chance r:tops r:found r:sums w:token w:best",
    }
    params: dict[str, Param] = {"group": group, "grain": grain, "length": length, "chunks": chunks}
    params |= {"log2_e": LOG2_E, "terms": EXP2}
    for part, levels in (("best", [0]), ("rank", LEVELS), ("mass", LEVELS), ("sums", [0]), ("draw", [0])):
        for level in levels:
            uses = [use.partition(":") for use in arguments[part].split()]
            first = part == "rank" and level == 0
            e.call(
                "draw_token",
                part,
                "ops/draw_token.cl.j2",
                {**params, "part": part},
                node=node,
                args=[
                    *(
                        BufferUse(buffers[name].buffer, "w" if first and name == "found" else access)
                        for access, _, name in uses
                    ),
                    *([ScalarUse(level)] if len(levels) > 1 else []),
                ],
                global_size=(group if part == "draw" else chunks * group, rows),
                local_size=(group, 1),
                cost=Cost(x.spec.numel, x.spec.nbytes) if part != "draw" else Cost(grain, 4 * grain),
            )


def _reference(torch: Any, logits: Any, rules: Any, chance: Any) -> Any:
    """In float64, by sorting."""
    inverse, top_k, left_out, min_p = rules.double().tolist()
    rows, length = logits.reshape(-1, logits.shape[-1]).double(), logits.shape[-1]
    tokens = []
    for row, number in zip(rows, chance.reshape(-1), strict=True):
        shares = torch.exp((row - row.max()) * inverse)
        order = torch.argsort(row, stable=True)
        if 1 <= top_k < length:
            order = order[row[order] >= row[order[-int(top_k)]]]
        sums = shares[order].cumsum(0)
        inside = sums > min(max(left_out, 0), 1) * sums[-1]
        inside[-1] = True
        order = order[inside]
        order = order[shares[order] >= min(min_p, 1)].sort().values
        sums = shares[order].cumsum(0)
        tokens.append(order[int((sums <= sums[-1] * (int(number) / 2**53)).sum())])
    return torch.stack(tokens).reshape(chance.shape), logits.amax(-1)


register(
    OpDef(
        "draw_token",
        _infer,
        _reference,
        emit=_emit,
        bounds=_bounds,
        cases=(
            Case(((7, 113), (4,), (7,)), values=("normal", "positive", f"index:{1 << 53}")),
            Case(((3, 1025), (4,), (3,)), values=("normal", "positive", f"index:{1 << 53}")),
            Case(((1, 1, 20011), (4,), (1, 1)), values=("normal", "positive", f"index:{1 << 53}")),
        ),
    )
)
