"""Content digests of files and folders."""

from __future__ import annotations

import time
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from blake3 import blake3

#: What stands for the digest of something that does not exist.
MISSING = "missing"

#: A file whose change is younger than this may change again without a new time stamp (seconds).
_GRAIN = 0.1


class Digests:
    """blake3 digests in hexadecimal, remembered while a file's inode, size and times stay what they were."""

    def __init__(self) -> None:
        self._known: dict[Path, tuple[tuple[int, ...], str]] = {}

    def of(self, path: Path) -> str:
        """The digest of a file, or of a folder's files with their names; ``MISSING`` if there is neither."""
        if path.is_dir():
            inside = "\n".join(f"{name}\0{self._file(file)}" for name, file in tree(path).items())
            return blake3(inside.encode()).hexdigest()
        return self._file(path)

    def _file(self, path: Path) -> str:
        try:
            status = path.stat()
        except (FileNotFoundError, NotADirectoryError):
            return MISSING
        stamp = (status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
        known = self._known.get(path)
        if known is not None and known[0] == stamp:
            return known[1]
        hasher = blake3(max_threads=blake3.AUTO)
        if status.st_size > 1 << 20:
            hasher.update_mmap(path)
        else:
            hasher.update(path.read_bytes())
        digest = hasher.hexdigest()
        if time.time() - max(status.st_mtime, status.st_ctime) > _GRAIN:
            self._known[path] = (stamp, digest)
        return digest


def text_digest(text: str) -> str:
    """The digest of ``text``."""
    return blake3(text.encode()).hexdigest()


def tree(folder: Path) -> dict[str, Path]:
    """The files below ``folder`` by their relative names, sorted."""
    files = {file.relative_to(folder).as_posix(): file for file in folder.rglob("*") if file.is_file()}
    return dict(sorted(files.items()))


@cache
def module_files(name: str) -> dict[str, Path]:
    """The source files of a package (all its modules) or of a module, by names that do not depend on where it
    is installed: {"npu_compiler/select.py": path}. Nothing is imported."""
    package, _, module = name.partition(".")
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        return {f"{package}.py": Path(spec.origin)} if spec is not None and spec.origin else {}
    root = Path(next(iter(spec.submodule_search_locations)))
    below = root.joinpath(*module.split(".")) if module else root
    files = sorted(below.rglob("*.py")) if below.is_dir() else [below.with_suffix(".py")]
    return {f"{package}/{file.relative_to(root).as_posix()}": file for file in files}
