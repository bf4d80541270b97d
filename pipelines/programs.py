"""Compiled programs of a build, whole or in parts, ready to run."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from npu_runtime.backend import Backend
from npu_runtime.dag_executor import DAGExecutor
from npu_runtime.errors import InputError
from npu_runtime.executor import Executor
from npu_runtime.program import CompiledProgram


def open_program(path: Path, device: Backend) -> Executor | DAGExecutor:
    """What runs a ``.npubin`` file, or the parts that a manifest (``parts.json``) names.

    Raises what reading the files and building the kernels raise, and ``InputError`` where a part needs
    PyTorch and it is not installed.
    """
    if path.suffix != ".json":
        return Executor(CompiledProgram.load(path), device)
    from npu_compiler.parts_file import load_parts
    from torch_ir import eager
    parts = load_parts(path)
    others = [part.name for part in parts if part.kind == "fallback"]
    if others and find_spec("torch") is None:
        raise InputError(f"{path}: {', '.join(others)} runs with PyTorch, which is not installed: "
                         "pip install torch")
    return DAGExecutor(parts, device, cpu_runner=eager.run)
