"""What doit's commands say and do on a build."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from toy_project import Toy, make_toy

from pipelines import devices

YAML = "configs/models/toy.yaml"
REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Toy:
    return make_toy(tmp_path, monkeypatch)


def said(toy: Toy, capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """What a successful command that runs nothing prints."""
    capsys.readouterr()
    toy.ran.clear()
    assert toy.doit(*arguments) == 0
    assert toy.ran == []
    return capsys.readouterr().out


CAUSES = {
    "a compile option": (
        lambda toy: toy.edit(YAML, "default: true\n", "default: true\ncompile: {options: {fast: true}}\n"),
        f"{YAML}: compile.options.fast unset -> true\n"
        "    => compile:toy (build.json, 1 of 1 in dump, 1 of 1 in kernels, main.npubin changed)"
        " => verify:toy, bench:toy => report:toy\n"
        "4 would run, 3 up to date\n"),
    "bench.repeats": (
        lambda toy: toy.edit(YAML, "repeats: 3", "repeats: 4"),
        f"{YAML}: bench.repeats 3 -> 4\n    => bench:toy => report:toy\n"
        "report:toy may run, depending on the result of bench:toy\n"
        "1 would run, 1 may run, 5 up to date\n"),
    "two causes": (
        lambda toy: (toy.edit("templates/ops/used.cl.j2", "kernel", "kernel2"),
                     toy.edit(YAML, "a toy", "another toy")),
        "template ops/used.cl.j2 changed\n"
        "    => compile:toy (build.json, 1 of 1 in dump, 1 of 1 in kernels, main.npubin changed)"
        " => verify:toy, bench:toy => report:toy\n"
        f'{YAML}: description "a toy" -> "another toy"\n    => report:toy\n'
        "4 would run, 3 up to date\n"),
    "a comment in a template": (
        lambda toy: toy.edit("templates/ops/used.cl.j2", "# comment", "# remark"),
        "template ops/used.cl.j2 changed\n    => compile:toy (the same bytes as before)\n"
        "1 would run, 6 up to date\n"),
    "a module of the model": (
        lambda toy: toy.edit("toy_helper.py", "value = 1", "value = 2"),
        "code toy_helper.py changed\n"
        "    => fetch:toy, extract:toy, verify:toy => compile:toy => weights:toy => bench:toy => report:toy\n"
        "compile:toy may run, depending on the result of extract:toy\n"
        "weights:toy, bench:toy may run, depending on the result of fetch:toy, extract:toy\n"
        "report:toy may run, depending on the result of fetch:toy, extract:toy, verify:toy\n"
        "3 would run, 4 may run\n"),
    "a missing program": (
        lambda toy: (toy.root / "artifacts/toy/cpu/main.npubin").unlink(),
        "output artifacts/toy/cpu/main.npubin is missing\n    => compile:toy (the same bytes as before)\n"
        "1 would run, 6 up to date\n"),
    "an edited graph, and an option": (
        lambda toy: ((toy.root / "artifacts/toy/main.ir.json").write_text("mine"),
                     toy.edit(YAML, "default: true\n", "default: true\ncompile: {options: {fast: true}}\n")),
        "output artifacts/toy/main.ir.json is not what was made\n"
        "    => extract:toy (the same bytes as before)\n"
        f"{YAML}: compile.options.fast unset -> true\n"
        "    => compile:toy => weights:toy => verify:toy, bench:toy => report:toy\n"
        "weights:toy, verify:toy, bench:toy, report:toy may run, depending on the result of compile:toy\n"
        "2 would run, 4 may run, 1 up to date\n"),
    "no record of a measurement": (
        lambda toy: toy.doit("forget", "verify:toy"),
        "no finished run is on record\n    => verify:toy => report:toy\n"
        "report:toy may run, depending on the result of verify:toy\n"
        "1 would run, 1 may run, 5 up to date\n"),
    "nothing": (lambda toy: None, "7 up to date\n"),
}


@pytest.mark.parametrize("what", CAUSES)
def test_a_dry_run_tells_causes_and_what_follows(toy: Toy, what: str,
                                                 capsys: pytest.CaptureFixture[str]) -> None:
    edit, text = CAUSES[what]
    toy.build()
    edit(toy)
    assert said(toy, capsys, "--dry-run") == text
    assert said(toy, capsys, "run", "--dry-run", "report:toy") == text
    assert said(toy, capsys, "explain") == text
    assert said(toy, capsys, "explain") == text, "a look changes nothing"


def test_what_would_run_does_run(toy: Toy, capsys: pytest.CaptureFixture[str]) -> None:
    toy.build()
    toy.edit("templates/ops/used.cl.j2", "# comment", "# remark")
    assert "    => compile:toy => weights:toy" in said(toy, capsys, "explain", "--quick")
    assert toy.build() == ["compile"]


def test_explain_looks_behind_a_task_and_a_dry_run_does_not(
        toy: Toy, capsys: pytest.CaptureFixture[str]) -> None:
    toy.build()
    toy.edit("toy_helper.py", "value = 1", "value = 2")
    assert said(toy, capsys, "--dry-run", "compile:toy") == (
        "code toy_helper.py changed\n    => extract:toy => compile:toy\n"
        "compile:toy may run, depending on the result of extract:toy\n1 would run, 1 may run\n")
    behind = said(toy, capsys, "explain", "compile:toy")
    assert "    => fetch:toy, extract:toy, verify:toy => " not in behind
    assert "=> compile:toy => weights:toy => bench:toy => report:toy\n" in behind


@pytest.mark.parametrize("never", [
    lambda toy: toy.doit("forget", "verify:toy", "report:toy"),
    lambda toy: toy.doit("clean", "verify:toy", "report:toy"),
    lambda toy: setattr(toy, "device", devices.Found("toy-1", "toy:1", "1.0")),
    lambda toy: setattr(toy, "device", devices.Absent("none"))])
def test_what_has_never_run_does_not_follow(toy: Toy, never: Callable[[Toy], object],
                                            capsys: pytest.CaptureFixture[str]) -> None:
    """It is asked for by name or not at all."""
    toy.build()
    never(toy)
    toy.edit("templates/ops/used.cl.j2", "kernel", "kernel2")
    out = said(toy, capsys, "explain", "compile:toy")
    assert "no finished run" not in out
    assert "verify:toy" not in out
    assert "verify:toy" in said(toy, capsys, "explain", "verify:toy")


def test_a_first_build_is_explained(toy: Toy, capsys: pytest.CaptureFixture[str]) -> None:
    assert said(toy, capsys, "--dry-run", "weights:toy") == (
        "no finished run is on record\n    => fetch:toy, extract:toy, compile:toy, weights:toy\n"
        "4 would run\n")


def test_an_absent_device_is_no_plan(toy: Toy, capsys: pytest.CaptureFixture[str]) -> None:
    toy.device = devices.Absent("no OpenCL device was found: install one")
    out = said(toy, capsys, "--dry-run", "bench:toy")
    assert "bench:toy cannot run: no OpenCL device was found: install one\n" in out
    assert out.endswith("4 would run, 1 cannot run\n")


def test_the_summary_says_how_every_task_ended(toy: Toy, capsys: pytest.CaptureFixture[str]) -> None:
    toy.build()
    capsys.readouterr()
    toy.edit("templates/ops/used.cl.j2", "kernel", "kernel2")
    toy.during["bench"] = lambda job: 1 / 0
    assert toy.doit("--continue") == 2
    lines = capsys.readouterr().out.splitlines()
    summary = lines[lines.index("") + 1:]
    assert summary[0] == ("ran       compile:toy  template ops/used.cl.j2 changed: build.json, "
                          "1 of 1 in dump, 1 of 1 in kernels, main.npubin changed")
    failed, ran = sorted(summary[1:3])  # neither needs the other
    assert ran.startswith("ran       verify:toy   input artifacts/toy/cpu/main.npubin changed")
    assert failed == "failed    bench:toy    division by zero"
    assert summary[3] == "not run   report:toy   bench:toy failed"
    assert summary[4].startswith("2 ran, 1 failed, 1 not run, 3 up to date (")


def test_unchanged_outputs_are_told(toy: Toy, capsys: pytest.CaptureFixture[str]) -> None:
    toy.build()
    toy.edit("templates/ops/used.cl.j2", "# comment", "# remark")
    capsys.readouterr()
    toy.build()
    assert re.search(r"compile:toy: done in [0-9.]+ s: the same bytes as before\n", capsys.readouterr().out)


def test_forget_runs_a_stage_again_and_its_readers_only_if_it_differs(toy: Toy) -> None:
    toy.build()
    assert toy.doit("forget", "extract:toy") == 0
    assert toy.build() == ["extract"]
    assert toy.doit("forget", "verify", "bench:toy") == 0
    assert toy.build() == ["bench", "verify"]
    assert toy.doit("forget", "--all") == 0
    assert len(toy.build()) == 7


def test_clean_can_be_tried(toy: Toy, capsys: pytest.CaptureFixture[str]) -> None:
    toy.build()
    out = said(toy, capsys, "clean", "-n", "compile:toy")
    assert "compile:toy: would remove artifacts/toy/cpu/main.npubin\n" in out
    assert toy.build() == []


def test_ignore_is_refused(toy: Toy, capsys: pytest.CaptureFixture[str]) -> None:
    assert toy.doit("ignore", "bench:toy") == 3
    assert "`default: false` in a model's YAML" in capsys.readouterr().err


def test_info_says_why(toy: Toy, capsys: pytest.CaptureFixture[str]) -> None:
    toy.build()
    toy.edit(YAML, "repeats: 3", "repeats: 4")
    capsys.readouterr()
    toy.doit("info", "bench:toy")
    out = capsys.readouterr().out
    assert f"{YAML}: bench.repeats 3 -> 4" in out
    assert "task_dep" in out
    toy.doit("info", "compile:toy")
    assert "up-to-date" in capsys.readouterr().out


def test_the_stages_are_drawn(toy: Toy, capsys: pytest.CaptureFixture[str]) -> None:
    picture = said(toy, capsys, "graph")
    assert picture.startswith("graph LR\n")
    assert "|transforms|" in picture
    dot = said(toy, capsys, "graph", "--format", "dot", "weights:toy")
    assert '  "compile:toy" -> "weights:toy" [label=""];' in dot
    assert "bench" not in dot


def test_a_name_that_means_nothing_is_one_message(toy: Toy, capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("explain", "graph"):
        assert toy.doit(command, "compile:toi") == 3
        err = capsys.readouterr().err
        assert "compile:toi" in err
        assert "Traceback" not in err


def test_configurations_are_validated_without_torch() -> None:
    code = ("import sys; from pipelines.__main__ import main; status = main(['validate']); "
            "print(status, sorted({'torch', 'numpy', 'pyopencl', 'jinja2', 'doit'} & set(sys.modules)))")
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True,
                          check=False)
    assert done.stdout.endswith("0 []\n"), done.stdout + done.stderr
    assert "configurations are valid: efficientnet_lite0, " in done.stdout
