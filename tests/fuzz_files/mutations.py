"""Mutations of files, by kind. Each is a function of a random generator and the file; the same seed gives the
same mutation."""

from __future__ import annotations

import random
import zipfile
import zlib

from bytes_and_json import BYTES, JSON, Mutation, flip
from containers import NPUBIN, SAFETENSORS
from yaml_texts import YAML

#: Per kind of file.
MUTATIONS: dict[str, tuple[Mutation, ...]] = {
    "npubin": NPUBIN,
    "ir": (*BYTES, *JSON, *JSON, *JSON),
    "safetensors": SAFETENSORS,
    "yaml": YAML,
}


def mutated(kind: str, rng: random.Random, data: bytes) -> bytes:
    """``data`` after one to three mutations of its kind; the later ones may undo the form that an earlier
    one needs, and are then left out."""
    changed = data
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        mutation = rng.choice(MUTATIONS[kind])
        try:
            changed = mutation(rng, changed) or changed[:1]
        except (
            ValueError,
            KeyError,
            IndexError,
            TypeError,
            AttributeError,
            OverflowError,
            zipfile.BadZipFile,
            zlib.error,
            RecursionError,
            NotImplementedError,
            EOFError,
            RuntimeError,  # an entry that says that it is encrypted
        ):
            changed = changed if changed is not data else flip(rng, data)
    return changed
