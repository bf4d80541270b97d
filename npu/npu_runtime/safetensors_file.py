"""Safetensors files: memory-mapped reading and streamed, deterministic writing, bfloat16 included.

The format: 8 bytes with the header's length, a JSON header (name -> dtype, shape, data_offsets), then the
data.
"""

from __future__ import annotations

import json
import mmap
import zlib
from collections.abc import Iterable, Mapping
from math import prod
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from npu_runtime.buffer import as_bytes
from npu_runtime.dtypes import ITEM_SIZE, Array, nbytes, numpy_dtype
from npu_runtime.errors import FormatError
from npu_runtime.files import atomic_file

_NAMES = {
    "F16": "float16",
    "BF16": "bfloat16",
    "F32": "float32",
    "F64": "float64",
    "C64": "complex64",
    "I8": "int8",
    "I16": "int16",
    "I32": "int32",
    "I64": "int64",
    "U8": "uint8",
    "U16": "uint16",
    "U32": "uint32",
    "U64": "uint64",
    "BOOL": "bool",
}
_CODES = {name: code for code, name in _NAMES.items()}
_MAX_HEADER = 100_000_000
#: Where the metadata of a sealed file has its tensors' checksums.
CHECKSUMS = "checksums"
#: Data starts at a multiple of a memory page, so that a mapped file can be device memory without a copy.
_PAGE = 4096


class TensorEntry(msgspec.Struct, frozen=True):
    """Where a tensor lies in the data part of its file."""

    dtype: str
    shape: tuple[int, ...]
    data_offsets: tuple[int, int]


class SafetensorsFile:
    """An open file. ``entries``: name -> what is there, dtypes by numpy's names. Tensors are read when asked
    for.

    Raises ``FormatError`` for a file that is truncated, too long or malformed.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        with self.path.open("rb") as file:
            size = self.path.stat().st_size
            if size < 8:
                raise self._broken(f"it has only {size} bytes")
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        length = int.from_bytes(self._map[:8], "little")
        if not 2 <= length <= min(size - 8, _MAX_HEADER):
            raise self._broken(f"its header would have {length} of the file's {size} bytes")
        self._start = 8 + length
        header = self._header(self._map[8 : self._start])
        try:
            self.metadata = msgspec.convert(header.pop("__metadata__", None) or {}, dict[str, str])
            found = msgspec.convert(header, dict[str, TensorEntry])
        except msgspec.ValidationError as error:
            raise self._broken(str(error)) from None
        self.entries = {name: self._checked(name, entry) for name, entry in found.items()}
        spans = sorted(entry.data_offsets for entry in self.entries.values())
        ends = [0, *(end for _, end in spans)]
        if [begin for begin, _ in spans] != ends[:-1] or ends[-1] != size - self._start:
            raise self._broken(
                f"its tensors cover {ends[-1]} bytes with gaps or overlaps, "
                f"the data part has {size - self._start}"
            )

    def _header(self, raw: bytes) -> dict[str, Any]:
        try:
            header = json.loads(raw, object_pairs_hook=_unique)
            json.dumps(header, ensure_ascii=False).encode()  # a text that is no Unicode is an error
        except (ValueError, RecursionError) as error:
            raise self._broken(f"its header is not JSON: {error}") from None
        if not isinstance(header, dict):
            raise self._broken("its header is not a JSON object")
        return header

    def _broken(self, why: str) -> FormatError:
        return FormatError(f"{self.path}: not a whole safetensors file: {why}; fetch or make it again")

    def _checked(self, name: str, entry: TensorEntry) -> TensorEntry:
        if entry.dtype not in _NAMES:
            raise self._broken(f"tensor {name!r} has the unknown dtype {entry.dtype}")
        named = msgspec.structs.replace(entry, dtype=_NAMES[entry.dtype])
        begin, end = entry.data_offsets
        if min((begin, *entry.shape)) < 0 or end - begin != prod(entry.shape) * ITEM_SIZE[named.dtype]:
            raise self._broken(
                f"tensor {name!r} {entry.dtype}{list(entry.shape)} lies at bytes {begin} to {end}"
            )
        return named

    def tensor(self, name: str) -> Array:
        """A read-only view of the mapped file."""
        entry = self.entries[name]
        begin, end = entry.data_offsets
        raw = np.frombuffer(self._map, np.uint8, end - begin, self._start + begin)
        dtype = numpy_dtype(entry.dtype)
        if raw.ctypes.data % dtype.itemsize:
            raw = raw.copy()
        return raw.view(dtype).reshape(entry.shape)

    def release(self, name: str) -> None:
        """What has been read of a tensor need not stay in memory: it will be read from the file again where
        it is wanted. Views of it stay valid."""
        begin, end = (self._start + offset for offset in self.entries[name].data_offsets)
        first, last = -(-begin // _PAGE) * _PAGE, end // _PAGE * _PAGE
        if first < last and hasattr(mmap, "MADV_DONTNEED") and mmap.PAGESIZE == _PAGE:
            self._map.madvise(mmap.MADV_DONTNEED, first, last - first)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object whose keys must differ."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key appears twice")
    return found


def write_safetensors(
    path: str | Path,
    specs: Mapping[str, tuple[tuple[int, ...], str]],
    arrays: Iterable[tuple[str, Array]],
    metadata: Mapping[str, str],
    seeds: Mapping[str, str] | None = None,
) -> None:
    """Writes tensors of ``specs`` (name -> shape, dtype) as ``arrays`` yields them, in the same order; one at
    a time is in memory. Equal content gives equal bytes. The file appears whole or not at all.

    With ``seeds``, the metadata also has ``CHECKSUMS``: JSON of name -> ``checksum(seeds[name], data)``.
    """
    sums = {} if seeds is None else dict.fromkeys(specs, checksum("", b""))
    with atomic_file(path) as file:
        file.write(_encoded(specs, metadata, sums))
        for (expected, (shape, dtype)), (name, array) in zip(specs.items(), arrays, strict=True):
            if (name, array.shape, array.dtype) != (expected, shape, numpy_dtype(dtype)):
                raise ValueError(f"{name} is {array.dtype}{array.shape}, expected {expected} {dtype}{shape}")
            data = as_bytes(np.ascontiguousarray(array)).data
            file.write(data)
            if seeds is not None:
                sums[name] = checksum(seeds[name], data)
        file.seek(0)
        file.write(_encoded(specs, metadata, sums))  # as long as before: checksums are of one length


def checksum(seed: str, data: bytes | memoryview) -> str:
    """CRC-32 of ``seed`` and ``data``, as 8 hexadecimal digits: it tells damage, not forgery."""
    return f"{zlib.crc32(data, zlib.crc32(seed.encode())):08x}"


def _encoded(
    specs: Mapping[str, tuple[tuple[int, ...], str]], metadata: Mapping[str, str], sums: Mapping[str, str]
) -> bytes:
    """The file up to its data."""
    sealed = {**metadata, **({CHECKSUMS: json.dumps(sums, sort_keys=True)} if sums else {})}
    header: dict[str, Any] = {"__metadata__": dict(sorted(sealed.items()))}
    position = 0
    for name, (shape, dtype) in specs.items():
        size = nbytes(shape, dtype)
        header[name] = {
            "dtype": _CODES[dtype],
            "shape": list(shape),
            "data_offsets": [position, position + size],
        }
        position += size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-(8 + len(text)) % _PAGE)
    return len(text).to_bytes(8, "little") + text
