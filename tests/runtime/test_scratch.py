"""Memories that scratch buffers have one after the other, where an arena does not fit or slows launches."""

from __future__ import annotations

import numpy as np
import pytest
from graphs import replaced
from programs import saxpy_square

from npu_runtime import drivers
from npu_runtime.errors import DeviceError
from npu_runtime.executor import Executor
from npu_runtime.null_device import NullDevice
from npu_runtime.program import Buffer, Symbol
from npu_runtime.scratch import slots
from npu_runtime.weight_loader import load_weights

PROGRAM = saxpy_square()
STATE_DICT = {"weight": np.array([1, 2, 4], np.float32), "bias": np.array([0.5, 0.25, -1], np.float32)}


@pytest.mark.parametrize("seed", range(5))
def test_buffers_of_one_memory_are_never_in_use_together(seed: int) -> None:
    rng = np.random.default_rng(seed)
    spans = [sorted(rng.integers(0, 30, 2)) for _ in range(40)]
    sizes = rng.integers(0, 1000, 40)
    buffers = [
        Buffer(f"b{i}", "scratch", int(size), first=int(first), last=int(last))
        for i, (size, (first, last)) in enumerate(zip(sizes, spans, strict=True))
    ]
    made = slots(buffers)
    assert sorted(buffer.name for slot in made for buffer in slot.buffers) == sorted(b.name for b in buffers)
    for slot in made:
        assert slot.nbytes == max(1, *(int(buffer.nbytes) for buffer in slot.buffers))
        assert all(a.last < b.first for a, b in zip(slot.buffers, slot.buffers[1:], strict=False))
    assert len(made) < len(buffers)


@pytest.mark.parametrize("device", [NullDevice(kind="gpu"), NullDevice(largest=8000)], ids=["gpu", "small"])
def test_a_program_runs_without_an_arena(device: NullDevice) -> None:
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    Executor(PROGRAM, device).run({"x": x}, load_weights(STATE_DICT, PROGRAM, device))
    assert device.launched == ["step 0 (saxpy)", "step 1 (saxpy)", "step 2 (square)"]


def test_a_buffer_larger_than_any_memory_is_refused() -> None:
    says = r"hand main: scratch 'hidden' of mul, add has 8000 bytes, .* null has 7999: lower the upper bounds"
    with pytest.raises(DeviceError, match=says):
        Executor(PROGRAM, NullDevice(largest=7999))
    says = r"weight 'w3' of mul, add has 12 bytes, .* null has 11: compile for a target .*_bytes is 11"
    small = saxpy_square(symbols=(Symbol("n", 1, 1),))
    tiny = tuple(replaced(b, nbytes=8) if b.name == "hidden" else b for b in small.buffers)
    with pytest.raises(DeviceError, match=says):
        Executor(replaced(small, buffers=tiny), NullDevice(largest=11))


def test_nvidias_driver_is_found_outside_the_linkers_path(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path_factory.mktemp("driver")
    monkeypatch.setattr(drivers, "_SYSTEM", folder / "absent")
    monkeypatch.setattr(drivers, "_NVIDIA_FOLDERS", (folder / "absent", folder))
    assert drivers.icd_entries()["nvidia.icd"] == "libnvidia-opencl.so.1"
    (folder / "libnvidia-opencl.so.1").touch()
    assert drivers.icd_entries()["nvidia.icd"] == str(folder / "libnvidia-opencl.so.1")
