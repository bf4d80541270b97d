"""Content digests of files and folders, remembered between commands.

A digest is remembered with the file's inode, size and times (``mtime`` and ``ctime``, the second of which no
program can set), and looked up by them. A file whose times are so young that it could be changed once more
without getting new ones is not remembered, so that no edit within the clock's grain is missed; a large one is
hashed when its times have aged. What is remembered is dropped when the machine has been restarted, since
after a crash a file may not hold what its times say.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Mapping
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from stat import S_ISDIR
from typing import TypeAlias

import msgspec
from blake3 import blake3

from pipelines.job import write_atomic
from pipelines.locks import leftovers, locked, remove_leftovers

#: What stands for the digest of something that does not exist.
MISSING = "missing"

#: Within so many seconds two changes may get the same time; on file systems that count whole seconds, the
#: second number.
_GRAIN, _COARSE_GRAIN = 0.1, 2.1
#: From this size on (bytes) it pays to wait until a file's times have aged.
_LARGE = 1 << 22
_CHUNK = 1 << 23
_BOOT = Path("/proc/sys/kernel/random/boot_id")

#: Inode, size, mtime and ctime (nanoseconds).
Stamp: TypeAlias = tuple[int, int, int, int]


class _Remembered(msgspec.Struct):
    """The file's content: path -> digest and stamp, as of one start of the machine."""

    boot: str
    files: dict[str, tuple[str, Stamp]]


class Digests:
    """blake3 digests in hexadecimal. With ``store`` they are kept in that file between processes."""

    def __init__(self, store: Path | None = None) -> None:
        self._store = store
        self._known: dict[str, tuple[str, Stamp]] = {} if store is None else _load(store)
        self._new: dict[str, tuple[str, Stamp]] = {}
        self._sources: dict[str, str] = {}

    def of(self, path: Path | str) -> str:
        """The digest of a file, or of a folder's files with their names; ``MISSING`` if there is neither."""
        name = os.fspath(path)
        status = _status(name)
        if status is not None and S_ISDIR(status.st_mode):
            files = tree(name).items()
            return folder_digest({file: self._file(place, _status(place)) for file, place in files})
        return self._file(name, status)

    def source(self, path: Path | str) -> str:
        """``of`` a file that no stage writes, looked at once by each ``Digests``."""
        name = os.fspath(path)
        if name not in self._sources:
            self._sources[name] = self.of(name)
        return self._sources[name]

    def save(self) -> None:
        """Keeps what was learnt for the next process, beside what others have kept meanwhile; on a disk that
        is full or read-only it is learnt again."""
        if self._store is None or not (self._new or leftovers(self._store)):
            return
        with contextlib.suppress(OSError), locked(self._store.parent / ".locks" / self._store.name):
            remove_leftovers(self._store)
            known = _load(self._store) | self._new
            write_atomic(self._store, msgspec.json.encode(_Remembered(boot_id(), known)))
        self._new = {}

    def _file(self, name: str, status: os.stat_result | None) -> str:
        if status is None:
            return MISSING
        stamp = (status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
        known = self._known.get(name)
        if (known is None or known[1] != stamp) and stamp[1] >= _LARGE and self._store is not None:
            self._known.update(_load(self._store))  # the process that made it has hashed it
            known = self._known.get(name)
        if known is not None and known[1] == stamp:
            return known[0]
        if stamp[1] >= _LARGE and 0 < (rest := _youth(stamp)) <= _COARSE_GRAIN:
            time.sleep(rest)
        young = _youth(stamp) > 0
        hasher = blake3(max_threads=blake3.AUTO)
        with open(name, "rb") as file:  # noqa: PTH123  (thousands of files: a Path each is felt)
            while chunk := file.read(_CHUNK):
                hasher.update(chunk)
        digest: str = hasher.hexdigest()
        if not young:
            self._known[name] = self._new[name] = (digest, stamp)
        return digest


class Expected(Digests):
    """The digests of ``real``, but for files and folders that something is about to make."""

    def __init__(self, real: Digests) -> None:
        super().__init__()
        self._real = real
        self._expected: dict[str, str] = {}

    def expect(self, outputs: Mapping[str, str], root: Path) -> None:
        """Notes what will be in place below ``root`` (see ``pipelines.records.Record.outputs``)."""
        for name, digest in outputs.items():
            if name.endswith("/"):
                inside = sorted(file for file in outputs if file.startswith(name) and file != name)
                files = {file.removeprefix(name): outputs[file] for file in inside}
                self._expected[os.fspath(root / name)] = folder_digest(files)
            else:
                self._expected[os.fspath(root / name)] = digest

    def is_in_place(self, path: Path) -> bool:
        """Whether ``path`` holds already what is expected of it."""
        return self.of(path) == self._real.of(path) != MISSING

    def of(self, path: Path | str) -> str:
        """See ``Digests``."""
        return self._expected.get(os.fspath(path)) or self._real.of(path)

    def source(self, path: Path | str) -> str:
        """See ``Digests``."""
        return self._real.source(path)

    def save(self) -> None:
        """See ``Digests``."""
        self._real.save()


def folder_digest(files: Mapping[str, str]) -> str:
    """The digest of a folder that has ``files``: name -> digest, sorted by name."""
    return text_digest("\n".join(f"{file}\0{digest}" for file, digest in files.items()))


def text_digest(text: str) -> str:
    """The digest of ``text``."""
    return str(blake3(text.encode()).hexdigest())


def tree(folder: Path | str) -> Mapping[str, str]:
    """The files below ``folder`` by their names in it, sorted."""
    top = os.fspath(folder)
    found: dict[str, str] = {}
    for place, folders, files in os.walk(top):
        folders.sort()
        inside = place[len(top):].lstrip("/")
        for name in files:
            found[f"{inside}/{name}" if inside else name] = f"{place}/{name}"
    return dict(sorted(found.items()))


@cache
def module_files(name: str) -> Mapping[str, str]:
    """The source files of a package (all its modules) or of a module, by names that do not depend on where it
    is installed: {"npu_compiler/select.py": path}. Nothing is imported."""
    package, _, module = name.partition(".")
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        return {f"{package}.py": spec.origin} if spec is not None and spec.origin else {}
    root = Path(next(iter(spec.submodule_search_locations)))
    below = root.joinpath(*module.split(".")) if module else root
    files = [str(below / name) for name in tree(below) if name.endswith(".py")] if below.is_dir() else [
        str(below.with_suffix(".py"))]
    return {f"{package}/{Path(file).relative_to(root).as_posix()}": file for file in files}


def _status(name: str) -> os.stat_result | None:
    try:
        return os.stat(name)  # noqa: PTH116  (likewise)
    except (FileNotFoundError, NotADirectoryError):
        return None


def _youth(stamp: Stamp) -> float:
    """Seconds until another change is sure to give the file other times."""
    grain = _GRAIN if stamp[3] % 1_000_000_000 else _COARSE_GRAIN
    return grain - (time.time() - max(stamp[2], stamp[3]) / 1e9)


def _load(store: Path) -> dict[str, tuple[str, Stamp]]:
    try:
        found = msgspec.json.decode(store.read_bytes(), type=_Remembered)
    except (OSError, msgspec.DecodeError):
        return {}
    return found.files if found.boot == boot_id() else {}


@cache
def boot_id() -> str:
    """What tells one start of the machine from another; "" where it does not say."""
    try:
        return _BOOT.read_text(encoding="ascii").strip()
    except OSError:
        return ""
