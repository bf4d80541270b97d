"""Runs a stage in a process of its own, so that the build never loads PyTorch or opens OpenCL."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence

import msgspec

from npu_runtime.env import debug_level
from pipelines.doit_ext.session import Running
from pipelines.foresight import RehearsalError
from pipelines.job import OUTCOME, PROGRESS, SAY, Job
from pipelines.stages import Stage

#: What this process has started and not seen the end of.
_children: set[subprocess.Popen[str]] = set()
#: Seconds for stages to clean up.
_CLEANING = 12.0


def end_children() -> None:
    """Has all stages that run end, and waits for that."""
    ended = [child for child in tuple(_children) if child.poll() is None]
    for child in ended:
        child.terminate()
    for child in ended:
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(_CLEANING)


def launch_child(stage: Stage, job: Job, running: Running) -> str | None:
    """Runs ``stage`` to its end. Returns the message of its failure, None for success."""
    return launch("run-stage", [stage.name], job, running)


def launch(command: str, arguments: Sequence[str], job: Job, running: Running) -> str | None:
    """Runs a command of ``python -m pipelines`` for ``job`` to its end. Returns the message of its failure,
    None for success.

    What it says about its progress is kept in ``running``; everything else that it prints is shown when it
    fails or when ``NPU_DEBUG`` is at least 1.
    """
    name = f"{job.config.name}@{job.target}"
    line = [sys.executable, "-m", "pipelines", command, *arguments, name, "--watched"]
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as errors, subprocess.Popen(
            line, cwd=job.root, stdout=subprocess.PIPE, stderr=errors, text=True, encoding="utf-8",
            errors="replace") as child:
        _children.add(child)
        try:
            printed = _follow(child, running)
            code = child.wait()
        except KeyboardInterrupt:
            child.terminate()
            raise SystemExit(128 + signal.SIGINT) from None
        finally:
            _children.discard(child)
        errors.seek(0)
        said = errors.read()
    if debug_level() >= 1:
        running.lines += [*printed, *said.splitlines()]
    return None if code == 0 else _failure(code, said, printed)


def rehearse_child(stage: Stage, job: Job) -> Mapping[str, str]:
    """What the outputs of ``stage`` would be. Raises ``RehearsalError`` with the message of a failure."""
    running = Running()
    message = launch("rehearse", [stage.name], job, running)
    if message is not None:
        raise RehearsalError(message)
    return msgspec.json.decode(running.made, type=dict[str, str])


def _follow(child: subprocess.Popen[str], running: Running) -> list[str]:
    printed: list[str] = []
    for line in child.stdout or ():
        text = line.rstrip("\n")
        if text.startswith(PROGRESS):
            share, _, what = text[1:].partition(" ")
            running.text = what if share == "-" else f"{what} ({share})"
        elif text.startswith(SAY):
            running.lines.append(text[1:])
        elif text.startswith(OUTCOME):
            running.outcome, _, running.made = text[1:].partition(" ")
        else:
            printed.append(text)
    return printed


def _failure(code: int, said: str, printed: list[str]) -> str:
    if code < 0:
        return f"it was ended by {signal.Signals(-code).name}" + (
            "; perhaps memory ran out" if -code == signal.SIGKILL else "")
    start = said.rfind("\nerror: ") + 1 if "\nerror: " in said else 0 if said.startswith("error: ") else -1
    if start >= 0:
        return said[start:].removeprefix("error: ").strip()
    return "\n".join([*printed, *said.splitlines()][-20:]) or f"it ended with status {code}"
