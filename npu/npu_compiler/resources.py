"""Where the compiler's data files are: beside the package in a wheel, at the project's root in a checkout."""

from __future__ import annotations

from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[2]


def template_root() -> Traversable:
    """The folder of the kernel templates."""
    return _data("templates")


def config_root() -> Traversable:
    """The folder that holds ``targets/`` and ``tuning/``."""
    return _data("configs")


def _data(name: str) -> Traversable:
    packaged = files("npu_compiler") / name
    return packaged if packaged.is_dir() else _ROOT / name
