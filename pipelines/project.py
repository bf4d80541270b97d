"""``npubin init``: a folder in which the build works on models of the user's own."""

from __future__ import annotations

import json
from importlib.resources.abc import Traversable
from pathlib import Path

from npu_compiler.resources import template_root
from npu_runtime.errors import NpubinError
from pipelines.job import write_atomic

#: Names that a project cannot give to its own modules: they would hide the package's.
_OURS = ("pipelines", "torch_ir", "npu_compiler", "npu_runtime")

#: A file below templates/project -> its name in the project, where that differs.
_NAMES = {"gitignore": ".gitignore"}


class ProjectError(NpubinError, ValueError):
    """A project could not be made."""


def init(folder: Path) -> list[str]:
    """Writes the starting files of a project to ``folder`` and returns their names.

    Raises ``ProjectError``, with nothing written, where one of them exists or ``folder`` is no folder.
    """
    files = {_NAMES.get(name, name): file.read_bytes()
             for name, file in _files(template_root() / "project")}
    files["configs/schema.json"] = _schema()
    if folder.exists() and not folder.is_dir():
        raise ProjectError(f"{folder} is a file: give the name of a folder")
    hidden = [name for name in _OURS if (folder / name).exists() or (folder / f"{name}.py").exists()]
    if hidden:
        raise ProjectError(f"{folder} has {hidden[0]}, which hides npubin's module of that name: nothing was "
                           "written; rename it, or give another folder")
    there = sorted({str(taken) for name in files for taken in _taken(folder, Path(name))})
    if there:
        raise ProjectError(f"{folder} already has {', '.join(there)}: nothing was written; "
                           "give another folder, or move them away")
    for name, data in files.items():
        write_atomic(folder / name, data)
    return sorted(files)


def _taken(folder: Path, name: Path) -> list[Path]:
    """What stands where ``name`` and the folders around it would be written."""
    around = [part for part in name.parents if (folder / part).exists() and not (folder / part).is_dir()]
    itself = [name] if (folder / name).exists() or (folder / name).is_symlink() else []
    return [*around, *itself]


def _schema() -> bytes:
    try:
        from pipelines.schema import schema
    except ImportError as error:
        raise ProjectError(f"a project needs the build's libraries ({error.name} is missing): "
                           'pip install "npubin[build,pocl]"') from None
    return (json.dumps(schema(), indent=2) + "\n").encode()


def _files(folder: Traversable, above: str = "") -> list[tuple[str, Traversable]]:
    found: list[tuple[str, Traversable]] = []
    for entry in sorted(folder.iterdir(), key=lambda entry: entry.name):
        if entry.is_dir():
            found += _files(entry, f"{above}{entry.name}/") if entry.name != "__pycache__" else []
        else:
            found.append((f"{above}{entry.name}", entry))
    return found
