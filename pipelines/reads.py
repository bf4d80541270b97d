"""Files that Python code opens for reading, and what they held then.

A factory may read a table of sizes, a vocabulary or another description that it does not import. Whatever
this process opens while it is ``traced`` is noted before it is opened, so that an edit that comes later is
seen as one. What libraries open from compiled code without asking Python is not seen.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Iterator, Mapping

from pipelines.digests import Digests

_noted: dict[str, str] = {}
_written: set[str] = set()
_state = threading.local()
_traced = 0
_installed = False


@contextlib.contextmanager
def traced() -> Iterator[None]:
    """Notes the files that are opened meanwhile, in all threads. May be nested."""
    global _installed, _traced  # an audit hook cannot be removed
    if not _installed:
        sys.addaudithook(_hook)
        _installed = True
    _traced += 1
    try:
        yield
    finally:
        _traced -= 1


def noted() -> Mapping[str, str]:
    """Absolute path -> digest of what was read (``MISSING`` where nothing was there), for every file that was
    opened for reading and not written as well."""
    return {path: digest for path, digest in list(_noted.items()) if path not in _written}


def _hook(event: str, arguments: tuple[object, ...]) -> None:
    if event != "open" or not _traced or getattr(_state, "busy", False):
        return
    name, mode, flags = arguments
    if not isinstance(name, str | bytes) or not isinstance(flags, int):
        return
    path = os.path.abspath(os.fsdecode(name))  # noqa: PTH100  (a symbolic link keeps its own name)
    writes = flags & (os.O_WRONLY | os.O_RDWR) or (isinstance(mode, str) and set(mode) & set("wax+"))
    if writes:
        _written.add(path)
    elif path not in _noted and (os.path.isfile(path) or not os.path.exists(path)):  # noqa: PTH110, PTH113
        _state.busy = True
        try:
            _noted[path] = Digests().of(path)
        except OSError:  # it may not be read: the factory will say so
            return
        finally:
            _state.busy = False
