"""Running programs on every device of this machine."""

from __future__ import annotations

import gc
import threading
import warnings
from typing import Any

import ml_dtypes
import msgspec
import numpy as np
import pytest
from programs import accumulator, embedding, make, read, saxpy_square, write

from npu_runtime import executor as executor_module
from npu_runtime.backend import Backend
from npu_runtime.buffer import NPUBuffer
from npu_runtime.device import Device
from npu_runtime.errors import DeviceError, InputError
from npu_runtime.executor import Executor
from npu_runtime.null_device import NullDevice
from npu_runtime.program import Buffer, ScalarArg, Step
from npu_runtime.weight_loader import Weights, load_weights

PROGRAM = saxpy_square()
STATE_DICT = {"weight": np.array([1, 2, 4], np.float32), "bias": np.array([0.5, 0.25, -1], np.float32)}


def _expected(x: np.ndarray[Any, Any]) -> dict[str, np.ndarray[Any, Any]]:
    w = STATE_DICT["weight"] + STATE_DICT["bias"]
    h = 2 * x.ravel() + w[np.arange(x.size) % 3]
    return {"y": (h * h).reshape(x.shape), "h": h}


def _check(outputs: dict[str, NPUBuffer], x: np.ndarray[Any, Any], device: Backend) -> None:
    expected = _expected(x)
    assert outputs.keys() == expected.keys()
    for name, want in expected.items():
        got = outputs[name].to_numpy()
        assert got.shape == want.shape
        if device.vendor != "null":
            np.testing.assert_allclose(got, want, rtol=1e-6)


@pytest.fixture(scope="module")
def executor(device: Backend) -> Executor:
    return Executor(PROGRAM, device)


@pytest.fixture(scope="module")
def weights(device: Backend) -> Weights:
    return load_weights(STATE_DICT, PROGRAM, device)


def _x(n: int, seed: int = 0) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).standard_normal((2, n)).astype(np.float32)


def test_any_size_within_bounds(executor: Executor, weights: Weights) -> None:
    for seed, n in enumerate((7, 1, 1000, 113, 7, 1000)):
        _check(executor.run({"x": _x(n, seed)}, weights), _x(n, seed), executor.device)
        buffer = NPUBuffer.from_numpy(_x(n, seed + 9), executor.device, PROGRAM.input_specs[0])
        _check(executor.run(inputs={"x": buffer}, weights=weights), _x(n, seed + 9), executor.device)


