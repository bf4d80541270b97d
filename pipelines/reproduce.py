"""Builds a model twice, in folders and under settings as different as can be, and compares the bytes."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from pipelines.digests import Digests, tree
from pipelines.fingerprint import shown
from pipelines.job import Job
from pipelines.stages import STAGES

#: A file that is larger than this (bytes) is linked into the folders, not copied.
_COPIED = 1 << 22
_CHUNK = 1 << 20

#: Folder name and environment of each build. The folders' names differ in length, and have a space and a
#: letter outside ASCII.
BUILDS: Mapping[str, Mapping[str, str]] = MappingProxyType({
    "a": {"LC_ALL": "C", "LANG": "C", "LANGUAGE": "C", "TZ": "America/St_Johns", "PYTHONHASHSEED": "1",
          "COLUMNS": "80", "USER": "somebody", "PYTHONUTF8": "0"},
    "b eines längeren namens": {
        "LC_ALL": "C.UTF-8", "LANG": "de_DE.UTF-8", "LANGUAGE": "de", "TZ": "Asia/Tokyo",
        "PYTHONHASHSEED": "424242", "COLUMNS": "200", "USER": "else", "PYTHONUTF8": "1"},
})


class NotReproducible(ValueError):
    """Two builds of the same differ."""


@dataclass(frozen=True)
class Same:
    """What two builds made alike: ``files`` files, together ``size`` bytes."""

    files: int
    size: int


def reproduce(job: Job, say: Callable[[str], None]) -> Same:
    """Builds all that needs no device, twice, from nothing. Raises ``NotReproducible`` with a line per
    difference, or the message of a stage that fails."""
    stages = [stage.name for stage in STAGES if not stage.device]
    (job.root / "artifacts").mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=job.root / "artifacts", prefix=".reproduce-") as folder:
        roots = []
        for number, (name, environment) in enumerate(BUILDS.items(), 1):
            root = Path(folder) / name / "project"
            _copy(job.root, root)
            for stage in stages:
                say(f"{stage}, build {number} of {len(BUILDS)}")
                _run(stage, job, root, environment)
            roots.append(root)
        return _compare(job, roots)


def _run(stage: str, job: Job, root: Path, environment: Mapping[str, str]) -> None:
    command = [sys.executable, "-m", "pipelines", "run-stage", stage, f"{job.config.name}@{job.target}"]
    clean = {name: value for name, value in os.environ.items() if name != "NPU_CACHE"}
    done = subprocess.run(command, cwd=root, capture_output=True, check=False, encoding="utf-8",
                          errors="replace", env={**clean, **environment})
    if done.returncode:
        said = done.stderr.strip().splitlines() or [f"it ended with status {done.returncode}"]
        raise NotReproducible(f"{stage} fails in {root}: {said[-1].removeprefix('error: ')}")


def _copy(source: Path, root: Path) -> None:
    """The project without what builds and tools have made of it; large files as links."""
    def ignored(folder: str, names: list[str]) -> list[str]:
        made = ("__pycache__", "node_modules", *(("artifacts",) if Path(folder) == source else ()))
        return [name for name in names if name.startswith(".") or name in made
                or (Path(folder) / name / "pyvenv.cfg").exists()]

    def place(old: str, new: str) -> None:
        if Path(old).stat().st_size > _COPIED:
            Path(new).symlink_to(old)
        else:
            shutil.copyfile(old, new)

    shutil.copytree(source, root, ignore=ignored, copy_function=place)
    downloads = source / "artifacts" / ".downloads"
    downloads.mkdir(parents=True, exist_ok=True)
    (root / "artifacts").mkdir()
    (root / "artifacts" / ".downloads").symlink_to(downloads)


def _compare(job: Job, roots: Sequence[Path]) -> Same:
    digests = Digests()
    first, second = ({name: (place, digests.of(place)) for name, place in _made(job, root)} for root in roots)
    problems = [f"{name} is made by one build only" for name in sorted(first.keys() ^ second.keys())]
    for name in sorted(first.keys() & second.keys()):
        if first[name][1] != second[name][1]:
            offset = _first_difference(Path(first[name][0]), Path(second[name][0]))
            problems.append(f"{name} differs from byte {offset} on")
    if problems:
        raise NotReproducible(f"{job.label} is not the same twice:\n" + "\n".join(problems))
    return Same(len(first), sum(Path(place).stat().st_size for place, _ in first.values()))


def _made(job: Job, root: Path) -> Iterator[tuple[str, str]]:
    """Every file that a stage without a device has made in the project ``root``, by its name in it."""
    there = Job(root, job.config, job.target)
    for stage in STAGES:
        for artifact in stage.makes if not stage.device else ():
            for path in there.paths(artifact):
                inside = {"": str(path)} if path.is_file() else tree(path)
                yield from ((f"{shown(path, there)}/{name}".rstrip("/"), place)
                            for name, place in inside.items())


def _first_difference(one: Path, other: Path) -> int:
    with one.open("rb") as left, other.open("rb") as right:
        start = 0
        while True:
            a, b = left.read(_CHUNK), right.read(_CHUNK)
            if a != b or not a:
                pairs = enumerate(zip(a, b, strict=False))
                return start + next((place for place, (x, y) in pairs if x != y), min(len(a), len(b)))
            start += len(a)
