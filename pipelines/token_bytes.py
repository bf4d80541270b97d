"""What bytes of text a token stands for, read from how its tokenizer decodes; and what the files of a
tokenizer are called."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

TOKENIZER, TEXT = "tokenizer.json", "text.json"


def _byte_characters() -> dict[int, str]:
    """A printable character for every byte: itself where it is one, the next free one from 256 on where it
    is not (GPT-2's table)."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = (byte for byte in range(256) if byte not in printable)
    table = {byte: chr(byte) for byte in printable}
    return table | {byte: chr(256 + count) for count, byte in enumerate(others)}


BYTE_CHARACTERS: Mapping[int, str] = _byte_characters()
_BYTES = {character: byte for byte, character in BYTE_CHARACTERS.items()}
_ONE_BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")


def spelling_of(decoder: Mapping[str, Any] | None) -> str | None:
    """How a tokenizer with this ``decoder`` (the part of its JSON) writes tokens: "bytes" with a character
    for every byte, "spaces" as text with a mark for a space; None where it does neither."""
    parts = [] if decoder is None else _flat(decoder)
    kinds = {part.get("type") for part in parts}
    if kinds == {"ByteLevel"}:
        return "bytes"
    marks = {"Replace", "Metaspace"}
    if kinds & marks and kinds <= marks | {"ByteFallback", "Fuse", "Strip"}:
        return "spaces"
    return None


def mark_of(decoder: Mapping[str, Any] | None) -> str:
    """What a tokenizer that marks spaces writes for one."""
    for part in _flat(decoder or {}):
        if part.get("type") == "Metaspace":
            return str(part.get("replacement", "\u2581"))
        pattern = part.get("pattern")
        if part.get("type") == "Replace" and part.get("content") == " " and isinstance(pattern, Mapping):
            return str(pattern.get("String", "\u2581"))
    return "\u2581"


def bytes_of(token: str, spelling: str, mark: str) -> bytes:
    """The text of one token, inside a longer text."""
    if spelling == "bytes":
        if all(character in _BYTES for character in token):
            return bytes(_BYTES[character] for character in token)
        return token.encode(errors="replace")
    byte = _ONE_BYTE.fullmatch(token)
    return bytes([int(byte[1], 16)]) if byte else token.replace(mark, " ").encode(errors="replace")


def _flat(decoder: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    if decoder.get("type") == "Sequence":
        return [part for item in decoder.get("decoders", ()) for part in _flat(item)]
    return [decoder]
