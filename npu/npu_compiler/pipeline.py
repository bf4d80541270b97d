"""The passes in order. Each is one function in a file of its own; the order is a decision, with its reason
per line."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

from npu_compiler.errors import CompileError
from npu_compiler.passes.assign_layouts import assign_layouts
from npu_compiler.passes.eliminate_dead import eliminate_dead
from npu_compiler.passes.fold_affine import fold_affine
from npu_compiler.passes.fold_pad import fold_pad
from npu_compiler.passes.fuse_epilogue import fuse_epilogue
from npu_compiler.passes.fuse_pointwise import fuse_pointwise
from npu_compiler.passes.lower import lower
from npu_compiler.target import Target
from torch_ir.ir import IR, verify
from torch_ir.printer import to_text

Pass: TypeAlias = Callable[[IR, Target], IR]

PASSES: tuple[Pass, ...] = (
    lower,  # first: everything else speaks of the registry's ops
    eliminate_dead,  # lowerings leave unused parts behind, which would count as users below
    fold_pad,  # before layouts: a padded copy of the image would be written and read again
    fold_affine,  # before fusion: what folds into weights costs nothing at run time
    fuse_epilogue,  # before fuse_pointwise: in a product's registers an elementwise op is nearly free
    fuse_pointwise,  # takes what is left
    eliminate_dead,  # folded constants that nothing reads any more
    assign_layouts,  # last: it must see the final node boundaries
)


def run_passes(ir: IR, target: Target, *, stop_after: str | None = None) -> tuple[IR, Mapping[str, str]]:
    """Runs the passes, verifying the graph after each.

    Returns the graph and its text after each pass, by "00-extracted", "01-lower", ... ``stop_after`` names
    the pass after which to stop. Raises ``CompileError`` for an unknown pass, and what the passes raise.
    """
    names = [step.__name__ for step in PASSES]
    if stop_after is not None and stop_after not in names:
        raise CompileError(f"unknown pass {stop_after!r}: the passes are {', '.join(dict.fromkeys(names))}")
    dumps = {"00-extracted": to_text(ir)}
    for index, step in enumerate(PASSES, start=1):
        ir = step(ir, target)
        verify(ir, after=step.__name__)
        dumps[f"{index:02}-{step.__name__}"] = to_text(ir)
        if step.__name__ == stop_after:
            break
    return ir, dumps
