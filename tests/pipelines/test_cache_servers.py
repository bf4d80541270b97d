"""Caches behind a web server, caches that do not answer, and those that answer again. The stages are stubs;
see ``toy_project``."""

from __future__ import annotations

import functools
import http.server
import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cache_project import ALL, MEASURED, SHARED, flip, shared_files, sizes, store, stored, toy_in
from toy_project import forget_all

from pipelines import cache as cache_module
from pipelines import cache_store
from pipelines.cache import open_cache

__all__ = ["sizes", "store"]  # fixtures


@pytest.fixture
def served(store: Path) -> Iterator[str]:
    """The URL of a web server over the folder of the cache."""
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    store.mkdir(exist_ok=True)
    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(Quiet, directory=str(store)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.usefixtures("sizes")
def test_a_web_server_is_read(tmp_path: Path, store: Path, served: str, monkeypatch: pytest.MonkeyPatch,
                              capfd: pytest.CaptureFixture[str]) -> None:
    first = toy_in(tmp_path / "first", monkeypatch, store.as_uri())
    first.build()
    made, there = shared_files(first), stored(store)
    monkeypatch.setenv("NPU_CACHE", served)
    monkeypatch.delenv("NPU_CACHE_MODE", raising=False)
    second = toy_in(tmp_path / "second", monkeypatch, served)
    second.cache = open_cache(second.root)
    assert second.cache is not None
    assert not second.cache.write
    assert second.build() == MEASURED
    assert shared_files(second) == made
    flip(stored(store / "results")[0], [])
    forget_all(second)
    assert len(second.build()) == len(MEASURED) + 1
    assert "left aside" in capfd.readouterr().out
    assert shared_files(second) == made
    assert stored(store) == there


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.parametrize("url", [
    "file:///dev/null/cache", "nosuch://somewhere/cache", f"http://127.0.0.1:{closed_port()}/cache",
    f"http://user:secret@127.0.0.1:{closed_port()}/cache"])
def test_a_build_does_without_a_cache_that_does_not_serve(url: str, tmp_path: Path,
                                                          monkeypatch: pytest.MonkeyPatch,
                                                          capfd: pytest.CaptureFixture[str]) -> None:
    toy = toy_in(tmp_path / "toy", monkeypatch, url)
    assert toy.build() == ALL
    said = capfd.readouterr().out
    assert said.count("going on without it") == 1
    assert said.count("not asked, since it did not serve") >= len(SHARED) - 1
    assert "secret" not in said
    assert toy.build() == []


def test_a_server_that_is_silent_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                            capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(cache_store, "READ_TIMEOUT", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        toy = toy_in(tmp_path / "toy", monkeypatch, f"http://127.0.0.1:{silent.getsockname()[1]}/cache")
        started = time.monotonic()
        assert toy.build("weights:toy") == SHARED
    assert time.monotonic() - started < 25
    said = capfd.readouterr().out
    assert said.count(": no answer in time; going on without it") == 1
    assert said.count("not asked, since it did not serve") >= len(SHARED) - 1


@pytest.mark.parametrize("later", [2, -2], ids=["later", "by a clock that was set back"])
def test_a_cache_that_has_come_back_is_asked_again(later: int, tmp_path: Path, store: Path,
                                                   monkeypatch: pytest.MonkeyPatch) -> None:
    toy_in(tmp_path / "first", monkeypatch, store.as_uri()).build()
    toy = toy_in(tmp_path / "toy", monkeypatch, store.as_uri())
    assert toy.cache is not None
    toy.cache.trouble.parent.mkdir(parents=True)
    toy.cache.trouble.write_text(toy.cache.store.shown)
    assert toy.build() == ALL
    forget_all(toy)
    toy.cache.trouble.parent.mkdir(parents=True)
    toy.cache.trouble.write_text(toy.cache.store.shown)
    os.utime(toy.cache.trouble, (time.time() - later * cache_module.PATIENCE,) * 2)
    assert toy.build() == MEASURED
