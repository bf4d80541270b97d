"""A model with an operation that no target has: refused, or built in parts where its YAML allows that."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from npu_runtime.device import list_devices

REPOSITORY = Path(__file__).resolve().parents[2]

MODULE = """\
import torch
from torch import nn


class Bent(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(5, 6), nn.Linear(6, 4)
        self.register_buffer("total", torch.ones(4))

    def forward(self, x):
        y = torch.special.bessel_j1(self.first(x)) + torch.special.bessel_j1(self.second.bias).sum()
        self.total.add_(self.second(y).sum(0))
        return torch.relu(self.second(y)), self.total + 1


def randomize(model, seed):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in model.state_dict().values():
            tensor.copy_(torch.randn(tensor.shape, generator=generator))
    return model
"""

BENT = """\
factory: nets:Bent
weights: {random: {seed: 3}}
fallback: FALLBACK
programs:
  main:
    symbols: {batch: {min: 1, max: 8}}
    inputs:
      x: {shape: [batch, 5]}
    outputs: [bent, total]
bench: {repeats: 2, warmup: 1}
default: true
"""


class Project:
    """A user's own folder."""

    def __init__(self, root: Path) -> None:
        self.root, self.folder = root, root / "artifacts" / "bent" / "cpu"
        (root / "configs" / "models").mkdir(parents=True)
        shutil.copy(REPOSITORY / "dodo.py", root)
        (root / "nets.py").write_text(MODULE)
        os.utime(root / "nets.py", (1e9, 1e9))

    def fallback(self, value: str) -> None:
        (self.root / "configs" / "models" / "bent.yaml").write_text(BENT.replace("FALLBACK", value))

    def run(self, module: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        path = f"{REPOSITORY / 'npu'}{os.pathsep}{REPOSITORY}"
        return subprocess.run(
            [sys.executable, "-m", module, *arguments], cwd=self.root, capture_output=True, text=True,
            check=False, env={**os.environ, "PYTHONPATH": path},
        )  # fmt: skip


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return Project(tmp_path_factory.mktemp("fallback"))


def test_deny_refuses_with_all_nodes(project: Project) -> None:
    project.fallback("deny")
    done = project.run("doit", "compile:bent")
    text = done.stdout + done.stderr
    assert done.returncode != 0
    assert "2 nodes cannot be compiled" in text and text.count("aten.special_bessel_j1.default") >= 2
    assert "nets.py:12" in text


@pytest.mark.skipif(not list_devices(), reason="verifying takes an OpenCL device")
def test_allow_builds_verifies_measures_and_runs(project: Project) -> None:
    project.fallback("allow")
    done = project.run("doit", "report:bent")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "special_bessel_j1 runs with PyTorch" in done.stdout + done.stderr
    parts = project.folder / "parts" / "main"
    manifest = json.loads((parts / "parts.json").read_text())
    assert [part["kind"] for part in manifest["parts"]] == ["target", "fallback", "target"]
    placement = (parts / "placement.txt").read_text()
    assert "no lowering knows this operation" in placement and "part0: target cpu" in placement
    assert not (project.folder / "main.npubin").exists()
    (verified,) = project.folder.glob("verify.*.json")
    checks = json.loads(verified.read_text())["checks"]
    assert {check["name"] for check in checks} == {"bent", "total"}
    assert max(check["errors"]["max_relative"] for check in checks) < 1e-5
    x = np.random.default_rng(1).standard_normal((3, 5)).astype("float32")
    np.save(project.root / "x.npy", x)
    weights = str(project.folder / "bent.safetensors")
    done = project.run("pipelines.cli", "run", str(parts / "parts.json"), weights, "-i", "x=x.npy")
    assert done.returncode == 0, done.stderr
    assert "bent: float32[3, 4]" in done.stdout


@pytest.mark.skipif(not list_devices(), reason="the model was not built")
def test_lost_and_damaged_parts_are_built_again_with_the_same_bytes(project: Project) -> None:
    before = {path: path.read_bytes() for path in (project.folder / "parts").rglob("*") if path.is_file()}
    assert before
    assert project.run("doit", "compile:bent").returncode == 0
    shutil.rmtree(project.folder / "parts")
    assert project.run("doit", "compile:bent").returncode == 0
    assert {path: path.read_bytes() for path in before} == before
    damaged = project.folder / "parts" / "main" / "part1.ir.json"
    damaged.write_text("{}")
    assert project.run("doit", "compile:bent").returncode == 0
    assert damaged.read_bytes() == before[damaged]
