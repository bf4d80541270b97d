"""The workflow in docs/ci.md: its commands and options are those that there are."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from npu_runtime import env
from pipelines.__main__ import main as pipelines_main
from pipelines.cli import main

TEXT = (Path(__file__).resolve().parents[2] / "docs" / "ci.md").read_text(encoding="utf-8")
WORKFLOW: dict[str, Any] = yaml.safe_load(re.search(r"```yaml\n(.*?)```", TEXT, re.S)[1])  # type: ignore[index]
JOB = WORKFLOW["jobs"]["models"]
SCRIPTS = {step["name"]: step["run"] for step in JOB["steps"] if "run" in step}


def test_the_steps_come_in_an_order_that_works() -> None:
    names = [step.get("name", "") for step in JOB["steps"]]
    order = ["install", "restore the cache", "build what changed", "build the base revision", "gate",
             "keep the reports"]
    assert [name for name in names if name in order] == order
    assert set(JOB["env"]) - {"BASE"} <= set(re.findall(r"``(NPU_\w+)``", env.__doc__ or ""))


@pytest.mark.parametrize("name", sorted(SCRIPTS))
def test_the_scripts_are_valid(name: str) -> None:
    subprocess.run(["bash", "-n", "-c", SCRIPTS[name]], check=True)


def test_the_commands_take_their_options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                         capsys: pytest.CaptureFixture[str]) -> None:
    """Two folders without models: nothing is compared, nothing is pruned, and no option is unknown."""
    (tmp_path / "base").mkdir()
    (tmp_path / "head").mkdir()
    monkeypatch.chdir(tmp_path / "head")
    monkeypatch.setenv("NPU_CACHE", str(tmp_path / "store"))
    (gate,) = re.findall(r"npubin (gate .*?) \|\|", SCRIPTS["gate"])
    assert main(shlex.split(gate)) == 4
    assert "nothing was compared" in capsys.readouterr().out
    for script in SCRIPTS.values():
        for command in re.findall(r"^python -m pipelines (.*)$", script, re.M):
            assert pipelines_main(shlex.split(command)) == 0, command
