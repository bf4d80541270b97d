"""What ``explain`` foresees is what a build then does: by rehearsals, by the last run, by the shared cache.
The stages are stubs; see ``toy_project``."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from cache_project import flip, store, stored, toy_in
from test_build_graph import EDITS
from toy_project import Toy, make_toy

from pipelines.stages import STAGES

SHARED = {stage.name for stage in STAGES if stage.shared}
#: Edits after which all that runs is foreseen, though there is no cache.
CERTAIN = {"a Jinja comment", "the compiler's code", "a template's code", "a truncated program",
           "a missing kernel", "an edited ir.json", "edited source weights", "edited prepared weights",
           "compile options", "precision", "fallback", "a damaged record", "a measured choice"}

__all__ = ["store"]  # a fixture


def foreseen(toy: Toy, capsys: pytest.CaptureFixture[str]) -> dict[str, int]:
    """How many tasks would do what."""
    capsys.readouterr()
    toy.ran.clear()
    assert toy.doit("explain") == 0
    assert toy.ran == []
    last = capsys.readouterr().out.splitlines()[-1]
    return {what: int(count) for count, what in re.findall(r"(\d+) ([a-z ]+)", last)}


@pytest.mark.parametrize("what", EDITS)
def test_what_is_foreseen_happens(what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                  capsys: pytest.CaptureFixture[str]) -> None:
    toy = make_toy(tmp_path, monkeypatch)
    toy.build()
    EDITS[what][0](toy)
    plan = foreseen(toy, capsys)
    ran = len(toy.build())
    sure, perhaps = plan.get("would run", 0), plan.get("may run", 0)
    assert sure <= ran <= sure + perhaps
    assert perhaps == 0 or what not in CERTAIN
    assert sum(plan.values()) == len(STAGES)


@pytest.mark.parametrize("what", EDITS)
def test_what_the_cache_has_is_foreseen(what: str, tmp_path: Path, store: Path,
                                        monkeypatch: pytest.MonkeyPatch,
                                        capsys: pytest.CaptureFixture[str]) -> None:
    """Another checkout has made the same edit: everything shared is restored, and what then comes of it is
    known."""
    first = toy_in(tmp_path / "first", monkeypatch, store.as_uri())
    first.build()
    EDITS[what][0](first)
    first.build()
    toy = toy_in(tmp_path / "toy", monkeypatch, store.as_uri())
    toy.build()
    EDITS[what][0](toy)
    before = {path: path.read_bytes() for path in stored(store)}
    plan = foreseen(toy, capsys)
    assert {path: path.read_bytes() for path in stored(store)} == before
    capsys.readouterr()
    ran = toy.build()
    assert plan.get("would be restored", 0) == capsys.readouterr().out.count("restored from the cache,")
    assert SHARED.isdisjoint(ran)
    assert plan.get("would run", 0) <= len(ran) <= plan.get("would run", 0) + plan.get("may run", 0)
    assert plan.get("may run", 0) <= 1, "report alone depends on measurements"


def test_a_clone_is_told_what_it_need_not_make(tmp_path: Path, store: Path, monkeypatch: pytest.MonkeyPatch,
                                               capsys: pytest.CaptureFixture[str]) -> None:
    toy_in(tmp_path / "first", monkeypatch, store.as_uri()).build()
    toy = toy_in(tmp_path / "toy", monkeypatch, store.as_uri())
    capsys.readouterr()
    assert toy.doit("explain") == 0
    assert capsys.readouterr().out == (
        "no finished run is on record\n"
        "    => fetch:toy, extract:toy, compile:toy, weights:toy, verify:toy, bench:toy, report:toy\n"
        "fetch:toy, extract:toy, compile:toy, weights:toy would be restored from the cache\n"
        "3 would run, 4 would be restored\n")
    assert not (toy.root / "artifacts" / "toy").exists()


def test_what_the_cache_may_have_is_told_as_open(tmp_path: Path, store: Path, monkeypatch: pytest.MonkeyPatch,
                                                 capsys: pytest.CaptureFixture[str]) -> None:
    toy_in(tmp_path / "first", monkeypatch, store.as_uri()).build()
    toy = toy_in(tmp_path / "toy", monkeypatch, store.as_uri())
    toy.edit("toy_model.py", "size = 1", "size = 2")
    capsys.readouterr()
    assert toy.doit("--dry-run", "compile:toy") == 0
    assert capsys.readouterr().out == (
        "no finished run is on record\n    => extract:toy, compile:toy\n"
        "compile:toy would run or be restored from the cache, depending on the result of extract:toy\n"
        "2 would run\n")


@pytest.mark.parametrize("damage", ["a damaged entry", "a lost object", "no service",
                                    "no service a moment ago"])
def test_a_cache_that_does_not_serve_is_told(damage: str, tmp_path: Path, store: Path,
                                             monkeypatch: pytest.MonkeyPatch,
                                             capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("pipelines.cache.INLINE", 0)
    toy_in(tmp_path / "first", monkeypatch, store.as_uri()).build("weights:toy")
    place = store.as_uri()
    if damage == "a damaged entry":
        for path in stored(store / "results"):
            flip(path, [])
    elif damage == "a lost object":
        for path in stored(store / "objects"):
            path.unlink()
    else:
        place = "no-such-protocol://there"
    toy = toy_in(tmp_path / "toy", monkeypatch, place)
    if damage == "no service a moment ago":
        toy.build("fetch:toy")
    capsys.readouterr()
    assert toy.doit("explain", "weights:toy") == 0
    out = capsys.readouterr().out
    assert "restored from the cache\n" not in out
    said = {"a damaged entry": "is not what was stored; it would be left aside\n",
            "a lost object": "which is not there; it would be left aside\n",
            "no service": "; a build would go on without it\n",
            "no service a moment ago": "cache: not asked, since it did not serve "}[damage]
    assert out.count("cache: ") == (1 if damage.startswith("no service") else 2)
    assert said in out
    assert (toy.root / "artifacts" / ".cache-trouble").exists() == (damage == "no service a moment ago")


def test_a_failure_is_foreseen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                               capsys: pytest.CaptureFixture[str]) -> None:
    toy = make_toy(tmp_path, monkeypatch)
    toy.build()
    toy.edit("templates/ops/used.cl.j2", "kernel", "kernel2")
    toy.during["compile"] = lambda job: 1 / 0
    capsys.readouterr()
    assert toy.doit("explain") == 0
    assert capsys.readouterr().out == (
        "template ops/used.cl.j2 changed\n    => compile:toy\n"
        "compile:toy would fail: division by zero\n"
        "report:toy cannot run: verify:toy cannot\n"
        "1 would fail, 2 up to date, 1 cannot run\n")


def test_the_cache_that_the_environment_names_must_make_sense(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                              capsys: pytest.CaptureFixture[str]) -> None:
    from pipelines.cache import open_cache
    toy = make_toy(tmp_path, monkeypatch)
    monkeypatch.setenv("NPU_CACHE", str(tmp_path))
    monkeypatch.setenv("NPU_CACHE_MODE", "write")
    monkeypatch.setattr(Toy, "open_cache", staticmethod(open_cache))
    assert toy.doit("explain") == 3
    assert "NPU_CACHE_MODE" in capsys.readouterr().err
