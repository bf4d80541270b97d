"""Where weights come from: a model's original state_dict, or the file that the build prepared."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Protocol

import msgspec

from npu_runtime import transforms
from npu_runtime.buffer import as_bytes, to_array
from npu_runtime.dtypes import Array, spec_text
from npu_runtime.errors import FormatError, WeightsMismatchError
from npu_runtime.program import StateSpec, Transform, WeightExpr
from npu_runtime.safetensors_file import CHECKSUMS, SafetensorsFile, checksum

#: Keys of a prepared file's metadata.
KIND, DIGEST, CONTENTS = "npubin", "transform_digest", "contents"
_INDEX = "model.safetensors.index.json"

Wanted = Transform | StateSpec

_NO_STATES: transforms.States = MappingProxyType({})


class Source(Protocol):
    """Where weights come from."""

    name: str
    stable: bool
    """Whether what ``make`` gives never changes."""

    def check(self, wanted: Iterable[Wanted]) -> None:
        """Raises ``WeightsMismatchError`` unless every one of ``wanted`` can be made."""

    def make(self, spec: Wanted, states: transforms.States = _NO_STATES) -> Array:
        """The dense array of a transform, or of a state's initial content; ``states`` (key -> content) stand
        in for weights and buffers. Raises ``WeightsMismatchError`` where the source cannot do that."""

    def release(self, spec: Wanted) -> None:
        """What ``spec`` was made of need not stay in memory."""


def _expr(spec: Wanted) -> WeightExpr:
    """How ``spec`` is made. A state without initial content starts as zeros and never gets here."""
    expr = spec.expr if isinstance(spec, Transform) else spec.init
    if expr is None:
        raise FormatError(f"state {spec.name!r} has no initial content")
    return expr


class Original:
    """A model's original state_dict: key -> a function that reads the tensor."""

    def __init__(
        self,
        name: str,
        shapes: Mapping[str, tuple[int, ...]],
        load: Callable[[str], Array],
        *,
        stable: bool,
        release: Callable[[str], None] = lambda key: None,
    ) -> None:
        self.name = name
        self.stable = stable
        self._shapes = shapes
        self._load = load
        self._release = release

    def check(self, wanted: Iterable[Wanted]) -> None:
        specs = list(wanted)
        keys = dict.fromkeys(key for spec in specs for key in transforms.tensors_of(_expr(spec)))
        _require(self.name, [key for key in keys if key not in self._shapes], self._shapes)
        wrong = [problem for spec in specs if (problem := self._misfit(spec))]
        if wrong:
            more = f" (and {len(wrong) - 5} more)" if len(wrong) > 5 else ""
            raise WeightsMismatchError(
                f"{self.name} does not fit the program: {'; '.join(wrong[:5])}{more}; use the "
                "weights of the model that was compiled"
            )

    def _misfit(self, spec: Wanted) -> str | None:
        expr = _expr(spec)
        try:
            shape = transforms.shape_of(expr, self._shapes.__getitem__)
            if shape == spec.shape:
                return None
            why = f"gives {list(shape)}, not {list(spec.shape)}"
        except FormatError as error:
            why = str(error)
        has = ", ".join(f"{key} {list(self._shapes[key])}" for key in transforms.tensors_of(expr))
        return f"{spec.name!r}, made of {has}, {why}"

    def make(self, spec: Wanted, states: transforms.States = _NO_STATES) -> Array:
        return transforms.materialise(spec, _expr(spec), self._load, states)

    def release(self, spec: Wanted) -> None:
        for key in transforms.tensors_of(_expr(spec)):
            self._release(key)


