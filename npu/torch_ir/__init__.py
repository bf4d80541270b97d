"""PyTorch models as graphs: extraction, the file format, text, and running a graph with PyTorch.

Importing this package does not import PyTorch; ``extract_ir`` and ``torch_ir.eager`` do when they are called.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch_ir.errors import IRError
    from torch_ir.extract import extract_ir
    from torch_ir.ir import IR
    from torch_ir.sharing import share_states

__all__ = ["IR", "IRError", "extract_ir", "share_states"]

_HOMES = {
    "IR": "torch_ir.ir",
    "IRError": "torch_ir.errors",
    "extract_ir": "torch_ir.extract",
    "share_states": "torch_ir.sharing",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'torch_ir' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
