"""Weights on a device: read once, prepared when first needed, shared by the programs of a model; and their
state."""

from __future__ import annotations

import difflib
import threading
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Protocol

import msgspec

from npu_runtime import env, transforms
from npu_runtime.backend import Backend, Memory
from npu_runtime.buffer import as_bytes, to_array
from npu_runtime.dtypes import Array, nbytes, spec_text
from npu_runtime.errors import FormatError, WeightsMismatchError
from npu_runtime.program import CompiledProgram, StateSpec, Transform, WeightExpr
from npu_runtime.safetensors_file import CHECKSUMS, SafetensorsFile, checksum, write_safetensors

_KIND, _DIGEST, _CONTENTS = "npubin", "transform_digest", "contents"
_INDEX = "model.safetensors.index.json"


Wanted = Transform | StateSpec


class Source(Protocol):
    """Where weights come from."""

    name: str
    stable: bool
    """Whether what ``make`` gives never changes."""

    def check(self, wanted: Iterable[Wanted]) -> None:
        """Raises ``WeightsMismatchError`` unless every one of ``wanted`` can be made."""

    def make(self, spec: Wanted) -> Array:
        """The dense array of a transform, or of a state's initial content."""


def _expr(spec: Wanted) -> WeightExpr:
    """How ``spec`` is made. A state without initial content starts as zeros and never gets here."""
    expr = spec.expr if isinstance(spec, Transform) else spec.init
    if expr is None:
        raise FormatError(f"state {spec.name!r} has no initial content")
    return expr


class Original:
    """A model's original state_dict: key -> a function that reads the tensor."""

    def __init__(
        self, name: str, shapes: Mapping[str, tuple[int, ...]], load: Callable[[str], Array], *, stable: bool
    ) -> None:
        self.name = name
        self.stable = stable
        self._shapes = shapes
        self._load = load

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

    def make(self, spec: Wanted) -> Array:
        return transforms.materialise(spec, _expr(spec), self._load)


class Prepared:
    """The file that ``prepare_file`` made: a tensor per transform."""

    stable = True

    def __init__(self, file: SafetensorsFile) -> None:
        self.name = str(file.path)
        self._file = file
        try:
            self._contents, self._sums = (
                msgspec.json.decode(file.metadata[key], type=dict[str, str]) for key in (_CONTENTS, CHECKSUMS)
            )
        except (KeyError, msgspec.DecodeError) as error:
            raise FormatError(
                f"{self.name}: its metadata is damaged: {error!r}; prepare the weights again"
            ) from None
        self._names = {content: name for name, content in self._contents.items()}

    def check(self, wanted: Iterable[Wanted]) -> None:
        for spec in wanted:
            self._find(spec)

    def make(self, spec: Wanted) -> Array:
        name = self._find(spec)
        if name is None:
            return transforms.materialise(spec, _expr(spec), self._file.tensor)
        array = self._file.tensor(name)
        if checksum(self._contents[name], as_bytes(array).data) != self._sums.get(name):
            raise FormatError(f"{self.name}: tensor {name!r} is damaged; prepare the weights again")
        return array

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


class Tensors:
    """Prepared tensors on one device, each made once."""

    def __init__(self, source: Source, device: Backend) -> None:
        self.source = source
        self.device = device
        self._memory: dict[str, Memory] = {}
        self._arrays: dict[str, Array] = {}
        self._checked: set[bytes] = set()
        self._lock = threading.Lock()

    def check(self, program: CompiledProgram) -> None:
        """Raises ``WeightsMismatchError`` unless the source has all that ``program`` needs; cheap when
        repeated."""
        key = msgspec.json.encode([program.transform_digest, program.states])
        if key not in self._checked:
            self.source.check(
                (*program.transforms, *(state for state in program.states if state.init is not None))
            )
            self._checked.add(key)

    def memory(self, transform: Transform) -> Memory:
        """The device memory of ``transform``, made at the first call."""
        key = transforms.content_key(transform, transform.expr)
        with self._lock:
            found = self._memory.get(key)
            if found is None:
                data = as_bytes(self.source.make(transform))
                found = self._memory[key] = self.device.upload(data, share=self.source.stable)
            return found

    def array(self, transform: Transform) -> Array:
        """``transform`` as a writable array in host memory, made at the first call."""
        key = transforms.content_key(transform, transform.expr)
        with self._lock:
            found = self._arrays.get(key)
            if found is None:
                made = self.source.make(transform)
                found = self._arrays[key] = made if made.flags.writeable else made.copy()
            return found

    @property
    def nbytes(self) -> int:
        """Bytes on the device so far."""
        return sum(memory.nbytes for memory in self._memory.values())


