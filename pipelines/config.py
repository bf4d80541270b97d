"""Reading ``configs/models/<model>.yaml``; ``pipelines.schema`` says what a file may hold. Never imports
PyTorch.

A file whose name starts with ``_`` is a base for ``extends`` and no model of its own. ``extends: NAME`` takes
everything from ``NAME.yaml`` beside the file: mappings merge key by key, anything else is replaced
(``weights``, ``verify.dataset`` and ``verify.sentences`` always wholly), and neither ``default`` nor
``matrix`` is inherited. A file with a ``matrix`` (``pipelines.matrix``) stands for its variants.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path

from pydantic import ValidationError

from pipelines.config_errors import problems_of
from pipelines.matrix import variants
from pipelines.schema import ModelConfig
from pipelines.yaml_source import ConfigError, Key, Source, merge, quoted, read_yaml, suggest

__all__ = ["ConfigError", "ModelConfig", "families", "find_config", "load_config", "load_configs",
           "model_files"]

#: Keys that a file replaces wholly instead of merging them into its base's.
_WHOLE: frozenset[Key] = frozenset({("weights",), ("verify", "dataset"), ("verify", "sentences")})
_BASE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]{0,200}")
_MODEL_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]*")


def models_folder(root: Path) -> Path:
    """Where the models' YAML files lie in a project."""
    return root / "configs" / "models"


def model_files(root: Path) -> dict[str, Path]:
    """Model name -> its file, sorted; bases (``_name.yaml``) left out."""
    files = sorted(models_folder(root).glob("*.yaml"))
    return {path.stem: path for path in files if not path.name.startswith("_")}


def target_names() -> list[str]:
    """The targets that a model may name."""
    from npu_compiler.resources import config_root
    names = (entry.name for entry in (config_root() / "targets").iterdir())
    return sorted(name.removesuffix(".yaml") for name in names if name.endswith(".yaml"))


def load_config(path: Path, root: Path) -> ModelConfig:
    """Reads and checks the model of a file of the project ``root``. Raises ``ConfigError`` with a line per
    problem, also where the file stands for several."""
    found = load_models(path, root)
    if path.stem not in found:
        raise _is_matrix(path.stem, found)
    return found[path.stem]


def load_models(path: Path, root: Path) -> dict[str, ModelConfig]:
    """Reads and checks what a file stands for: one model, or the variants of its matrix, by name. Raises
    ``ConfigError`` with a line per problem."""
    source = _with_bases(path, root, ())
    if not _MODEL_NAME.fullmatch(path.stem):
        raise ConfigError(f"{source.place(())}: {quoted(path.stem)} cannot name a model: "
                          "use letters, digits and _ . + -")
    if source.data.get("name", path.stem) != path.stem:
        raise ConfigError(f"{source.place(('name',))}: name: {quoted(source.data['name'])} is not the file's "
                          f"name; remove the key or write {quoted(path.stem)}")
    found: dict[str, ModelConfig] = {}
    problems: dict[str, None] = {}
    for name, each in variants(source, path.stem, _WHOLE).items():
        try:
            found[name] = _checked(name, each)
        except ConfigError as error:
            problems.update(dict.fromkeys(str(error).splitlines()))
    if problems:
        raise ConfigError("\n".join(problems))
    return found


def _checked(name: str, source: Source) -> ModelConfig:
    try:
        config = ModelConfig.model_validate_json(json.dumps({**source.data, "name": name}))
    except ValidationError as error:
        raise ConfigError("\n".join(problems_of(error, ModelConfig, source))) from None
    targets = target_names()
    if config.target not in targets:
        raise ConfigError(f"{source.place(('target',))}: target: unknown target {quoted(config.target)}"
                          f"{suggest(config.target, targets)}")
    return config


def load_configs(root: Path) -> dict[str, ModelConfig]:
    """All models of the project, by name. Raises one ``ConfigError`` with the problems of all files."""
    found: dict[str, ModelConfig] = {}
    problems: dict[str, None] = {}
    for path in sorted(models_folder(root).glob("*.yml")):
        problems[f"{path.relative_to(root).as_posix()}:1: a configuration's file ends in .yaml; rename it to "
                 f"{path.stem}.yaml"] = None
    files = model_files(root)
    for stem, path in files.items():
        try:
            models = load_models(path, root)
        except ConfigError as error:
            problems.update(dict.fromkeys(str(error).splitlines()))
            continue
        for name in models.keys() & (found.keys() | files.keys() - {stem}):
            problems[f"{place_of(root, name, ('matrix',))}: matrix: there is another model called "
                     f"{quoted(name)}"] = None
        found.update(models)
    if problems:
        raise ConfigError("\n".join(problems))
    return found


def families(root: Path, names: Iterable[str]) -> dict[str, list[str]]:
    """Of all models' ``names``: the files that have a matrix -> their variants."""
    files = model_files(root)
    found: dict[str, list[str]] = {}
    for name in names:
        if name not in files:
            found.setdefault(_file_of(name, files), []).append(name)
    return found


def find_config(root: Path, name: str) -> ModelConfig:
    """The model called ``name``. Raises ``ConfigError`` with the nearest name there is."""
    files = model_files(root)
    stem = _file_of(name, files)
    if stem not in files:
        raise ConfigError(f"configs/models has no {name}.yaml{suggest(name, files)}")
    found = load_models(files[stem], root)
    if name == stem and name not in found:
        raise _is_matrix(name, found)
    if name not in found:
        raise ConfigError(f"configs/models/{stem}.yaml has no variant {quoted(name)}{suggest(name, found)}")
    return found[name]


def place_of(root: Path, name: str, key: Key) -> str:
    """"FILE:LINE" where the model called ``name`` sets ``key``, or where what is nearest around it stands.
    Raises ``ConfigError``."""
    stem = _file_of(name, model_files(root))
    source = _with_bases(models_folder(root) / f"{stem}.yaml", root, ())
    return str(variants(source, stem, _WHOLE).get(name, source).place(key))


def _file_of(name: str, files: Iterable[str]) -> str:
    """The file that the model called ``name`` comes from, by its name."""
    return max((stem for stem in files if name == stem or name.startswith(f"{stem}+")), key=len, default=name)


def _is_matrix(name: str, found: Iterable[str]) -> ConfigError:
    return ConfigError(f"configs/models/{name}.yaml has a matrix; name one of its variants: "
                       f"{', '.join(found)}")


def _with_bases(path: Path, root: Path, above: tuple[Path, ...]) -> Source:
    """The file laid over what it extends."""
    source = read_yaml(path, root)
    name = source.data.get("extends")
    if not isinstance(name, str):
        return source
    place = source.place(("extends",))
    if not _BASE_NAME.fullmatch(name):
        raise ConfigError(f"{place}: extends: {quoted(name)} is no file beside this one: "
                          "write its name, without .yaml")
    base = path.with_name(f"{name}.yaml")
    if base in (*above, path):
        chain = " -> ".join(file.stem for file in (*above, path, base))
        raise ConfigError(f"{place}: extends: {chain} is a cycle; one of them must stand alone")
    if not base.is_file():
        known = [file.stem for file in sorted(path.parent.glob("*.yaml")) if file != path]
        raise ConfigError(f"{place}: extends: there is no {name}.yaml beside this file{suggest(name, known)}")
    below = _with_bases(base, root, (*above, path))
    kept = {key: value for key, value in below.data.items()
            if key not in ("name", "default", "extends", "matrix")}
    return merge(Source(kept, below.places), source, _WHOLE)
