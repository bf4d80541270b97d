"""Touch one thing, and exactly the stages that read it run. The stages are stubs; see ``toy_project``."""

from __future__ import annotations

import ast
import json
import os
import shutil
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from toy_project import CONFIG, Toy, forget_all, make_toy, tuned

from pipelines import devices, fingerprint
from pipelines import execute as execute_module
from pipelines.config import load_config
from pipelines.doit_ext.memory import Memory
from pipelines.execute import StageError, execute
from pipelines.job import Job
from pipelines.stages import STAGES, Stage

ALL = ["bench", "compile", "extract", "fetch", "report", "verify", "weights"]
YAML = "configs/models/toy.yaml"
ARTIFACTS = "artifacts/toy"


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Toy:
    return make_toy(tmp_path, monkeypatch)


def test_all_stages_run_once_and_then_none(toy: Toy) -> None:
    assert toy.build() == ALL
    assert toy.build() == []
    assert toy.build("report:toy", "compile:toy@cpu") == []


@pytest.mark.parametrize(("task", "stages"), [
    ("fetch:toy", ["fetch"]),
    ("extract:toy", ["extract"]),
    ("compile:toy", ["compile", "extract"]),
    ("compile:toy@cpu", ["compile", "extract"]),
    ("compile", ["compile", "extract"]),
    ("weights:toy", ["compile", "extract", "fetch", "weights"]),
    ("bench:toy", ["bench", "compile", "extract", "fetch", "weights"]),
    ("verify:toy", ["compile", "extract", "fetch", "verify", "weights"]),
])
def test_a_task_does_what_it_needs_and_nothing_else(toy: Toy, task: str, stages: list[str]) -> None:
    assert toy.build(task) == stages


def edit(name: str, old: str, new: str) -> Callable[[Toy], object]:
    return lambda toy: toy.edit(name, old, new)


def append(name: str, data: bytes = b"x") -> Callable[[Toy], object]:
    def apply(toy: Toy) -> None:
        with (toy.root / name).open("ab") as file:
            file.write(data)
    return apply


def remove(name: str) -> Callable[[Toy], object]:
    return lambda toy: (toy.root / name).unlink()


def truncate(name: str) -> Callable[[Toy], object]:
    return lambda toy: os.truncate(toy.root / name, 5)


def in_place_of(name: str) -> Callable[[Toy], object]:
    """A folder by the name of a file."""
    def apply(toy: Toy) -> None:
        (toy.root / name).unlink()
        (toy.root / name).mkdir()
        (toy.root / name / "x").write_text("mine")
    return apply


def yaml(more: str, old: str = "default: true\n") -> Callable[[Toy], object]:
    return edit(YAML, old, f"{old}{more}\n")


