"""The program file: round trip, and refusal of everything else."""

from __future__ import annotations

import random
import re
import zipfile
from pathlib import Path
from typing import Any

import msgspec
import pytest
from programs import accumulator, embedding, saxpy_square, write

from npu_runtime.errors import FormatError
from npu_runtime.npubin import from_bytes, load_program, source_order, to_bytes
from npu_runtime.program import (
    Buffer,
    BufferArg,
    CompiledProgram,
    Guard,
    IOSpec,
    Kernel,
    ScalarArg,
    StateSpec,
    Step,
    StepCost,
    Symbol,
    Transform,
)


@pytest.mark.parametrize(
    "program", [saxpy_square(), accumulator(), embedding()], ids=["saxpy", "state", "gather"]
)
def test_round_trip_is_exact_and_deterministic(program: CompiledProgram, tmp_path: Path) -> None:
    path = tmp_path / "p.npubin"
    program.save(path)
    loaded = CompiledProgram.load(path)
    assert loaded == program
    assert to_bytes(loaded) == path.read_bytes() == to_bytes(program)
    assert [file.name for file in tmp_path.iterdir()] == ["p.npubin"]


def test_ordinary_tools_read_the_file(tmp_path: Path) -> None:
    saxpy_square().save(tmp_path / "p.npubin")
    with zipfile.ZipFile(tmp_path / "p.npubin") as archive:
        assert archive.namelist() == [
            "manifest.json",
            "kernels/_prelude.cl",
            "kernels/saxpy.cl",
            "kernels/square.cl",
        ]
        manifest = archive.read("manifest.json")
    assert next(iter(msgspec.json.decode(manifest))) == "format_version"
    assert source_order(saxpy_square())[0] == "kernels/_prelude.cl"


def test_every_mutated_byte_is_refused() -> None:
    data = to_bytes(saxpy_square())
    generator = random.Random(7)
    for position in range(len(data)):
        mutated = bytearray(data)
        mutated[position] ^= 1 << generator.randrange(8)
        with pytest.raises(FormatError):
            from_bytes(bytes(mutated))


