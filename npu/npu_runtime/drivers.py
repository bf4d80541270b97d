"""Makes OpenCL drivers visible that lie where no loader looks. Imports no OpenCL.

An OpenCL loader lists the drivers once per process, at the first call, from the ``.icd`` files of one folder.
PoCL's wheel is found by pyopencl's own loader. Intel's CPU runtime from PyPI installs an ``.icd`` file that
holds a path of its build, and a bare GPU machine has NVIDIA's library without any: for these,
``visible_drivers`` shows the loader a folder made for the purpose, holding also the system's own drivers. A
user's ``OCL_ICD_VENDORS`` is left alone.
"""

from __future__ import annotations

import os
import site
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_VARIABLE = "OCL_ICD_VENDORS"
_SYSTEM = Path("/etc/OpenCL/vendors")
_NVIDIA = "libnvidia-opencl.so.1"
#: Where containers and distributions have NVIDIA's driver, outside of the linker's path.
_NVIDIA_FOLDERS = tuple(
    Path(folder)
    for folder in (
        *("/usr/local/nvidia/lib64", "/usr/local/nvidia/lib"),
        *("/usr/lib/wsl/lib", "/run/opengl-driver/lib"),
    )
)


def pip_drivers() -> dict[str, Path]:
    """Drivers that Python packages installed: name -> library."""
    prefixes = [Path(sys.prefix)] + ([Path(site.getuserbase())] if site.ENABLE_USER_SITE else [])
    libraries = [prefix / "lib" / "libintelocl.so" for prefix in prefixes]
    found = [library for library in libraries if library.exists()]
    return {"intel-cpu": found[0]} if found else {}


def icd_entries() -> dict[str, str]:
    """The entries that the loader shall see: file name -> library, the system's own first."""
    entries = {}
    if _SYSTEM.is_dir():
        for file in sorted(_SYSTEM.glob("*.icd")):
            entries[file.name] = file.read_text().strip()
    known = {Path(library).name for library in entries.values()}
    for name, path in pip_drivers().items():
        if path.name not in known:
            entries[f"{name}.icd"] = str(path)
    if _NVIDIA not in known:
        places = (str(folder / _NVIDIA) for folder in _NVIDIA_FOLDERS if (folder / _NVIDIA).exists())
        entries["nvidia.icd"] = next(places, _NVIDIA)  # the loader ignores a library that does not exist
    return entries


@contextmanager
def visible_drivers() -> Iterator[None]:
    """While this lasts, an OpenCL loader that is used for the first time finds every driver of this
    machine."""
    if os.environ.get(_VARIABLE):
        yield
        return
    with tempfile.TemporaryDirectory(prefix="npubin-icd-") as folder:
        for name, library in icd_entries().items():
            (Path(folder) / name).write_text(library + "\n")
        os.environ[_VARIABLE] = folder
        try:
            yield
        finally:
            os.environ.pop(_VARIABLE, None)
