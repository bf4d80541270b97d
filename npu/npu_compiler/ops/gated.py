"""Two products of one input that meet element by element, as in SwiGLU: one product whose weight has their
columns in turns."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from npu_compiler.ctext import Step
from npu_compiler.ops import Attrs, Case, OpDef, Specs, register
from npu_compiler.ops.conv import packed_linear
from npu_compiler.ops.fused import run_body
from npu_compiler.ops.fused_norm import rows_before
from npu_compiler.products import LANES
from npu_compiler.shapes import may_equal, require
from torch_ir.ir import Attr, Node, TensorSpec

if TYPE_CHECKING:
    from npu_compiler.emit import Emitter


def _infer(specs: Specs, attrs: Attrs) -> tuple[TensorSpec, ...]:
    x, w = specs[0], specs[1]
    assert x is not None and w is not None
    columns = w.shape[0]
    fits = w.rank == 2 and isinstance(columns, int) and columns % (2 * LANES) == 0
    require(fits and may_equal(x.shape[-1], w.shape[1]), f"a gated layer over {x.shape} by {w.shape}")
    return (TensorSpec((*x.shape[:-1], columns // 2), x.dtype),)


def _reference(
    torch: Any,
    x: Any,
    w: Any,
    bias: Any = None,
    residual: None = None,
    scale: Any = None,
    *,
    gate: Attr = (),
    epilogue: Attr = (),
    half: str = "",
    norm_eps: float | None = None,
    norm_rounded: str = "",
) -> Any:
    """Rows of ``w`` (and numbers of ``bias``): 8 of the gate, 8 of the other half, and so on. ``gate`` are
    steps on the gate, ``epilogue`` steps on the other half (i0) that may read the gate (i1). With
    ``norm_eps``, rows are normalised before, as in ``linear``."""
    x = rows_before(torch, x, scale, norm_eps, norm_rounded)
    y = torch.nn.functional.linear(x, w, bias)
    halves = y.reshape(*y.shape[:-1], -1, 2, LANES)
    first, second = (halves[..., i, :].reshape(*y.shape[:-1], -1) for i in (0, 1))
    return run_body(torch, epilogue, (second, run_body(torch, gate, (first,))))


def _emit(e: Emitter, node: Node) -> None:
    packed_linear(e, node, e.view(node.inputs[0]))


_SILU = (Step("silu", ("i0",), {}, "float32").pack(),)
_TIMES = (Step("mul", ("i1", "i0"), {}, "float32").pack(),)
_MORE = (*_TIMES, Step("add", ("t0", 0.5), {}, "float32").pack())

register(
    OpDef(
        "gated",
        _infer,
        _reference,
        emit=_emit,
        rtol=2e-5,
        atol=2e-5,
        cases=(
            Case(((1, 40), (48, 40)), {"gate": _SILU, "epilogue": _TIMES}, constant=(1,)),
            Case(((7, 29), (16, 29), (16,)), {"gate": _SILU, "epilogue": _MORE}, constant=(1, 2)),
            Case(((2, 13, 8), (112, 8)), {"gate": (), "epilogue": _TIMES}, constant=(1,)),
            Case(((113, 24), (32, 24)), {"gate": _SILU, "epilogue": _TIMES}, constant=(1,)),
        ),
    )
)
