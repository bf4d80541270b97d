"""``python -m pipelines cache``: what it keeps and what it removes."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from cache_project import flip, sizes, store, stored, toy_in
from toy_project import forget_all

from pipelines.__main__ import main
from pipelines.cache_command import parse_age, parse_size, prune
from pipelines.cache_store import Store

__all__ = ["sizes", "store"]  # fixtures


def fill(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """A cache with two generations of results, the first a week older."""
    toy = toy_in(tmp_path / "toy", monkeypatch, store.as_uri())
    toy.build("compile:toy")
    for path in stored(store):
        os.utime(path, (time.time() - 7 * 86400,) * 2)
    toy.edit("toy_model.py", "size = 1", "size = 2")
    toy.build("compile:toy")
    return Store(store.as_uri())


@pytest.mark.usefixtures("sizes")
def test_pruning_by_age_keeps_what_is_used(store: Path, tmp_path: Path,
                                           monkeypatch: pytest.MonkeyPatch) -> None:
    place = fill(store, tmp_path, monkeypatch)
    assert len(stored(store / "results")) == 4
    done = prune(place, None, 86400)
    assert len(stored(store / "results")) == 2
    assert done.left == sum(path.stat().st_size for path in stored(store))
    toy = toy_in(tmp_path / "other", monkeypatch, store.as_uri())
    toy.edit("toy_model.py", "size = 1", "size = 2")
    assert toy.build("compile:toy") == []
    assert prune(place, None, 86400).files == 0


@pytest.mark.usefixtures("sizes")
def test_pruning_by_size_removes_the_longest_unused(store: Path, tmp_path: Path,
                                                    monkeypatch: pytest.MonkeyPatch) -> None:
    place = fill(store, tmp_path, monkeypatch)
    newest = {path for path in stored(store / "results") if time.time() - path.stat().st_mtime < 3600}
    size = sum(path.stat().st_size for path in stored(store))
    done = prune(place, size - 1, None)
    assert done.left <= size - 1
    assert newest <= set(stored(store / "results"))
    assert prune(place, 0, None).left == 0
    assert stored(store) == []


def test_using_a_result_makes_it_young(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    toy = toy_in(tmp_path / "toy", monkeypatch, store.as_uri())
    toy.build("extract:toy")
    for path in stored(store):
        os.utime(path, (time.time() - 7 * 86400,) * 2)
    forget_all(toy)
    assert toy.build("extract:toy") == []
    assert prune(Store(store.as_uri()), None, 86400).files == 0


def test_pruning_removes_the_damaged_and_what_was_never_finished(store: Path, tmp_path: Path,
                                                                 monkeypatch: pytest.MonkeyPatch) -> None:
    toy_in(tmp_path / "toy", monkeypatch, store.as_uri()).build("extract:toy")
    flip(stored(store / "results")[0], [])
    for name, age in (("results/aa/young.1.tmp", 60), ("results/aa/old.1.tmp", 7200),
                      ("objects/aa/young", 60), ("objects/aa/old", 7200)):
        (store / name).parent.mkdir(parents=True, exist_ok=True)
        (store / name).write_bytes(b"x")
        os.utime(store / name, (time.time() - age,) * 2)
    prune(Store(store.as_uri()), 1 << 40, None)
    left = {path.name for path in stored(store) if "questions" not in path.parts}
    assert left == {"young.1.tmp", "young"}


@pytest.mark.parametrize(("text", "size"), [
    ("0", 0), ("10", 10), ("2KiB", 2048), ("2K", 2048), ("1.5 MiB", 3 << 19), ("10GB", 10 << 30),
    ("1T", 1 << 40)])
def test_sizes_are_read(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(("text", "seconds"), [
    ("30d", 30 * 86400), ("12h", 43200), ("1.5m", 90), ("2w", 1209600)])
def test_ages_are_read(text: str, seconds: float) -> None:
    assert parse_age(text) == seconds


@pytest.mark.parametrize("arguments", [
    ["--max-size", "much"], ["--max-age", "30"], ["--max-age", "d"], ["--max-size", "10 miles"]])
def test_wrong_sizes_and_ages_are_misuse(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["cache", "prune", *arguments])
    assert end.value.code == 2
    assert "write" in capsys.readouterr().err


def test_the_commands(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                      capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.delenv("NPU_CACHE", raising=False)
    monkeypatch.delenv("NPU_CACHE_MODE", raising=False)
    assert main(["cache", "status"]) == 1
    assert "set NPU_CACHE" in capsys.readouterr().err
    fill(store, tmp_path, monkeypatch)
    monkeypatch.setenv("NPU_CACHE", str(store))
    assert main(["cache", "status"]) == 0
    assert "results: 4" in capsys.readouterr().out
    assert main(["cache", "prune"]) == 1
    assert "--max-size" in capsys.readouterr().err
    assert main(["cache", "prune", "--max-age", "1d"]) == 0
    assert len(stored(store / "results")) == 2
    monkeypatch.setenv("NPU_CACHE_MODE", "read")
    assert main(["cache", "prune", "--max-size", "0"]) == 1
    assert "may only be read" in capsys.readouterr().err
