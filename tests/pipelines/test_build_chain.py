"""Tiny models from YAML to results, through doit as users run it: real stages, real processes."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import threading
import zipfile
from pathlib import Path

import numpy as np
import pytest

from npu_runtime.device import Device, list_devices
from npu_runtime.executor import Executor
from npu_runtime.program import CompiledProgram
from npu_runtime.weight_loader import Weights, load_weights

REPOSITORY = Path(__file__).resolve().parents[2]

MODULE = '''\
"""Models that are small enough to compute by hand."""
import json
from pathlib import Path
import torch
from torch import nn
from nets_helper import FACTOR


class Batched(nn.Module):
    """A dynamic batch, and an operation with three outputs."""

    def __init__(self):
        super().__init__()
        sizes = json.loads(Path(__file__).with_name("nets_sizes.json").read_text())
        self.linear = nn.Linear(sizes["features"], 6)

    def forward(self, x):
        low, middle, high = torch.split(self.linear(x), [1, 2, 3], dim=1)
        best, where = torch.max(high, dim=1)
        return low * FACTOR, middle - best[:, None], where


class Memory(nn.Module):
    """What `write` stores, `read` sees."""

    def __init__(self):
        super().__init__()
        self.register_buffer("kept", torch.ones(2, 3))

    def write(self, x):
        self.kept.copy_(x * 2.0)
        return x + 1.0

    def read(self, y):
        return self.kept + y


def randomize(model, seed):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in model.state_dict().values():
            tensor.copy_(torch.randn(tensor.shape, generator=generator))
    return model
'''

BATCHED = """\
factory: nets:Batched
weights: {random: {seed: 3}}
programs:
  main:
    symbols: {batch: {min: 1, max: 8}}
    inputs:
      x: {shape: [batch, 5]}
    outputs: [low, middle, where]
verify: {sizes: [{batch: 1}, {batch: 8}]}
default: true
"""

MEMORY = """\
factory: nets:Memory
weights: {random: {seed: 4}}
programs:
  write:
    method: write
    inputs: {x: {shape: [2, 3]}}
    outputs: [next]
  read:
    method: read
    inputs: {y: {shape: [2, 3]}}
    outputs: [sum]
