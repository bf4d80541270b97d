"""A model's original state_dict, from wherever its configuration says, as a safetensors file."""

from __future__ import annotations

import importlib
import pickle
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines import gguf_checkpoint
from pipelines.packages import FetchError
from pipelines.schema import Weights
from pipelines.yaml_source import suggest

if TYPE_CHECKING:
    from torch import Tensor


def convert(file: Path, weights: Weights, out: Path) -> None:
    """Writes the state_dict in ``file`` (.safetensors, .gguf, .pth, .pt or .bin) to ``out``. Pickles are read
    with ``weights_only``, so none of their code runs. Raises ``FetchError``."""
    if file.suffix == ".gguf":
        gguf_checkpoint.convert(file, out)
    elif file.suffix == ".safetensors" and not weights.strip_prefix:
        _check(file)
        shutil.copyfile(file, out)
    else:
        save(_renamed(_read(file, weights), weights.strip_prefix), out)


def save(state: Mapping[str, Tensor], out: Path) -> None:
    """Writes tensors to ``out``; the same tensors give the same bytes. Tied ones are written once per
    name."""
    from safetensors.torch import save_file
    tensors = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in state.items()}
    save_file(tensors, out, metadata={"format": "pt"})
    out.chmod(0o644)


def from_torchvision(name: str, weights: Weights, out: Path) -> None:
    """Downloads a weights enum member of torchvision."""
    try:
        models = importlib.import_module("torchvision.models")
    except ImportError as error:
        raise FetchError(f"weights.torchvision: {name} needs torchvision, which does not import here "
                         f"({error}); install it, or give a checkpoint as weights.file") from None
    save(_renamed(models.get_weight(name).get_state_dict(progress=False), weights.strip_prefix), out)


def _read(file: Path, weights: Weights) -> dict[str, Tensor]:
    import torch
    if file.suffix == ".safetensors":
        from safetensors.torch import load_file
        _check(file)
        return load_file(file)
    if file.suffix not in (".pth", ".pt", ".bin"):
        raise FetchError(f"{file.name}: only .safetensors, .gguf, .pth, .pt and .bin files can be read")
    try:
        content: Any = torch.load(file, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError) as error:
        raise FetchError(f"{file.name} cannot be read as a checkpoint of tensors alone: "
                         f"{str(error).strip().splitlines()[0]}") from None
    for part in (weights.entry or "").split(".") if weights.entry else ():
        if not isinstance(content, dict) or part not in content:
            known = list(content) if isinstance(content, dict) else []
            raise FetchError(f"{file.name}: weights.entry: there is no {weights.entry}"
                             f"{suggest(part, list(map(str, known))[:20])}")
        content = content[part]
    if not isinstance(content, dict):
        raise FetchError(f"{file.name} holds a {type(content).__name__}, not a state_dict (names to tensors)")
    if not all(isinstance(value, torch.Tensor) for value in content.values()):
        inside = [str(key) for key, value in content.items() if isinstance(value, dict)]
        raise FetchError(f"{file.name} is not a state_dict (names to tensors)"
                         + (f"; weights.entry may be {' or '.join(inside)}" if inside else ""))
    return content


def _check(file: Path) -> None:
    from safetensors import SafetensorError, safe_open
    try:
        with safe_open(file, framework="numpy") as opened:
            opened.keys()
    except (SafetensorError, OSError) as error:
        raise FetchError(f"{file.name} is not a whole safetensors file: {error}") from None


def _renamed(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in state.items()}
