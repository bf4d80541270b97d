"""The states of a sequence in a file: safetensors, with what they belong to in its metadata."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import msgspec

from npu_runtime.buffer import as_bytes
from npu_runtime.dtypes import Array, spec_text
from npu_runtime.errors import FormatError, WeightsMismatchError
from npu_runtime.program import StateSpec
from npu_runtime.safetensors_file import CHECKSUMS, SafetensorsFile, checksum, write_safetensors

KIND, MODEL, CHANGED = "npubin", "model", "changed"


def save(
    path: str | Path,
    model: str,
    states: Iterable[StateSpec],
    content: Callable[[StateSpec], Array],
    changed: Iterable[str],
) -> None:
    """Writes the ``content`` of a model's states, one at a time; ``changed`` names those that programs have
    changed."""
    specs = sorted(states, key=lambda spec: spec.name)
    write_safetensors(
        path,
        {spec.name: (spec.shape, spec.dtype) for spec in specs},
        ((spec.name, content(spec)) for spec in specs),
        {KIND: "states", MODEL: model, CHANGED: msgspec.json.encode(sorted(changed)).decode()},
        {spec.name: model for spec in specs},
    )


def read(path: str | Path, model: str, wanted: Iterable[StateSpec]) -> tuple[dict[str, Array], list[str]]:
    """What ``save`` wrote: the content of each of ``wanted`` that it has, and which were changed.

    Raises ``FormatError`` for a file that is damaged or holds something else, and ``WeightsMismatchError``
    for the states of another model, or of the same with other sizes. """
    file = SafetensorsFile(path)
    if file.metadata.get(KIND) != "states":
        raise FormatError(f"{path} holds no states: give a file that save_state wrote")
    specs = {spec.name: spec for spec in wanted}
    if file.metadata.get(MODEL) != model:
        raise WeightsMismatchError(
            f"{path} has the states of {file.metadata.get(MODEL)!r}, and these weights are of {model!r}: "
            "restore it into the weights of the model that saved it"
        )
    wrong = sorted(file.entries.keys() ^ specs.keys())
    wrong += [name for name in sorted(file.entries.keys() & specs.keys()) if not _fits(file, specs[name])]
    if wrong:
        name = wrong[0]
        there, here = file.entries.get(name), specs.get(name)
        held = "missing" if there is None else spec_text(there.dtype, there.shape)
        own = "missing" if here is None else spec_text(here.dtype, here.shape)
        raise WeightsMismatchError(
            f"{path} does not fit the programs of {model!r}: state {name!r} is {held} there and {own} here"
            + (f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else "")
            + "; restore it with the programs that it was saved with"
        )
    try:
        sums = msgspec.json.decode(file.metadata[CHECKSUMS], type=dict[str, str])
        changed = msgspec.json.decode(file.metadata[CHANGED], type=list[str])
    except (KeyError, msgspec.DecodeError) as error:
        raise FormatError(f"{path}: its metadata is damaged: {error!r}; save the states again") from None
    arrays = {name: file.tensor(name) for name in file.entries}
    for name, array in arrays.items():
        if checksum(model, as_bytes(array).data) != sums.get(name):
            raise FormatError(f"{path}: state {name!r} is damaged; save the states again")
    if not set(changed) <= arrays.keys():
        raise FormatError(f"{path}: its metadata names states that are not there; save the states again")
    return arrays, changed


def _fits(file: SafetensorsFile, spec: StateSpec) -> bool:
    entry = file.entries[spec.name]
    return (entry.shape, entry.dtype) == (spec.shape, spec.dtype)