@pytest.mark.parametrize(
    "change",
    [
        lambda data: b"",
        lambda data: data[:1],
        lambda data: data[:-1],
        lambda data: data[: len(data) // 2],
        lambda data: data[1:],
        lambda data: data + b"\0",
        lambda data: b"\0" + data,
        lambda data: data + data,
        lambda data: b"not a zip at all",
    ],
)
def test_truncated_or_longer_files_are_refused(change: Any, tmp_path: Path) -> None:
    path = tmp_path / "p.npubin"
    path.write_bytes(change(to_bytes(saxpy_square())))
    with pytest.raises(FormatError, match=re.escape(str(path))):
        load_program(path)


def _rewrite(program: CompiledProgram, edit: Any) -> bytes:
    """The archive of ``program`` with its manifest changed and all checksums right."""
    from npu_runtime.npubin import _archive, _members

    members = _members(to_bytes(program), "test")
    manifest = msgspec.json.decode(members["manifest.json"])
    edit(manifest)
    members["manifest.json"] = msgspec.json.encode(manifest)
    return _archive(members)


@pytest.mark.parametrize(
    ("edit", "says"),
    [
        (lambda m: m.update(format_version=3), "newer npubin.*update"),
        (lambda m: m.update(format_version=0), "older npubin.*compile it again"),
        (lambda m: m.update(format_version="1"), "format_version"),
        (lambda m: m.update(surprise=1), "unknown field"),
        (lambda m: m.pop("steps"), "steps"),
        (lambda m: m.update(device_type="tpu"), "device_type"),
        (lambda m: m.update(arena_bytes=-1), "outside the arena"),
        (lambda m: m.update(kernel_sources={"kernels/x.cl": ""}), "stand in the manifest"),
        (lambda m: m["steps"][0]["args"][0].update(type="image"), "type"),
        (lambda m: m["transforms"][0].update(expr=["eval", "1"]), "not a weight expression"),
    ],
)
def test_a_manifest_that_was_edited_is_refused(edit: Any, says: str) -> None:
    with pytest.raises(FormatError, match=says):
        from_bytes(_rewrite(saxpy_square(), edit))


def _replaced(program: CompiledProgram, field: str, index: int, **changes: Any) -> CompiledProgram:
    items = list(getattr(program, field))
    items[index] = msgspec.structs.replace(items[index], **changes)
    return msgspec.structs.replace(program, **{field: tuple(items)})


PROGRAM = saxpy_square()
STEP = PROGRAM.steps[0]
LONG = "n" + "+n" * 6000
DEEP = "-" * 500 + "n"


@pytest.mark.parametrize(
    ("program", "says"),
    [
        (msgspec.structs.replace(PROGRAM, model=""), "names"),
        (saxpy_square(symbols=()), "n is not a symbol"),
        (saxpy_square(symbols=(Symbol("n", 5, 4),)), "bounds 5 to 4"),
        (saxpy_square(symbols=(Symbol("n", 1, 9), Symbol("n", 1, 9))), "two symbols"),
        (saxpy_square(symbols=(Symbol("n", 1, 9), Symbol("m", 1, 9))), "no input's shape determines"),
        (saxpy_square(symbols=(Symbol("n", 1, 1 << 41),)), "bounds"),
        (_replaced(PROGRAM, "input_specs", 0, dtype="float31"), "unknown dtype"),
        (_replaced(PROGRAM, "input_specs", 0, lower=0), "only integers have bounds"),
        (_replaced(PROGRAM, "output_specs", 0, shape=(2, "n - 5")), "negative size"),
        (_replaced(PROGRAM, "output_specs", 0, shape=(1 << 40, "n")), "absurd"),
        (_replaced(PROGRAM, "output_specs", 0, shape=(2,) * 17), "at most 16"),
        (_replaced(PROGRAM, "output_specs", 0, name="h"), "two outputs"),
        (_replaced(PROGRAM, "output_specs", 0, shape=(2, LONG)), "is not a size"),
        (_replaced(PROGRAM, "output_specs", 0, shape=(2, DEEP)), "is not a size"),
        (_replaced(PROGRAM, "output_specs", 0, shape=(2, "n // (n - 1)")), "divides by zero"),
        (_replaced(PROGRAM, "output_specs", 0, shape=(2, "__import__('os')")), "is not a size"),
        (_replaced(PROGRAM, "output_specs", 0, shape=(2, "k")), "k is not a symbol"),
        (_replaced(PROGRAM, "buffers", 0, ref="z"), "no input 'z'"),
        (_replaced(PROGRAM, "buffers", 0, nbytes="4*n"), "bytes for a input"),
        (_replaced(PROGRAM, "buffers", 1, nbytes=16), "16 bytes for a weight of 12"),
        (_replaced(PROGRAM, "buffers", 3, offset=1024), "outside the arena"),
        (_replaced(PROGRAM, "buffers", 3, offset=100), "multiple of 512"),
        (_replaced(PROGRAM, "buffers", 3, nbytes="8*n"), "fixed size"),
        (_replaced(PROGRAM, "buffers", 3, last=1), "outside steps"),
        (_replaced(PROGRAM, "buffers", 3, last=3), "alive from step"),
        (_replaced(PROGRAM, "buffers", 3, name="x"), "two buffers"),
        (_replaced(PROGRAM, "kernels", 0, sha256="0" * 64), "sha256"),
        (_replaced(PROGRAM, "kernels", 0, file="kernels/none.cl"), "no kernel is in it|is missing"),
        (_replaced(PROGRAM, "kernels", 0, entry="a b"), "cannot name a kernel"),
        (
            msgspec.structs.replace(PROGRAM, kernel_sources={**PROGRAM.kernel_sources, "../x.cl": ""}),
            "kernel's file",
        ),
        (msgspec.structs.replace(PROGRAM, options=("-I/etc",)), "build option"),
        (msgspec.structs.replace(PROGRAM, transform_digest="0"), "digest"),
        (
            saxpy_square(transforms=(Transform("w3", (4,), "float32", ["tensor", "weight"]),)),
            "bytes for a weight",
        ),
        (saxpy_square(guards=(Guard("n", "q"),)), "q is not a symbol"),
        (_replaced(PROGRAM, "steps", 0, kernel="none"), "no kernel 'none'"),
        (_replaced(PROGRAM, "steps", 0, args=(BufferArg("none", "r"),)), "no buffer"),
        (_replaced(PROGRAM, "steps", 0, args=(write("x"),)), "writes to 'x'"),
        (_replaced(PROGRAM, "steps", 0, args=(ScalarArg("n * 3000000"),)), "does not fit an OpenCL int"),
        (_replaced(PROGRAM, "steps", 0, global_size=()), "1 to 3"),
        (_replaced(PROGRAM, "steps", 0, global_size=("n - 2",)), "global size"),
        (_replaced(PROGRAM, "steps", 0, local_size=(4, 4)), "local size"),
        (_replaced(PROGRAM, "steps", 0, local_size=(64,)), "no multiple"),
        (_replaced(PROGRAM, "steps", 0, cost=StepCost("-n")), "negative cost"),
        (
            msgspec.structs.replace(
                PROGRAM,
                steps=PROGRAM.steps[:2],
                buffers=tuple(
                    msgspec.structs.replace(buffer, last=min(buffer.last, 1)) for buffer in PROGRAM.buffers
                ),
            ),
            "no step writes",
        ),
        (accumulator(states=(StateSpec("total", (5,), "float32", ["tensor"]),)), "not a weight expression"),
        (accumulator(states=()), "no state"),
        (
            saxpy_square(input_specs=(IOSpec("x", (2, "n"), "float32"), IOSpec("x", (1,), "float32"))),
            "two inputs",
        ),
        (
            saxpy_square(buffers=(*PROGRAM.buffers, Buffer("s", "scratch", 4, offset=-512))),
            "outside the arena",
        ),
        (
            saxpy_square(
                kernels=(*PROGRAM.kernels, Kernel("saxpy", "kernels/saxpy.cl", PROGRAM.kernels[0].sha256))
            ),
            "two kernels",
        ),
        (saxpy_square(steps=(Step("saxpy", (), ("n",) * 4), *PROGRAM.steps[1:])), "1 to 3"),
    ],
)
def test_programs_that_break_a_rule_are_refused(program: CompiledProgram, says: str, tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=says):
        program.save(tmp_path / "p.npubin")
    assert list(tmp_path.iterdir()) == []


def test_an_entry_exchanged_with_ordinary_tools_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "p.npubin"
    saxpy_square().save(path)
    with zipfile.ZipFile(path) as archive:
        members = {info: archive.read(info) for info in archive.infolist()}
        comment = archive.comment
    assert comment.startswith(b"sha256:")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for info, data in members.items():
            archive.writestr(info, data.replace(b'"value":"2*n"', b'"value":"1*n"'))
        archive.comment = comment
    with pytest.raises(FormatError, match="altered"):
        load_program(path)
