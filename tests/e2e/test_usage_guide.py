"""The usage guide's ResNet and profiling sections run as they are written.

The guide presupposes torchvision and a weights file. Here a stand-in for ``torchvision.models`` supplies the
model, with seeded weights that are those of the file.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from enum import Enum
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from npu_compiler.compiled_program import CompiledProgram
from pipelines.zoo.randomize import randomize
from pipelines.zoo.resnet import ResNet, resnet18

GUIDE = Path(__file__).resolve().parents[2] / "docs" / "usage-guide.md"
SUMMARY_ROW = re.compile(r"^(\S+) +([\d.]+) +(\d+) +([\d.]+) ", re.MULTILINE)


def code_blocks(heading: str) -> list[str]:
    """The Python blocks of the section under ``heading``."""
    sections = re.split(r"^## ", GUIDE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    (section,) = [section for section in sections if section.startswith(f"{heading}\n")]
    return re.findall(r"```python\n(.*?)```", section, re.DOTALL)


class ResNet18Weights(Enum):
    """What torchvision calls its trained weights; here they are random ones of a seed."""

    DEFAULT = 7


def seeded(weights: ResNet18Weights) -> ResNet:
    return randomize(resnet18(), weights.value)


@pytest.fixture(scope="module")
def guide(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The names that the ResNet section leaves behind, run in a folder that holds the weights."""
    folder = tmp_path_factory.mktemp("guide")
    save_file(seeded(ResNet18Weights.DEFAULT).state_dict(), folder / "resnet18.safetensors")
    models = ModuleType("torchvision.models")
    models.resnet18 = seeded  # type: ignore[attr-defined]
    models.ResNet18_Weights = ResNet18Weights  # type: ignore[attr-defined]
    torchvision = ModuleType("torchvision")
    torchvision.models = models  # type: ignore[attr-defined]
    names: dict[str, Any] = {"folder": folder}
    blocks = code_blocks("ResNet Example")
    assert len(blocks) == 2
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setitem(sys.modules, "torchvision", torchvision)
        patch.setitem(sys.modules, "torchvision.models", models)
        torch.manual_seed(0)
        np.random.seed(0)
        for block in blocks:
            exec(compile(block, str(GUIDE), "exec"), names)
    return names


def test_the_logits_are_pytorchs(guide: dict[str, Any]) -> None:
    with torch.no_grad():
        wanted = guide["model"](torch.from_numpy(guide["input_data"])).numpy()
    got = guide["logits"]
    assert got.shape == (1, 1000)
    assert got.dtype == np.float32
    assert wanted.std() > 0.1
    assert np.abs(got - wanted).max() < 1e-4 * np.abs(wanted).max()
    assert got.argmax() == wanted.argmax()


def test_the_profiler_prints_every_kernel(guide: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    (block,) = code_blocks("Profiling")
    program: CompiledProgram = guide["program"]
    names = {**guide, "inputs": {program.input_specs[0].name: guide["input_buf"]}}
    exec(compile(block, str(GUIDE), "exec"), names)
    printed = capsys.readouterr().out
    rows = {row[1]: row for row in SUMMARY_ROW.finditer(printed)}
    assert rows.keys() == {kernel.entry for kernel in program.kernels}
    assert sum(int(row[3]) for row in rows.values()) == len(program.steps)
    assert sum(float(row[2]) for row in rows.values()) > 0
    output = names["outputs"][program.output_specs[0].name]
    assert np.array_equal(output.to_numpy(), guide["logits"])


def test_another_process_runs_the_files_without_pytorch(guide: dict[str, Any]) -> None:
    """What the guide leaves on disk gives the same logits where PyTorch is never imported."""
    np.save(guide["folder"] / "x.npy", guide["input_data"])
    code = """
import sys
import numpy as np
from npu_runtime import CompiledProgram, Device, Executor, load_weights
program, device = CompiledProgram.load("resnet18.npubin"), Device()
weights = load_weights("resnet18.safetensors", program, device)
out = Executor(program, device).run({program.input_specs[0].name: np.load("x.npy")}, weights)
np.save("y.npy", out[program.output_specs[0].name].to_numpy())
assert "torch" not in sys.modules and "jinja2" not in sys.modules
"""
    root = GUIDE.parents[1]
    path = os.pathsep.join([str(root / "npu"), str(root), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=guide["folder"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert np.array_equal(np.load(guide["folder"] / "y.npy"), guide["logits"])
