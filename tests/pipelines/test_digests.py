"""Digests of contents, remembered by inode, size and times, and not to be fooled."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from blake3 import blake3

from pipelines import digests
from pipelines.digests import MISSING, Digests

OLD = 1_000_000_000 * 10**9 + 5


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "weights.bin"
    path.write_bytes(b"some weights")
    return path


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is hashed, rather than remembered."""
    hashed: list[str] = []

    def counting(**options: object) -> object:
        hashed.append("once")
        return blake3(**options)
    counting.AUTO = blake3.AUTO
    monkeypatch.setattr(digests, "blake3", counting)
    return hashed


def age(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """As if it were later."""
    real = time.time
    monkeypatch.setattr(digests.time, "time", lambda: real() + seconds)


def test_an_old_file_is_hashed_once_for_all_processes(file: Path, tmp_path: Path, reads: list[str],
                                                      monkeypatch: pytest.MonkeyPatch) -> None:
    age(monkeypatch, 10)
    store = tmp_path / "digests.json"
    first = Digests(store)
    found = first.of(file)
    assert found == blake3(b"some weights").hexdigest()
    first.save()
    assert Digests(store).of(file) == first.of(file) == found
    assert len(reads) == 1


def test_a_young_file_is_hashed_again(file: Path, reads: list[str]) -> None:
    os.utime(file, ns=(OLD, OLD))  # its content is younger than it says
    known = Digests()
    before = known.of(file)
    status = file.stat()
    file.write_bytes(b"more weights")
    os.utime(file, ns=(OLD, OLD))
    assert file.stat().st_size == status.st_size
    assert known.of(file) != before
    assert len(reads) == 2


CHANGES: dict[str, Callable[[Path], object]] = {
    "content": lambda path: path.write_bytes(b"more weights"),
    "length": lambda path: path.write_bytes(b"weights"),
    "another file in its place": lambda path: (
        path.with_name("x").write_bytes(b"more weights"), path.with_name("x").replace(path)),
    "content, with the old time": lambda path: (
        path.write_bytes(b"more weights"), os.utime(path, ns=(OLD, OLD))),
}


@pytest.mark.parametrize("what", CHANGES)
def test_a_change_is_seen_whatever_the_time_says(what: str, file: Path, tmp_path: Path,
                                                 monkeypatch: pytest.MonkeyPatch) -> None:
    age(monkeypatch, 10)
    os.utime(file, ns=(OLD, OLD))
    known = Digests(tmp_path / "digests.json")
    before = known.of(file)
    known.save()
    CHANGES[what](file)
    assert known.of(file) == Digests(tmp_path / "digests.json").of(file) != before


def test_a_large_file_waits_until_its_time_tells(tmp_path: Path, reads: list[str],
                                                 monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digests, "_LARGE", 4)
    path, known = tmp_path / "large", Digests()
    path.write_bytes(b"12345678")
    assert known.of(path) == known.of(path)
    assert len(reads) == 1


def test_a_large_file_that_another_process_has_hashed_is_not_hashed_again(
        file: Path, tmp_path: Path, reads: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digests, "_LARGE", 4)
    build, stage = Digests(tmp_path / "digests.json"), Digests(tmp_path / "digests.json")
    found = stage.of(file)
    stage.save()
    assert build.of(file) == found
    assert len(reads) == 1


@pytest.mark.parametrize("damage", [b"", b"{", b'{"boot": 3, "files": []}', b"\x00\xff"])
def test_a_damaged_memory_is_no_harm(file: Path, tmp_path: Path, damage: bytes) -> None:
    (tmp_path / "digests.json").write_bytes(damage)
    assert Digests(tmp_path / "digests.json").of(file) == blake3(b"some weights").hexdigest()


def test_nothing_is_remembered_across_a_restart_of_the_machine(
        file: Path, tmp_path: Path, reads: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    age(monkeypatch, 10)
    store = tmp_path / "digests.json"
    known = Digests(store)
    known.of(file)
    known.save()
    monkeypatch.setattr(digests, "boot_id", lambda: "another")
    Digests(store).of(file)
    assert len(reads) == 2


def test_processes_add_to_what_others_remember(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    age(monkeypatch, 10)
    store, files = tmp_path / "digests.json", [tmp_path / "a", tmp_path / "b"]
    known = [Digests(store), Digests(store)]
    for one, path in zip(known, files, strict=True):
        path.write_text(path.name)
        one.of(path)
    for one in known:
        one.save()
    assert set(msgspec.json.decode(store.read_bytes())["files"]) == {str(path) for path in files}


def test_a_folder_is_its_files_and_their_names(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    (folder / "in").mkdir(parents=True)
    (folder / "in" / "a").write_text("1")
    known = Digests()
    before = known.of(folder)
    (folder / "in" / "a").rename(folder / "in" / "b")
    renamed = known.of(folder)
    (folder / "in" / "b").write_text("2")
    assert len({before, renamed, known.of(folder), known.of(folder / "none")}) == 4
    assert known.of(folder / "none") == MISSING


def test_a_source_is_looked_at_once(file: Path) -> None:
    known = Digests()
    before = known.source(file)
    file.write_bytes(b"changed while a build runs")
    assert known.source(file) == before != known.of(file) == Digests().source(file)


def test_a_full_disk_costs_no_more_than_memory(file: Path, tmp_path: Path,
                                               monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, data: bytes) -> None:
        raise OSError(28, "No space left on device", str(path))

    os.utime(file, (1, 1))
    time.sleep(0.2)
    found = Digests(tmp_path / "store")
    digest = found.of(file)
    monkeypatch.setattr(digests, "write_atomic", full)
    found.save()
    assert not (tmp_path / "store").exists()
    assert Digests(tmp_path / "store").of(file) == digest
