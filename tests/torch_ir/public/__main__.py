"""``python -m tests.torch_ir.public [--venv FOLDER] [--update]``: cross-checks with the public package.

In an environment of its own (made in FOLDER, or thrown away), since both packages are called ``torch_ir``:
the public package writes the file of every module here, and the files are compared with those in
``files/`` (``--update`` replaces them); then it loads the files that our ``extract_ir`` writes, and
those that are given as ``--ours FILE``. Exits with 1 if a file of ours does not load
there, or a file of theirs has changed.

The files here were written by pytorch-ir 0.2.3 with PyTorch 2.13.0; ``pytest tests/torch_ir`` runs them.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

HERE = Path(__file__).resolve().parent
PACKAGES = ("torch==2.13.0", "numpy", "safetensors", "pytorch-ir==0.2.3")
sys.path[:0] = [str(HERE), str(HERE.parents[2] / "npu")]


def environment(folder: Path) -> Path:
    """The Python of an environment with the public package, made where it is missing."""
    python = folder / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "-q", *PACKAGES], check=True)
    return python


def run(python: Path, *arguments: str) -> str:
    """The output of ``write.py`` there, where nothing of ours can be imported."""
    clean = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    command = [str(python), str(HERE / "write.py"), *arguments]
    return subprocess.run(command, check=True, env=clean, text=True, stdout=subprocess.PIPE).stdout


def main() -> int:
    from modules import MODULES

    from torch_ir import extract_ir

    parser = argparse.ArgumentParser("python -m tests.torch_ir.public", description=__doc__)
    parser.add_argument("--venv", type=Path, help="where the environment is or will be made")
    parser.add_argument("--update", action="store_true", help="replace the files here")
    parser.add_argument("--ours", type=Path, nargs="*", default=[], help="more files of ours to load there")
    options = parser.parse_args()
    failed = 0
    with tempfile.TemporaryDirectory() as temporary:
        python = environment(options.venv or Path(temporary) / "venv")
        theirs, ours = Path(temporary) / "theirs", Path(temporary) / "ours"
        theirs.mkdir()
        ours.mkdir()
        run(python, str(theirs))
        for path in sorted(theirs.glob("*.json")):
            known = HERE / "files" / path.name
            if options.update:
                shutil.copyfile(path, known)
            elif not known.exists() or known.read_text() != path.read_text():
                failed += 1
                print(f"{path.name}: the public package writes another file now")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for name, make in MODULES.items():
                extract_ir(*make(), model_name=name).save(ours / f"{name}.json")
        for path in options.ours:
            shutil.copyfile(path, ours / path.name)
        told = run(python, "--read", str(ours))
    print(told, end="")
    failed += sum("\tfails" in line for line in told.splitlines())
    print(f"{len(told.splitlines())} files of ours, {len(MODULES)} of theirs, {failed} failures")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
