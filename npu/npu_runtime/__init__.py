"""Runs compiled programs on OpenCL devices. Needs numpy and pyopencl, never PyTorch.

Names are imported when they are first used, so that ``import npu_runtime`` costs next to nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from npu_runtime.buffer import NPUBuffer
    from npu_runtime.dag_executor import DAGExecutor
    from npu_runtime.device import Device, list_devices
    from npu_runtime.errors import (
        DeviceError,
        FormatError,
        InputError,
        NoDeviceError,
        NpubinError,
        WeightsMismatchError,
    )
    from npu_runtime.executor import Executor
    from npu_runtime.null_device import NullDevice
    from npu_runtime.profiler import Profiler
    from npu_runtime.program import CompiledProgram
    from npu_runtime.weight_loader import Weights, load_weights, prepare_file

_HOMES = {
    "buffer": ("NPUBuffer",),
    "dag_executor": ("DAGExecutor",),
    "device": ("Device", "list_devices"),
    "errors": (
        "DeviceError",
        "FormatError",
        "InputError",
        "NoDeviceError",
        "NpubinError",
        "WeightsMismatchError",
    ),
    "executor": ("Executor",),
    "null_device": ("NullDevice",),
    "profiler": ("Profiler",),
    "program": ("CompiledProgram",),
    "weight_loader": ("Weights", "load_weights", "prepare_file"),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "CompiledProgram",
    "DAGExecutor",
    "Device",
    "DeviceError",
    "Executor",
    "FormatError",
    "InputError",
    "NPUBuffer",
    "NoDeviceError",
    "NpubinError",
    "NullDevice",
    "Profiler",
    "Weights",
    "WeightsMismatchError",
    "list_devices",
    "load_weights",
    "prepare_file",
]


def __getattr__(name: str) -> object:
    if name in _HOME_OF:
        return getattr(import_module(f"npu_runtime.{_HOME_OF[name]}"), name)
    raise AttributeError(f"module 'npu_runtime' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
