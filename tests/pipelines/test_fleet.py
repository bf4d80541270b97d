"""Stages on a Dask cluster: with stubs on workers that are threads, and for real with two workers in folders
of their own."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from distributed import Client, LocalCluster
from toy_project import Toy, make_toy

from npu_runtime.errors import InputError
from pipelines import devices, fleet, project
from pipelines.cli import main
from pipelines.doit_ext.session import Running
from pipelines.fleet import MADE, Done, FleetError, Project, graph_of, run_fleet, run_task
from pipelines.job import Job, jobs_of
from pipelines.stages import STAGES, Stage

REPOSITORY = Path(__file__).resolve().parents[2]
ALL = [stage.name for stage in STAGES]


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Toy:
    toy = make_toy(tmp_path, monkeypatch, ("one", "three", "two"))
    monkeypatch.chdir(tmp_path)
    stages = {stage.name: stage for stage in toy.stages}

    def launch(stage: Stage, job: Job, running: Running) -> str | None:
        return toy.launch(stage, job, running)

    monkeypatch.setattr(fleet, "launch_child", launch)
    monkeypatch.setattr(fleet, "STAGES", toy.stages)
    monkeypatch.setattr(fleet, "_STAGES", stages)
    monkeypatch.setattr(devices, "ask", lambda target, root: toy.device)
    return toy


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    with (LocalCluster(n_workers=2, threads_per_worker=1, processes=False, dashboard_address=None) as cluster,
          Client(cluster) as client):
        yield client


def ends(client: Client, toy: Toy, to: str, *names: str) -> dict[str, Done]:
    found = list(run_fleet(client, names, to, toy.root))
    assert len({done.name for done in found}) == len(found)
    return {done.name: done for done in found}


def test_every_stage_of_every_model_is_done_once(client: Client, toy: Toy) -> None:
    found = ends(client, toy, "report")
    assert found.keys() == {f"{stage}:{model}" for stage in ALL for model in ("one", "two", "three")}
    assert {done.outcome for done in found.values()} == {"ran"}
    assert sorted(toy.ran) == sorted(found)
    for model in ("one", "two", "three"):
        assert toy.ran.index(f"extract:{model}") < toy.ran.index(f"compile:{model}") < (
            toy.ran.index(f"weights:{model}"))
    assert {done.outcome for done in ends(client, toy, "report").values()} == {"up to date"}
    assert toy.build() == []


def test_a_benchmark_runs_when_all_else_is_done(client: Client, toy: Toy) -> None:
    for stage in ALL:
        toy.during[stage] = lambda job: time.sleep(0.05)
    ends(client, toy, "report")
    assert toy.alone["bench:one"] == toy.alone["bench:two"] == set()
    assert any(toy.alone[f"extract:{model}"] for model in ("one", "two", "three"))
    first = min(toy.ran.index(f"bench:{model}") for model in ("one", "two", "three"))
    assert not any(name.startswith(("fetch:", "compile:", "weights:")) for name in toy.ran[first:])


@pytest.mark.parametrize(("stage", "not_run"), [
    ("compile", {"weights", "verify", "bench", "report"}), ("verify", {"report"}), ("report", set())])
def test_a_failure_stops_what_needs_it_and_nothing_else(stage: str, not_run: set[str], client: Client,
                                                        toy: Toy) -> None:
    def fail(job: Job) -> None:
        if job.config.name == "two":
            raise RuntimeError("no luck")

    toy.during[stage] = fail
    found = ends(client, toy, "report")
    assert found[f"{stage}:two"].outcome == "failed"
    assert "no luck" in found[f"{stage}:two"].lines[0]
    assert {name for name, done in found.items() if done.outcome == "not run"} == {
        f"{name}:two" for name in not_run}
    assert all(done.outcome == "ran" for name, done in found.items() if not name.endswith("two"))
    toy.during.clear()
    assert {done.outcome for done in ends(client, toy, "report").values()} <= set(MADE)


def test_names_and_the_last_stage_choose(client: Client, toy: Toy) -> None:
    assert ends(client, toy, "compile", "two").keys() == {"extract:two", "compile:two"}
    with pytest.raises(InputError, match="there is no stage bnech"):
        ends(client, toy, "bnech")
    tasks = {task.name: task for task in graph_of(jobs_of(["two"], toy.root), "weights")}
    assert list(tasks) == ["fetch:two", "extract:two", "compile:two", "weights:two"]
    assert tasks["weights:two"].after == ("fetch:two", "compile:two")
    assert not tasks["weights:two"].measures


def test_an_absent_device_is_told(client: Client, toy: Toy) -> None:
    toy.device = devices.Absent("no OpenCL device was found: install one")
    found = ends(client, toy, "bench", "one")
    assert found["weights:one"].outcome == "ran"
    assert "install one" in found["bench:one"].lines[0]


@pytest.mark.parametrize(("cache", "edited", "said"), [
    (None, "", "needs a cache"), ("store", "", None), ("store", "default: true  # still", None),
    ("store", "default: true\nprecision: bfloat16", "are not those of the client")])
def test_a_worker_elsewhere_must_match(cache: str | None, edited: str, said: str | None, toy: Toy,
                                       monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NPU_CACHE", str(toy.root / cache) if cache else "")
    jobs = jobs_of(["one"], toy.root)
    task = graph_of(jobs, "fetch")[0]
    there = Project("another machine", str(toy.root), fleet.sources_of(jobs, toy.root), ("one",))
    if edited:
        toy.edit("configs/models/one.yaml", "default: true", edited)
    if said is None:
        assert run_task(task, there).outcome == "ran"
        return
    with pytest.raises(FleetError, match=said):
        run_task(task, there)
    assert run_task(task, replace(there, machine=fleet.machine())).outcome == "ran"


def test_the_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch,
                                    capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    assert main(["fleet"]) == 1
    assert "npubin[fleet]" in capsys.readouterr().err


def started(folder: Path, environment: dict[str, str], *command: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-m", *command], cwd=folder, env=environment,
                            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def wait_for(what: Callable[[], bool]) -> None:
    for _ in range(600):
        if what():
            return
        time.sleep(0.1)
    raise AssertionError("it did not start")


def artifacts(root: Path) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in (root / "artifacts").rglob("*")
            if path.is_file() and not any(part.startswith(".") for part in path.relative_to(root).parts)}


@pytest.mark.full
def test_two_workers_that_share_the_cache_alone_make_what_one_build_makes(tmp_path: Path) -> None:
    folders = {name: tmp_path / name for name in ("local", "client", "first", "second")}
    for folder in folders.values():
        project.init(folder)
        path = folder / "configs" / "models" / "scorer.yaml"
        path.write_text(f"{path.read_text()}matrix: {{factory_args.classes: [4, 5, 6]}}\n")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("NPU_CACHE")}
    environment["PYTHONPATH"] = f"{REPOSITORY / 'npu'}{os.pathsep}{REPOSITORY}"
    shared = {**environment, "NPU_CACHE": str(tmp_path / "store")}
    doit = [sys.executable, "-m", "doit", "weights"]
    subprocess.run(doit, cwd=folders["local"], env=environment, check=True)
    file = tmp_path / "scheduler.json"
    options = ("--no-dashboard", "--scheduler-file", str(file))
    processes = [started(tmp_path, environment, "distributed.cli.dask_scheduler", "--port", "0", *options)]
    try:
        wait_for(file.is_file)
        worker = ("distributed.cli.dask_worker", "--nthreads", "1", *options)
        processes += [started(folders[name], shared, *worker) for name in ("first", "second")]
        with Client(scheduler_file=str(file)) as client:
            client.wait_for_workers(2, timeout=60)
            address = client.scheduler.address
        done = subprocess.run([sys.executable, "-m", "pipelines.cli", "fleet", "--scheduler", address],
                              cwd=folders["client"], env=shared, text=True, capture_output=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        assert not (folders["client"] / "artifacts" / "scorer+classes-4").exists()
        assert all(f"{folders[name]}" in done.stdout for name in ("first", "second"))
        restored = subprocess.run(doit, cwd=folders["client"], env=shared, text=True, capture_output=True,
                                  check=True)
        assert "12 restored" in restored.stdout
        assert artifacts(folders["client"]) == artifacts(folders["local"]) != {}
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait()
