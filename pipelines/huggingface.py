"""Weights as Hugging Face publishes them: a folder on this machine, or a repository of the hub.

A folder has ``config.json`` and ``model.safetensors``, or ``model.safetensors.index.json`` and the files that
it names. Tensors are copied one at a time. """

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from npu_runtime.dtypes import Array
from npu_runtime.errors import FormatError
from npu_runtime.safetensors_file import SafetensorsFile, write_safetensors
from pipelines.packages import FetchError

#: What is downloaded of a repository: weights, the model's description and its tokenizer, no code.
WANTED = ("*.safetensors", "*.json", "tokenizer.model", "merges.txt", "*.jinja")
INDEX, WHOLE, DESCRIPTION = "model.safetensors.index.json", "model.safetensors", "config.json"


class Unreachable(FetchError):
    """There is neither a folder of this name nor a way to the hub."""


def folder_of(name: str, root: Path) -> Path:
    """The folder ``name`` of the project (or an absolute one), else the repository ``name``, downloaded to
    the hub's own cache. Raises ``Unreachable``."""
    folder = root / name
    if folder.is_dir():
        return folder
    try:
        hub = importlib.import_module("huggingface_hub")
    except ImportError:
        raise Unreachable(f"weights.huggingface: {name} is no folder here, and downloading it needs "
                          "huggingface_hub, which is not installed") from None
    try:
        return Path(hub.snapshot_download(name, allow_patterns=list(WANTED)))
    except Exception as error:  # its errors have no common base
        said = next(iter(str(error).splitlines()), type(error).__name__)
        raise Unreachable(f"weights.huggingface: {name} is no folder here and cannot be downloaded: "
                          f"{said}") from error


def convert(folder: Path, prefix: str, out: Path) -> None:
    """Writes all tensors of ``folder`` to ``out``, ``prefix`` taken off their names. Raises ``FetchError``
    for a file that is missing or damaged, or a tensor that two files have."""
    where: dict[str, tuple[SafetensorsFile, str]] = {}
    for path in _files(folder):
        try:
            file = SafetensorsFile(path)
        except FileNotFoundError:
            raise FetchError(f"{folder}: {INDEX} names {path.name}, which is not there; "
                             "download the folder again") from None
        except (FormatError, OSError) as error:
            raise FetchError(str(error)) from None
        for name in file.entries:
            key = name.removeprefix(prefix)
            if key in where:
                raise FetchError(f"{folder}: the tensor {key} is in {where[key][0].path.name} "
                                 f"and in {path.name}")
            where[key] = (file, name)

    def arrays() -> Iterator[tuple[str, Array]]:
        for key, (file, name) in where.items():
            yield key, file.tensor(name)
            file.release(name)

    specs = {key: (file.entries[name].shape, file.entries[name].dtype) for key, (file, name) in where.items()}
    write_safetensors(out, specs, arrays(), {"format": "pt"})


def _files(folder: Path) -> list[Path]:
    index = folder / INDEX
    if index.is_file():
        try:
            names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise FetchError(f"{index} is not an index of safetensors files: {error!r}") from None
        if not names or not all(isinstance(name, str) and Path(name).name == name for name in names):
            raise FetchError(f"{index} names no files, or files outside its folder")
        return [folder / name for name in names]
    found = [folder / WHOLE] if (folder / WHOLE).is_file() else sorted(folder.glob("*.safetensors"))
    if not found:
        raise FetchError(f"{folder} has no .safetensors file")
    return found


def description(folder: Path) -> dict[str, Any]:
    """The content of ``config.json``. Raises ``FetchError`` where it is missing or no JSON object."""
    path = folder / DESCRIPTION
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise FetchError(f"{path} cannot be read: {error}") from None
    if not isinstance(content, dict):
        raise FetchError(f"{path} is not a JSON object")
    return content


def check_description(folder: Path, wanted: Mapping[str, Any], place: str) -> None:
    """Raises ``FetchError`` listing the entries of ``wanted`` (a configuration of ``transformers``) that
    ``config.json`` has otherwise: its weights are those of another model. A folder without one is not
    judged."""
    if not (folder / DESCRIPTION).is_file():
        return
    held = description(folder)
    rope = held.get("rope_parameters") or held.get("rope_scaling") or {}
    held["rope_parameters"] = {"rope_type": rope.get("rope_type", rope.get("type", "default")),
                               "rope_theta": rope.get("rope_theta", held.get("rope_theta", 10000.0)),
                               **{key: value for key, value in rope.items() if key != "type"}}
    wrong = [f"{key} is {held[key]!r} there and {value!r} in {place}"
             for key, value in wanted.items() if key in held and not _same(held[key], value)]
    if wrong:
        raise FetchError(f"{folder / DESCRIPTION} describes another model: {'; '.join(wrong)}")


def _same(held: Any, wanted: Any) -> bool:
    if isinstance(held, dict) and isinstance(wanted, dict):
        return all(key in held and _same(held[key], value) for key, value in wanted.items())
    return bool(held == wanted)
