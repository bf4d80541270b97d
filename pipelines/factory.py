"""Calls a model's factory, and tells which source files and libraries that took."""

from __future__ import annotations

import importlib
import inspect
import sys
import sysconfig
from collections.abc import Mapping
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.config import ModelConfig
from pipelines.fingerprint import Observed
from pipelines.yaml_source import suggest

if TYPE_CHECKING:
    from torch import nn

#: Our own modules are named by the stages that they shape; a shipped model's are not.
_OURS = ("pipelines", "torch_ir", "npu_compiler", "npu_runtime")
_SHIPPED_MODELS = "pipelines.zoo"


class FactoryError(ValueError):
    """A model's factory is missing, or does not return a module."""


def build(config: ModelConfig) -> nn.Module:
    """The model as its factory makes it, in evaluation mode, on the current default device.

    Raises ``FactoryError``; what goes wrong inside the factory is its cause.
    """
    from torch import nn
    module_name, _, path = config.factory.partition(":")
    try:
        made = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is not None and not f"{module_name}.".startswith(f"{error.name}."):
            raise FactoryError(f"{config.name}: {module_name} needs the module {error.name}, which is not installed") \
                from error
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
        raise FactoryError(f"{config.name}: {config.factory} returned {type(model).__name__}, not a torch.nn.Module")
    return model.eval()


def randomize(config: ModelConfig, model: nn.Module, seed: int) -> nn.Module:
    """``model`` with its weights from ``seed``, where the factory's module has a function ``randomize(model, seed)``;
    otherwise as the factory made it."""
    function = getattr(sys.modules[config.factory.partition(":")[0]], "randomize", None)
    return model if function is None else function(model, seed) or model


def observed(root: Path) -> Observed:
    """The project's modules loaded so far, by their files, and the distributions of all others. For use after
    ``build``."""
    libraries: set[str] = set()
    modules: set[str] = set()
    owners: Mapping[str, list[str]] = packages_distributions()
    installed = tuple(Path(sysconfig.get_path(kind)).resolve() for kind in ("purelib", "platlib", "stdlib"))
    for name, module in sorted(sys.modules.items()):
        file = getattr(module, "__file__", None)
        package = name.partition(".")[0]
        shipped = f"{name}.".startswith(f"{_SHIPPED_MODELS}.")
        if not file or not file.endswith(".py") or name == "__main__" or (package in _OURS and not shipped):
            continue
        path = Path(file).resolve()
        if any(path.is_relative_to(folder) for folder in installed) and not shipped:
            libraries.update(owners.get(package, ()))
        else:
            modules.add(path.relative_to(root).as_posix() if path.is_relative_to(root) else path.as_posix())
    return Observed(modules=tuple(sorted(modules)), libraries=tuple(sorted(libraries)))
