"""Mutations of zip archives and of safetensors files."""

from __future__ import annotations

import hashlib
import io
import json
import random
import zipfile
from collections.abc import Sequence

from bytes_and_json import BYTES, JSON, Mutation


def _entries(data: bytes) -> list[tuple[str, bytes]]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return [(name, archive.read(name)) for name in archive.namelist()]


def _comment(data: bytes) -> bytes:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return archive.comment


def zipped(entries: Sequence[tuple[str, bytes]], comment: bytes, method: int = zipfile.ZIP_STORED) -> bytes:
    """An archive with right checksums, in the form that ``npubin`` writes."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive:
        for name, content in entries:
            info = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            info.create_system, info.external_attr, info.compress_type = 3, 0o100644 << 16, method
            archive.writestr(info, content)
        archive.comment = comment
    return stream.getvalue()


def signed(data: bytes) -> bytes:
    """The archive's entries under the digest that they should have."""
    entries = _entries(data)
    digest = hashlib.sha256()
    for name, content in entries:
        digest.update(b"%d %d " % (len(name.encode()), len(content)) + name.encode() + content)
    return zipped(entries, b"sha256:" + digest.hexdigest().encode())


def manifest(rng: random.Random, data: bytes) -> bytes:
    """The manifest changed, everything else and all checksums right."""
    (name, content), *rest = _entries(data)
    return zipped([(name, rng.choice(JSON)(rng, content)), *rest], _comment(data))


def source(rng: random.Random, data: bytes) -> bytes:
    """A kernel's source changed."""
    entries = _entries(data)
    at = rng.randrange(1, len(entries))
    entries[at] = (entries[at][0], rng.choice(BYTES)(rng, entries[at][1]))
    return zipped(entries, _comment(data))


def archive_entries(rng: random.Random, data: bytes) -> bytes:
    """Entries renamed, exchanged, doubled, removed, compressed or blown up."""
    entries, comment = _entries(data), _comment(data)
    at, method = rng.randrange(len(entries)), zipfile.ZIP_STORED
    name, content = entries[at]
    kind = rng.randrange(8)
    if kind == 0:
        names = ("../x.cl", "/etc/x", "kernels/", "", "kernels/x.cl", name + "\0", name.upper(), "a" * 70000)
        entries[at] = (rng.choice(names)[:65000], content)
    elif kind == 1:
        entries.append((name, content))
    elif kind == 2:
        del entries[at]
    elif kind == 3:
        other = rng.randrange(len(entries))
        entries[at], entries[other] = entries[other], entries[at]
    elif kind == 4:
        other = rng.randrange(len(entries))
        entries[at], entries[other] = (name, entries[other][1]), (entries[other][0], content)
    elif kind == 5:
        method = zipfile.ZIP_DEFLATED
        entries[at] = (name, content + b" " * rng.choice((10, 1 << 20, 40 << 20)))
    elif kind == 6:
        entries[at] = (name, content + b" " * rng.choice((1, 1 << 16)))
    else:
        comment = rng.choice((b"", comment[:-1], comment + b"0", b"x" * 60000))
    return zipped(entries, comment, method)


def archive_fields(rng: random.Random, data: bytes) -> bytes:
    """A number in a header or in the directory of the archive."""
    changed = bytearray(data)
    marks = [at for mark in (b"PK\1\2", b"PK\3\4", b"PK\5\6") for at in _found(data, mark)]
    at = rng.choice(marks) + rng.randrange(4, 46)
    width = rng.choice((1, 2, 4))
    value = rng.choice((0, 1, 0xFF, 0xFFFF, 0xFFFFFFFF, 0x7FFFFFFF, len(data), rng.randrange(1 << 32)))
    changed[at : at + width] = (value % (1 << (8 * width))).to_bytes(width, "little")
    return bytes(changed[: max(len(data), at)])


def _found(data: bytes, mark: bytes) -> list[int]:
    found, at = [], data.find(mark)
    while at >= 0:
        found.append(at)
        at = data.find(mark, at + 1)
    return found


NPUBIN: tuple[Mutation, ...] = (*BYTES, manifest, manifest, manifest, source, archive_entries, archive_fields)


def _split(data: bytes) -> tuple[bytes, bytes]:
    length = int.from_bytes(data[:8], "little")
    return data[8 : 8 + length], data[8 + length :]


def _joined(header: bytes, body: bytes) -> bytes:
    return len(header).to_bytes(8, "little") + header + body


def header_json(rng: random.Random, data: bytes) -> bytes:
    header, body = _split(data)
    return _joined(rng.choice(JSON)(rng, header), body)


def header_tensor(rng: random.Random, data: bytes) -> bytes:
    """dtype, shape or offsets of a tensor; names exchanged."""
    text, body = _split(data)
    header = json.loads(text)
    names = [name for name in header if name != "__metadata__"]
    name, other = rng.choice(names), rng.choice(names)
    entry = header[name]
    kind = rng.randrange(7)
    if kind == 0:
        entry["dtype"] = rng.choice(
            ("F32", "I32", "F16", "BF16", "U8", "F64", "BOOL", "F8_E4M3", "f32", "C64", "I64")
        )
    elif kind == 1:
        entry["shape"] = rng.choice(
            (entry["shape"][::-1], [*entry["shape"], 1], [1 << 40, 1 << 40], [0], [-1], [])
        )
    elif kind == 2:
        begin, end = entry["data_offsets"]
        moves = (
            (end, begin),
            (begin - 4, end - 4),
            (begin + 4, end + 4),
            (begin, 1 << 62),
            (-4, end),
            (0, 0),
        )
        entry["data_offsets"] = list(rng.choice(moves))
    elif kind == 3:
        header[name], header[other] = header[other], header[name]
    elif kind == 4:
        entry["data_offsets"] = list(header[other]["data_offsets"])
    elif kind == 5:
        for key, value in (header.get("__metadata__") or {}).items():
            if rng.random() < 0.5 and isinstance(value, str):
                header["__metadata__"][key] = value.replace(*rng.choice((("a", "b"), ("0", "1"), ('"', "'"))))
    else:
        header.pop("__metadata__", None)
    encoded = json.dumps(header, separators=(",", ":")).encode()
    return _joined(encoded + b" " * max(0, len(text) - len(encoded)), body)


def header_length(rng: random.Random, data: bytes) -> bytes:
    length = int.from_bytes(data[:8], "little")
    lengths = (
        0,
        1,
        2,
        length - 1,
        length + 1,
        length + 8,
        len(data),
        len(data) - 8,
        (1 << 63) - 1,
        (1 << 64) - 1,
    )
    return rng.choice(lengths).to_bytes(8, "little") + data[8:]


SAFETENSORS: tuple[Mutation, ...] = (
    *BYTES,
    header_json,
    header_json,
    header_tensor,
    header_tensor,
    header_length,
)
