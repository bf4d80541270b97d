"""The shared cache: what one checkout has made another takes, and nothing that is not exactly that. The
stages are stubs; see ``toy_project``."""

from __future__ import annotations

import os
import shutil
import signal
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cache_project import ALL, MEASURED, SHARED, flip, shared_files, sizes, store, stored, toy_in
from toy_project import forget_all

from npu_runtime.errors import InputError
from pipelines import cache_store
from pipelines.cache import Result, open_cache
from pipelines.cache_command import prune
from pipelines.cache_store import CacheError, DamagedError, Store
from pipelines.stages import STAGES

__all__ = ["sizes", "store"]  # fixtures


@pytest.mark.usefixtures("sizes")
def test_a_fresh_clone_restores_every_shared_stage(tmp_path: Path, store: Path,
                                                   monkeypatch: pytest.MonkeyPatch,
                                                   capfd: pytest.CaptureFixture[str]) -> None:
    first = toy_in(tmp_path / "first", monkeypatch, store.as_uri())
    assert first.build() == ALL
    made = shared_files(first)
    second = toy_in(tmp_path / "second", monkeypatch, store.as_uri())
    capfd.readouterr()
    assert second.build() == MEASURED
    assert capfd.readouterr().out.count("restored from the cache") == len(SHARED)
    assert shared_files(second) == made
    assert second.build() == []
    second.edit("toy_model.py", "size = 1", "size = 2")
    assert second.build() == ALL


def test_measurements_are_neither_stored_nor_taken(tmp_path: Path, store: Path,
                                                   monkeypatch: pytest.MonkeyPatch) -> None:
    toy_in(tmp_path / "first", monkeypatch, store.as_uri()).build()
    heads = [msgspec.json.decode(path.read_bytes().split(b"\n")[1], type=Result)
             for path in stored(store / "results")]
    assert sorted(head.stage for head in heads) == SHARED
    assert [stage.name for stage in STAGES if not stage.shared] == ["verify", "bench", "report"]


def test_both_answers_to_one_question_are_kept(tmp_path: Path, store: Path,
                                               monkeypatch: pytest.MonkeyPatch) -> None:
    """An edit and its undoing: the question (all that is known before a run) is the same for both."""
    toy = toy_in(tmp_path / "toy", monkeypatch, store.as_uri())
    toy.build()
    made = shared_files(toy)
    toy.edit("toy_helper.py", "value = 1", "value = 2")
    assert set(SHARED) <= set(toy.build())
    assert shared_files(toy) != made
    toy.edit("toy_helper.py", "value = 2", "value = 1")
    forget_all(toy)
    assert toy.build() == MEASURED
    assert shared_files(toy) == made
    toy.edit("templates/ops/used.cl.j2", "kernel", "other kernel")
    assert "compile" in toy.build()


