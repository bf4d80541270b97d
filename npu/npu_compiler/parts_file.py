"""The parts of a program on disk: a manifest, a graph per part and a ``.npubin`` per target part."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, replace
from pathlib import Path
from typing import Literal

import msgspec

from npu_compiler.errors import CompileError, Refusal
from npu_compiler.parts import Part, Partition
from npu_runtime.program import CompiledProgram
from torch_ir.expr import Dim, parse
from torch_ir.ir import IR, Output, TensorSpec

#: The manifest's name in the folder of a program's parts.
MANIFEST = "parts.json"
VERSION = 1


class ValueEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An input, or an output and the value that it is."""

    name: str
    shape: tuple[int | str, ...]
    dtype: str
    value: str = ""


class PartEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A part; ``sha256`` by file name."""

    name: str
    kind: Literal["target", "fallback"]
    target: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    reasons: tuple[dict[str, object], ...]
    sha256: dict[str, str]


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Everything but the parts' graphs and programs."""

    format_version: int
    model: str
    inputs: tuple[ValueEntry, ...]
    outputs: tuple[ValueEntry, ...]
    symbols: dict[str, tuple[int, int]]
    parts: tuple[PartEntry, ...]


def save_parts(partition: Partition, folder: Path) -> Path:
    """Writes the parts, target ones compiled, to ``folder``; returns the manifest's path. Equal parts give
    equal bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    entries = []
    for part in partition:
        graph, program = folder / f"{part.name}.ir.json", folder / f"{part.name}.npubin"
        part.ir.save(graph)
        files = [graph]
        if part.kind == "target":
            part.compile().save(program)
            files.append(program)
        reasons = tuple(asdict(reason) for reason in part.reasons)
        digests = {path.name: _digest(path) for path in files}
        entries.append(
            PartEntry(part.name, part.kind, part.target, part.inputs, part.outputs, reasons, digests)
        )
    manifest = Manifest(
        VERSION,
        partition.name,
        tuple(ValueEntry(name, *_plain(spec)) for name, spec in partition.inputs.items()),
        tuple(
            ValueEntry(output.name, *_plain(spec), output.value)
            for output, spec in zip(partition.outputs, partition.output_specs, strict=True)
        ),
        dict(partition.symbols),
        tuple(entries),
    )
    path = folder / MANIFEST
    path.write_bytes(msgspec.json.format(msgspec.json.encode(manifest), indent=1) + b"\n")
    return path


def load_parts(path: Path) -> Partition:
    """Reads what ``save_parts`` wrote, from its manifest. Raises ``CompileError`` for a damaged manifest or
    file, and ``IRError`` or ``FormatError`` for what is wrong with a graph or program."""
    try:
        manifest = msgspec.json.decode(path.read_bytes(), type=Manifest)
        if manifest.format_version != VERSION:
            raise CompileError(
                f"{path}: format_version is {manifest.format_version}, this npubin reads {VERSION}; "
                "compile again"
            )
        return Partition(
            manifest.model,
            {item.name: _spec(item) for item in manifest.inputs},
            tuple(Output(item.name, item.value) for item in manifest.outputs),
            tuple(_spec(item) for item in manifest.outputs),
            manifest.symbols,
            tuple(_load_part(path.parent, entry) for entry in manifest.parts),
        )
    except OSError as error:
        raise CompileError(f"{error.filename}: cannot be read: {error.strerror}; compile again") from None
    except (msgspec.DecodeError, TypeError) as error:
        raise CompileError(f"{path}: not the manifest of a program's parts: {error}; compile again") from None


def _load_part(folder: Path, entry: PartEntry) -> Part:
    if Path(entry.name).name != entry.name:
        raise CompileError(f"{folder / MANIFEST}: {entry.name!r} cannot name a part; compile again")
    needed = [f"{entry.name}.ir.json", *([f"{entry.name}.npubin"] if entry.kind == "target" else [])]
    for name in needed:
        if _digest(folder / name) != entry.sha256.get(name):
            raise CompileError(f"{folder / name}: not the file that its manifest names; compile again")
    reasons = msgspec.convert(entry.reasons, tuple[Refusal, ...])
    ir = IR.load(folder / needed[0])
    part = Part(entry.name, entry.kind, ir, entry.inputs, entry.outputs, reasons, entry.target)
    if entry.kind == "fallback":
        return part
    return replace(part, program=CompiledProgram.load(folder / needed[1]))


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _plain(spec: TensorSpec) -> tuple[tuple[int | str, ...], str]:
    def plain(dim: Dim) -> int | str:
        return dim if isinstance(dim, int) else str(dim)

    return tuple(plain(dim) for dim in spec.shape), spec.dtype


def _spec(entry: ValueEntry) -> TensorSpec:
    return TensorSpec(tuple(parse(size) for size in entry.shape), entry.dtype)
