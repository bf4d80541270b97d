"""A model's tokenizer from where its weights come from, as the folder that ``pipelines.tokenizer`` reads."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipelines import gguf_tokenizer
from pipelines.packages import FetchError
from pipelines.token_bytes import TEXT, TOKENIZER


def from_file(weights: Path, out: Path) -> None:
    """The tokenizer inside a GGUF file, or beside a file of any other kind. Raises ``FetchError``."""
    if weights.suffix == ".gguf":
        text, info = gguf_tokenizer.read(weights)
        _write(out, text.encode(), info)
    else:
        from_folder(weights.parent, out)


def from_folder(folder: Path, out: Path) -> None:
    """``tokenizer.json`` of a folder as Hugging Face lays it out, with what other files there say of the text
    that the model takes. Raises ``FetchError``, also where there is no such file."""
    path = folder / TOKENIZER
    if not path.is_file():
        raise FetchError(f"there is no {TOKENIZER} where its weights come from")
    config = _json(folder / "tokenizer_config.json")
    data = path.read_bytes()
    numbers = _numbers(path, data)
    special = {name: _content(value) for name, value in sorted(config.items())
               if name.endswith("_token") and _content(value) is not None}
    template: Any = config.get("chat_template")
    if isinstance(template, list):  # several, by their names
        named = {item.get("name"): item.get("template") for item in template if isinstance(item, dict)}
        template = named.get("default")
    if (file := folder / "chat_template.jinja").is_file():
        template = file.read_text(encoding="utf-8")
    stops: Any = _json(folder / "generation_config.json").get("eos_token_id")
    if stops is None:
        stops = _json(folder / "config.json").get("eos_token_id")
    if stops is None:
        stops = numbers.get(special.get("eos_token") or "")
    found = [] if stops is None else stops if isinstance(stops, list) else [stops]
    _write(out, data, {"chat_template": template if isinstance(template, str) else None,
                       "special_tokens": special,
                       "stop_tokens": sorted({int(number) for number in found})})


def absent(reason: str, out: Path) -> None:
    """There is no tokenizer: ``reason`` says why."""
    out.mkdir(parents=True, exist_ok=True)
    _write_json(out / TEXT, {"absent": reason})


def _write(out: Path, tokenizer: bytes, info: Mapping[str, Any]) -> None:
    out.mkdir(parents=True, exist_ok=True)
    (out / TOKENIZER).write_bytes(tokenizer)
    _write_json(out / TEXT, info)


def _write_json(path: Path, data: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(data, indent=2, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")


def _json(path: Path) -> dict[str, Any]:
    """The content of a file that need not be there."""
    if not path.is_file():
        return {}
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise FetchError(f"{path.name} is damaged: {error}") from None
    if not isinstance(data, dict):
        raise FetchError(f"{path.name} holds no names and values")
    return data


def _numbers(path: Path, data: bytes) -> dict[str, int]:
    """Added tokens by their content."""
    try:
        added = json.loads(data).get("added_tokens") or []
        return {str(token["content"]): int(token["id"]) for token in added}
    except (ValueError, AttributeError, KeyError, TypeError) as error:
        raise FetchError(f"{path.name} is not a tokenizer file: {error}") from None


def _content(value: Any) -> str | None:
    """A special token: its text, or a mapping that holds it."""
    if isinstance(value, dict):
        value = value.get("content")
    return value if isinstance(value, str) else None
