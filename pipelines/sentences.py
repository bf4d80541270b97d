"""Sentences as inputs of a model: tokens and mask, by the tokenizer file of a pinned package."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from pipelines.datasets import DatasetError
from pipelines.inputs import Array
from pipelines.schema import Sentences


def encode(
    folder: Path, sentences: Sentences, texts: Sequence[str], length: int | None
) -> tuple[Array, Array]:
    """Tokens and mask of ``texts``, int64 ``[texts, length]``, padded at the end; without a length, as long
    as the longest text. Raises ``DatasetError`` without the library or the file, or for a text that is too
    long."""
    tokenizer = _tokenizer(folder / PurePosixPath(sentences.tokenizer).name)
    padding = (tokenizer.padding or {}).get("pad_id", 0)
    tokenizer.no_padding()
    tokenizer.no_truncation()
    rows = [encoding.ids for encoding in tokenizer.encode_batch(list(texts))]
    longest = max(map(len, rows))
    if length is not None and longest > length:
        text = texts[[len(row) for row in rows].index(longest)]
        raise DatasetError(f"{text!r} has {longest} tokens, and the program takes at most {length}")
    shape = (len(rows), length or longest)
    tokens, mask = np.full(shape, padding, np.int64), np.zeros(shape, np.int64)
    for index, row in enumerate(rows):
        tokens[index, : len(row)] = row
        mask[index, : len(row)] = 1
    return tokens, mask


def cosine(first: Array, second: Array) -> float:
    """The cosine of the angle between two vectors."""
    a, b = first.astype(np.float64), second.astype(np.float64)
    return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))


def _tokenizer(path: Path) -> Any:
    try:
        library = import_module("tokenizers")
    except ImportError:
        raise DatasetError(
            "verify.sentences needs the library tokenizers; install it with pip install 'npubin[text]'"
        ) from None
    try:
        return library.Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises nothing narrower
        raise DatasetError(f"{path.name} is not a tokenizer file: {error}") from None
