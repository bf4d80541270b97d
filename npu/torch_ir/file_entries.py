"""What an IR file holds, entry by entry."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import msgspec


class TensorEntry(msgspec.Struct):
    name: str
    shape: list[int | str]
    dtype: str
    output_name: str | None = None
    layout: str = "row"


class NodeEntry(msgspec.Struct):
    name: str
    op_type: str
    inputs: list[TensorEntry]
    outputs: list[TensorEntry]
    attrs: dict[str, Any] = {}
    loc: str = ""
    origin: list[str] = []
    none_mask: list[bool] | None = None


class ConstantEntry(msgspec.Struct):
    data: Any
    dtype: str


class StateEntry(msgspec.Struct):
    name: str
    key: str
    shape: list[int | str]
    dtype: str
    update: str | None = None
    persistent: bool = False
    data: Any = None


class SymbolEntry(msgspec.Struct):
    name: str
    lower: int
    upper: int


class FileEntry(msgspec.Struct):
    graph_inputs: list[TensorEntry]
    graph_outputs: list[TensorEntry]
    weights: list[TensorEntry]
    nodes: list[NodeEntry]
    model_name: str = ""
    pytorch_version: str = ""
    weight_name_mapping: dict[str, str] = {}
    constants: dict[str, ConstantEntry] = {}
    ir_version: int | None = None
    symbols: list[SymbolEntry] = []
    states: list[StateEntry] = []
    guards: list[tuple[int | str, str, int | str]] = []
    digest: str = ""


def content_digest(file: Mapping[str, Any]) -> str:
    """The SHA-256 of a file's content but for ``digest`` itself. It tells a file that was written here from
    one that was changed since or comes from elsewhere."""
    content = {key: value for key, value in file.items() if key != "digest"}
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()
