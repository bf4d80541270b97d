"""Reading JSON strictly."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from torch_ir.errors import IRError

_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


def read_json(path: Path) -> Any:
    """The content of an IR file. Raises ``IRError`` for what is no JSON, a key twice in an object and a text
    that is no Unicode."""
    try:
        text = path.read_text(encoding="utf-8")
        data = json.loads(text, object_pairs_hook=_unique)
        if _SURROGATE.search(text):
            json.dumps(data, ensure_ascii=False).encode()
    except OSError as error:
        raise IRError(f"{path}: cannot be read: {error.strerror}; extract the IR first") from None
    except (ValueError, RecursionError) as error:
        raise IRError(f"{path}: not an IR file, or a truncated one ({error}); extract the IR again") from None
    return data


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object whose keys must differ."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError(f"of the keys {', '.join(key for key, _ in pairs)[:200]} one appears twice")
    return found
