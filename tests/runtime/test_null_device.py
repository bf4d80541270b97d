"""The device that computes nothing refuses what a real one would suffer from."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from programs import read, saxpy_square, write

from npu_runtime.backend import Launch
from npu_runtime.errors import DeviceError
from npu_runtime.executor import Executor
from npu_runtime.null_device import NullDevice
from npu_runtime.program import BufferArg, CompiledProgram, ScalarArg, Step
from npu_runtime.weight_loader import load_weights

SOURCE = """
/* __kernel void hidden(int a) {} */
__kernel __attribute__((reqd_work_group_size(4, 1, 1)))
void k(__global const float * restrict a, global float *b, const int n, long m) { }
// __kernel void hidden2(int a) {}
__kernel void none(void) {}
"""


def _device() -> tuple[NullDevice, object]:
    device = NullDevice()
    return device, device.build([("kernels/k.cl", SOURCE)], [])


def test_signatures_are_read_from_the_source() -> None:
    device, module = _device()
    assert [device.kernel(module, name, "step").num_args for name in ("k", "none")] == [4, 0]
    for name in ("hidden", "hidden2", "k2"):
        with pytest.raises(DeviceError, match="no kernel"):
            device.kernel(module, name, "step 3")


def _launch(
    global_size: tuple[int, ...] = (8,),
    local: tuple[int, ...] | None = None,
    *,
    skip: int = -1,
    ready: bool = True,
) -> None:
    device, module = _device()
    kernel = device.kernel(module, "k", "step 3")
    a, b = device.allocate(16), device.allocate(16)
    if ready:
        device.zero(a)
    for index, bind in enumerate(
        (
            lambda i: device.set_memory(kernel, i, a, "r"),
            lambda i: device.set_memory(kernel, i, b, "w"),
            lambda i: device.set_scalar(kernel, i, 3, "int"),
            lambda i: device.set_scalar(kernel, i, 3, "long"),
        )
    ):
        if index != skip:
            bind(index)
    device.launch([Launch(kernel, global_size, local)])
    assert device.launched == ["step 3"]
    device.read(b, np.empty(16, np.uint8))


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: _launch(skip=2), r"arguments \[2\] are not set"),
        (lambda: _launch(ready=False), "argument 0 reads memory that nothing has written"),
        (lambda: _launch((0,)), "global size"),
        (lambda: _launch((1, 1, 1, 1)), "global size"),
        (lambda: _launch((8,), (3,)), "local size"),
        (lambda: _launch((4096,), (2048,)), "local size"),
        (lambda: _launch((8,), (2, 2)), "local size"),
    ],
)
def test_launches_are_checked(call: Callable[[], None], says: str) -> None:
    _launch((8, 2), (4, 1))
    with pytest.raises(DeviceError, match=says):
        call()


def _with_step(*args: BufferArg | ScalarArg) -> CompiledProgram:
    return saxpy_square(steps=(Step("saxpy", args, (4,)), *saxpy_square().steps))


@pytest.mark.parametrize(
    ("program", "says"),
    [
        (
            _with_step(write("h"), read("w"), write("hidden"), ScalarArg(1)),
            "argument 0 is written.*read-only",
        ),
        (_with_step(read("x"), read("w"), write("hidden"), read("x")), "argument 3 is int, not memory"),
        (_with_step(read("x"), ScalarArg(1), write("hidden"), ScalarArg(1)), "argument 1 is memory, not int"),
        (
            _with_step(read("x"), read("w"), write("hidden"), ScalarArg(1, "long")),
            "argument 3 is int, not long",
        ),
        (
            _with_step(read("hidden"), read("w"), write("h"), ScalarArg(1)),
            "reads memory that nothing has written",
        ),
    ],
)
def test_programs_are_checked(program: CompiledProgram, says: str) -> None:
    device = NullDevice()
    weights = load_weights(
        {"weight": np.ones(3, np.float32), "bias": np.ones(3, np.float32)}, program, device
    )
    with pytest.raises(DeviceError, match=says):
        Executor(program, device).run({"x": np.ones((2, 3), np.float32)}, weights)


def test_overlapping_regions_lose_their_content() -> None:
    device = NullDevice()
    arena = device.allocate(1024)
    low, high = device.region(arena, 0, 256), device.region(arena, 128, 256)
    device.zero(low)
    device.zero(high)
    with pytest.raises(DeviceError, match="nothing has written"):
        device.read(low, np.empty(256, np.uint8))
    device.read(high, np.empty(256, np.uint8))


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda d, m: d.region(m, 64, 8), "not aligned"),
        (lambda d, m: d.region(m, 896, 256), "lies outside"),
        (lambda d, m: d.write(m, np.zeros(1025, np.uint8)), "cannot write 1025"),
        (lambda d, m: d.read(m, np.zeros(1025, np.uint8)), "cannot read 1025"),
        (lambda d, m: d.allocate(-1), "allocate"),
    ],
)
def test_accesses_outside_memory_are_refused(call: Callable[..., object], says: str) -> None:
    device = NullDevice()
    with pytest.raises(DeviceError, match=says):
        call(device, device.allocate(1024))
