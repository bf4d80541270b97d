"""Builds that are killed, or run at the same time: the next build is right."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from toy_project import Toy, make_toy

from pipelines import digests
from tests import kill


def contents(toy: Toy) -> dict[str, bytes]:
    folder = toy.root / "artifacts" / "toy"
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*")
            if path.is_file() and path.parent.name != ".stages"}


def in_a_process_that_dies(work: Callable[[], object], at_rename: int) -> bool:
    """Runs ``work`` in a process that is killed when it is about to rename a file for the ``at_rename``-th
    time. Returns whether it came to that."""
    child = os.fork()
    if child == 0:
        real, left = os.replace, [at_rename]

        def replace(source: object, target: object, **more: object) -> None:
            if ".staging." not in str(target):
                if left[0] == 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                left[0] -= 1
            real(source, target, **more)  # type: ignore[arg-type]

        os.replace = replace  # type: ignore[assignment]
        try:
            work()
        finally:
            os._exit(0)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


def test_a_kill_at_any_rename_is_made_good(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digests, "_GRAIN", 0.0)  # so that digests are remembered, which renames as well
    toy = make_toy(tmp_path, monkeypatch)
    toy.build("weights")
    toy.edit("toy_helper.py", "value = 1", "value = 2")
    assert toy.build("weights") == ["compile", "extract", "fetch", "weights"]
    expected, number = contents(toy), 0
    while True:
        toy.edit("toy_helper.py", "value = 2", "value = 1")
        toy.build("weights")
        toy.edit("toy_helper.py", "value = 1", "value = 2")
        if not in_a_process_that_dies(lambda: toy.doit("weights"), number):
            break
        toy.build("weights")
        assert contents(toy) == expected, f"killed at rename {number}"
        left = [path for path in tmp_path.rglob("*") if ".staging" in path.name or path.suffix == ".tmp"]
        assert left == [], f"killed at rename {number}"
        assert toy.build("weights") == []
        number += 1
    assert number >= 12


@pytest.mark.full
def test_kills_at_random_moments_of_real_stages_are_made_good(tmp_path: Path) -> None:
    struck = kill.run(tmp_path, "tiny", 10, seed=99)
    assert struck.total() == 10
    assert {stage for stage, _ in struck} == set(kill.STAGES)
