"""The environment variables that npubin reads: all of them, in one table.

- ``NPU_DEVICE``: the device that ``Device()`` opens: ``pocl``, ``intel``, ``nvidia:0``, ``gpu``, ``cpu``.
  Default: the first of PoCL, Intel's runtime, a GPU.
- ``NPU_DEBUG``: 1 stages, 2 kernels with time, GFLOP/s and GB/s, 3 passes, 4 source, 5 all. Default: 0.
- ``NPU_CACHE_DIR``: the folder for built kernels of drivers without a cache of their own, and for what probes
  found of devices. Default:
  ``$XDG_CACHE_HOME/npubin``.
- ``NPU_CACHE``: where builds share what their stages made, a folder or any URL that fsspec has
  (``s3://bucket/npubin``). Default: nowhere.
- ``NPU_CACHE_MODE``: what builds may do there: ``off``, ``read``, ``read-write``. Default: ``read-write``, or
  ``read`` where the place does not allow more (``http``).

``pin_threads`` sets PoCL's ``POCL_AFFINITY``, unless that or ``POCL_MAX_PTHREAD_COUNT`` is set.
"""

from __future__ import annotations

import os
import sys
from collections.abc import MutableMapping
from pathlib import Path

from npu_runtime.errors import InputError

STAGES, KERNELS, PASSES, SOURCE, EVERYTHING = 1, 2, 3, 4, 5


def device_selector() -> str | None:
    """``NPU_DEVICE``, or None where it is unset or empty."""
    return os.environ.get("NPU_DEVICE") or None


def debug_level() -> int:
    """``NPU_DEBUG`` as a number from 0 to 5. Raises ``InputError`` for anything else."""
    text = os.environ.get("NPU_DEBUG") or "0"
    if text not in {"0", "1", "2", "3", "4", "5"}:
        raise InputError(f"NPU_DEBUG is {text!r}: it must be a number from 0 (quiet) to 5 (everything)")
    return int(text)


def cache_dir() -> Path:
    """The folder for built kernels; it need not exist."""
    chosen = os.environ.get("NPU_CACHE_DIR")
    if chosen:
        return Path(chosen).expanduser()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "npubin"


def cache_url() -> str | None:
    """``NPU_CACHE``, or None where it is unset or empty."""
    return os.environ.get("NPU_CACHE") or None


def cache_mode() -> str:
    """``NPU_CACHE_MODE``: "off", "read" or "read-write". Raises ``InputError`` for anything else."""
    text = os.environ.get("NPU_CACHE_MODE") or "read-write"
    if text not in {"off", "read", "read-write"}:
        raise InputError(f"NPU_CACHE_MODE is {text!r}: it must be off, read or read-write")
    return text


def pin_threads(environment: MutableMapping[str, str] = os.environ) -> None:
    """Has PoCL hold every thread to a core of its own, for a process with a machine to itself, as one that
    measures: schedulers move threads that often sleep together onto one core. To be called before a device
    is opened. Changes nothing where the environment says how PoCL's threads are, nor for a process that may
    not use all cores, since PoCL counts them from 0."""
    all_cores = set(range(os.cpu_count() or 0))
    mine = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None
    if mine == all_cores and environment.keys().isdisjoint(("POCL_AFFINITY", "POCL_MAX_PTHREAD_COUNT")):
        environment["POCL_AFFINITY"] = "1"


def debug(level: int, text: str) -> None:
    """Prints ``text`` to standard error if ``NPU_DEBUG`` is at least ``level``."""
    if debug_level() >= level:
        print(f"npubin: {text}", file=sys.stderr)
