"""``CompiledProgram`` under its documented name."""

from npu_runtime.program import CompiledProgram

__all__ = ["CompiledProgram"]
