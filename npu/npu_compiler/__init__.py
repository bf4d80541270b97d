"""IR -> OpenCL program. Names load when they are first used, so that importing a part costs only that
part."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from npu_compiler.compiler import CompileResult, compile_ir, compile_with_report
    from npu_compiler.errors import CompileError, UnsupportedOpError
    from npu_compiler.partitioning import partition
    from npu_compiler.parts import Part, Partition
    from npu_runtime.program import CompiledProgram

__all__ = [
    "CompileError",
    "CompileResult",
    "CompiledProgram",
    "Part",
    "Partition",
    "UnsupportedOpError",
    "compile_ir",
    "compile_with_report",
    "partition",
]

_HOME = {
    "compile_ir": "npu_compiler.compiler",
    "compile_with_report": "npu_compiler.compiler",
    "CompileResult": "npu_compiler.compiler",
    "CompileError": "npu_compiler.errors",
    "UnsupportedOpError": "npu_compiler.errors",
    "CompiledProgram": "npu_runtime.program",
    "Part": "npu_compiler.parts",
    "Partition": "npu_compiler.parts",
    "partition": "npu_compiler.partitioning",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)
