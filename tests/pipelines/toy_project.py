"""A project in a temporary folder whose stages do nothing but combine what they read, and are counted."""

from __future__ import annotations

import shutil
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from doit.cmd_base import ModuleTaskLoader
from doit.doit_cmd import DoitMain

from npu_compiler.spaces import key_of
from npu_compiler.tuned import FORMAT, Entry, TuningFile, file_bytes
from pipelines import devices, digests
from pipelines.cache import Cache
from pipelines.digests import Digests, text_digest
from pipelines.doit_ext import Build
from pipelines.doit_ext.session import Running
from pipelines.execute import execute, rehearse
from pipelines.fingerprint import Observed
from pipelines.foresight import RehearsalError
from pipelines.job import Job, write_atomic
from pipelines.stages import STAGES, Stage
from pipelines.tuning_files import tuning_of

if TYPE_CHECKING:
    import pytest

CONFIG = """\
extends: _base
description: a toy
factory: toy_model:make
weights: {random: {seed: 0}}
programs:
  main:
    inputs:
      x: {shape: [1, 3]}
bench: {repeats: 3}
default: true
"""


COMMANDS = {name: f"pipelines.doit_ext.commands:{name.title()}"
            for name in ("run", "explain", "graph", "forget", "ignore")}


#: What the compiler asks about its kernel.
ASKED = key_of("toy", {"rows": 8})


def without_comments(text: str) -> str:
    """What of a source shapes a stub's output: everything but its comments."""
    return "\n".join(line.partition("#")[0].rstrip() for line in text.splitlines())


@dataclass
class Toy:
    """The project, and which stages have run since the last look."""

    root: Path
    templates: Path
    ran: list[str] = field(default_factory=list)
    alone: dict[str, set[str]] = field(default_factory=dict)
    device: devices.Found | devices.Absent = field(
        default_factory=lambda: devices.Found("toy", "toy:0", "1.0", "pocl", "toy", "1.0"))
    during: dict[str, Callable[[Job], object]] = field(default_factory=dict)
    cache: Cache | None = None
    active: set[str] = field(default_factory=set)
    guard: threading.Lock = field(default_factory=threading.Lock)

    @property
    def stages(self) -> tuple[Stage, ...]:
        return tuple(replace(stage, code=("toy_build", f"toy_build_{stage.name}")) for stage in STAGES)

    def doit(self, *arguments: str) -> int:
        """One doit command in this process. Returns its exit status."""
        digests.module_files.cache_clear()
        build = Build(self.root, stages=self.stages, launch=self.launch,
                      find_device=lambda target, root: self.device, find_cache=self.open_cache,
                      rehearse=self.rehearse)

        def task_build() -> Iterator[object]:
            yield from build.tasks()

        config = {**build.config, "outfile": sys.stdout}  # doit's default is the one of its import
        doit = DoitMain(ModuleTaskLoader({"DOIT_CONFIG": config, "task_build": task_build}),
                        config_filenames=(), extra_config={"COMMAND": COMMANDS})
        return int(doit.run(list(arguments)) or 0)

    def build(self, *arguments: str) -> list[str]:
        """The stages that a successful doit command runs, sorted."""
        self.ran.clear()
        assert self.doit(*arguments) == 0
        return sorted(self.ran)

    def launch(self, stage: Stage, job: Job, running: Running) -> str | None:
        try:
            execute(stage, job, lambda staged: self.stub(stage, staged), cache=self.cache)
        except Exception as error:
            return str(error)
        running.lines.append("said")
        return None

    def open_cache(self, _: Path) -> Cache | None:
        return self.cache

    def rehearse(self, stage: Stage, job: Job) -> Mapping[str, str]:
        ran = list(self.ran)
        try:
            return rehearse(stage, job, lambda staged: self.stub(stage, staged))
        except Exception as error:
            raise RehearsalError(str(error)) from None
        finally:
            self.ran[:] = ran

    def stub(self, stage: Stage, job: Job) -> Observed | None:
        name = f"{stage.name}:{job.config.name}"
        with self.guard:
            self.active.add(name)
            self.alone.setdefault(name, set()).update(self.active - {name})
            for other in self.active:
                self.alone.setdefault(other, set()).update(self.active - {other})
        try:
            return self.combine(stage, job)
        finally:
            with self.guard:
                self.active.discard(name)

    def combine(self, stage: Stage, job: Job) -> Observed | None:
        """Writes outputs made of all that the stage reads; comments in sources leave no trace in them."""
        self.ran.append(stage.name if len(list(self.root.glob("configs/models/[!_]*.yaml"))) == 1
                        else f"{stage.name}:{job.config.name}")
        inputs = [path for artifact in stage.reads for path in job.paths(artifact)]
        read = [path.read_text() for path in inputs]
        used = [repr(job.config.knob(knob)) for knob in stage.knobs]
        observed = None
        if stage.builds_model(job.config):
            modules = ("toy_model.py", "toy_helper.py")
            data = ("toy_sizes.json",)
            used += [without_comments((self.root / name).read_text()) for name in modules + data]
            as_read = {name: Digests().of(self.root / name) for name in modules + data}
            observed = Observed(modules=modules, libraries=("torch",), data=data, as_read=as_read)
        if stage.name == "compile":
            template = self.templates / "ops" / "used.cl.j2"
            used.append(without_comments(template.read_text()))
            used.append(tuning_of(job).state(ASKED))
            observed = Observed(templates=("ops/used.cl.j2",), tuning=(ASKED,))
        if stage.name in self.during:
            self.during[stage.name](job)
        summary = text_digest("\n".join([*read, *used]))
        for artifact in stage.makes:
            for path in job.paths(artifact):
                if artifact in ("kernels", "dumps"):
                    write_atomic(path / "main" / "first.txt", summary)
                elif artifact == "transforms":
                    write_atomic(path, text_digest(read[0]))  # depends on the IR, not on templates
                elif artifact == "verify_result":
                    write_atomic(path, f"passed {text_digest(chr(10).join(read))}")
                else:
                    write_atomic(path, f"{artifact} {summary}")
        return observed

    def edit(self, name: str, old: str, new: str) -> None:
        """Replaces ``old`` in a file of the project."""
        path = self.templates / name.removeprefix("templates/") if name.startswith("templates/") else \
            self.root / name
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new))


