"""What the compiler knows of a kind of device: ``configs/targets/<name>.yaml``, never the device that is
present."""

from __future__ import annotations

import difflib
from functools import cache
from typing import Literal

import msgspec

from npu_compiler.errors import CompileError
from npu_compiler.resources import config_root


class Target(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Limits and habits of a kind of device. Sizes in bytes; ``vector_width`` in float32 lanes.

    ``grain`` is how many elements of simple work one work-item should take: thousands where a work-item is a
    slice of a thread's loop, one where it is a lane of a wide machine. ``group`` is how many work-items of
    such a machine work together through local memory (1: each works alone). ``busy_groups`` is how many
    work-groups (work-items that work alone) keep the device busy: with fewer, a kernel may split work that
    it would rather do in one piece. ``features``: "ptx" for inline
    PTX of NVIDIA devices from compute capability 8.0 on.
    """

    name: str
    profile: str
    device_type: Literal["cpu", "gpu", "any"]
    vector_width: int
    grain: int
    max_work_group: int
    local_mem_bytes: int
    max_alloc_bytes: int
    dtypes: tuple[str, ...]
    group: int = 1
    busy_groups: int = 1
    features: tuple[Literal["ptx"], ...] = ()
    options: tuple[str, ...] = ()


def load_target(name: str) -> Target:
    """Reads a target's YAML file. Raises ``CompileError`` for an unknown name or a malformed file."""
    folder = config_root() / "targets"
    path = folder / f"{name}.yaml"
    if not path.is_file():
        known = sorted(
            entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml")
        )
        close = difflib.get_close_matches(name, known, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise CompileError(f"unknown target {name!r}: configs/targets has {', '.join(known)}{hint}")
    return _parsed(name, path.read_text(encoding="utf-8"))


@cache
def _parsed(name: str, text: str) -> Target:
    """A build asks for the same target once for every model."""
    import yaml

    try:
        return msgspec.convert({"name": name, **yaml.safe_load(text)}, Target)
    except (msgspec.ValidationError, yaml.YAMLError, TypeError) as error:
        raise CompileError(f"configs/targets/{name}.yaml: {error}") from None
