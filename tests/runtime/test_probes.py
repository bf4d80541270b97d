"""Capabilities of devices: what probes find, and what becomes of those that fail."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
from programs import SQUARE, accumulator, make

from npu_runtime import probes
from npu_runtime.backend import Backend, Capability
from npu_runtime.device import Device, list_devices
from npu_runtime.errors import DeviceError, InputError
from npu_runtime.executor import Executor
from npu_runtime.probes import PROBES, Probe, capability

pytestmark = pytest.mark.skipif(not list_devices(), reason="no OpenCL device")


@pytest.fixture
def opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Device:
    """The default device, with an empty cache."""
    monkeypatch.setenv("NPU_CACHE_DIR", str(tmp_path))
    return Device()


def says(monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    """Has this program run in place of the probe's process."""
    monkeypatch.setattr(probes, "_command", lambda selector, name: [sys.executable, "-c", code])


def test_a_capability_is_probed_once_per_cache(opened: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    first = capability(opened, "local_memory")
    assert first.value >= 16384
    says(monkeypatch, 'print(\'open\'); print(\'{"value": 7, "reason": ""}\')')
    assert capability(opened, "local_memory") == first
    assert capability(opened, "local_memory", again=True).value == 7
    entries = Path(probes.env.cache_dir()).rglob("*.bin")  # drivers' programs lie there as well
    (entry,) = (path for path in entries if b'"value": 7' in path.read_bytes())
    for damaged in (b"", entry.read_bytes()[:-3], b"\n{}"):
        entry.write_bytes(damaged)
        assert capability(opened, "local_memory").value == 7


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("import os; print('open', flush=True); os.abort()", r"ended the process .*\(status -6\)"),
        ("import time; print('open', flush=True); time.sleep(60)", r"did not end within 2 seconds"),
        ("print('open')", r"ended the process .*\(status 0\)"),
    ],
    ids=["crashes", "hangs", "says nothing"],
)
def test_a_probe_that_fails_is_an_absent_capability(
    code: str, reason: str, opened: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    says(monkeypatch, code)
    found = capability(opened, "fp16", seconds=2)
    assert found.value == 0
    assert re.search(reason, found.reason)
    says(monkeypatch, 'print(\'open\'); print(\'{"value": 1, "reason": ""}\')')
    assert capability(opened, "fp16") == found


def test_a_device_that_no_other_process_can_open_is_believed(
    opened: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    says(monkeypatch, "raise SystemExit('in use')")
    assert capability(opened, "fp16").value == 1
    says(monkeypatch, 'print(\'open\'); print(\'{"value": 0, "reason": "no"}\')')
    assert capability(opened, "fp16") == Capability(0, "no")
    with pytest.raises(InputError, match="unknown capability 'fp61'"):
        capability(opened, "fp61")


def test_a_wrong_number_is_noticed(
    opened: Device, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    right = PROBES["local_memory"]
    wrong = Probe(right.source.replace("* 3 + 1", "* 3 + 2"), right.run)
    monkeypatch.setattr(probes, "PROBES", {"local_memory": wrong})
    probes.main(opened.info.selector, "local_memory")
    first, second = capsys.readouterr().out.splitlines()
    assert first == "open" and '"value": 0' in second and "is right" in second


def test_programs_with_inline_ptx_are_refused_where_it_cannot_run(
    device: Backend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NPU_CACHE_DIR", str(tmp_path))
    program = make({"square": "/* mma.sync */ " + SQUARE}, target="nvidia")
    if device.vendor == "nvidia":
        assert device.capability("ptx").value == 1
        assert Executor(program, device).program.model == "hand"
        return
    with pytest.raises(DeviceError, match=r"hand main was compiled for 'nvidia' .* compile it for 'gpu'"):
        Executor(program, device)


def test_a_device_of_the_vendor_whose_instructions_fail_is_refused(
    opened: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opened, "vendor", "nvidia")
    program = make({"square": "/* cp.async */ " + SQUARE}, target="nvidia")
    says(monkeypatch, 'print(\'open\'); print(\'{"value": 0, "reason": "it computes 3 where 4 is right"}\')')
    with pytest.raises(DeviceError, match=r"compile it for 'gpu' or 'cpu' \(it computes 3 where 4 is right"):
        Executor(program, opened)
    says(monkeypatch, 'print(\'open\'); print(\'{"value": 1, "reason": ""}\')')
    assert opened.capability("ptx").value == 0, "kept for this driver"


def test_programs_without_it_ask_nothing(device: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probes, "_command", lambda selector, name: pytest.fail("probes"))
    assert Executor(accumulator(), device).program.model == "hand"
