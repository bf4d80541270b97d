"""Kills builds at random moments: ``python -m tests.kill [--model resnet18] [--count 200] [--seed 0]``.

Every round puts back a project as it was before a stage, starts its build, kills (SIGKILL) the build, the
stage's process or both, and builds again at once: that must end with artifacts that are the same bytes as
those of an undisturbed build, leave nothing behind, and leave nothing to do. Of every ten kills one is within
the work of each stage, one at the renames by which each commits, and two are at any moment of any process.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pipelines.digests import Digests, tree

REPOSITORY = Path(__file__).resolve().parents[1]
STAGES = ("fetch", "extract", "compile", "weights")
VICTIMS = ("both", "build", "stage")

#: Runs at the start of every Python process of a build, by the name that Python looks for.
STRIKE = '''
import os, signal, sys, threading, time

stage, victim, moment = (os.environ.get("KILL_PLAN") or "  ").split(" ")
arguments = sys.orig_argv


def strike():
    names = set()
    frame = sys._current_frames()[threading.main_thread().ident]
    while frame is not None:
        file = frame.f_code.co_filename.replace(os.sep, "/")
        if "/pipelines/" in file:
            names.add(file.rpartition("/")[2].removesuffix(".py") + "." + frame.f_code.co_name)
        frame = frame.f_back
    commit = {"execute._commit", "records.write_record", "digests.save"} & names
    where = "commit" if commit else "run" if f"{stage}.run" in names else \\
        "digests" if "execute._execute" in names else "start"
    with open(os.environ["KILL_MARK"], "a") as file:
        file.write(where)
    if victim in ("both", "build"):
        os.kill(os.getppid(), signal.SIGKILL)
    if victim in ("both", "stage"):
        os.kill(os.getpid(), signal.SIGKILL)


if "run-stage" in arguments and arguments[arguments.index("run-stage") + 1] == stage:
    if moment.startswith(("after", "inside")):
        def at_work():
            frame = sys._current_frames()[threading.main_thread().ident]
            while frame is not None:
                file = frame.f_code.co_filename.replace(os.sep, "/")
                if frame.f_code.co_name == "run" and file.endswith("/pipelines/" + stage + ".py"):
                    return True
                frame = frame.f_back
            return False

        def wait():
            while moment.startswith("inside") and not at_work():
                time.sleep(0.0002)
            time.sleep(float(moment.lstrip("abcdefghijklmnopqrstuvwxyz")))
            strike()
        sys.setswitchinterval(0.0001)
        threading.Thread(target=wait, daemon=True).start()
    else:
        real, left = os.replace, [int(moment[6:])]

        def replace(source, target, **more):
            counts = ".staging." not in str(target)
            if counts and left[0] == 0:
                left[0] = -1
                strike()
            done = real(source, target, **more)
            if counts:
                left[0] -= 1
            return done
        os.replace = replace
'''

TINY_MODULE = """\
import torch
from torch import nn
from tiny_part import FACTOR


class Tiny(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(5, 7), nn.ReLU(), nn.Linear(7, 3))

    def forward(self, x):
        return self.layers(x) * FACTOR


def tiny():
    return Tiny()
"""
TINY = """\
factory: tiny_model:tiny
weights: {random: {seed: 0}}
programs:
  main:
    symbols: {batch: {min: 1, max: 8}}
    inputs:
      x: {shape: [batch, 5]}
    outputs: [y]