EDITS: dict[str, tuple[Callable[[Toy], object], list[str]]] = {
    "a YAML comment": (yaml("# nothing"), []),
    "default": (edit(YAML, "default: true", "default: true # still"), []),
    "description": (edit(YAML, "a toy", "another toy"), ["report"]),
    "bench.repeats": (edit(YAML, "repeats: 3", "repeats: 4"), ["bench", "report"]),
    "verify tolerance": (yaml("verify: {max_relative_error: 1e-3}"), ["verify"]),
    "precision": (yaml("precision: float16"), ["bench", "compile", "report", "verify"]),
    "compile options": (yaml("compile: {options: {fast: true}}"), ["bench", "compile", "report", "verify"]),
    "weights seed": (edit(YAML, "seed: 0", "seed: 1"), ["bench", "fetch", "report", "verify", "weights"]),
    "factory arguments": (yaml("factory_args: {size: 2}"), ["extract", "fetch", "verify"]),
    "an input's shape": (edit(YAML, "[1, 3]", "[2, 3]"), [stage for stage in ALL if stage != "fetch"]),
    "fallback": (yaml("fallback: allow"), ["bench", "compile", "report", "verify"]),
    "the factory": (edit(YAML, "toy_model:make", "toy_model:make_another"), ["extract", "fetch", "verify"]),
    "a base that the model extends": (edit("configs/models/_base.yaml", "repeats: 9", "repeats: 8"), []),
    "an overriding of the base": (edit(YAML, "bench: {repeats: 3}\n", ""), ["bench", "report"]),
    "how much is verified": (yaml("verify: {samples: 3}"), ["verify"]),
    "the kind of weights": (edit(YAML, "{random: {seed: 0}}", "{file: {path: given.safetensors}}"),
                            ["bench", "fetch", "report", "verify", "weights"]),
    "a Jinja comment": (edit("templates/ops/used.cl.j2", "# comment", "# remark"), ["compile"]),
    "a template's code": (edit("templates/ops/used.cl.j2", "kernel", "kernel2"),
                          ["bench", "compile", "report", "verify"]),
    "a template that is not included": (edit("templates/ops/other.cl.j2", "other", "changed"), []),
    "the report's template": (edit("templates/report/page.html.j2", "page", "sheet"), ["report"]),
    "the model's source": (edit("toy_model.py", "size = 1", "size = 2"), ALL),
    "a comment in the model's source": (edit("toy_model.py", "size = 1", "size = 1  # one"),
                                        ["extract", "fetch", "verify"]),
    "a module that the model imports": (edit("toy_helper.py", "value = 1", "value = 2"), ALL),
    "a data file that the factory opens": (edit("toy_sizes.json", "3", "5"), ALL),
    "a touched data file": (lambda toy: os.utime(toy.root / "toy_sizes.json", (1, 1)), []),
    "code that all stages share": (edit("toy_build/shared.py", "shared = 1", "shared = 2"), ALL),
    "the compiler's code": (edit("toy_build_compile.py", "compile = 1", "compile = 2"), ["compile"]),
    "bench's code": (edit("toy_build_bench.py", "bench = 1", "bench = 2"), ["bench"]),
    "an edited ir.json": (append(f"{ARTIFACTS}/main.ir.json"), ["extract"]),
    "a truncated program": (truncate(f"{ARTIFACTS}/cpu/main.npubin"), ["compile"]),
    "a missing kernel": (remove(f"{ARTIFACTS}/cpu/kernels/main/first.txt"), ["compile"]),
    "a foreign file among the kernels": (append(f"{ARTIFACTS}/cpu/kernels/mine.cl"), ["compile"]),
    "a folder in place of a program": (in_place_of(f"{ARTIFACTS}/cpu/main.npubin"), ["compile"]),
    "a file in place of the kernels": (
        lambda toy: (shutil.rmtree(toy.root / ARTIFACTS / "cpu/kernels"),
                     (toy.root / ARTIFACTS / "cpu/kernels").write_text("mine")), ["compile"]),
    "edited source weights": (append(f"{ARTIFACTS}/source.safetensors"), ["fetch"]),
    "edited prepared weights": (append(f"{ARTIFACTS}/cpu/toy.safetensors"), ["weights"]),
    "a missing report": (remove(f"{ARTIFACTS}/cpu/report.html"), ["report"]),
    "an edited measurement": (append(f"{ARTIFACTS}/cpu/bench.toy.json"), ["bench"]),
    "a damaged record": (truncate(f"{ARTIFACTS}/.stages/compile@cpu.json"), ["compile"]),
    "a touched artifact": (lambda toy: os.utime(toy.root / ARTIFACTS / "main.ir.json", (1, 1)), []),
    "a longer history": (append(f"{ARTIFACTS}/cpu/history.jsonl"), []),
    "a measured choice": (tuned(8, mr=4), ["bench", "compile", "report", "verify"]),
    "a measured choice for another shape": (tuned(9, mr=4), []),
    "a measured choice of another device": (tuned(8, mr=4, file="intel-avx2"), []),
    "the driver": (lambda toy: setattr(toy, "device", devices.Found("toy", "toy:0", "2.0")),
                   ["bench", "report", "verify"]),
    "another device": (lambda toy: setattr(toy, "device", devices.Found("toy-1", "toy:1", "1.0")),
                       ["bench", "report", "verify"]),
}


@pytest.mark.parametrize("what", EDITS)
def test_an_edit_runs_exactly_the_stages_that_read_it(toy: Toy, what: str) -> None:
    apply, stages = EDITS[what]
    toy.build()
    apply(toy)
    assert toy.build() == stages
    assert toy.build() == []


@pytest.mark.parametrize(("library", "stages"), [
    ("torch", ["compile", "extract", "fetch", "verify"]), ("jinja2", ["compile", "report"]),
    ("pyopencl", ["bench"]), ("safetensors", ["fetch", "weights"]),
])
def test_another_version_of_a_library_runs_what_it_shapes(toy: Toy, library: str, stages: list[str],
                                                          monkeypatch: pytest.MonkeyPatch) -> None:
    toy.build()
    real = fingerprint.library_version
    monkeypatch.setattr(fingerprint, "library_version",
                        lambda name: "99.0" if name == library else real(name))
    assert toy.build() == stages


def test_an_edit_that_keeps_size_and_time_is_seen(toy: Toy) -> None:
    toy.build()
    path = toy.root / "toy_model.py"
    status = path.stat()
    toy.edit("toy_model.py", "size = 1", "size = 2")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert toy.build() == ALL


