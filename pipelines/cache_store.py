"""Where the shared cache keeps its files: any place that fsspec can name. Knows nothing of stages.

What is read is checked against its digest, so a file that was cut short, altered or put under a wrong name is
never used. Files appear whole or not at all: on object stores a write is that by itself, elsewhere it goes to
a temporary name first.
"""

from __future__ import annotations

import contextlib
import re
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

from blake3 import blake3

#: Protocols whose writes are whole by themselves, and which have no folders to make.
_OBJECT_STORES = frozenset({"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "memory"})
_READ_ONLY = frozenset({"http", "https"})
_LOCAL = frozenset({"file", "local"})

#: Seconds until a connection is given up, and until a silent one is.
CONNECT_TIMEOUT, READ_TIMEOUT = 10, 30

#: A temporary file, or one that nothing refers to yet, younger than this (seconds) may be at work.
GRACE = 3600.0

_Result = TypeVar("_Result")


class CacheError(Exception):
    """The cache could not be reached, or does not allow what was asked of it."""


class DamagedError(Exception):
    """What the cache holds under ``name`` is not what was put there."""

    def __init__(self, name: str, what: str = "is not what was stored") -> None:
        super().__init__(f"{name} {what}")
        self.name = name


@dataclass(frozen=True)
class Stored:
    """A file of the store: bytes, and when it was last written or used (seconds since the epoch)."""

    name: str
    size: int
    when: float


class Store:
    """The files below ``url``. Names are relative, with "/". Methods raise ``CacheError``."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.shown = re.sub(r"//[^/@]*@", "//", url)
        self.protocol = url.partition("://")[0].rpartition("::")[2] if "://" in url else "file"
        self._opened: tuple[Any, str] | None = None

    @property
    def read_only(self) -> bool:
        """Whether nothing can be written there, whoever asks."""
        return self.protocol in _READ_ONLY

    def read(self, name: str) -> bytes | None:
        """The content of a file that ``write`` wrote; None if there is none. Raises ``DamagedError``."""
        found = self._find(lambda fs, root: bytes(fs.cat_file(f"{root}/{name}")))
        if found is None:
            return None
        digest, _, data = found.partition(b"\n")
        if digest != _digest(name, data):
            raise DamagedError(name)
        return data

    def write(self, name: str, data: bytes) -> None:
        """Stores ``data`` with a digest of it and the name, so that it is nothing under another name."""
        whole = _digest(name, data) + b"\n" + data
        self._put(name, lambda fs, path: fs.pipe_file(path, whole))

    def fetch(self, name: str, digest: str, path: Path) -> bool:
        """Copies a file that ``keep`` stored to ``path``; False if there is none. Raises ``DamagedError``
        where its content does not have ``digest``."""
        if self._find(lambda fs, root: fs.get_file(f"{root}/{name}", str(path)) or True) is None:
            return False
        if not path.is_file() or file_digest(path) != digest:
            raise DamagedError(name)
        return True

    def size(self, name: str) -> int | None:
        """The size of a file; None if there is none."""
        return self._find(lambda fs, root: int(fs.size(f"{root}/{name}") or 0))

    def keep(self, name: str, path: Path) -> None:
        """Stores a copy of ``path``, unless a file of its size is there by that name."""
        if self.size(name) != path.stat().st_size:
            self._put(name, lambda fs, place: fs.put_file(str(path), place))

    def touch(self, name: str) -> None:
        """Notes that a file was used, where the store can note that."""
        if self.protocol in _LOCAL:
            with contextlib.suppress(CacheError):
                self._ask(lambda fs, root: fs.touch(f"{root}/{name}", truncate=False))

    def files(self, folder: str) -> dict[str, Stored]:
        """The files below ``folder``, by name."""
        found: Mapping[str, Any] = self._find(lambda fs, root: fs.find(f"{root}/{folder}", detail=True)) or {}
        root = self._open()[1].rstrip("/")
        return {name: Stored(name, int(about["size"] or 0), _when(about)) for name, about in (
            (path.removeprefix(root).lstrip("/"), about) for path, about in sorted(found.items()))}

    def remove(self, name: str) -> None:
        """Removes a file, if it is there."""
        self._find(lambda fs, root: fs.rm_file(f"{root}/{name}"))

    def _put(self, name: str, put: Callable[[Any, str], object]) -> None:
        if self.read_only:
            raise CacheError(f"{self.shown} can only be read")
        if self.protocol in _OBJECT_STORES:
            self._ask(lambda fs, root: put(fs, f"{root}/{name}"))
            return
        temporary = f"{name}.{secrets.token_hex(8)}.tmp"
        self._ask(lambda fs, root: fs.makedirs(f"{root}/{name}".rpartition("/")[0], exist_ok=True))
        try:
            self._ask(lambda fs, root: put(fs, f"{root}/{temporary}"))
            self._ask(lambda fs, root: fs.mv(f"{root}/{temporary}", f"{root}/{name}"))
        except CacheError:
            with contextlib.suppress(CacheError):
                self.remove(temporary)
            raise

    def _find(self, what: Callable[[Any, str], _Result]) -> _Result | None:
        """The answer, None where there is no such file."""
        try:
            return self._ask(what)
        except CacheError as error:
            if isinstance(error.__cause__, FileNotFoundError):
                return None
            raise

    def _ask(self, what: Callable[[Any, str], _Result]) -> _Result:
        """Every library behind fsspec has errors of its own; all mean that the cache did not serve."""
        fs, root = self._open()
        try:
            return what(fs, root.rstrip("/"))
        except Exception as error:
            raise CacheError(f"{self.shown}: {_line(error)}") from error

    def _open(self) -> tuple[Any, str]:
        if self._opened is None:
            try:
                from fsspec.core import url_to_fs
                self._opened = url_to_fs(self.url, **_options(self.protocol))
            except Exception as error:
                raise CacheError(f"{self.shown}: {_line(error)}") from error
        return self._opened


def file_digest(path: Path) -> str:
    """blake3 of a file, hexadecimal."""
    hasher = blake3(max_threads=blake3.AUTO)
    with path.open("rb") as file:
        while chunk := file.read(1 << 23):
            hasher.update(chunk)
    return str(hasher.hexdigest())


def _digest(name: str, data: bytes) -> bytes:
    return blake3(name.encode() + b"\0" + data).hexdigest().encode()


def is_temporary(stored: Stored) -> bool:
    """Whether ``stored`` is a write that has not ended."""
    return stored.name.endswith(".tmp")


def is_old(stored: Stored, seconds: float = GRACE) -> bool:
    """Whether nobody has written or used ``stored`` for so long."""
    return time.time() - stored.when > seconds


def _options(protocol: str) -> dict[str, Any]:
    """What makes an unreachable server known in seconds and not in minutes."""
    if protocol in _READ_ONLY:
        import aiohttp
        return {"client_kwargs": {"timeout": aiohttp.ClientTimeout(
            total=None, sock_connect=CONNECT_TIMEOUT, sock_read=READ_TIMEOUT)}}
    if protocol in ("s3", "s3a"):
        return {"use_listings_cache": False, "config_kwargs": {
            "connect_timeout": CONNECT_TIMEOUT, "read_timeout": READ_TIMEOUT, "retries": {"max_attempts": 2}}}
    return {}


def _when(about: Mapping[str, Any]) -> float:
    for key in ("mtime", "LastModified", "last_modified", "updated", "created"):
        match about.get(key):
            case float() | int() as seconds:
                return float(seconds)
            case datetime() as moment:
                return moment.timestamp()
    return time.time()


def _line(error: Exception) -> str:
    if isinstance(error, TimeoutError) and not str(error):
        return "no answer in time"
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 300 else f"{text[:300]}..."
