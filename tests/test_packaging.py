"""The wheel, installed where there is no checkout: it finds its data, and each extra brings what it is for.

The wheel is built from a copy of the sources that is deleted afterwards. Every environment holds exactly the
distributions that the wheel's own metadata asks for, linked from the environment that runs the tests.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterable, Sequence
from importlib.metadata import PathDistribution, distribution
from pathlib import Path

import numpy as np
import pytest
from packaging.requirements import Requirement
from safetensors.numpy import save_file

ROOT = Path(__file__).resolve().parents[1]
SOURCES = (
    "npu",
    "pipelines",
    "templates",
    "configs",
    "pyproject.toml",
    "README.md",
    "LICENSE",
    "NOTICE",
    ".gitignore",
)

#: y = relu(x + w), in the file format, by hand.
TINY_IR = {
    "model_name": "tiny",
    "pytorch_version": "",
    "graph_inputs": [{"name": "x", "shape": [2, 3], "dtype": "float32"}],
    "graph_outputs": [{"name": "relu", "shape": [2, 3], "dtype": "float32"}],
    "weights": [{"name": "w", "shape": [3], "dtype": "float32"}],
    "weight_name_mapping": {"p_w": "w"},
    "nodes": [
        {
            "name": "add",
            "op_type": "aten.add.Tensor",
            "inputs": [
                {"name": "x", "shape": [2, 3], "dtype": "float32"},
                {"name": "p_w", "shape": [3], "dtype": "float32"},
            ],
            "outputs": [{"name": "add", "shape": [2, 3], "dtype": "float32"}],
            "attrs": {},
        },
        {
            "name": "relu",
            "op_type": "aten.relu.default",
            "inputs": [{"name": "add", "shape": [2, 3], "dtype": "float32"}],
            "outputs": [{"name": "relu", "shape": [2, 3], "dtype": "float32"}],
            "attrs": {},
        },
    ],
}


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, its sources gone."""
    folder = tmp_path_factory.mktemp("wheel")
    copy = folder / "sources"
    copy.mkdir()
    for name in SOURCES:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, copy / name)
    _run([sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)], copy)
    shutil.rmtree(copy)
    (made,) = folder.glob("*.whl")
    return made


class Environment:
    """A virtual environment with the wheel, some of its extras, and nothing else."""

    def __init__(self, folder: Path, wheel: Path, extras: Iterable[str]) -> None:
        _run([sys.executable, "-m", "venv", "--without-pip", str(folder)], folder.parent)
        self.bin = folder / ("Scripts" if os.name == "nt" else "bin")
        self.work = folder / "work"
        self.work.mkdir()
        site = Path(self.python("import sysconfig; print(sysconfig.get_path('purelib'))"))
        _run(
            [
                sys.executable,
                "-m",
                "pip",
                "--python",
                str(self.bin / "python"),
                "install",
                "--quiet",
                "--no-index",
                "--no-deps",
                str(wheel),
            ],
            folder,
        )
        (info,) = site.glob("npubin-*.dist-info")
        for name in _required(PathDistribution(info), set(extras)):
            for file in distribution(name).files or ():
                link = site / file.parts[0]
                if file.parts[0] != ".." and not link.exists():
                    link.symlink_to(Path(str(distribution(name).locate_file(file.parts[0]))))

    def python(self, code: str, *arguments: str) -> str:
        """Runs ``code`` and returns what it prints, without the last line's end."""
        return _run([str(self.bin / "python"), "-c", code, *arguments], self.work).rstrip("\n")

    def call(self, *command: str) -> str:
        """Runs a command of the environment."""
        return _run([str(self.bin / command[0]), *command[1:]], self.work)


def _required(start: PathDistribution, extras: set[str]) -> set[str]:
    """The distributions that ``start`` with ``extras`` needs, other than itself."""
    found: dict[str, set[str]] = {}
    todo = [(start.name, extras)]
    while todo:
        name, wanted = todo.pop()
        have = found.setdefault(name, set())
        if have and wanted <= have:
            continue
        have |= wanted | {""}
        lines: Sequence[str] = (start if name == start.name else distribution(name)).requires or ()
        for requirement in map(Requirement, lines):
            marker = requirement.marker
            if marker is None or any(marker.evaluate({"extra": extra}) for extra in have):
                todo.append((requirement.name.lower(), {*requirement.extras, ""}))
    return found.keys() - {start.name}


