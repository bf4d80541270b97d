"""Modules as their sources are now, and digests of what was imported.

Python takes a module's compiled form for current if the source's time in whole seconds and its size are what
they were, so an edit that keeps both would run as the old code. Here a compiled form counts only if it was
written after the source's last change.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import sys
import sysconfig
from collections.abc import Mapping
from importlib.abc import PathEntryFinder
from importlib.machinery import (
    BYTECODE_SUFFIXES,
    EXTENSION_SUFFIXES,
    SOURCE_SUFFIXES,
    ExtensionFileLoader,
    FileFinder,
    SourceFileLoader,
    SourcelessFileLoader,
)
from pathlib import Path
from types import CodeType

from blake3 import blake3

_read: dict[str, str] = {}


class _FreshLoader(SourceFileLoader):
    def get_code(self, fullname: str) -> CodeType | None:
        path = self.get_filename(fullname)
        _read[path] = blake3(self.get_data(path)).hexdigest()
        with contextlib.suppress(OSError, NotImplementedError):
            compiled = Path(importlib.util.cache_from_source(path))
            if compiled.stat().st_mtime_ns <= Path(path).stat().st_ctime_ns:
                compiled.unlink()
        return super().get_code(fullname)


def install() -> None:
    """From now on, in this process, modules outside Python's own folders are imported like this."""
    kinds = ("purelib", "platlib", "stdlib", "platstdlib")
    installed = tuple(f"{sysconfig.get_path(kind)}{os.sep}" for kind in kinds)
    finder = FileFinder.path_hook((ExtensionFileLoader, list(EXTENSION_SUFFIXES)),
                                  (_FreshLoader, list(SOURCE_SUFFIXES)),
                                  (SourcelessFileLoader, list(BYTECODE_SUFFIXES)))

    def hook(path: str) -> PathEntryFinder:
        if f"{path}{os.sep}".startswith(installed):
            raise ImportError("as usual")
        return finder(path)

    sys.path_hooks.insert(0, hook)
    sys.path_importer_cache.clear()


def digests() -> Mapping[str, str]:
    """File -> digest of the source, for every module that was imported like this."""
    return _read
