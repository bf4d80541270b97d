"""The build: `doit list`, `doit`, `doit report:resnet18`. What there is to do is in configs/models/*.yaml."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipelines.doit_ext import Build

_build = Build(Path(__file__).parent)

DOIT_CONFIG = _build.config


def task_build() -> Iterator[Any]:
    """Every stage of every model, from pipelines/stages.py."""
    yield from _build.tasks()