"""


class Project:
    """A user's own folder, beside an installed npubin."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "configs" / "models").mkdir(parents=True)
        shutil.copy(REPOSITORY / "dodo.py", root)
        (root / "nets.py").write_text(MODULE)
        (root / "nets_helper.py").write_text("FACTOR = 3.0\n")
        (root / "nets_sizes.json").write_text('{"features": 5}\n')
        for file in root.glob("*.py"):
            os.utime(file, (1e9, 1e9))
        (root / "configs" / "models" / "batched.yaml").write_text(BATCHED)
        (root / "configs" / "models" / "memory.yaml").write_text(MEMORY)

    def doit(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        path = f"{REPOSITORY / 'npu'}{os.pathsep}{REPOSITORY}"
        return subprocess.run([sys.executable, "-m", "doit", *arguments], cwd=self.root, capture_output=True,
                              text=True, check=False, env={**os.environ, "PYTHONPATH": path, **environment})

    def load(self, model: str, program: str, device: Device) -> tuple[Executor, Weights]:
        folder = self.root / "artifacts" / model / "cpu"
        compiled = CompiledProgram.load(folder / f"{program}.npubin")
        return Executor(compiled, device), load_weights(folder / f"{model}.safetensors", compiled, device)

    def original(self, model: str, key: str) -> np.ndarray:
        from safetensors.numpy import load_file
        return load_file(self.root / "artifacts" / model / "source.safetensors")[key]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    project = Project(tmp_path_factory.mktemp("project"))
    done = project.doit("-n", "2", "weights:batched", "weights:memory")
    assert done.returncode == 0, done.stdout + done.stderr
    return project


@pytest.fixture(scope="module")
def device() -> Device:
    if not list_devices():
        pytest.skip("no OpenCL device")
    return Device()


@pytest.mark.parametrize("batch", [1, 3, 8])
def test_one_program_serves_every_batch_and_all_outputs_of_its_split(
        project: Project, device: Device, batch: int) -> None:
    executor, weights = project.load("batched", "main", device)
    x = np.random.default_rng(batch).normal(size=(batch, 5)).astype(np.float32)
    found = {name: value.to_numpy() for name, value in executor.run({"x": x}, weights).items()}
    y = x @ project.original("batched", "linear.weight").T + project.original("batched", "linear.bias")
    np.testing.assert_allclose(found["low"], y[:, :1] * 3, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found["middle"], y[:, 1:3] - y[:, 3:].max(axis=1, keepdims=True),
                               rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(found["where"], y[:, 3:].argmax(axis=1))
    assert list(found) == ["low", "middle", "where"]


def test_what_one_program_writes_the_other_reads(project: Project, device: Device) -> None:
    write, weights = project.load("memory", "write", device)
    read, _ = project.load("memory", "read", device)
    random = np.random.default_rng(0)
    x, y = (random.normal(size=(2, 3)).astype(np.float32) for _ in range(2))
    initial = project.original("memory", "kept")
    assert np.abs(initial).min() > 0
    np.testing.assert_allclose(read.run({"y": y}, weights)["sum"].to_numpy(), initial + y, rtol=1e-6)
    np.testing.assert_allclose(write.run({"x": x}, weights)["next"].to_numpy(), x + 1, rtol=1e-6)
    np.testing.assert_allclose(read.run({"y": y}, weights)["sum"].to_numpy(), x * 2 + y, rtol=1e-6)
    fresh = weights.new_state()
    np.testing.assert_allclose(read.run({"y": y}, fresh)["sum"].to_numpy(), initial + y, rtol=1e-6)


def test_the_artifacts_lie_where_the_layout_says(project: Project) -> None:
    folder = project.root / "artifacts" / "memory"
    assert {path.name for path in folder.iterdir() if path.is_file()} == {
        "read.ir.json", "write.ir.json", "source.json", "source.safetensors"}
    assert json.loads((folder / "source.json").read_text())["label"] == "random weights (seed 4)"
    assert {path.name for path in (folder / "cpu").iterdir()} == {
        "build.json", "dump", "kernels", "memory.safetensors", "read.npubin", "read.transforms.json",
        "write.npubin", "write.transforms.json"}
    for program in ("read", "write"):
        with zipfile.ZipFile(folder / "cpu" / f"{program}.npubin") as archive:
            names = [name for name in archive.namelist() if name.endswith(".cl")]
            inside = {name: archive.read(name).decode() for name in names}
        shown = {f"kernels/{path.name}": path.read_text()
                 for path in (folder / "cpu" / "kernels" / program).iterdir()}
        assert shown == inside
        assert sorted((folder / "cpu" / "dump" / program).glob("[0-9][0-9]-*.txt"))


def test_the_second_build_does_nothing_and_imports_are_known(project: Project) -> None:
    done = project.doit("weights:batched", "weights:memory")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("8 up to date"), done.stdout
    record = json.loads((project.root / "artifacts/batched/.stages/extract.json").read_text())
    assert record["modules"] == ["nets.py", "nets_helper.py"]
    assert record["libraries"] == ["torch"]
    assert record["data"] == ["nets_sizes.json"]


def test_a_data_file_that_the_factory_opens_is_an_input_of_the_stages_that_call_it(project: Project) -> None:
    assert project.doit("weights:batched").returncode == 0
    path = project.root / "nets_sizes.json"
    text = path.read_text()
    path.write_text(f"{text} ")
    done = project.doit("weights:batched")
    path.write_text(text)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.findall(r"(\w+):batched: runs, since (.*)", done.stdout) == [
        ("fetch", "data nets_sizes.json changed"), ("extract", "data nets_sizes.json changed")]


def test_two_builds_at_once_share_the_work(project: Project, tmp_path: Path) -> None:
    other = Project(tmp_path / "twice")
    first = threading.Thread(target=lambda: done.append(other.doit("weights:batched")))
    done: list[subprocess.CompletedProcess[str]] = []
    first.start()
    done.append(other.doit("weights:batched"))
    first.join()
    assert [one.returncode for one in done] == [0, 0], [one.stdout + one.stderr for one in done]
    text = "".join(one.stdout for one in done)
    assert text.count(": done in ") == 4, text
    assert text.count(": skipped in ") == text.count("made by another build meanwhile") // 2, text
    assert contents(other.root) == contents(project.root)


def contents(root: Path) -> dict[str, bytes]:
    folder = root / "artifacts" / "batched"
    files = [path for path in folder.rglob("*") if path.is_file() and path.parent.name != ".stages"]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def test_two_builds_in_different_settings_are_the_same_bytes(project: Project, tmp_path: Path) -> None:
    done = project.doit("reproduce:batched")
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"reproduce:batched: done in .*: \d\d files, 0\.\d MB, are the same bytes in two builds",
                     done.stdout), done.stdout
    assert not list((project.root / "artifacts").glob(".reproduce*"))


def test_what_depends_on_the_surroundings_is_found(tmp_path: Path) -> None:
    project = Project(tmp_path / "elsewhere")
    module = project.root / "nets.py"
    module.write_text(module.read_text().replace("low * FACTOR", "low * (FACTOR + len(os.getcwd()))")
                      .replace("import torch", "import os\nimport torch", 1))
    done = project.doit("reproduce:batched")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "reproduce:batched: failed: batched is not the same twice:" in done.stdout
    assert re.search(r"artifacts/batched/main\.ir\.json differs from byte \d+ on", done.stdout), done.stdout
    assert "source.safetensors" not in done.stdout


def test_verification_passes_and_an_edit_of_the_model_is_followed(project: Project, device: Device) -> None:
    done = project.doit("-n", "2", "verify:batched", "verify:memory")
    assert done.returncode == 0, done.stdout + done.stderr
    (project.root / "nets_helper.py").write_text("FACTOR = 4.0  # was 3\n")
    done = project.doit("compile:batched")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "extract:batched: runs, since code nets_helper.py changed\n" in done.stdout
    executor, weights = project.load("batched", "main", device)
    x = np.ones((2, 5), np.float32)
    low = executor.run({"x": x}, weights)["low"].to_numpy()
    y = x @ project.original("batched", "linear.weight").T + project.original("batched", "linear.bias")
    np.testing.assert_allclose(low, y[:, :1] * 4, rtol=1e-5, atol=1e-6)


def test_an_edit_that_keeps_size_and_time_is_compiled(project: Project) -> None:
    path = project.root / "nets_helper.py"
    assert project.doit("compile:batched").returncode == 0
    before, status = (project.root / "artifacts/batched/main.ir.json").read_bytes(), path.stat()
    text = path.read_text()
    path.write_text(re.sub(r"FACTOR = \d", "FACTOR = 9", text))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert path.stat().st_size == status.st_size
    done = project.doit("extract:batched")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "main.ir.json changed" in done.stdout
    assert (project.root / "artifacts/batched/main.ir.json").read_bytes() != before
    path.write_text(text)


@pytest.mark.parametrize(("factory", "message"), [
    ("nets:Batchd", 'batched: nets has no Batchd; did you mean "Batched"?'),
    ("nots:Batched", "batched: there is no module nots to import nots:Batched from; it must be installed, "
                     "or lie below the project's folder"),
    ("nets:FACTOR", "batched: nets:FACTOR is not callable"),
    ("nets:randomize",
     "batched: factory_args do not fit nets:randomize: missing a required argument: 'model'"),
    ("builtins:dict", "batched: builtins:dict returned dict, not a torch.nn.Module"),
])
def test_a_wrong_factory_is_one_message(tmp_path: Path, factory: str, message: str) -> None:
    from pipelines.config import load_config
    from pipelines.factory import FactoryError, build
    project = Project(tmp_path / "project")
    path = project.root / "configs" / "models" / "batched.yaml"
    path.write_text(BATCHED.replace("nets:Batched", factory))
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(project.root))
        with pytest.raises(FactoryError) as error:
            build(load_config(path, project.root))
        for name in ("nets", "nets_helper"):
            sys.modules.pop(name, None)
    assert str(error.value) == message


def test_the_build_itself_loads_neither_torch_nor_opencl(project: Project) -> None:
    code = ("import sys; from doit.doit_cmd import DoitMain; DoitMain().run(['list', '--all', '-s']); "
            "print('loaded', sorted({'torch', 'pyopencl', 'jinja2', 'numpy'} & set(sys.modules)))")
    path = f"{REPOSITORY / 'npu'}{os.pathsep}{REPOSITORY}"
    done = subprocess.run([sys.executable, "-c", code], cwd=project.root, capture_output=True, text=True,
                          check=False, env={**os.environ, "PYTHONPATH": path})
    assert "compile:memory" in done.stdout, done.stderr
    assert done.stdout.endswith("loaded []\n"), done.stdout[-200:]