class Prepared:
    """The file that ``prepare_file`` made: a tensor per transform."""

    stable = True

    def __init__(self, file: SafetensorsFile) -> None:
        self.name = str(file.path)
        self._file = file
        try:
            self._contents, self._sums = (
                msgspec.json.decode(file.metadata[key], type=dict[str, str]) for key in (CONTENTS, CHECKSUMS)
            )
        except (KeyError, msgspec.DecodeError) as error:
            raise FormatError(
                f"{self.name}: its metadata is damaged: {error!r}; prepare the weights again"
            ) from None
        self._names = {content: name for name, content in self._contents.items()}

    def check(self, wanted: Iterable[Wanted]) -> None:
        for spec in wanted:
            self._find(spec)

    def make(self, spec: Wanted, states: transforms.States = _NO_STATES) -> Array:
        expr = _expr(spec)
        if states and all(key in states for key in transforms.tensors_of(expr)):
            return transforms.materialise(spec, expr, self._file.tensor, states)
        if states:
            raise WeightsMismatchError(
                f"{self.name}: {spec.name!r} was prepared from {', '.join(states)}, which another program "
                "has changed since; load the model's original weights, or extract the programs together "
                "(torch_ir.share_states)"
            )
        name = self._find(spec)
        if name is None:
            return transforms.materialise(spec, _expr(spec), self._file.tensor)
        array = self._file.tensor(name)
        if checksum(self._contents[name], as_bytes(array).data) != self._sums.get(name):
            raise FormatError(f"{self.name}: tensor {name!r} is damaged; prepare the weights again")
        return array

    def release(self, spec: Wanted) -> None:
        """Its tensors are what the device reads, where that is the host's own memory."""

    def _find(self, spec: Wanted) -> str | None:
        """The tensor that is ``spec``; None if it is made of constants alone and is not in the file."""
        expr = _expr(spec)
        name = self._names.get(transforms.content_key(spec, expr))
        if name is None or name not in self._file.entries:
            if not transforms.tensors_of(expr):
                return None
            raise WeightsMismatchError(
                f"{self.name} was prepared for another program: {spec.name!r} is "
                f"{'made otherwise' if spec.name in self._contents else 'missing'} there; prepare the "
                "weights again (doit weights:<model>) or load the original weights"
            )
        entry = self._file.entries[name]
        if (entry.shape, entry.dtype) != (spec.shape, spec.dtype):
            raise FormatError(
                f"{self.name}: {name!r} is {spec_text(entry.dtype, entry.shape)}, its metadata says "
                f"{spec_text(spec.dtype, spec.shape)}; prepare the weights again"
            )
        return name


def open_source(source: str | Path | Mapping[str, object]) -> Source:
    """A mapping, a safetensors file, a folder of them, or a prepared file. Raises ``FormatError``."""
    if isinstance(source, Mapping):
        arrays = source
        return Original(
            "the mapping",
            {key: tuple(_shape(value)) for key, value in arrays.items()},
            lambda key: to_array(arrays[key]),
            stable=False,
        )
    path = Path(source)
    if path.is_dir():
        return _open_folder(path)
    file = SafetensorsFile(path)
    if file.metadata.get(KIND) == "prepared":
        return Prepared(file)
    if file.metadata.keys() & {KIND, DIGEST, CONTENTS, CHECKSUMS}:
        raise FormatError(
            f"{path}: its metadata is that of prepared weights, but damaged; prepare them again"
        )
    return _original(str(path), [file])


def _open_folder(path: Path) -> Source:
    index = path / _INDEX
    if index.exists():
        try:
            names = sorted(set(msgspec.json.decode(index.read_bytes())["weight_map"].values()))
        except (msgspec.DecodeError, KeyError, TypeError, AttributeError) as error:
            raise FormatError(f"{index}: not an index of safetensors files: {error!r}") from None
        if not all(isinstance(name, str) and Path(name).name == name for name in names):
            raise FormatError(f"{index}: names files outside its folder")
        files = [path / name for name in names]
    else:
        files = sorted(path.glob("*.safetensors"))
    if not files:
        raise FormatError(
            f"{path}: has no .safetensors file; give a safetensors file or a folder that has some"
        )
    return _original(str(path), [SafetensorsFile(file) for file in files])


def _original(name: str, files: Iterable[SafetensorsFile]) -> Original:
    where: dict[str, SafetensorsFile] = {}
    for file in files:
        for key in file.entries:
            if key in where:
                raise FormatError(
                    f"{name}: tensor {key!r} is in {where[key].path.name} and in {file.path.name}"
                )
            where[key] = file
    shapes = {key: file.entries[key].shape for key, file in where.items()}
    return Original(
        name,
        shapes,
        lambda key: where[key].tensor(key),
        stable=True,
        release=lambda key: where[key].release(key),
    )


def _shape(value: object) -> Iterable[int]:
    shape: Iterable[int] | None = getattr(value, "shape", None)
    return to_array(value).shape if shape is None else shape


def _require(name: str, missing: list[str], present: Iterable[str]) -> None:
    if not missing:
        return
    known = list(present)
    lines = []
    for key in missing:
        near = [other for other in known if other.endswith(f".{key}") or key.endswith(f".{other}")]
        if not near and len(missing) <= 20:
            near = difflib.get_close_matches(key, known, n=1, cutoff=0.75)
        lines.append(f"{key} (there is {near[0]})" if near else key)
    raise WeightsMismatchError(
        f"{name} lacks {len(missing)} tensor{'s' if len(missing) > 1 else ''} that the "
        f"program needs: {', '.join(lines)}; it has {len(known)}: use the weights of the compiled model"
    )
