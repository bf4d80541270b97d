"""Built OpenCL programs on disk, for drivers that keep none themselves.

An entry is one file: a line with the sha256 of the rest, then the driver's binary. Its name is a digest of
all that shapes the binary. A damaged entry counts as absent.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from npu_runtime.env import cache_dir
from npu_runtime.files import atomic_file

_FORMAT = "npubin-kernels-1"


def cache_key(source: str, options: Sequence[str], device: str, driver: str) -> str:
    """The name of a build: changes with anything that can change the result."""
    return hashlib.sha256("\0".join([_FORMAT, source, *options, device, driver]).encode()).hexdigest()


def _entry(key: str) -> Path:
    return cache_dir() / "kernels" / f"{key}.bin"


def load(key: str) -> bytes | None:
    """The binary stored under ``key``; None if there is none that is whole."""
    try:
        digest, _, binary = _entry(key).read_bytes().partition(b"\n")
    except OSError:
        return None
    return binary if hashlib.sha256(binary).hexdigest().encode() == digest else None


def store(key: str, binary: bytes) -> None:
    """Keeps ``binary`` under ``key``; a folder that cannot be written is no error."""
    path = _entry(key)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_file(path) as file:
            file.write(hashlib.sha256(binary).hexdigest().encode() + b"\n" + binary)
    except OSError:
        return


def discard(key: str) -> None:
    """Removes an entry that the driver refused."""
    _entry(key).unlink(missing_ok=True)