def test_a_small_output_is_read_with_the_run(
    executor: Executor, weights: Weights, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(executor_module, "_READ_ALONG", 1000)
    small, large = (executor.run({"x": _x(n, n)}, weights) for n in (29, 1000))
    large["h"].to_numpy()  # more bytes: read when it is asked for
    with monkeypatch.context() as patch:
        patch.setattr(executor.device, "read", None)
        for got in (output.to_numpy() for output in small.values()):
            got[...] = 0  # a copy of the caller's own
        _check(small, _x(29, 29), executor.device)
        with pytest.raises(TypeError):
            large["h"].to_numpy()
    _check(large, _x(1000, 1000), executor.device)


def test_outputs_stay_valid_and_dead_memory_is_reused(executor: Executor, weights: Weights) -> None:
    kept = [executor.run({"x": _x(29, seed)}, weights) for seed in range(4)]
    for seed, outputs in enumerate(kept):
        _check(outputs, _x(29, seed), executor.device)
    used = {id(buffer.memory) for outputs in kept for buffer in outputs.values()}
    assert len(used) == 8
    memory = kept[0]["h"].memory
    del kept, outputs
    gc.collect()
    reused = [executor.run({"x": _x(29)}, weights) for _ in range(4)]
    assert memory in [buffer.memory for outputs in reused for buffer in outputs.values()]


def test_an_output_is_an_input_of_the_next_run(executor: Executor, weights: Weights) -> None:
    first = executor.run({"x": _x(5)}, weights)
    second = executor.run({"x": first["y"]}, weights)
    if executor.device.vendor != "null":
        _check(second, _expected(_x(5))["y"], executor.device)


def test_other_weights_are_bound(executor: Executor, weights: Weights) -> None:
    zero = load_weights({key: value * 0 for key, value in STATE_DICT.items()}, PROGRAM, executor.device)
    outputs = executor.run({"x": _x(5)}, zero)
    if executor.device.vendor != "null":
        np.testing.assert_allclose(outputs["h"].to_numpy(), 2 * _x(5).ravel(), rtol=1e-6)
    _check(executor.run({"x": _x(5)}, weights), _x(5), executor.device)


def test_threads_may_share_an_executor(executor: Executor, weights: Weights) -> None:
    failures = []

    def work(seed: int) -> None:
        try:
            for turn in range(5):
                x = _x(3 + seed, seed + turn)
                _check(executor.run({"x": x}, weights), x, executor.device)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


@pytest.mark.parametrize(
    ("inputs", "says"),
    [
        ({}, "missing: x"),
        ({"x": _x(3), "z": _x(3)}, "unknown: z.*takes x"),
        ({"X": _x(3)}, "missing: x; unknown: X"),
        ({"x": _x(3)[0]}, r"float32\[3\]: expected float32\[2, n\]"),
        ({"x": np.zeros((3, 3), np.float32)}, "expected"),
        ({"x": np.zeros((2, 3))}, "float64: expected float32"),
        ({"x": np.zeros((2, 0), np.float32)}, "takes 1 to 1000"),
        ({"x": np.zeros((2, 1001), np.float32)}, "dim 1 is 1001"),
        ({"x": None}, "dtype object"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(inputs: dict[str, Any], says: str) -> None:
    device = NullDevice()
    executor, weights = Executor(PROGRAM, device), load_weights(STATE_DICT, PROGRAM, device)
    with pytest.raises(InputError, match=says):
        executor.run(inputs, weights)
    assert device.launched == []


def test_buffers_and_weights_of_another_device_are_refused(executor: Executor, weights: Weights) -> None:
    other = NullDevice()
    with pytest.raises(InputError, match="input 'x' lies on 'null'"):
        executor.run({"x": NPUBuffer.zeros((2, 3), "float32", other)}, weights)
    with pytest.raises(InputError, match="the weights lie on 'null'"):
        executor.run({"x": _x(3)}, load_weights(STATE_DICT, PROGRAM, other))
    with pytest.raises(InputError, match="weights is a dict"):
        executor.run({"x": _x(3)}, STATE_DICT)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"'x' is int32\[2, 3\]"):
        executor.run({"x": NPUBuffer.zeros((2, 3), "int32", executor.device)}, weights)


def test_two_objects_of_one_device_share_memory(first_device: Backend) -> None:
    if not isinstance(first_device, Device):
        return
    again = Device(first_device.info.selector)
    outputs = Executor(PROGRAM, again).run({"x": _x(3)}, load_weights(STATE_DICT, PROGRAM, first_device))
    _check(outputs, _x(3), again)


@pytest.mark.parametrize("count", [0, 1, 5, 16])
def test_gather_of_bfloat16_rows(device: Backend, count: int) -> None:
    program = embedding()
    table = np.random.default_rng(3).standard_normal((7, 4)).astype(np.float32)
    ids = np.random.default_rng(4).integers(0, 7, count)
    outputs = Executor(program, device).run({"ids": ids, "table": table}, load_weights({}, program, device))
    rows = outputs["rows"].to_numpy(program.output_specs[0])
    assert (rows.dtype, rows.shape) == (ml_dtypes.bfloat16, (count, 4))
    if device.vendor != "null":
        np.testing.assert_array_equal(rows, table.astype(ml_dtypes.bfloat16)[ids])


@pytest.mark.parametrize("ids", [[0, 7], [-1, 3]])
@pytest.mark.parametrize("wrap", [False, True])
def test_values_outside_their_bounds_never_reach_a_kernel(ids: list[int], wrap: bool) -> None:
    program, device = embedding(), NullDevice()
    value: object = NPUBuffer.from_numpy(np.array(ids), device) if wrap else ids
    with pytest.raises(InputError, match=rf"'ids' has values from {min(ids)} to {max(ids)}: expected 0 to 6"):
        Executor(program, device).run(
            {"ids": value, "table": np.ones((7, 4), np.float32)}, load_weights({}, program, device)
        )
    assert device.launched == []


def test_values_made_by_a_kernel_are_checked_too() -> None:
    device = NullDevice()
    buffer = NPUBuffer(device.upload(np.array([3, 9]).view(np.uint8)), (2,), "int64", device)
    with pytest.raises(InputError, match="values from 3 to 9"):
        Executor(embedding(), device).run(
            {"ids": buffer, "table": np.ones((7, 4), np.float32)}, load_weights({}, embedding(), device)
        )


def test_scratch_is_stretched_to_the_devices_alignment() -> None:
    device = NullDevice(alignment=4096)
    Executor(PROGRAM, device).run({"x": _x(3)}, load_weights(STATE_DICT, PROGRAM, device))
    assert device.launched == ["step 0 (saxpy)", "step 1 (saxpy)", "step 2 (square)"]


def test_a_program_of_another_kind_warns_once(first_device: Backend) -> None:
    if first_device.vendor == "null":
        return
    here, kind = (first_device.kind, "cpu" if first_device.kind == "gpu" else "gpu")
    other = msgspec.structs.replace(accumulator(), device_type=kind, target="another")
    with pytest.warns(UserWarning, match=rf"compiled for 'another' \({kind}\) and runs on .* \({here}\)"):
        Executor(other, first_device)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Executor(other, first_device)


def test_a_kernel_that_does_not_build_is_named(device: Backend) -> None:
    if device.vendor == "null":
        return
    broken = make(
        {
            "fine": "__kernel void fine(__global float *y) { y[0] = 1; }\n",
            "broken": "__kernel void broken(__global float *y) {\n    y[0] = undefined_name;\n}\n",
        }
    )
    with pytest.raises(DeviceError, match=r"kernel 'broken' does not build on(.|\n)*undefined_name"):
        Executor(broken, device)


COPY = "__kernel void copy(__global const float *x, __global float *y) { y[0] = x[0]; }\n"


def test_a_wrong_number_of_arguments_is_refused(device: Backend) -> None:
    program = make({"copy": COPY}, steps=(Step("copy", (ScalarArg(1),), (1,)),))
    with pytest.raises(
        DeviceError, match=r"step 0 \(copy\): the kernel takes 2 arguments, the program gives 1"
    ):
        Executor(program, device)


def test_a_missing_kernel_is_refused(device: Backend) -> None:
    program = make({"copy": COPY.replace("copy", "copy2")}, steps=(Step("copy", (), (1,)),))
    with pytest.raises(DeviceError, match="no kernel 'copy'"):
        Executor(msgspec.structs.replace(program, kernels=program.kernels), device)


def test_scalars_of_tensors_without_dims(device: Backend) -> None:
    from npu_runtime.program import IOSpec

    program = make(
        {"copy": COPY},
        input_specs=(IOSpec("x", (), "float32"),),
        output_specs=(IOSpec("y", (), "float32"),),
        buffers=(Buffer("x", "input", 4, "x"), Buffer("y", "output", 4, "y")),
        steps=(Step("copy", (read("x"), write("y")), (1,)),),
    )
    outputs = Executor(program, device).run({"x": np.float32(2.5)}, load_weights({}, program, device))
    assert outputs["y"].shape == ()
    if device.vendor != "null":
        assert outputs["y"].to_numpy() == 2.5


def test_a_run_waits_once(device: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    """Inputs are written without waiting, in front of the steps, and may change when the run is over."""
    program = accumulator()
    executor, weights = Executor(program, device), load_weights({}, program, device)
    x = np.arange(5, dtype=np.float32)
    outputs = []
    for factor in range(3):
        with monkeypatch.context() as patch:
            if device.vendor != "null":
                patch.setattr(type(device), "write", lambda self, memory, data: pytest.fail("waits"))
            outputs.append(executor.run({"x": x}, weights)["out"])
        x *= 2 + factor
    if device.vendor != "null":
        for output, total in zip(outputs, (1, 3, 9), strict=True):
            np.testing.assert_array_equal(output.to_numpy(), total * np.arange(5))