def _run(command: Sequence[str], folder: Path) -> str:
    hidden = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")
    clean = {name: value for name, value in os.environ.items() if name not in hidden}
    done = subprocess.run(command, cwd=folder, env=clean, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture(scope="session")
def compiler(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    return Environment(tmp_path_factory.mktemp("compiler") / "env", wheel, {"compiler"})


@pytest.fixture(scope="session")
def runtime(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    return Environment(tmp_path_factory.mktemp("runtime") / "env", wheel, {"pocl", "cli"})


@pytest.fixture(scope="session")
def program(compiler: Environment, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny graph, compiled by the installed compiler."""
    folder = tmp_path_factory.mktemp("tiny")
    (folder / "tiny.json").write_text(json.dumps(TINY_IR))
    compiler.python(
        "import sys; from npu_compiler import compile_ir; compile_ir(sys.argv[1]).save(sys.argv[2])",
        str(folder / "tiny.json"),
        str(folder / "tiny.npubin"),
    )
    return folder / "tiny.npubin"


def test_the_wheel_holds_packages_and_data_alone(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    tops = {name.split("/")[0] for name in names if ".dist-info/" not in name}
    assert tops == {"torch_ir", "npu_compiler", "npu_runtime", "pipelines"}
    for folder in ("templates", "configs/targets", "configs/tuning"):
        files = {path.relative_to(ROOT).as_posix() for path in (ROOT / folder).rglob("*") if path.is_file()}
        assert files
        assert {f"npu_compiler/{name}" for name in files} <= names
    for package in ("npu/torch_ir", "npu/npu_compiler", "npu/npu_runtime", "pipelines"):
        base = (ROOT / package).parent
        assert {path.relative_to(base).as_posix() for path in (ROOT / package).rglob("*.py")} <= names
    assert {name.rsplit("/", 1)[-1] for name in names if "/licenses/" in name} == {"LICENSE", "NOTICE"}


def test_the_installed_compiler_finds_its_data(compiler: Environment) -> None:
    places = compiler.python(
        "from npu_compiler import resources as r; print(r.template_root(), r.config_root(), sep='\\n')"
    ).splitlines()
    for place in places:
        assert Path(place).is_dir()
        assert not Path(place).is_relative_to(ROOT)
        assert Path(place).parent.name == "npu_compiler"


@pytest.mark.parametrize("name", ["torch", "pydantic", "doit"])
def test_compiling_a_graph_needs_no_pytorch(compiler: Environment, program: Path, name: str) -> None:
    assert program.is_file()
    assert compiler.python(f"from importlib.util import find_spec; print(find_spec({name!r}))") == "None"


def test_a_program_runs_on_the_base_dependencies(runtime: Environment, program: Path, tmp_path: Path) -> None:
    for name in ("torch", "jinja2", "yaml"):
        assert runtime.python(f"from importlib.util import find_spec; print(find_spec({name!r}))") == "None"
    x = np.array([[1, -2, 3], [-4, 5, -6]], np.float32)
    w = np.array([0.5, 1, -10], np.float32)
    np.save(tmp_path / "x.npy", x)
    save_file({"w": w}, tmp_path / "w.safetensors")
    shown = runtime.call(
        "npubin",
        "run",
        str(program),
        str(tmp_path / "w.safetensors"),
        "-i",
        f"x={tmp_path / 'x.npy'}",
        "-o",
        str(tmp_path / "out"),
        "--device",
        "pocl",
    )
    assert "relu: float32[2, 3]" in shown
    assert np.array_equal(np.load(tmp_path / "out" / "relu.npy"), np.maximum(x + w, 0))


def test_the_command_lists_devices(runtime: Environment) -> None:
    assert "pocl" in runtime.call("npubin", "devices")


def test_the_build_extra_serves_a_project_elsewhere(wheel: Path, tmp_path: Path) -> None:
    build = Environment(tmp_path / "env", wheel, {"build"})
    build.call("npubin", "init", ".")
    assert "1 configurations are valid: scorer" in build.call("python", "-m", "pipelines", "validate")
    tasks = build.call("python", "-m", "doit", "list", "--all").split()
    assert {"extract:scorer", "compile:scorer", "report:scorer"} <= set(tasks)
    assert "2 ran" in build.call("python", "-m", "doit", "compile:scorer")
    assert build.call("npubin", "inspect", "artifacts/scorer/cpu/main.npubin").startswith("scorer main")
    assert "2 up to date" in build.call("python", "-m", "doit", "compile:scorer")
    module = build.work / "my_models.py"
    module.write_text(module.read_text().replace("nn.ReLU()", "nn.Tanh()"))
    again = build.call("python", "-m", "doit", "compile:scorer")
    assert "code my_models.py changed" in again
    assert "2 ran" in again
