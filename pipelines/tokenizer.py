"""Text to tokens and back, by the tokenizer that the build keeps beside a model's programs.

Its folder holds ``tokenizer.json``, a file of the ``tokenizers`` library, and ``text.json``: the chat
template, the special tokens by their names, and the tokens that end a text. Where a model's weights come
without a tokenizer, ``text.json`` says so and there is no other file.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from npu_runtime.errors import FormatError, InputError
from pipelines import chat
from pipelines.token_bytes import TEXT, TOKENIZER, bytes_of, mark_of, spelling_of


class Tokenizer:
    """The tokenizer in ``folder``.

    Raises ``InputError`` where there is none, or the library is not installed, and ``FormatError`` for a file
    that is damaged or of a kind whose tokens are no pieces of text.
    """

    def __init__(self, folder: Path) -> None:
        info = _read_info(folder)
        self.chat_template: str | None = info["chat_template"]
        self.special_tokens: dict[str, str] = info["special_tokens"]
        self.stop_tokens: tuple[int, ...] = tuple(info["stop_tokens"])
        self._library, data = _open(folder / TOKENIZER)
        decoder = data.get("decoder")
        spelling = spelling_of(decoder)
        if spelling is None:
            raise FormatError(
                f"{folder / TOKENIZER}: its decoder is {json.dumps(decoder)[:80]}: only those of byte-level "
                "and of SentencePiece tokenizers can be read token by token"
            )
        self._spelling, self._mark = spelling, mark_of(decoder)
        vocabulary: Mapping[str, int] = self._library.get_vocab(with_added_tokens=True)
        self.size = max(vocabulary.values(), default=-1) + 1
        """One more than the largest token id."""
        added: Mapping[int, Any] = self._library.get_added_tokens_decoder()
        self._special = {number for number, token in added.items() if token.special}
        self._added = {number: str(token.content) for number, token in added.items()}
        self._bytes: dict[int, bytes] = {}

    def encode(self, text: str, *, frame: bool = True) -> list[int]:
        """The tokens of ``text``; with ``frame``, between those that begin and end every text of the model.
        Special tokens in ``text`` are taken for what they are."""
        return list(self._library.encode(text, add_special_tokens=frame).ids)

    def bytes_of(self, token: int) -> bytes:
        """The bytes of UTF-8 that ``token`` stands for inside a text: none of a special token, or of one
        that only the model has."""
        found = self._bytes.get(token)
        if found is None:
            found = self._bytes[token] = self._find_bytes(token)
        return found

    def decode(self, tokens: Iterable[int]) -> str:
        """The text of ``tokens``, special ones left out."""
        return b"".join(map(self.bytes_of, tokens)).decode(errors="replace")

    def id_of(self, text: str) -> int | None:
        """The special token that is written ``text``."""
        number = self._library.token_to_id(text)
        return int(number) if number in self._special else None

    def encode_chat(self, messages: Sequence[chat.Message]) -> list[int]:
        """The tokens of a conversation, up to where the model's answer begins. Raises ``InputError`` if the
        model has no chat template, or it does not take the conversation."""
        if self.chat_template is None:
            raise InputError("the model has no chat template: give it a text to continue")
        return self.encode(chat.render(self.chat_template, messages, self.special_tokens), frame=False)

    def _find_bytes(self, token: int) -> bytes:
        if token in self._special:
            return b""
        if token in self._added:
            return self._added[token].encode(errors="replace")
        written = self._library.id_to_token(token)
        return b"" if written is None else bytes_of(written, self._spelling, self._mark)


def _read_info(folder: Path) -> dict[str, Any]:
    path = folder / TEXT
    try:
        info = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path} is missing: build the model again, with doit fetch:MODEL") from None
    except ValueError as error:
        raise FormatError(f"{path} is damaged ({error}): build the model again") from None
    if isinstance(info, dict) and "absent" in info:
        raise InputError(f"the model has no tokenizer: {info['absent']}")
    if not (
        isinstance(info, dict)
        and isinstance(info.get("chat_template"), str | None)
        and isinstance(info.get("special_tokens"), dict)
        and isinstance(info.get("stop_tokens"), list)
        and all(isinstance(number, int) for number in info["stop_tokens"])
    ):
        raise FormatError(f"{path} is not what it must be: build the model again")
    return info


def _open(path: Path) -> tuple[Any, dict[str, Any]]:
    """The library's tokenizer, and the file's content."""
    try:
        library = import_module("tokenizers")
    except ImportError:
        raise InputError("text needs the library tokenizers: pip install 'npubin[text]'") from None
    try:
        text = path.read_text(encoding="utf-8")
        tokenizer = library.Tokenizer.from_str(text)
    except OSError:
        raise InputError(f"{path} is missing: build the model again, with doit fetch:MODEL") from None
    except Exception as error:  # the library raises nothing narrower
        raise FormatError(f"{path} is not a tokenizer file: {error}") from None
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer, json.loads(text)
