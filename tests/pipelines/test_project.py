"""``npubin init``: what it writes, and what it refuses."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from npu_runtime.errors import NpubinError
from pipelines.cli import main
from pipelines.config import load_configs
from pipelines.project import ProjectError, init
from pipelines.schema import schema

REPOSITORY = Path(__file__).resolve().parents[2]
FILES = [".gitignore", "configs/models/scorer.yaml", "configs/schema.json", "dodo.py", "my_models.py"]


def written(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes()
            for path in folder.rglob("*") if path.is_file()}


def test_a_new_project_is_complete(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "deep" / "shop"
    assert main(["init", str(folder)]) == 0
    files = written(folder)
    assert sorted(files) == FILES
    assert "doit" in capsys.readouterr().out
    assert files["dodo.py"] == (REPOSITORY / "dodo.py").read_bytes()
    assert json.loads(files["configs/schema.json"]) == schema()
    assert b"/artifacts/" in files[".gitignore"].split(b"\n")
    config = load_configs(folder)["scorer"]
    assert config.default
    code = ("import my_models, torch; model = my_models.scorer(16, 4); "
            "print(tuple(model(torch.ones(3, 16)).shape))")
    assert subprocess.check_output([sys.executable, "-c", code], cwd=folder, text=True) == "(3, 4)\n"


def test_an_existing_folder_keeps_its_own_files(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("mine")
    assert init(tmp_path) == FILES
    assert (tmp_path / "README.md").read_text() == "mine"


def file_at(name: str) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("mine")
    return make


@pytest.mark.parametrize(("prepare", "named"), [
    *[(file_at(name), name) for name in FILES],
    (file_at("configs"), "configs"),
    (lambda folder: (folder / "dodo.py").symlink_to("nowhere"), "dodo.py"),
    (lambda folder: init(folder) and None, "dodo.py"),
])
def test_nothing_is_overwritten(tmp_path: Path, prepare: Callable[[Path], None], named: str) -> None:
    prepare(tmp_path)
    before = written(tmp_path)
    with pytest.raises(ProjectError, match=f"{named}.*nothing was written") as error:
        init(tmp_path)
    assert written(tmp_path) == before
    assert isinstance(error.value, NpubinError)


@pytest.mark.parametrize("name", ["pipelines/__init__.py", "npu_runtime.py"])
def test_a_folder_that_hides_the_package_is_refused(tmp_path: Path, name: str) -> None:
    file_at(name)(tmp_path)
    with pytest.raises(ProjectError, match="hides npubin's module"):
        init(tmp_path)
    assert sorted(written(tmp_path)) == [name]


def test_a_file_is_no_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "shop").write_text("mine")
    assert main(["init", str(tmp_path / "shop")]) == 1
    assert "is a file" in capsys.readouterr().err
    assert (tmp_path / "shop").read_text() == "mine"


def test_the_missing_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pipelines.schema", None)
    with pytest.raises(ProjectError, match=r"npubin\[build,pocl\]"):
        init(tmp_path / "shop")
    assert not (tmp_path / "shop").exists()
