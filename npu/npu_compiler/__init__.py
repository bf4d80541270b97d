"""IR -> OpenCL program. Names load when they are first used, so that importing a part costs only that
part."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from npu_compiler.compiler import CompileResult, compile_ir, compile_with_report
    from npu_compiler.errors import CompileError, UnsupportedOpError
    from npu_compiler.partitioning import Part, Partition, partition
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
    "Part": "npu_compiler.partitioning",
    "Partition": "npu_compiler.partitioning",
    "partition": "npu_compiler.partitioning",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)
