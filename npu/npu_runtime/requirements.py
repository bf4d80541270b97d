"""What a program asks of a device, checked before anything is built."""

from __future__ import annotations

from npu_runtime.backend import Backend
from npu_runtime.errors import DeviceError
from npu_runtime.program import BufferArg, CompiledProgram
from npu_runtime.symbols import evaluate

#: Instructions of NVIDIA devices that kernels have in inline PTX without another way for other devices.
_PTX = ("mma.sync", "shfl.sync", "cp.async")


def check_capabilities(program: CompiledProgram, device: Backend) -> None:
    """Raises ``DeviceError`` if kernels of ``program`` have inline PTX and ``device`` cannot run it, or gives
    wrong numbers: an NVIDIA device before compute capability 8.0, another vendor's."""
    if any(word in text for text in program.kernel_sources.values() for word in _PTX):
        found = device.capability("ptx")
        if not found.value:
            raise DeviceError(
                f"{program.model} {program.program} was compiled for {program.target!r} and has inline PTX, "
                f"which {device.name} cannot run: compile it for 'gpu' or 'cpu' ({found.reason})"
            )


def check_sizes(program: CompiledProgram, device: Backend) -> None:
    """Raises ``DeviceError``, naming the nodes, if a buffer of ``program`` is larger than the largest memory
    of ``device`` whatever the inputs are."""
    least = {symbol.name: symbol.lower for symbol in program.symbols}
    for buffer in program.buffers:
        size = evaluate(buffer.nbytes, least)
        if size <= device.largest:
            continue
        users = [
            step
            for step in program.steps
            if any(isinstance(arg, BufferArg) and arg.buffer == buffer.name for arg in step.args)
        ]
        nodes = ", ".join(dict.fromkeys(name for step in users[:1] for name in step.origin)) or "no node"
        remedy = {
            "weight": f"compile for a target whose max_alloc_bytes is {device.largest} or less, for which "
            "products and embedding tables are split",
            "scratch": "lower the upper bounds of the dynamic dimensions, or the batch",
        }.get(buffer.kind, "make it smaller")
        raise DeviceError(
            f"{program.model} {program.program}: {buffer.kind} {(buffer.ref or buffer.name)!r} of {nodes} "
            f"has {size} bytes, and the largest buffer of {device.name} has {device.largest}: {remedy}, "
            "or use a device with larger buffers"
        )