def test_an_edit_while_the_stage_runs_is_seen_by_the_next_build(toy: Toy) -> None:
    toy.during["extract"] = lambda job: toy.edit("toy_model.py", "size = 1", "size = 2")
    toy.build("extract")
    toy.during.clear()
    assert toy.build("extract") == ["extract"]
    assert toy.build("extract") == []


def test_another_program_is_built_and_one_that_is_gone_is_removed(toy: Toy) -> None:
    toy.build("compile")
    toy.edit(YAML, "bench:", "  step:\n    inputs:\n      x: {shape: [1, 4]}\nbench:")
    assert toy.build("compile") == ["compile", "extract"]
    made = sorted(path.name for path in (toy.root / ARTIFACTS).glob("*.ir.json"))
    assert made == ["main.ir.json", "step.ir.json"]
    toy.edit(YAML, "  step:\n    inputs:\n      x: {shape: [1, 4]}\n", "")
    assert toy.build("compile") == ["compile", "extract"]
    assert [path.name for path in (toy.root / ARTIFACTS).glob("*.ir.json")] == ["main.ir.json"]
    assert [path.name for path in (toy.root / ARTIFACTS / "cpu").glob("*.npubin")] == ["main.npubin"]


def test_a_failure_is_one_message_and_leaves_nothing_behind(
        toy: Toy, capsys: pytest.CaptureFixture[str]) -> None:
    def fail(job: Job) -> None:
        job.npubin("main").write_text("half")
        raise StageError("toy: conv1 cannot be compiled; use another")
    toy.during["compile"] = fail
    assert toy.doit("bench:toy") == 1
    out = capsys.readouterr().out
    assert "compile:toy: failed: toy: conv1 cannot be compiled; use another\n" in out
    assert "Traceback" not in out
    left = {path.name for path in toy.root.joinpath("artifacts").rglob("*") if path.is_file()}
    assert "main.npubin" not in left
    assert not [name for name in left if "tmp" in name]
    assert sorted(toy.ran) == ["compile", "extract", "fetch"]
    toy.during.clear()
    assert toy.build("bench:toy") == ["bench", "compile", "weights"]


def test_a_failed_rebuild_keeps_the_last_outputs_and_tries_again(toy: Toy) -> None:
    toy.build("compile")
    before = (toy.root / ARTIFACTS / "cpu" / "main.npubin").read_text()
    toy.edit("templates/ops/used.cl.j2", "kernel", "kernel2")
    toy.during["compile"] = lambda job: 1 / 0
    assert toy.doit("compile") == 1
    assert (toy.root / ARTIFACTS / "cpu" / "main.npubin").read_text() == before
    toy.during.clear()
    assert toy.build("compile") == ["compile"]


def test_a_stage_that_makes_too_little_fails(toy: Toy) -> None:
    stage = replace(STAGES[0], code=())
    job = Job(toy.root, load_config(toy.root / YAML, toy.root), "cpu")
    with pytest.raises(StageError, match=r"fetch: it made no source\.safetensors"):
        execute(stage, job, lambda job: None)
    assert not list(job.folder.glob("*.json"))


def test_a_stage_without_its_input_says_what_to_run(toy: Toy) -> None:
    job = Job(toy.root, load_config(toy.root / YAML, toy.root), "cpu")
    with pytest.raises(StageError, match=r"main\.ir\.json is missing; run the stage .*first: extract"):
        execute(STAGES[2], job, lambda job: None)


def test_an_absent_device_fails_where_named_and_is_skipped_in_a_group(
        toy: Toy, capsys: pytest.CaptureFixture[str]) -> None:
    toy.device = devices.Absent("no OpenCL device was found: install one")
    assert toy.build() == ["compile", "extract", "fetch", "weights"]
    out = capsys.readouterr().out
    for line in ("verify:toy: skipped: no OpenCL device was found: install one",
                 "bench:toy: skipped: no OpenCL device was found: install one",
                 "report:toy: skipped: no OpenCL device was found: install one", "3 skipped"):
        assert line in out
    for task in ("bench:toy", "report:toy", "verify:toy@cpu"):
        assert toy.doit(task) == 1
        assert "failed: no OpenCL device was found: install one" in capsys.readouterr().out


def test_bench_runs_alone_and_others_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    toy = make_toy(tmp_path, monkeypatch, models=("a", "b", "c"))
    assert len(toy.build("-n", "4")) == 3 * len(ALL)
    assert all(not others for name, others in toy.alone.items() if name.startswith("bench:")), toy.alone
    assert toy.build("-n", "4") == []