class Weights:
    """The weights of a model on a device, for any of its programs, and the state of one sequence.

    Its source stays open, and a tensor is prepared when a program first needs it, once per (tensor,
    transform).
    """

    def __init__(self, tensors: Tensors) -> None:
        self.tensors = tensors
        self._states: dict[str, tuple[StateSpec, Memory]] = {}

    def __repr__(self) -> str:
        return f"Weights({self.tensors.source.name!r}, {self.tensors.nbytes} bytes on {self.device.name!r})"

    @property
    def device(self) -> Backend:
        return self.tensors.device

    def new_state(self) -> Weights:
        """An independent sequence over the same tensors: its states start afresh."""
        return Weights(self.tensors)

    def reset(self) -> None:
        """Puts every state back to its initial content."""
        for spec, memory in self._states.values():
            self._fill(spec, memory)

    def state(self, spec: StateSpec) -> Memory:
        """The memory of a state, with its initial content at the first call. Raises ``WeightsMismatchError``
        if another program has declared a state of this name differently."""
        known = self._states.get(spec.name)
        if known is None:
            memory = self.device.allocate(nbytes(spec.shape, spec.dtype))
            self._fill(spec, memory)
            known = self._states[spec.name] = (spec, memory)
        elif known[0] != spec:
            raise WeightsMismatchError(
                f"state {spec.name!r} is {spec_text(known[0].dtype, known[0].shape)} in one program and "
                f"{spec_text(spec.dtype, spec.shape)} (or initialised otherwise) in another: compile both "
                "from the same model, or give each its own new_state()"
            )
        return known[1]

    def _fill(self, spec: StateSpec, memory: Memory) -> None:
        if spec.init is None:
            self.device.zero(memory)
        else:
            self.device.write(memory, as_bytes(self.tensors.source.make(spec)))


def load_weights(
    source: str | Path | Mapping[str, object], program: CompiledProgram, device: Backend
) -> Weights:
    """The weights of ``program``'s model on ``device``.

    ``source``: the model's original state_dict as a safetensors file, as a folder of them, or as a mapping of
    arrays; or the file that the build prepared, which is recognised. Tensors that the program does not use
    are ignored.

    Raises ``WeightsMismatchError`` naming every tensor that is missing, or if the file was prepared for
    another program; ``FormatError`` for a damaged file; ``OSError`` for one that cannot be read.
    """
    tensors = Tensors(_open(source), device)
    tensors.check(program)
    env.debug(env.STAGES, f"weights of {program.model}: {tensors.source.name}")
    return Weights(tensors)


def prepare_file(
    source: str | Path | Mapping[str, object], wanted: Iterable[Transform], path: str | Path
) -> None:
    """Applies ``wanted`` to the original weights ``source`` and writes the prepared safetensors file
    ``path``.

    Equal inputs give equal bytes; the file appears whole or not at all; one tensor at a time is in memory.
    Transforms of several programs may be given together; equal names must be equal transforms (else
    ``ValueError``).

    Raises as ``load_weights``.
    """
    opened = _open(source)
    unique: dict[str, Transform] = {}
    for spec in wanted:
        if unique.setdefault(spec.name, spec) != spec:
            raise ValueError(
                f"two transforms are named {spec.name!r}: names must be unique over all programs"
            )
    # sizes that keep the next tensor aligned come first, so that all of these can be mapped to a device
    ordered = sorted(unique.values(), key=lambda spec: (nbytes(spec.shape, spec.dtype) % 128 != 0, spec.name))
    opened.check(ordered)
    contents = {spec.name: transforms.content_key(spec, spec.expr) for spec in ordered}
    write_safetensors(
        path,
        {spec.name: (spec.shape, spec.dtype) for spec in ordered},
        ((spec.name, opened.make(spec)) for spec in ordered),
        {
            _KIND: "prepared",
            _DIGEST: transforms.digest(ordered),
            _CONTENTS: msgspec.json.encode(contents, order="sorted").decode(),
        },
        contents,
    )


def _open(source: str | Path | Mapping[str, object]) -> Source:
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
    if file.metadata.get(_KIND) == "prepared":
        return Prepared(file)
    if file.metadata.keys() & {_KIND, _DIGEST, _CONTENTS, CHECKSUMS}:
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
    return Original(name, shapes, lambda key: where[key].tensor(key), stable=True)


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