"""


@dataclass
class Killer:
    """A project in ``folder``, and what of it the rounds need: how it is before each stage, and how an
    undisturbed build leaves it."""

    folder: Path
    model: str
    random: random.Random

    @property
    def root(self) -> Path:
        return self.folder / "project"

    @property
    def artifacts(self) -> Path:
        return self.root / "artifacts"

    def prepare(self) -> None:
        """Builds once, changes what all stages read, and builds again stage by stage."""
        (self.folder / "inject").mkdir()
        (self.folder / "inject" / "sitecustomize.py").write_text(STRIKE)
        config = self.root / "configs" / "models" / f"{self.model}.yaml"
        config.parent.mkdir(parents=True)
        shutil.copy(REPOSITORY / "dodo.py", self.root)
        if self.model == "tiny":
            config.write_text(TINY)
            (self.root / "tiny_model.py").write_text(TINY_MODULE)
            (self.root / "tiny_part.py").write_text("FACTOR = 2.0\n")
        else:
            shutil.copy(REPOSITORY / "configs" / "models" / f"{self.model}.yaml", config)
        self.build(f"weights:{self.model}")
        text = config.read_text()
        assert "seed: 0" in text
        config.write_text(text.replace("seed: 0", "seed: 1"))
        if self.model == "tiny":
            (self.root / "tiny_part.py").write_text("FACTOR = 3.0\n")
        self.seconds: dict[str, float] = {}
        self.work: dict[str, float] = {}
        self.renames: dict[str, int] = {}
        for stage in STAGES:
            self.keep(f"changed before {stage}")
            start = time.monotonic()
            self.build(f"{stage}:{self.model}")
            self.seconds[stage] = time.monotonic() - start
            record = json.loads(next(self.records(stage)).read_text())
            self.work[stage] = record["seconds"]
            inside = tuple(name for name in record["outputs"] if name.endswith("/"))
            self.renames[stage] = 2 + sum(name in inside or not name.startswith(inside)
                                          for name in record["outputs"])  # and the record, and the digests
        self.keep("done")
        self.expected = self.contents()

    def moment(self, stage: str, where: str) -> str:
        """When to strike so that ``where`` is met, "" for anywhere: seconds after the process has begun or
        after its stage's work has, or which rename."""
        if where == "commit":
            return f"rename{self.random.randrange(self.renames[stage])}"
        if where == "run":
            return f"inside{self.random.uniform(0.0, self.work[stage]):.4f}"
        return f"after{self.random.uniform(0.0, self.seconds[stage]):.3f}"

    def records(self, stage: str) -> Iterator[Path]:
        return (self.artifacts / self.model / ".stages").glob(f"{stage}[.@]*")

    def round(self, number: int, stage: str, moment: str) -> str:
        """Kills once and builds again. Returns where the build was struck, "" if it had ended before."""
        victim = self.random.choice(VICTIMS)
        if self.random.random() < 0.34:
            self.put_back(f"changed before {stage}")
        else:  # everything after the stage is done already
            self.put_back("done")
            for record in self.records(stage):
                record.unlink()
        mark = self.folder / f"mark{number}"
        self.doit(f"weights:{self.model}", KILL_PLAN=f"{stage} {victim} {moment}", KILL_MARK=str(mark))
        if not mark.exists():
            return ""
        what = f"round {number}: {victim} killed in {stage} at {moment}"
        again = self.doit(f"weights:{self.model}")
        assert again.returncode == 0, f"{what}: the next build fails:\n{again.stdout}{again.stderr}"
        found = self.contents()
        assert found == self.expected, f"{what}: these differ or are too many: " + ", ".join(
            sorted(name for name in found.keys() | self.expected.keys()
                   if found.get(name) != self.expected.get(name)))
        last = self.doit(f"weights:{self.model}")
        assert last.stdout.startswith("4 up to date"), f"{what}: {last.stdout}{last.stderr}"
        return mark.read_text()

    def contents(self) -> dict[str, str]:
        """Every file below artifacts with its digest, but for records, remembered digests and locks."""
        digests = Digests()
        return {name: digests.of(place) for name, place in tree(self.artifacts).items()
                if not name.startswith((".locks/", ".digests.json", f"{self.model}/.stages/"))
                or name.endswith(".tmp")}

    def keep(self, name: str) -> None:
        shutil.copytree(self.artifacts, self.folder / name, symlinks=True)

    def put_back(self, name: str) -> None:
        shutil.rmtree(self.artifacts)
        shutil.copytree(self.folder / name, self.artifacts, symlinks=True)

    def build(self, *arguments: str) -> None:
        done = self.doit(*arguments)
        assert done.returncode == 0, done.stdout + done.stderr

    def doit(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        path = os.pathsep.join(map(str, (self.folder / "inject", REPOSITORY / "npu", REPOSITORY)))
        with (self.folder / "output").open("w+") as output:  # no pipe: it would stay open with a stage
            done = subprocess.run([sys.executable, "-m", "doit", *arguments], cwd=self.root, stdout=output,
                                  stderr=subprocess.STDOUT, text=True, check=False,
                                  env={**os.environ, "NPU_CACHE": "", **environment, "PYTHONPATH": path})
            output.seek(0)
            return subprocess.CompletedProcess(done.args, done.returncode, output.read(), "")


def run(folder: Path, model: str, count: int, seed: int) -> Counter[tuple[str, str]]:
    """Kills at least ``count`` times, a tenth of that within the work and a tenth within the commit of every
    stage. Returns how often where: (stage, "run"...)."""
    killer = Killer(folder, model, random.Random(seed))
    killer.prepare()
    share = count // 10
    struck: Counter[tuple[str, str]] = Counter()
    number = 0
    while True:
        short = [(stage, where) for stage in STAGES for where in ("run", "commit")
                 if struck[stage, where] < share]
        if not short and struck.total() >= count:
            return struck
        number += 1
        assert number <= 4 * count + 20, f"too few rounds are struck: {struck}"
        stage, where = killer.random.choice(short or [(stage, "") for stage in STAGES])
        met = killer.round(number, stage, killer.moment(stage, where))
        if met:
            struck[stage, met] += 1


def main() -> None:
    """Prints where the builds were struck."""
    parser = argparse.ArgumentParser(prog="python -m tests.kill", description=__doc__)
    parser.add_argument("--model", default="tiny", help="tiny, or one of the repository, with random weights")
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        struck = run(Path(folder), options.model, options.count, options.seed)
    for (stage, where), number in sorted(struck.items()):
        print(f"{stage:8} {where:8} {number}")
    print(f"{struck.total()} kills in {time.monotonic() - start:.0f} s; every next build was right")


if __name__ == "__main__":
    main()
