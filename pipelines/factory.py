"""Calls a model's factory, and tells which source files and libraries that took."""

from __future__ import annotations

import importlib
import inspect
import os
import sys
import sysconfig
from collections.abc import Callable, Mapping
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from pipelines import imports, reads
from pipelines.config import ModelConfig
from pipelines.fingerprint import Observed, module_name, source_folders
from pipelines.yaml_source import suggest

if TYPE_CHECKING:
    from torch import nn

#: Our own modules are named by the stages that they shape; a shipped model's are not.
_OURS = ("pipelines", "torch_ir", "npu_compiler", "npu_runtime")
_SHIPPED_MODELS = "pipelines.zoo"

#: The modules that importing and calling factories has loaded in this process.
_loaded_by_factories: set[str] = set()


class FactoryError(ValueError):
    """A model's factory is missing, or does not return a module."""


def build(config: ModelConfig) -> nn.Module:
    """The model as its factory makes it, in evaluation mode, on the current default device.

    Raises ``FactoryError``; what goes wrong inside the factory is its cause.
    """
    with reads.traced():
        return _build(config)


def _build(config: ModelConfig) -> nn.Module:
    from torch import nn
    before = frozenset(sys.modules)
    module_name, _, path = config.factory.partition(":")
    try:
        made = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is not None and not f"{module_name}.".startswith(f"{error.name}."):
            raise FactoryError(f"{config.name}: {module_name} needs the module {error.name}, "
                               "which is not installed") from error
        raise FactoryError(f"{config.name}: there is no module {error.name} to import {config.factory} from; "
                           "it must be installed, or lie below the project's folder") from error
    factory: object = made
    for part in path.split("."):
        if not hasattr(factory, part):
            choices = [name for name in vars(made) if not name.startswith("_")]
            raise FactoryError(f"{config.name}: {module_name} has no {path}{suggest(path, choices)}")
        factory = getattr(factory, part)
    if not callable(factory):
        raise FactoryError(f"{config.name}: {config.factory} is not callable")
    try:
        inspect.signature(factory).bind(**config.factory_args)
    except TypeError as error:
        raise FactoryError(f"{config.name}: factory_args do not fit {config.factory}: {error}") from None
    except ValueError:
        pass  # a callable without a signature
    model = factory(**config.factory_args)
    if not isinstance(model, nn.Module):
        raise FactoryError(f"{config.name}: {config.factory} returned {type(model).__name__}, "
                           "not a torch.nn.Module")
    _loaded_by_factories.update(sys.modules.keys() - before)
    return model.eval()


def randomize(config: ModelConfig, model: nn.Module, seed: int) -> nn.Module:
    """``model`` with its weights from ``seed``, where the factory's module has a function
    ``randomize(model, seed)``; otherwise as the factory made it."""
    function = function_of(config, "randomize")
    with reads.traced():
        return model if function is None else function(model, seed) or model


def function_of(config: ModelConfig, name: str) -> Callable[..., Any] | None:
    """What the factory's module calls ``name``; None where it has nothing of that name."""
    found: Callable[..., Any] | None = getattr(
        importlib.import_module(config.factory.partition(":")[0]), name, None)
    return found


def write_random(config: ModelConfig, seed: int, out: Path) -> bool:
    """Writes seeded random parameters of a model to ``out``, one tensor at a time, where the factory's module
    has a function ``random_tensor(name, shape, seed)``. Returns whether it has."""
    import torch

    from npu_runtime.buffer import to_array
    from npu_runtime.safetensors_file import write_safetensors
    function = function_of(config, "random_tensor")
    if function is None:
        return False
    with torch.device("meta"):
        model = build(config)
    held = dict(sorted(model.named_parameters()))
    specs = {name: (tuple(tensor.shape), str(tensor.dtype).removeprefix("torch."))
             for name, tensor in held.items()}
    arrays = ((name, to_array(function(name, tensor.shape, seed).to(tensor.dtype)))
              for name, tensor in held.items())
    with reads.traced():
        write_safetensors(out, specs, arrays, {"format": "pt"})
    return True


def observed(root: Path) -> Observed:
    """What shaped the models built so far: the files of the project's modules that are loaded, the
    distributions that these name or that building loaded, and the data files that it opened."""
    files: set[Path] = set()
    packages = {name.partition(".")[0] for name in _loaded_by_factories}
    for name, module in list(sys.modules.items()):
        file = _project_file(name, module)
        if file is not None:
            files.add(file)
            for value in list(vars(module).values()):
                is_module = isinstance(value, ModuleType)
                owner = getattr(value, "__name__" if is_module else "__module__", None)
                packages.add(str(owner).partition(".")[0])
    owners: Mapping[str, list[str]] = packages_distributions()
    libraries = {library for package in packages - set(_OURS) for library in owners.get(package, ())}
    modules = {module_name(file, root): imports.digests().get(str(file), "") for file in files}
    data = {module_name(Path(name), root): digest for name, digest in reads.noted().items()
            if _is_data(Path(name), root) and Path(name).resolve() not in files}
    return Observed(modules=tuple(sorted(modules)), libraries=tuple(sorted(libraries)),
                    data=tuple(sorted(data)), as_read=modules | data)


def _is_data(path: Path, root: Path) -> bool:
    """Whether a file that was opened belongs to the project, or to other sources that are not installed; what
    builds make and what Python keeps of its modules does not, nor do our own modules."""
    artifacts = root / "artifacts"
    if (path.is_relative_to(artifacts) or path.resolve().is_relative_to(artifacts.resolve())
            or "__pycache__" in path.parts or str(path).startswith(_installed())):
        return False
    ours = [Path(folder) for name in _OURS for folder in getattr(sys.modules.get(name), "__path__", ())]
    shipped = getattr(sys.modules.get(_SHIPPED_MODELS), "__path__", ())
    if any(map(path.is_relative_to, ours)) and not any(map(path.is_relative_to, shipped)):
        return False
    return any(path.is_relative_to(folder) for folder in (root, *source_folders()))


def _project_file(name: str, module: ModuleType) -> Path | None:
    """The source of a module of the project or of the models that we ship; None for any other."""
    file = getattr(module, "__file__", None) or ""
    shipped = f"{name}.".startswith(f"{_SHIPPED_MODELS}.")
    ours = name.partition(".")[0] in _OURS and not shipped
    if not file.startswith(os.sep) or not file.endswith(".py") or ours or name in ("__main__", "__mp_main__"):
        return None
    if file.startswith(_installed()) and not shipped:
        return None
    path = Path(file).resolve()
    return path if path.is_file() else None


@cache
def _installed() -> tuple[str, ...]:
    """The folders of the standard library and of installed packages."""
    paths = [sysconfig.get_path(kind) for kind in ("purelib", "platlib", "stdlib")]
    return tuple(f"{folder}{os.sep}" for path in paths for folder in (path, os.path.realpath(path)))
