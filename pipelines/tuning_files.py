"""Which tuned entries a compilation may use, and where ``doit tune`` puts them.

The project's own ``configs/tuning`` comes before what npubin ships.
"""

from __future__ import annotations

from pathlib import Path

from npu_compiler.tuned import DeviceKey, Tuning, load_tuning
from pipelines.job import Job


def folder_of(root: Path) -> Path:
    """Where the project ``root`` keeps its measured choices."""
    return root / "configs" / "tuning"


def tuning_of(job: Job) -> Tuning:
    """The entries for ``job``: of its device if that is known, of its target's family else; none with
    ``compile.tuning: off``. Raises ``CompileError`` for a malformed file."""
    from npu_compiler.resources import config_root
    from npu_compiler.target import load_target
    wanted = job.config.compile.tuning
    if wanted == "off":
        return Tuning()
    folders = (folder_of(job.root), Path(str(config_root())) / "tuning")
    key = job.tuned_for or DeviceKey(None, load_target(job.target).profile)
    return load_tuning(folders, key, any_driver=wanted == "any-driver")
