"""The passes in order. Each is one function in a file of its own; the order is a decision, with its reason
per line."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

from npu_compiler.errors import CompileError
from npu_compiler.passes import fuse_attention as attention
from npu_compiler.passes import fuse_cache as caches
from npu_compiler.passes import fuse_gate as gates
from npu_compiler.passes import fuse_norm as norms
from npu_compiler.passes import fuse_rotary as rotary
from npu_compiler.passes import join_linear as joins
from npu_compiler.passes.assign_layouts import assign_layouts
from npu_compiler.passes.chain_rows import chain_rows
from npu_compiler.passes.complex_as_pairs import complex_as_pairs
from npu_compiler.passes.decompose import decompose
from npu_compiler.passes.eliminate_dead import eliminate_dead
from npu_compiler.passes.fold_affine import fold_affine
from npu_compiler.passes.fold_pad import fold_pad
from npu_compiler.passes.fuse_attention import fuse_attention
from npu_compiler.passes.fuse_cache import fuse_cache
from npu_compiler.passes.fuse_depthwise import fuse_depthwise
from npu_compiler.passes.fuse_epilogue import fuse_epilogue
from npu_compiler.passes.fuse_gate import fuse_gate
from npu_compiler.passes.fuse_norm import fuse_norm
from npu_compiler.passes.fuse_norm_rows import fuse_norm_rows
from npu_compiler.passes.fuse_pointwise import fuse_pointwise
from npu_compiler.passes.fuse_rotary import fuse_rotary
from npu_compiler.passes.fuse_step import fuse_step
from npu_compiler.passes.join_attention import join_attention
from npu_compiler.passes.join_linear import join_linear
from npu_compiler.passes.lower import lower
from npu_compiler.passes.narrow_linear import narrow_linear
from npu_compiler.passes.resolve_strides import resolve_strides
from npu_compiler.passes.split_large import split_large
from npu_compiler.passes.split_linear import split_linear
from npu_compiler.target import Target
from torch_ir.ir import IR, verify
from torch_ir.printer import to_text

Pass: TypeAlias = Callable[[IR, Target], IR]

PASSES: tuple[Pass, ...] = (
    complex_as_pairs,  # first: what follows knows real numbers only
    resolve_strides,  # while views are PyTorch's: strides are over its memory, not ours
    decompose,  # before lower: what no lowering takes may be made of operations that one does take
    lower,  # before all others: they speak of the registry's ops
    fuse_rotary,  # before what takes rotations in
    join_attention,  # before what attention nodes take in
    fuse_attention,  # before dead nodes go: it leaves copies and casts behind
    fuse_cache,  # likewise; after it, for attention must read the cache itself
    fuse_norm,  # likewise
    eliminate_dead,  # lowerings leave unused parts behind, which would count as users below
    fuse_step,  # after it: nothing else may read what attention and the cache's update share
    fold_pad,  # before layouts: a padded copy of the image would be written and read again
    fold_affine,  # before fusion: what folds into weights costs nothing at run time
    narrow_linear,  # after biases have gone into layers, before activations do
    split_linear,  # likewise: each half gets its own
    fuse_epilogue,  # before fuse_pointwise: in a product's registers an elementwise op is nearly free
    fuse_gate,  # after it: the gate's activation and the product with the other half are epilogues by then
    join_linear,  # after both: a product with an epilogue of its own keeps it
    split_large,  # after it: a joined weight may be too large; before its rows are normalised in the product
    fuse_norm_rows,  # after join_linear: a joined product is the one reader of its rows
    fuse_pointwise,  # takes what is left
    eliminate_dead,  # folded constants that nothing reads any more
    fuse_depthwise,  # after it: folded padding is no reader any more, activations are epilogues
    chain_rows,  # after all fusion: its stages are kernels with all that they take in
    assign_layouts,  # last: it must see the final node boundaries
)

#: What passes left although it looks like their pattern, from the final graph: a line each, with the reason.
MISSED: tuple[Callable[[IR], list[str]], ...] = (
    rotary.missed,
    caches.missed,
    attention.missed,
    norms.missed,
    gates.missed,
    joins.missed,
)


def run_passes(
    ir: IR, target: Target, *, start_after: str | None = None, stop_after: str | None = None
) -> tuple[IR, Mapping[str, str]]:
    """Runs the passes, verifying the graph after each.

    ``stop_after`` names the pass after which to stop, ``start_after`` the one after which ``ir`` was taken: a
    pass's name, with its number in front where it stands in the list twice ("05-eliminate_dead").

    Returns the graph and its text after each pass, by "00-extracted", "01-decompose", ... Raises
    ``CompileError`` for an unknown pass, and what the passes raise.
    """
    titles = [f"{index:02}-{step.__name__}" for index, step in enumerate(PASSES, start=1)]
    begin = 0 if start_after is None else _position(start_after, titles)
    end = len(titles) if stop_after is None else _position(stop_after, titles)
    dumps = {f"{begin:02}-{'extracted' if begin == 0 else PASSES[begin - 1].__name__}": to_text(ir)}
    for title, step in list(zip(titles, PASSES, strict=True))[begin:end]:
        ir = step(ir, target)
        verify(ir, after=step.__name__)
        dumps[title] = to_text(ir)
    return ir, dumps


def _position(name: str, titles: list[str]) -> int:
    """How many passes have run once ``name`` has."""
    found = [index for index, title in enumerate(titles, start=1) if name in (title, title.split("-", 1)[1])]
    if not found:
        raise CompileError(f"unknown pass {name!r}: the passes are {', '.join(titles)}")
    return found[0]
