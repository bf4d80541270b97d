"""``doit tune`` on a real device: a small budget, a project of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from npu_compiler.spaces import spaces
from pipelines.inputs import upper_sizes
from pipelines.job import job_of
from pipelines.tune import graphs_of, questions
from pipelines.tune_worker import FEWEST
from pipelines.workshop import Workshop

REPOSITORY = Path(__file__).resolve().parents[2]


def doit(project: Path, *arguments: str) -> str:
    """What a command says. It must succeed."""
    roots = os.pathsep.join(map(str, (REPOSITORY / "npu", REPOSITORY)))
    command = [sys.executable, "-m", "doit", "-v1", *arguments]
    done = subprocess.run(command, cwd=project, text=True, check=False,
                          capture_output=True, env={**os.environ, "PYTHONPATH": roots}, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture
def project(tmp_path: Path) -> Path:
    from pipelines.project import init

    folder = tmp_path / "mine"
    init(folder)
    with (folder / "configs" / "models" / "scorer.yaml").open("a") as file:
        file.write("tune: {seconds: 60, candidates: 3, repeats: 4}\n")
    return folder


def test_what_was_searched_is_kept_used_and_not_searched_again(project: Path) -> None:
    said = doit(project, "tune:scorer")
    (path,) = (project / "configs" / "tuning").glob("*.json")
    entries = json.loads(path.read_text())["entries"]
    assert {entry["space"] for entry in entries} == {"product"}
    assert all(0 < entry["tried"] <= 3 and entry["median_us"] > 0 for entry in entries), entries
    assert f"{len(entries)} searched" in said
    before = path.read_bytes()
    again = doit(project, "tune:scorer")
    assert "0 searched" in again, again
    assert path.read_bytes() == before
    doit(project, "compile:scorer")
    info = json.loads((project / "artifacts" / "scorer" / "cpu" / "build.json").read_text())
    build = info["programs"]["main"]
    assert build["tuned"] == len(entries) == sum("(measured, " in line for line in build["decisions"])


def test_a_worker_tells_what_nodes_take_and_times_the_whole_program(project: Path) -> None:
    doit(project, "extract:scorer")
    job = job_of("scorer", project)
    graphs = graphs_of(job, str(project))
    (item, *_) = questions(graphs, "cpu", {})
    given = {"graphs": {name: str(path) for name, path in graphs.items()}, "target": "cpu", "options": {},
             "programs": {"main": job.config.programs["main"].model_dump_json()},
             "sizes": upper_sizes(job.config, {}), "selector": None, "threads": None}
    with Workshop(given, 60.0, REPOSITORY) as workshop:
        times = workshop.profile("main")
        assert set(item.answer.nodes) <= {name for name, time in times.items() if time > 0}
        rule = spaces()[item.answer.space].rule(item.answer.question)
        trial = workshop.open("main", item.answer, rule, ()).measure_program(rule)
    assert not trial.problem
    assert len(trial.times) == len(trial.default) >= FEWEST
    assert min(*trial.times, *trial.default) > 0
