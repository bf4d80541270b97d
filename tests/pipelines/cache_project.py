"""Toy projects that share a cache."""

from __future__ import annotations

from pathlib import Path

import pytest
from toy_project import Toy, make_toy

from pipelines import cache as cache_module
from pipelines.cache import Cache
from pipelines.cache_store import Store

ALL = ["bench", "compile", "extract", "fetch", "report", "verify", "weights"]
#: What no other machine can answer for.
MEASURED = ["bench", "report", "verify"]
SHARED = ["compile", "extract", "fetch", "weights"]


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """The folder of a cache."""
    return tmp_path / "store"


@pytest.fixture(params=["inline", "objects"])
def sizes(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once with all files small enough to lie in their results, once with none."""
    monkeypatch.setattr(cache_module, "INLINE", cache_module.INLINE if request.param == "inline" else 0)


def toy_in(root: Path, monkeypatch: pytest.MonkeyPatch, url: str, *, write: bool = True) -> Toy:
    root.mkdir(exist_ok=True)
    toy = make_toy(root, monkeypatch)
    toy.cache = Cache(Store(url), write, root / "artifacts" / ".cache-trouble")
    return toy


def shared_files(toy: Toy) -> dict[str, bytes]:
    """What the stages that are not measurements have made."""
    folder = toy.root / "artifacts" / "toy"
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*")
            if path.is_file() and ".stages" not in path.parts
            and not path.name.startswith(("verify.", "bench.", "report.", "history."))}


def stored(store: Path) -> list[Path]:
    return sorted(path for path in store.rglob("*") if path.is_file())


def flip(path: Path, others: list[Path]) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
