"""Finding and opening devices, and the cache of built kernels."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from programs import accumulator, environment

from npu_runtime import drivers, env, program_cache
from npu_runtime.backend import Backend
from npu_runtime.building import blamed_kernel
from npu_runtime.device import Device, find_device, list_devices
from npu_runtime.errors import InputError, NoDeviceError
from npu_runtime.executor import Executor
from npu_runtime.weight_loader import load_weights


@pytest.mark.parametrize("selector", ["pocl:99", "nvidia:7", "gpu:50", "cpu:99", "amd:40"])
def test_an_absent_device_says_what_is_there(selector: str) -> None:
    with pytest.raises(NoDeviceError, match=r"present: .*nstall"):
        find_device(selector)


@pytest.mark.parametrize("selector", ["pocl:", ":0", "a b", "nvidia:x", "0"])
def test_a_malformed_selector_is_refused(selector: str) -> None:
    with pytest.raises(InputError, match="does not select a device"):
        find_device(selector)


def test_the_environment_selects_unless_the_argument_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NPU_DEVICE", "cpu:99")
    with pytest.raises(NoDeviceError, match="cpu:99"):
        find_device()
    for info in list_devices():
        assert find_device(info.selector) == info
        assert find_device(info.vendor.upper()).vendor == info.vendor


def test_every_package_with_a_driver_makes_it_visible() -> None:
    found = {info.vendor for info in list_devices()}
    if drivers.pip_drivers():
        assert "intel" in found
    try:
        import pocl_binary_distribution  # noqa: F401
    except ImportError:
        return
    assert "pocl" in found
    assert find_device().vendor == "pocl" or os.environ.get("NPU_DEVICE")


def test_the_users_own_loader_settings_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OCL_ICD_VENDORS", "/nowhere")
    with drivers.visible_drivers():
        assert os.environ["OCL_ICD_VENDORS"] == "/nowhere"
    monkeypatch.delenv("OCL_ICD_VENDORS")
    with drivers.visible_drivers():
        folder = Path(os.environ["OCL_ICD_VENDORS"])
        assert {file.suffix for file in folder.iterdir()} == {".icd"}
    assert not folder.exists()
    assert "OCL_ICD_VENDORS" not in os.environ


def test_no_device_says_what_to_install() -> None:
    code = (
        "import pyopencl\n"
        "def none(): raise pyopencl.LogicError('no platforms')\n"
        "pyopencl.get_platforms = none\n"
        "from npu_runtime.device import Device, list_devices\n"
        "assert list_devices() == ()\n"
        "try: Device()\n"
        "except RuntimeError as error: print(error)\n"
    )
    text = subprocess.run(
        [sys.executable, "-c", code],
        env={key: value for key, value in environment().items() if key != "NPU_DEVICE"},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert 'pip install "npubin[pocl]"' in text


@pytest.mark.parametrize(
    ("log", "blamed"),
    [
        ("error: kernels/two.cl:2:12: use of undeclared identifier 'a'\nDevice failed", "two"),
        ("kernels/one.cl:1:1: warning: x\nkernels/two.cl:2:12: error: use of undeclared identifier", "two"),
        ("<kernel>:3:7: warning: x\n<kernel>:5:7: error: use of undeclared identifier 'a'", "two"),
        ("<kernel>:3:7: error: x\n<kernel>:5:7: error: y", "one"),
        ("ptxas fatal: no place", None),
        ("", None),
    ],
)
def test_every_drivers_log_names_the_kernel(log: str, blamed: str | None) -> None:
    text = '#line 1 "kernels/one.cl"\na\nb\n#line 1 "kernels/two.cl"\nc\nd\n'
    assert blamed_kernel(log, text) == blamed


def test_a_part_of_a_cpu(device: Backend) -> None:
    if not isinstance(device, Device):
        return
    selector, most = device.info.selector, device.info.threads
    for threads in (0, most + 1):
        with pytest.raises(InputError, match=rf"threads={threads}: .*can use"):
            Device(selector, threads=threads)
    if most == 1 or device.kind == "gpu":
        return
    part = Device(selector, threads=1)
    assert part.threads == 1
    program = accumulator()
    out = Executor(program, part).run({"x": np.arange(5, dtype=np.float32)}, load_weights({}, program, part))[
        "out"
    ]
    np.testing.assert_array_equal(out.to_numpy(), np.arange(5))


@pytest.mark.parametrize(("cores", "given", "pinned"), [
    (2, {}, "1"), (2, {"HOME": "/"}, "1"), (2, {"POCL_AFFINITY": "0"}, "0"), (2, {"POCL_AFFINITY": ""}, ""),
    (2, {"POCL_MAX_PTHREAD_COUNT": "4"}, None), (3, {}, None), (1, {}, None),
])
def test_threads_are_pinned_where_the_process_has_all_cores_and_nobody_says_otherwise(
    cores: int, given: dict[str, str], pinned: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: cores)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 1})
    environment = dict(given)
    env.pin_threads(environment)
    assert environment == given | ({} if pinned is None else {"POCL_AFFINITY": pinned})


@pytest.mark.parametrize(("value", "level"), [("", 0), ("0", 0), ("5", 5)])
def test_debug_levels(value: str, level: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NPU_DEBUG", value)
    assert env.debug_level() == level
    monkeypatch.setenv("NPU_DEBUG", "verbose")
    with pytest.raises(InputError, match="NPU_DEBUG is 'verbose'"):
        env.debug_level()


def test_everything_is_said_at_the_highest_debug_level(
    device: Backend, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("NPU_DEBUG", "5")
    program = accumulator()
    Executor(program, device).run({"x": np.ones(5, np.float32)}, load_weights({}, program, device))
    text = capsys.readouterr().err
    for part in ("hand main: 1 steps", "weights of hand", "accumulate: "):
        assert part in text
    if device.vendor != "null":
        assert "__kernel void accumulate" in text


def test_cached_kernels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NPU_CACHE_DIR", str(tmp_path / "cache"))
    keys = {
        program_cache.cache_key(*parts)
        for parts in (
            ("s", ["-a"], "d", "v"),
            ("t", ["-a"], "d", "v"),
            ("s", ["-b"], "d", "v"),
            ("s", ["-a"], "e", "v"),
            ("s", ["-a"], "d", "w"),
        )
    }
    assert len(keys) == 5
    key = keys.pop()
    assert program_cache.load(key) is None
    program_cache.store(key, b"binary\n\0")
    assert program_cache.load(key) == b"binary\n\0"
    (file,) = (tmp_path / "cache").rglob("*.bin")
    for damaged in (b"", file.read_bytes()[:-1], file.read_bytes() + b"x", b"\n"):
        file.write_bytes(damaged)
        assert program_cache.load(key) is None
    program_cache.discard(key)
    program_cache.discard(key)
    monkeypatch.setenv("NPU_CACHE_DIR", "/dev/null/none")
    program_cache.store(key, b"binary")


def test_a_damaged_cache_entry_is_built_again(
    device: Backend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NPU_CACHE_DIR", str(tmp_path))
    program = accumulator()

    def run() -> None:
        weights = load_weights({}, program, device)
        out = Executor(program, device).run({"x": np.ones(5, np.float32)}, weights)["out"].to_numpy()
        assert device.vendor == "null" or out.all()

    run()
    files = list(tmp_path.rglob("*.bin"))
    assert bool(files) == (device.vendor not in ("pocl", "nvidia", "null"))
    for file in files:
        good = file.read_bytes()
        run()
        for damaged in (good[:50], b""):
            file.write_bytes(damaged)
            run()
            assert program_cache.load(file.stem) is not None
        program_cache.store(file.stem, b"whole, but no binary of this driver")
        run()


def test_the_host_copies_what_it_can_reach(device: Backend) -> None:
    """Only where nobody else waits: else in the order of the queue."""
    data = np.arange(100, dtype=np.uint8)
    memory, out = device.allocate(300), np.zeros(100, np.uint8)
    if memory.host is not None:
        assert memory.host.size == 300
        assert memory.host.ctypes.data % 128 == 0
    for alone in (True, False, True):
        data = data[::-1].copy()
        ticket = device.enqueue((), [(memory, data)], [(memory, out)], alone=alone)
        ticket.wait()
        np.testing.assert_array_equal(out, data)
    part = device.region(memory, device.alignment, 100) if device.alignment <= 128 else memory
    first = device.enqueue((), [(part, data)], ())
    second = device.enqueue((), [(part, data[::-1].copy())], [(part, out)], alone=True)
    second.wait()
    first.wait()
    np.testing.assert_array_equal(out, data[::-1])
    device.read(part, out)
    np.testing.assert_array_equal(out, data[::-1])
    if part.host is not None:
        np.testing.assert_array_equal(part.host[:100], data[::-1])
