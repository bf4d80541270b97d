"""Files out of pinned packages of the package index. No code of a package is ever run."""

from __future__ import annotations

import fnmatch
import hashlib
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path, PurePosixPath

from pipelines.locks import locked


class FetchError(ValueError):
    """Something could not be downloaded, or is not what its sha256 says it must be."""


def wheel_of(name: str, version: str, folder: Path) -> Path:
    """The wheel of ``name==version``, downloaded by pip into ``folder`` unless it lies there already.

    Only wheels are taken, since pip would run a source archive's code. Raises ``FetchError``.
    """
    kept = folder / f"{name.lower().replace('_', '-')}-{version}"
    with locked(folder / ".locks" / kept.name):
        for wheel in sorted(kept.glob("*.whl")):
            return wheel
        temporary = folder / f".download-{kept.name}"
        shutil.rmtree(temporary, ignore_errors=True)  # of a build that was killed
        temporary.mkdir()
        try:
            command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:",
                       "--disable-pip-version-check", "--dest", str(temporary), f"{name}=={version}"]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            wheels = sorted(temporary.glob("*.whl"))
            if done.returncode or not wheels:
                said = (done.stderr or done.stdout).strip().splitlines() or ["pip says nothing"]
                raise FetchError(f"pip cannot download {name}=={version} as a wheel: {said[-1]}; "
                                 "check the name, the version and the network")
            kept.mkdir(exist_ok=True)
            return wheels[-1].replace(kept / wheels[-1].name)
        finally:
            shutil.rmtree(temporary)


def take_file(wheel: Path, inside: str, sha256: str, out: Path) -> None:
    """Unpacks one file of ``wheel`` (by its path, or by a base name that is unique) and checks it."""
    with _opened(wheel) as archive:
        names = [item for item in archive.namelist() if not item.endswith("/")]
        found = [item for item in names if item == inside] or [
            item for item in names if PurePosixPath(item).name == inside]
        if len(found) != 1:
            listed = ", ".join(found or [item for item in names if ".dist-info/" not in item][:8])
            raise FetchError(f"{wheel.name} has {len(found) or 'no'} file{'s' * (len(found) > 1)} {inside}; "
                             f"name one by its path: {listed}")
        with archive.open(found[0]) as source, out.open("wb") as target:
            shutil.copyfileobj(source, target, 1 << 20)
    try:
        check_sha256(out, sha256, f"{found[0]} of {wheel.name}")
    except FetchError:
        _forget(wheel)
        raise


def take_files(wheel: Path, pattern: str, sha256: str, out: Path) -> int:
    """Unpacks the files of ``wheel`` whose path matches ``pattern`` into ``out`` by their base names, after
    checking the wheel; returns their number."""
    try:
        check_sha256(wheel, sha256, wheel.name)
    except FetchError:
        _forget(wheel)
        raise
    with _opened(wheel) as archive:
        names = [item for item in archive.namelist()
                 if not item.endswith("/") and fnmatch.fnmatchcase(item, pattern)]
        if not names:
            raise FetchError(f"{wheel.name} has no file that matches {pattern}")
        out.mkdir(parents=True, exist_ok=True)
        for item in names:
            path = out / PurePosixPath(item).name
            if path.exists():
                raise FetchError(f"{wheel.name} has two files called {path.name}; "
                                 f"use a narrower pattern than {pattern}")
            path.write_bytes(archive.read(item))
    return len(names)


def check_sha256(path: Path, expected: str, shown: str) -> None:
    """Raises ``FetchError`` unless the file's sha256 is ``expected``."""
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != expected:
        raise FetchError(f"{shown} has sha256 {found}, but the configuration expects {expected}; "
                         "if the file is meant to have changed, check it and write its new digest")


def _opened(wheel: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(wheel)
    except (zipfile.BadZipFile, OSError) as error:
        _forget(wheel)
        raise FetchError(f"{wheel.name} is damaged ({error}); run again to download it anew") from None


def _forget(wheel: Path) -> None:
    """A download that failed its check must not be used again."""
    wheel.unlink()
