"""The npubin command."""

from __future__ import annotations

import builtins
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from programs import embedding, saxpy_square
from safetensors.numpy import save_file

from npu_runtime.backend import Capability
from npu_runtime.device import list_devices
from npu_runtime.npubin import to_bytes
from pipelines.cli import main

needs_device = pytest.mark.skipif(not list_devices(), reason="no OpenCL device")


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    saxpy_square().save("p.npubin")
    save_file({"weight": np.ones(3, np.float32), "bias": np.ones(3, np.float32)}, "w.safetensors")
    np.save("x.npy", np.arange(6, dtype=np.float32).reshape(2, 3))
    return tmp_path


@needs_device
def test_what_devices_can_do(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    last = list_devices()[-1]
    monkeypatch.setattr("npu_runtime.device.list_devices", lambda: (last,))
    answers = {"fp16": Capability(0, "no half"), "ptx": Capability(1), "local_memory": Capability(32768)}
    monkeypatch.setattr("npu_runtime.probes.PROBES", answers)
    monkeypatch.setattr("npu_runtime.probes.capability", lambda device, name, again: answers[name])
    assert main(["devices", "--probe"]) == 0
    lines = [" ".join(line.replace("│", " ").split()) for line in capsys.readouterr().out.splitlines()]
    for name, has in (("fp16", "no no half"), ("ptx", "yes"), ("local_memory", "32")):
        assert any(f"{last.selector} {name} {has}" in line for line in lines), lines


@needs_device
def test_devices(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    last = list_devices()[-1]
    monkeypatch.setenv("NPU_DEVICE", last.selector)
    assert main(["devices"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert next(line.split()[1] for line in lines if line.startswith("* ")) == last.selector
    assert all(any(info.selector in line for line in lines) for info in list_devices())


@needs_device
def test_run_writes_a_folder_or_an_archive(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["run", "p.npubin", "w.safetensors", "--input", "x=x.npy"]
    assert main([*command, "--output", "out", "--profile", "--trace", "trace.json", "--repeat", "2"]) == 0
    printed = capsys.readouterr().out
    assert "y: float32[2, 3]" in printed
    assert "ms on" in printed
    assert "square" in printed
    assert json.loads((files / "trace.json").read_text())["traceEvents"]
    h = 2 * np.arange(6, dtype=np.float32) + 2
    np.testing.assert_array_equal(np.load(files / "out" / "h.npy"), h)
    assert main([*command, "-o", "out.npz"]) == 0
    np.testing.assert_array_equal(np.load(files / "out.npz")["y"], (h * h).reshape(2, 3))


@needs_device
def test_run_writes_bfloat16_as_float32(files: Path) -> None:
    embedding().save("e.npubin")
    save_file({}, "none.safetensors")
    np.save("ids.npy", np.array([6, 0]))
    np.save("table.npy", np.arange(28, dtype=np.float32).reshape(7, 4))
    assert (
        main(["run", "e.npubin", "none.safetensors", "-i", "ids=ids.npy", "-i", "table=table.npy", "-o", "o"])
        == 0
    )
    rows = np.load(files / "o" / "rows.npy")
    assert rows.dtype == np.float32
    np.testing.assert_array_equal(rows, [[24, 25, 26, 27], [0, 1, 2, 3]])


@pytest.mark.parametrize("option", [[], ["--steps"], ["--kernel", "square"]])
def test_inspect(files: Path, option: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", "p.npubin", *option]) == 0
    printed = capsys.readouterr().out
    if "--kernel" in option:
        assert printed.strip() == saxpy_square().kernel_sources["kernels/square.cl"].strip()
        return
    for part in (
        "input x: float32[2, n]",
        "output h: float32[2*n]",
        "symbol n: 1 to 1000",
        "3 steps, 2 kernels",
        "kernels/saxpy.cl",
        *(["mul add"] if option else []),
    ):
        assert part in printed


@pytest.mark.parametrize(
    ("command", "says"),
    [
        (["inspect", "none.npubin"], "none.npubin: No such file or directory"),
        (["inspect", "bad.npubin"], "bad.npubin: the archive was altered, truncated"),
        (["inspect", "p.npubin", "--kernel", "nope"], "no kernel 'nope'; it has saxpy, square"),
        (["run", "p.npubin", "none.safetensors"], "none.safetensors: No such file"),
        (["run", "p.npubin", "w.safetensors"], "missing: x"),
        (["run", "p.npubin", "w.safetensors", "-i", "x"], "expected NAME=FILE.npy"),
        (["run", "p.npubin", "w.safetensors", "-i", "x=p.npubin"], "archive|not a .npy file"),
        (["run", "p.npubin", "w.safetensors", "-i", "x=w.safetensors"], "not a .npy file"),
        (["run", "p.npubin", "w.safetensors", "-i", "x=x.npy", "-i", "x=x.npy"], "each name once"),
        (["run", "p.npubin", "w.safetensors", "-i", "x=x.npy", "--device", "cpu:99"], "no device 'cpu:99'"),
    ],
)
@needs_device
def test_errors_are_one_line(
    files: Path, command: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (files / "bad.npubin").write_bytes(to_bytes(saxpy_square())[:-3])
    assert main(command) == 1
    error = capsys.readouterr().err
    assert error.startswith("npubin: ")
    assert error.count("\n") == 1
    assert any(part in error for part in says.split("|"))


def test_wrong_usage_has_an_exit_code_of_its_own() -> None:
    assert main(["fly"]) == 2
    assert main(["--help"]) == 0


def test_without_its_libraries_the_command_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = builtins.__import__

    def absent(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.partition(".")[0] in ("typer", "rich"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", absent)
    assert main(["devices"]) == 1
    assert 'pip install "npubin[cli]"' in capsys.readouterr().err