def make_toy(root: Path, monkeypatch: pytest.MonkeyPatch, models: Iterable[str] = ("toy",)) -> Toy:
    """Writes the project; its modules can be imported until the test ends."""
    toy = Toy(root, root / "templates")
    files = {f"configs/models/{model}.yaml": CONFIG for model in models}
    files |= {"configs/models/_base.yaml": "bench: {repeats: 9}\n", "given.safetensors": "given"}
    files |= {"toy_model.py": "import toy_helper\nsize = 1\n", "toy_helper.py": "value = 1\n",
              "toy_sizes.json": "[3, 4]\n",
              "toy_build/__init__.py": "", "toy_build/shared.py": "shared = 1\n",
              "templates/ops/used.cl.j2": "{#- used -#}\nkernel # comment\n",
              "templates/ops/other.cl.j2": "other\n", "templates/report/page.html.j2": "page\n"}
    files |= {f"toy_build_{stage.name}.py": f"{stage.name} = 1\n" for stage in STAGES}
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    monkeypatch.syspath_prepend(str(root))
    monkeypatch.setattr("npu_compiler.resources.template_root", lambda: root / "templates")
    for name in [name for name in sys.modules if name.startswith("toy_")]:
        monkeypatch.delitem(sys.modules, name)
    return toy


def forget_all(toy: Toy) -> None:
    """As after a fresh clone."""
    shutil.rmtree(toy.root / "artifacts")


def tuned(rows: int, file: str = "pocl-avx2", **params: int) -> Callable[[Toy], object]:
    """An entry of configs/tuning for a shape."""
    def apply(toy: Toy) -> None:
        entry = Entry("toy", {"rows": rows}, dict(params), "0" * 16, "1.0", 2, 9, 1.0, 1.0, 1.0, {}, 2.0, 3)
        path = toy.root / "configs" / "tuning" / f"{file}.json"
        path.parent.mkdir()
        path.write_bytes(file_bytes(TuningFile(FORMAT, file, (entry,))))
    return apply
