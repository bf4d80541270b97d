"""Builds that are killed, or run at the same time: the next build is right."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from toy_project import Toy, make_toy

from pipelines import digests, locks
from pipelines.config import load_config
from pipelines.doit_ext import launch
from pipelines.execute import execute
from pipelines.fingerprint import Observed
from pipelines.job import Job
from tests import kill


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Toy:
    return make_toy(tmp_path, monkeypatch)


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


def test_a_second_build_waits_for_the_first_and_uses_its_result(
        toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    started, waiting = threading.Event(), threading.Event()
    real = fcntl.flock

    def flock(file: object, kind: int) -> None:
        if not kind & fcntl.LOCK_NB:
            waiting.set()
        real(file, kind)  # type: ignore[arg-type]

    monkeypatch.setattr(locks.fcntl, "flock", flock)
    job = Job(toy.root, load_config(toy.root / "configs/models/toy.yaml", toy.root), "cpu")

    def run(staged: Job) -> Observed | None:
        started.set()
        assert waiting.wait(20)
        return toy.stub(toy.stages[1], staged)

    first = threading.Thread(target=execute, args=(toy.stages[1], job, run))
    first.start()
    assert started.wait(20)
    execute(toy.stages[1], job, run)
    first.join()
    assert toy.ran == ["extract"]


def test_what_another_build_has_made_since_the_decision_is_not_made_again(
        toy: Toy, capsys: pytest.CaptureFixture[str]) -> None:
    stage, path = toy.stages[1], toy.root / "configs/models/toy.yaml"
    job = Job(toy.root, load_config(path, toy.root), "cpu")
    for anew in (False, False, True):
        execute(stage, job, lambda staged: toy.stub(stage, staged), anew=anew)
    assert toy.ran == ["extract", "extract"]
    assert capsys.readouterr().out == "made by another build meanwhile\n"


def test_a_build_that_was_killed_leaves_no_trace(toy: Toy) -> None:
    toy.build("extract")
    folder = toy.root / "artifacts/toy"
    staging = folder / ".staging.compile@cpu" / "cpu"
    staging.mkdir(parents=True)
    (staging / "main.npubin").write_text("half")
    (folder / "cpu").mkdir()
    (folder / "cpu" / "main.npubin").write_text("moved before the record was written")
    assert toy.build("compile") == ["compile"]
    assert "half" not in (folder / "cpu" / "main.npubin").read_text()
    assert not list(folder.glob(".staging*"))


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_a_command_that_is_ended_ends_its_stages(toy: Toy, sent: signal.Signals,
                                                 monkeypatch: pytest.MonkeyPatch) -> None:
    """Two stages run beside each other in threads, which Python does not interrupt."""
    slow = toy.root / "slow"
    slow.write_text("#!/bin/sh\nexec sleep 60\n")
    slow.chmod(0o755)
    monkeypatch.setattr("sys.executable", str(slow))
    monkeypatch.setattr(Toy, "launch", staticmethod(launch.launch_child))
    started: list[subprocess.Popen[str]] = []

    def send() -> None:
        limit = time.monotonic() + 20
        while len(launch._children) < 2 and time.monotonic() < limit:
            time.sleep(0.01)
        started.extend(launch._children)
        os.kill(os.getpid(), sent)

    threading.Thread(target=send).start()
    with pytest.raises(SystemExit) as end:
        toy.doit("-n", "2", "fetch:toy", "extract:toy")
    assert end.value.code == 130
    assert [child.poll() for child in started] == [-signal.SIGTERM] * 2


@pytest.mark.full
def test_kills_at_random_moments_of_real_stages_are_made_good(tmp_path: Path) -> None:
    struck = kill.run(tmp_path, "tiny", 10, seed=99)
    assert struck.total() >= 10
    assert all(struck[stage, where] >= 1 for stage in kill.STAGES for where in ("run", "commit")), struck
