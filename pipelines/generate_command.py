"""``npubin generate``: a text or a chat, continued on the terminal."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from npu_runtime.device import Device
from npu_runtime.env import pin_threads
from npu_runtime.errors import InputError
from npu_runtime.generate import Finish, Piece, Sampling
from pipelines.chat import Message
from pipelines.language_model import LanguageModel

_ENDED: dict[Finish | None, str] = {
    "stop": "stopped", "length": "reached --max-tokens", "cache": "the cache is full", None: "interrupted"}


@dataclass(frozen=True)
class Request:
    """What to generate. Of ``prompt`` and ``chat`` one is given, or neither for a conversation."""

    model: str
    prompt: str | None
    chat: str | None
    system: str | None
    max_tokens: int
    sampling: Sampling
    stop: Sequence[str]
    device: str | None
    threads: int | None


@dataclass
class _Times:
    """When tokens came, in seconds of a monotonic clock."""

    start: float = field(default_factory=time.perf_counter)
    first: float = 0.0
    last: float = 0.0
    tokens: int = 0
    finish: Finish | None = None

    def note(self, piece: Piece) -> None:
        self.last = time.perf_counter()
        self.first = self.first or self.last
        self.tokens += 1
        self.finish = piece.finish

    def text(self, prompt: int) -> str:
        """``12 prompt tokens, first token after 0.213 s (56.3 tokens/s); 30 tokens, 31.6 tokens/s``"""
        begin, rest = self.first - self.start, self.last - self.first
        rate = f", {(self.tokens - 1) / rest:.1f} tokens/s" if self.tokens > 1 and rest > 0 else ""
        return (f"[{prompt} prompt tokens, first token after {begin:.3f} s ({prompt / begin:.1f} tokens/s); "
                f"{self.tokens} tokens{rate}; {_ENDED[self.finish]}]")


def run(request: Request) -> None:
    """Writes what the model says to standard output as it comes, and the times to standard error."""
    if request.prompt is not None and request.chat is not None:
        raise InputError("--prompt continues a text and --chat answers a message: give one of them")
    if request.prompt is not None and request.system is not None:
        raise InputError("--system goes with --chat: a text to continue has no roles")
    pin_threads()
    device = Device(request.device, threads=request.threads)
    folder, target = find(request.model)
    model = LanguageModel.open(folder, target=target, device=device)
    messages: list[Message] = []
    if request.system is not None:
        messages.append({"role": "system", "content": request.system})
    if request.prompt is not None:
        _say(model, model.tokenizer.encode(request.prompt), request)
    elif request.chat is not None:
        messages.append({"role": "user", "content": request.chat})
        _say(model, model.tokenizer.encode_chat(messages), request)
    else:
        _converse(model, messages, request)


def find(model: str) -> tuple[Path, str | None]:
    """The folder and the target of ``smollm2-135m``, ``smollm2-135m@gpu`` or ``artifacts/smollm2-135m``."""
    name, _, target = model.partition("@")
    places = [Path("artifacts") / name, Path(name)]
    for place in places:
        if place.is_dir():
            return place.resolve(), target or None
    raise InputError(f"{places[0]} is missing: build the model with doit weights:{model}, in the folder that "
                     "has configs/models, or give the path of its artifacts")


def _say(model: LanguageModel, tokens: Sequence[int], request: Request) -> str:
    """Streams one continuation; its text."""
    said, times = "", _Times()
    pieces: Iterator[Piece] = model.generate(
        tokens, max_tokens=request.max_tokens or None, sampling=request.sampling, stop=request.stop)
    try:
        for piece in pieces:
            times.note(piece)
            said += piece.text
            print(piece.text, end="", flush=True)
    except KeyboardInterrupt:
        if not times.tokens:
            raise
    print(flush=True)
    print(times.text(len(tokens)), file=sys.stderr)
    return said


def _converse(model: LanguageModel, messages: list[Message], request: Request) -> None:
    """Turns of a conversation from standard input, until it ends."""
    while True:
        try:
            line = input("> " if sys.stdin.isatty() else "")
        except EOFError:
            if sys.stdin.isatty():
                print()
            return
        if not line.strip():
            continue
        messages.append({"role": "user", "content": line})
        said = _say(model, model.tokenizer.encode_chat(messages), request)
        messages.append({"role": "assistant", "content": said})
