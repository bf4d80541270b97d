"""How long a build takes that has nothing to do: ``python -m tests.noop [--models 50]``.

Makes a project of many small models in a temporary folder, with the repository's stages, keys and records but
with stubs in place of the work, and then times ``doit`` on it, beside Python's and doit's own start (without
what npubin adds to doit). Modules are compiled, as for every user after the first run.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from pipelines import devices
from pipelines.config import load_configs
from pipelines.execute import execute
from pipelines.fingerprint import Observed
from pipelines.job import Job
from pipelines.stages import STAGES, Stage

REPOSITORY = Path(__file__).resolve().parents[1]
CONFIG = """\
factory: small:make
factory_args: {{size: {size}}}
weights: {{random: {{seed: {size}}}}}
programs:
  main:
    inputs:
      x: {{shape: [1, 3]}}
default: true
"""
KERNELS, DUMPS = 30, 20
#: doit without what installed packages add to it.
ALONE = "import doit.plugin; doit.plugin.entry_points = lambda group: (); import doit.__main__ as m; m.main()"


def main() -> None:
    """Prints the times in seconds: median and all."""
    parser = argparse.ArgumentParser(prog="python -m tests.noop", description=__doc__)
    parser.add_argument("--models", type=int, default=50)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder).resolve()
        make_project(root, options.models)
        first = _doit(root)  # remembers the digests of files that were too young
        assert f"{options.models * len(STAGES)} up to date" in first, first
        time.sleep(3)
        _doit(root)
        (root / "empty").mkdir()
        (root / "empty" / "dodo.py").write_text("def task_nothing():\n    return {'actions': []}\n")
        started, built = [], []
        for _ in range(options.repeats):
            started.append(_timed(root / "empty", "-c", ALONE))
            built.append(_timed(root))
    for what, times in (("Python's and doit's start", started), (f"no-op of {options.models} models", built)):
        print(f"{what}: {statistics.median(times):.2f} s ({', '.join(f'{one:.2f}' for one in times)})")
    print(f"beyond the start: {statistics.median(built) - statistics.median(started):.2f} s")


def make_project(root: Path, models: int) -> None:
    """A project whose models have been built, by stubs."""
    (root / "configs" / "models").mkdir(parents=True)
    shutil.copy(REPOSITORY / "dodo.py", root)
    (root / "small.py").write_text("size = 1\n")
    for number in range(models):
        (root / "configs" / "models" / f"small{number}.yaml").write_text(CONFIG.format(size=number + 1))
    device = devices.find("cpu")
    for config in load_configs(root).values():
        job = Job(root, config, config.target)
        for stage in STAGES:
            execute(stage, devices.on(job, device) if stage.device else job, stub(stage))


def stub(stage: Stage) -> object:
    """Writes something for all that ``stage`` makes."""
    def run(job: Job) -> Observed:
        for artifact in stage.makes:
            count = {"kernels": KERNELS, "dumps": DUMPS}.get(artifact, 0)
            for path in job.paths(artifact):
                for file in [path / "main" / f"{number}.txt" for number in range(count)] or [path]:
                    file.parent.mkdir(parents=True, exist_ok=True)
                    file.write_text(f"{job.config.name} {file.name}")
        builds = stage.builds_model(job.config)
        return Observed(modules=("small.py",) if builds else (), libraries=("torch",) if builds else (),
                        templates=("ops/elementwise.cl.j2",) if stage.name == "compile" else ())
    return run


def _timed(root: Path, *command: str) -> float:
    start = time.perf_counter()
    _doit(root, *command)
    return time.perf_counter() - start


def _doit(root: Path, *command: str) -> str:
    path = f"{REPOSITORY / 'npu'}{os.pathsep}{REPOSITORY}"
    compiled = {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": str(root / ".compiled")}
    return subprocess.run([sys.executable, *(command or ("-m", "doit"))], cwd=root, capture_output=True,
                          text=True, check=True, env={**os.environ, **compiled, "PYTHONPATH": path}).stdout


if __name__ == "__main__":
    main()
