"""Opening GGUF files. What is wrong with one is a ``FetchError``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipelines.packages import FetchError


def open_gguf(file: Path) -> Any:
    """The ``gguf`` library's reader of ``file``. Raises ``FetchError`` for one that is damaged, or that has a
    tensor in a quantisation that the library does not know."""
    from gguf import GGMLQuantizationType, GGUFReader

    class Reader(GGUFReader):  # type: ignore[misc]  # the library is loaded here alone
        def _build_tensors(self, start: int, fields: Sequence[Any]) -> None:
            known = {kind.value for kind in GGMLQuantizationType}
            for field in fields:
                if (number := int(field.parts[4][0])) not in known:
                    names = ", ".join(kind.name for kind in GGMLQuantizationType)
                    raise FetchError(f"{file.name}: {field.name} is quantised as type {number}, which is "
                                     f"not known; known are {names}")
            super()._build_tensors(start, fields)

    try:
        return Reader(file)
    except FetchError:
        raise
    except (ValueError, KeyError, IndexError, OSError, OverflowError, MemoryError) as error:
        raise FetchError(f"{file.name} is not a whole GGUF file: {error}") from None


def field_of(reader: Any, name: str) -> Any:
    """The content of a field of the metadata. Raises ``KeyError`` where there is none."""
    if name not in reader.fields:
        raise KeyError(f"it has no field {name}")
    return reader.fields[name].contents()
