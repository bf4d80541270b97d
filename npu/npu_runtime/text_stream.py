"""Text out of the bytes of tokens, as early as it is certain."""

from __future__ import annotations

import codecs
from collections.abc import Sequence

from npu_runtime.errors import InputError


class TextStream:
    """Turns pieces of UTF-8 into text, up to the first of ``stop_strings``.

    A character that several pieces share appears when it is whole; bytes that can no longer become one are
    U+FFFD. Text that may be the beginning of a stop string is held back until it is known not to be one.
    Raises ``InputError`` for an empty stop string.
    """

    def __init__(self, stop_strings: Sequence[str] = ()) -> None:
        if isinstance(stop_strings, str) or not all(isinstance(text, str) for text in stop_strings):
            raise InputError(f"stop strings are {stop_strings!r}: expected a list of texts")
        if "" in stop_strings:
            raise InputError("a stop string is empty, which every text contains: leave it out")
        self._stops = tuple(stop_strings)
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._held = ""
        self.stopped = False
        """Whether a stop string was met. It, and what follows it, is no part of the text."""

    def push(self, data: bytes) -> str:
        """The text that has become certain with ``data``."""
        return self._take(self._decoder.decode(data), last=False)

    def finish(self) -> str:
        """What was held back; nothing follows."""
        return self._take(self._decoder.decode(b"", final=True), last=True)

    def _take(self, new: str, *, last: bool) -> str:
        if self.stopped:
            return ""
        text = self._held + new
        places = [place for stop in self._stops if (place := text.find(stop)) >= 0]
        if places:
            self.stopped, self._held = True, ""
            return text[: min(places)]
        held = 0 if last else self._beginning(text)
        self._held = text[len(text) - held :]
        return text[: len(text) - held]

    def _beginning(self, text: str) -> int:
        """The length of the longest end of ``text`` that a stop string begins with."""
        longest = max(map(len, self._stops), default=1) - 1
        for length in range(min(longest, len(text)), 0, -1):
            if any(stop.startswith(text[-length:]) for stop in self._stops):
                return length
        return 0