def test_a_damaged_output_is_restored(tmp_path: Path, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    toy = toy_in(tmp_path / "toy", monkeypatch, store.as_uri())
    toy.build()
    made = shared_files(toy)
    (toy.root / "artifacts/toy/cpu/main.npubin").write_text("damaged")
    (toy.root / "artifacts/toy/main.ir.json").unlink()
    assert toy.build() == []
    assert shared_files(toy) == made


def truncate(path: Path, others: list[Path]) -> None:
    os.truncate(path, path.stat().st_size // 2)


def empty(path: Path, others: list[Path]) -> None:
    path.write_bytes(b"")


def lengthen(path: Path, others: list[Path]) -> None:
    path.write_bytes(path.read_bytes() + b"x")


def swap(path: Path, others: list[Path]) -> None:
    """A whole and valid file, of another name."""
    kind = path.relative_to(path.parents[2]).parts[0]
    other = [each for each in others if each != path and each.parent.parent.name == kind]
    path.write_bytes(other[0].read_bytes() if other else b"x")


def remove(path: Path, others: list[Path]) -> None:
    path.unlink()


def folder(path: Path, others: list[Path]) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.usefixtures("sizes")
@pytest.mark.parametrize("damage", [flip, truncate, empty, lengthen, swap, remove, folder])
def test_nothing_damaged_is_used(damage: Callable[[Path, list[Path]], None], tmp_path: Path, store: Path,
                                 monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    """Each file of the cache in turn: the build ends with the right artifacts all the same, says what was
    wrong, and leaves the cache whole again."""
    first = toy_in(tmp_path / "first", monkeypatch, store.as_uri())
    first.build("weights:toy")
    made = shared_files(first)
    good = tmp_path / "good"
    shutil.copytree(store, good)
    toy = toy_in(tmp_path / "toy", monkeypatch, store.as_uri())
    for file in stored(good):
        shutil.rmtree(store)
        shutil.copytree(good, store)
        name = file.relative_to(good)
        damage(store / name, stored(store))
        if toy.root.joinpath("artifacts").exists():
            forget_all(toy)
        capfd.readouterr()
        ran = toy.build("weights:toy")
        assert shared_files(toy) == made, name
        assert ran, name
        said = capfd.readouterr().out
        assert damage is remove or "cache: " in said, name
        if damage is not folder:
            forget_all(toy)
            assert toy.build("weights:toy") == [], name


@pytest.mark.parametrize("case", [
    "escape", "absolute", "inside but not made", "two of one name", "one missing", "another stage",
    "another key", "another format", "more bytes", "not JSON"])
def test_a_forged_result_writes_nowhere_else(case: str, tmp_path: Path, store: Path,
                                             monkeypatch: pytest.MonkeyPatch) -> None:
    """Whole by its digest, and still not believed."""
    first = toy_in(tmp_path / "first", monkeypatch, store.as_uri())
    first.build("weights:toy")
    made = shared_files(first)
    place = Store(store.as_uri())
    for path in stored(store / "results"):
        name = path.relative_to(store).as_posix()
        data = place.read(name)
        assert data is not None
        head, _, rest = data.partition(b"\n")
        place.write(name, forged(case, msgspec.json.decode(head, type=Result), rest))
    (tmp_path / "inner").mkdir()
    toy = toy_in(tmp_path / "inner" / "toy", monkeypatch, store.as_uri())

    def around() -> set[Path]:
        return {path for path in tmp_path.rglob("*") if not path.is_relative_to(toy.root)
                and not path.is_relative_to(store)}

    before = around()
    assert toy.build("weights:toy") == SHARED
    assert shared_files(toy) == made
    assert around() == before


def forged(case: str, head: Result, rest: bytes) -> bytes:
    first = head.files[0]
    files = {
        "escape": (msgspec.structs.replace(first, name="../../../escaped"), *head.files[1:]),
        "absolute": (msgspec.structs.replace(first, name="/dev/shm/npubin-escaped"), *head.files[1:]),
        "inside but not made": (msgspec.structs.replace(first, name="cpu/bench.toy.json"), *head.files[1:]),
        "two of one name": (*head.files[:1], *head.files), "one missing": head.files[1:],
    }.get(case, head.files)
    changes: Mapping[str, object] = {
        "another stage": {"stage": "bench"}, "another format": {"format": head.format + 1},
        "another key": {"key": {**head.key, "library torch": "0"}}}.get(case, {})
    new = msgspec.structs.replace(head, files=files, **changes)
    if case == "two of one name":
        rest = rest[:first.size] + rest
    if case == "one missing":
        rest = rest[first.size:]
    encoded = b"[" if case == "not JSON" else msgspec.json.encode(new)
    return encoded + b"\n" + rest + (b"x" if case == "more bytes" else b"")


def test_reading_alone_stores_nothing(tmp_path: Path, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    toy_in(tmp_path / "first", monkeypatch, store.as_uri()).build("extract:toy")
    there = stored(store)
    second = toy_in(tmp_path / "second", monkeypatch, store.as_uri(), write=False)
    assert second.build("compile:toy") == ["compile"]
    assert stored(store) == there


@pytest.mark.parametrize(("url", "mode", "write"), [
    ("/somewhere", None, True), ("/somewhere", "read", False), ("/somewhere", "read-write", True),
    ("/somewhere", "off", None), (None, "read", None), ("", None, None), ("http://somewhere", None, False),
    ("https://somewhere", "read-write", False)])
def test_modes(url: str | None, mode: str | None, write: bool | None, tmp_path: Path,
               monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("NPU_CACHE", url), ("NPU_CACHE_MODE", mode)):
        if value is None:
            monkeypatch.delenv(name, raising=False)
        else:
            monkeypatch.setenv(name, value)
    found = open_cache(tmp_path)
    assert (found.write if found else None) == write


def test_a_wrong_mode_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NPU_CACHE", "/somewhere")
    monkeypatch.setenv("NPU_CACHE_MODE", "raed")
    with pytest.raises(InputError, match="off, read or read-write"):
        open_cache(tmp_path)


def test_a_write_that_breaks_off_leaves_nothing(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from fsspec.implementations.local import LocalFileSystem
    place = Store(store.as_uri())
    place.write("results/aa/name", b"old")

    def torn(fs: LocalFileSystem, path: str, data: bytes) -> None:
        Path(path).write_bytes(data[:5])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(LocalFileSystem, "pipe_file", torn)
    with pytest.raises(CacheError, match="No space left"):
        place.write("results/aa/name", b"new")
    assert place.read("results/aa/name") == b"old"
    assert [path.name for path in stored(store)] == ["name"]


def in_a_process_that_dies(work: Callable[[], object], at_write: int) -> bool:
    """Runs ``work`` in a process that is killed within its ``at_write``-th step of writing to the cache: half
    through a file, or about to rename it. Returns whether it came to that."""
    from fsspec.implementations.local import LocalFileSystem
    child = os.fork()
    if child == 0:
        left = [at_write]

        def strike(real: Callable[..., object]) -> Callable[..., object]:
            def call(fs: LocalFileSystem, source: str, *more: Any, **options: Any) -> object:
                if left[0] == 0:
                    if real is not LocalFileSystem.mv:
                        Path(source if isinstance(more[0], bytes) else more[0]).write_bytes(b"half")
                    os.kill(os.getpid(), signal.SIGKILL)
                left[0] -= 1
                return real(fs, source, *more, **options)
            return call

        try:
            for name in ("pipe_file", "put_file", "mv"):
                setattr(LocalFileSystem, name, strike(getattr(LocalFileSystem, name)))
            work()
        finally:
            os._exit(0)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


@pytest.mark.usefixtures("sizes")
def test_a_kill_while_it_is_written_is_no_harm(tmp_path: Path, store: Path, monkeypatch: pytest.MonkeyPatch,
                                               capfd: pytest.CaptureFixture[str]) -> None:
    toy = toy_in(tmp_path / "toy", monkeypatch, store.as_uri())
    toy.build("extract:toy")
    made, number = shared_files(toy), 0
    while True:
        forget_all(toy)
        shutil.rmtree(store)
        if not in_a_process_that_dies(lambda: toy.doit("extract:toy"), number):
            break
        capfd.readouterr()
        toy.build("extract:toy")
        assert "cache: " not in capfd.readouterr().out, f"killed at write {number}"
        assert shared_files(toy) == made, f"killed at write {number}"
        left = [path for path in stored(store) if path.suffix == ".tmp"]
        assert len(left) == 1, f"killed at write {number}"
        os.utime(left[0], (1, 1))
        prune(Store(store.as_uri()), None, None)
        assert not left[0].exists()
        for most in (1, 0):  # what stood already when it was to be stored is not there yet
            forget_all(toy)
            assert len(toy.build("extract:toy")) <= most, f"killed at write {number}"
            assert shared_files(toy) == made, f"killed at write {number}"
        number += 1
    assert number >= 4, "a result and a question, and more where files are large"


def test_a_large_file_is_checked_on_the_way(store: Path, tmp_path: Path) -> None:
    place, source, copy = Store(store.as_uri()), tmp_path / "source", tmp_path / "copy"
    source.write_bytes(os.urandom(100_003))
    digest = cache_store.file_digest(source)
    place.keep("objects/large", source)
    assert place.fetch("objects/large", digest, copy)
    assert copy.read_bytes() == source.read_bytes()
    assert not place.fetch("objects/none", digest, copy)
    flip(store / "objects" / "large", [])
    with pytest.raises(DamagedError):
        place.fetch("objects/large", digest, copy)


def test_two_checkouts_may_fill_it_at_once(store: Path, tmp_path: Path,
                                           monkeypatch: pytest.MonkeyPatch) -> None:
    toy = toy_in(tmp_path / "toy", monkeypatch, store.as_uri())
    toy.build("weights:toy")
    data = {path: path.read_bytes() for path in stored(store)}

    def write() -> None:
        for path, content in data.items():
            Store(store.as_uri()).write(path.relative_to(store).as_posix(), content.partition(b"\n")[2])

    threads = [threading.Thread(target=write) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {path: path.read_bytes() for path in stored(store)} == data