def test_stages_wait_for_memory() -> None:
    memory, order = Memory(available=100), []
    first_done = threading.Event()

    def stage(name: str, need: int, hold: threading.Event | None = None) -> None:
        with memory.taken(need):
            order.append(name)
            if hold is not None:
                assert hold.wait(20)
                order.append(f"{name} ends")

    threads = [threading.Thread(target=stage, args=("large", 80, first_done))]
    threads[0].start()
    while not order:
        threads[0].join(0.01)
    stage("small", 10)  # there is room beside the large one
    threads.append(threading.Thread(target=stage, args=("huge", 1000)))
    threads[1].start()
    first_done.set()
    for thread in threads:
        thread.join()
    assert order == ["large", "small", "large ends", "huge"]


def test_models_that_are_not_default_need_their_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    toy = make_toy(tmp_path, monkeypatch, models=("a", "b"))
    (tmp_path / "configs/models/b.yaml").write_text(CONFIG.replace("default: true", "default: false"))
    assert toy.build("extract") == ["extract:a"]
    assert toy.build("extract:b") == ["extract:b"]
    assert toy.build("extract") == []


def test_the_reason_is_told(toy: Toy, capsys: pytest.CaptureFixture[str]) -> None:
    toy.build()
    toy.edit(YAML, "repeats: 3", "repeats: 4")
    capsys.readouterr()
    toy.doit("info", "bench:toy")
    assert f"{YAML}: bench.repeats 3 -> 4" in capsys.readouterr().out
    toy.build()
    out = capsys.readouterr().out
    assert f"bench:toy: runs, since {YAML}: bench.repeats 3 -> 4\n    said\nbench:toy: done in" in out
    assert f"report:toy: runs, since input {ARTIFACTS}/cpu/bench.toy.json changed" in out
    assert "2 ran, 5 up to date" in out


def test_list_shows_all_tasks_and_their_state(toy: Toy, capsys: pytest.CaptureFixture[str]) -> None:
    toy.build("compile")
    capsys.readouterr()
    assert toy.doit("list", "--all", "-s") == 0
    lines = {line.split()[1]: line.split()[0] for line in capsys.readouterr().out.splitlines()}
    assert lines["extract:toy"] == lines["compile:toy"] == "U"
    assert lines["fetch:toy"] == lines["report:toy"] == "R"


def test_clean_removes_outputs_and_records(toy: Toy) -> None:
    toy.build()
    (toy.root / ARTIFACTS / "cpu" / "history.jsonl").write_text("{}\n")
    assert toy.doit("clean", "compile:toy") == 0
    assert not (toy.root / ARTIFACTS / "cpu" / "main.npubin").exists()
    assert (toy.root / ARTIFACTS / "main.ir.json").exists()
    assert toy.build() == ["compile"]
    assert toy.doit("clean") == 0
    left = [path for path in (toy.root / ARTIFACTS).rglob("*") if path.is_file()]
    assert [path.name for path in left] == ["history.jsonl"]
    assert toy.build() == ALL


def test_a_broken_configuration_is_one_message(toy: Toy, capsys: pytest.CaptureFixture[str]) -> None:
    toy.edit(YAML, "repeats: 3", "repeat: 3")
    assert toy.doit("compile") == 3
    err = capsys.readouterr().err
    assert 'configs/models/toy.yaml:9: bench.repeat: unknown key "repeat"; did you mean "repeats"?' in err
    assert "Traceback" not in err


def test_records_do_not_depend_on_where_the_project_lies(toy: Toy) -> None:
    toy.build()
    for path in (toy.root / ARTIFACTS / ".stages").glob("*.json"):
        assert str(toy.root) not in path.read_text()
        assert json.loads(path.read_text())["format"] == 5


def test_two_builds_from_nothing_make_the_same_bytes(toy: Toy) -> None:
    def contents() -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in (toy.root / ARTIFACTS).rglob("*")
                if path.is_file() and path.parent.name != ".stages"}
    toy.build()
    first = contents()
    forget_all(toy)
    toy.build()
    assert contents() == first


#: Modules that a stage may import without naming them as its code: what they give it is in its key as values.
FRAME = {"config", "config_errors", "devices", "digests", "execute", "fingerprint", "imports", "job", "locks",
         "records", "schema", "schema_base", "schema_text", "stages", "yaml_source"}


@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.name)
def test_a_stage_names_the_modules_of_pipelines_that_it_imports(stage: Stage) -> None:
    folder = Path(execute_module.__file__).parent
    waiting, found = [stage.run.partition(":")[0]], set()
    while waiting:
        name = waiting.pop()
        found.add(name)
        tree = ast.parse((folder / f"{name.removeprefix('pipelines.')}.py").read_text())
        imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
        names = [node.module or "" for node in imports if (node.module or "").startswith("pipelines.")]
        names += [f"pipelines.{alias.name}" for node in imports if node.module == "pipelines"
                  for alias in node.names]
        waiting += [name for name in names if name not in found and name.split(".")[1] not in FRAME]
    assert found <= set(stage.code)
