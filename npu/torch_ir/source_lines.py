"""Source lines of a model in a form that does not depend on where its files lie."""

from __future__ import annotations

import re
import sys
import sysconfig
from pathlib import Path


def source_line(trace: str | None, own: bool = True) -> str:
    """ "file:line" of the deepest frame of ``trace`` outside PyTorch (``own``), or of the deepest at all.

    Files are relative to the working folder, an import root or a package folder, so that results do not
    depend on where things lie.
    """
    frames = re.findall(r'File "([^"]+)", line (\d+)', trace or "")
    for path, line in reversed(frames):
        if path.startswith("<") or not Path(path).is_absolute():
            continue
        name = _portable(path)
        if not own or not name.startswith(("torch/", "torch_ir/")):
            return f"{name}:{line}"
    return ""


def _portable(path: str) -> str:
    packages = [sysconfig.get_paths()[key] for key in ("purelib", "platlib", "stdlib")]
    for root in (*packages, str(Path.cwd()), *sorted(sys.path, key=len, reverse=True)):
        if root and Path(root).is_absolute() and Path(path).is_relative_to(root):
            return Path(path).relative_to(root).as_posix()
    return Path(path).name
