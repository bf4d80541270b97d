"""The ``.npubin`` file: a stored zip of ``manifest.json`` and ``kernels/*.cl``, in fixed order with fixed
dates.

The same program always gives the same bytes, and only these bytes are read back: a file that is truncated,
too long or altered anywhere is refused. The archive's comment is a digest of all its entries, so that an
entry that was changed with ordinary tools, its checksum with it, is noticed as well.
"""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Mapping
from pathlib import Path

import msgspec

from npu_runtime.errors import FormatError
from npu_runtime.files import atomic_file
from npu_runtime.program import FORMAT_VERSION, CompiledProgram
from npu_runtime.transforms import digest
from npu_runtime.validate import validate

__all__ = ["digest", "from_bytes", "load_program", "save_program", "source_order", "to_bytes"]

MANIFEST = "manifest.json"
PRELUDE = "kernels/_prelude.cl"
MAX_FILE = 1 << 30

_DATE = (1980, 1, 1, 0, 0, 0)


class _Version(msgspec.Struct):
    format_version: int


def save_program(program: CompiledProgram, path: str | Path) -> None:
    """Writes ``program``, whole or not at all. Raises ``FormatError`` if it is not valid."""
    data = to_bytes(program)
    with atomic_file(path) as file:
        file.write(data)


def load_program(path: str | Path) -> CompiledProgram:
    """Reads and validates a ``.npubin`` file. Raises ``FormatError`` naming the file and what is wrong with
    it, ``OSError`` if it cannot be read."""
    file = Path(path)
    if file.stat().st_size > MAX_FILE:
        raise FormatError(f"{file}: {file.stat().st_size} bytes are too many for a .npubin file")
    return from_bytes(file.read_bytes(), str(file))


def to_bytes(program: CompiledProgram) -> bytes:
    """The ``.npubin`` file of ``program``. Raises ``FormatError`` if it is not valid."""
    validate(program, program.program)
    return _archive(
        {
            MANIFEST: _manifest(program),
            **{name: program.kernel_sources[name].encode() for name in source_order(program)},
        }
    )


def from_bytes(data: bytes, name: str = "program") -> CompiledProgram:
    """The program in ``data``, a whole ``.npubin`` file; ``name`` says in messages where it came from."""
    members = _members(data, name)
    manifest = members.pop(MANIFEST)
    try:
        version = msgspec.json.decode(manifest, type=_Version).format_version
        if version != FORMAT_VERSION:
            newer = version > FORMAT_VERSION
            raise FormatError(
                f"{name}: made by {'a newer' if newer else 'an older'} npubin (format {version}, this "
                f"one reads {FORMAT_VERSION}): {'update npubin' if newer else 'compile it again'}"
            )
        if _archive({MANIFEST: manifest, **members}) != data:
            raise FormatError(
                f"{name}: the archive was altered, truncated or has trailing bytes: compile it again"
            )
        program = msgspec.json.decode(manifest, type=CompiledProgram)
        sources = {file: text.decode() for file, text in members.items()}
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise FormatError(f"{name}: {error}; the file is damaged, compile it again") from None
    if program.kernel_sources:
        raise FormatError(f"{name}: kernel sources stand in the manifest; they belong in kernels/")
    program = msgspec.structs.replace(program, kernel_sources=sources)
    validate(program, name)
    return program


def source_order(program: CompiledProgram) -> list[str]:
    """The files of ``kernel_sources`` in the order in which they are stored and built: the prelude first."""
    files = dict.fromkeys(kernel.file for kernel in program.kernels)
    prelude = [PRELUDE] if PRELUDE in program.kernel_sources else []
    return prelude + [file for file in files if file != PRELUDE]


def _manifest(program: CompiledProgram) -> bytes:
    """JSON with a line per field, and a line per item of every list of records."""
    lines = []
    for field in msgspec.structs.fields(program):
        if field.name == "kernel_sources":
            continue
        value = getattr(program, field.name)
        if isinstance(value, tuple) and value:
            items = ",\n  ".join(msgspec.json.encode(item).decode() for item in value)
            text = f"[\n  {items}\n ]"
        else:
            text = msgspec.json.encode(value).decode()
        lines.append(f' "{field.encode_name}": {text}')
    return ("{\n" + ",\n".join(lines) + "\n}\n").encode()


def _archive(members: Mapping[str, bytes]) -> bytes:
    stream = io.BytesIO()
    digest_of = hashlib.sha256()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as archive:
        for name, data in members.items():
            info = zipfile.ZipInfo(name, _DATE)
            info.create_system = 3
            info.external_attr = 0o100644 << 16
            archive.writestr(info, data)
            digest_of.update(b"%d %d " % (len(name.encode()), len(data)) + name.encode() + data)
        archive.comment = b"sha256:" + digest_of.hexdigest().encode()
    return stream.getvalue()


def _members(data: bytes, name: str) -> dict[str, bytes]:
    """The archive's files, the manifest first."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            infos = archive.infolist()
            stored = all(info.compress_type == zipfile.ZIP_STORED and info.flag_bits == 0 for info in infos)
            sizes = sum(info.file_size for info in infos)
            names = [info.filename for info in infos]
            if not stored or sizes > len(data) or len(set(names)) != len(names):
                raise FormatError(f"{name}: not a .npubin file as this package writes it: compile it again")
            members = {info.filename: archive.read(info) for info in infos}
    except FormatError:
        raise
    except Exception as error:  # zipfile raises many kinds for damaged archives
        raise FormatError(f"{name}: not a .npubin file, or damaged ({error}): compile it again") from None
    if not names or names[0] != MANIFEST:
        raise FormatError(f"{name}: {MANIFEST} is not its first entry: this is not a .npubin file")
    return members
