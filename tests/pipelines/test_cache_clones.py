"""The default models: a cache that one checkout has filled serves a clone, whatever is damaged in it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from cache_project import flip, stored

REPOSITORY = Path(__file__).resolve().parents[2]
PARTS = ("npu", "pipelines", "templates", "configs", "dodo.py", "pyproject.toml")


class Clone:
    """A copy of the sources, built with a cache."""

    def __init__(self, root: Path, store: Path) -> None:
        self.root, self.store = root, store
        root.mkdir()
        for name in PARTS:
            source = REPOSITORY / name
            if source.is_dir():
                shutil.copytree(source, root / name, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(source, root / name)

    def doit(self, *tasks: str) -> str:
        """What a successful build prints."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith("NPU_CACHE")}
        environment |= {"NPU_CACHE": self.store.as_uri(),
                        "PYTHONPATH": f"{self.root / 'npu'}{os.pathsep}{self.root}"}
        done = subprocess.run([sys.executable, "-m", "doit", *tasks], cwd=self.root, env=environment,
                              text=True, capture_output=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def made(self) -> dict[str, bytes]:
        """The artifacts, and nothing that the build keeps for itself."""
        found = (self.root / "artifacts").rglob("*")
        files = (path.relative_to(self.root) for path in found if path.is_file())
        return {file.as_posix(): (self.root / file).read_bytes() for file in files
                if not any(part.startswith(".") for part in file.parts)}


@pytest.mark.full
def test_a_fresh_clone_of_the_default_models(tmp_path: Path) -> None:
    store = tmp_path / "store"
    first = Clone(tmp_path / "first", store)
    assert "8 ran" in first.doit("weights")
    made = first.made()
    good = tmp_path / "good"
    shutil.copytree(store, good)
    second = Clone(tmp_path / "second", store)
    assert "8 restored" in second.doit("weights")
    assert second.made() == made
    for file in stored(good):
        shutil.rmtree(store)
        shutil.copytree(good, store)
        flip(store / file.relative_to(good), [])
        shutil.rmtree(second.root / "artifacts")
        said = second.doit("weights")
        assert second.made() == made, file.name
        assert "is not what was stored" in said, file.name
        assert "1 ran" in said, file.name
        assert "7 restored" in said, file.name
