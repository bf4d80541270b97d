"""Run by the Python of an environment that has the public package: ``write.py FOLDER [--read FOLDER]``.

Writes the public file of every module into a folder. Attributes that JSON has no form for (dtypes, devices)
are written as their text. With ``--read`` the files of that folder are loaded with the public package, and
run with it where it knows all of their operations.
"""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path

import torch
from modules import MODULES

import torch_ir


def write(folder: Path) -> None:
    for name, make in MODULES.items():
        module, inputs = make()
        ir = torch_ir.extract_ir(module, inputs, model_name=name, strict=False)
        (folder / f"{name}.json").write_text(json.dumps(ir.to_dict(), default=str) + "\n")


def read(folder: Path) -> None:
    """Prints what each file is for the public package: "loads", "runs", or why not."""
    for path in sorted(folder.glob("*.json")):
        try:
            ir = torch_ir.IR.load(str(path))
            torch_ir.validate_ir(ir)
            told = "loads"
            if path.stem in MODULES:
                told = ran(ir, path.stem)
        except Exception as error:
            told = f"fails: {type(error).__name__}: {error}"
        print(f"{path.name}\t{told}")


def ran(ir: object, name: str) -> str:
    module, inputs = MODULES[name]()
    state = {key: tensor.clone() for key, tensor in module.state_dict().items()}
    try:
        results = torch_ir.execute_ir(ir, inputs, state)
    except Exception as error:
        return f"loads; does not run there: {type(error).__name__}: {str(error).splitlines()[0][:120]}"
    with torch.no_grad():
        expected = module(*inputs)
    expected = [expected] if isinstance(expected, torch.Tensor) else list(expected)
    results = [results] if isinstance(results, torch.Tensor) else list(results)
    same = len(results) == len(expected) and all(
        torch.allclose(a.double(), b.double(), rtol=1e-4, atol=1e-5, equal_nan=True)
        for a, b in zip(results, expected, strict=True)
    )
    return "runs" if same else "loads; runs there to other results"


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    if len(sys.argv) > 2 and sys.argv[1] == "--read":
        read(Path(sys.argv[2]))
    else:
        write(Path(sys.argv[1]))
