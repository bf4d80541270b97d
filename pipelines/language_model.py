"""A language model that was built: its programs, weights and tokenizer, from a text or a chat to more text.

    model = LanguageModel.open("artifacts/smollm2-135m")
    for piece in model.chat([{"role": "user", "content": "What is the capital of France?"}]):
        print(piece.text, end="", flush=True)

Needs numpy, pyopencl, tokenizers and, for chats, jinja2.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from npu_runtime.backend import Backend
from npu_runtime.choosing import Runs
from npu_runtime.device import Device
from npu_runtime.errors import InputError
from npu_runtime.generate import GREEDY, Piece, Sampling, generate
from npu_runtime.weight_loader import Weights, load_weights
from pipelines.chat import Message
from pipelines.programs import open_program
from pipelines.tokenizer import Tokenizer

PROGRAMS = ("prefill", "decode")


class LanguageModel:
    """Two programs, the weights with one sequence's state, and a tokenizer.

    Raises ``InputError`` for a tokenizer with more tokens than the model.
    """

    def __init__(
        self, prefill: Runs, decode: Runs, weights: Weights, tokenizer: Tokenizer, sampler: Runs | None = None
    ) -> None:
        self.prefill, self.decode, self.weights, self.tokenizer = prefill, decode, weights, tokenizer
        self.sampler = sampler
        _check_size(tokenizer, decode)

    @classmethod
    def open(
        cls, folder: str | Path, *, target: str | None = None, device: Backend | None = None
    ) -> LanguageModel:
        """The model that was built in ``folder`` (artifacts/<model>). ``target``: by default the only one it
        was built for, or ``cpu``; ``device``: by default the runtime's choice.

        Raises ``InputError`` naming what is missing and how to build it, and what reading the files raises.
        """
        root = Path(folder)
        name = root.name
        place = root / (target or _target(root))
        weights = place / f"{name}.safetensors"
        files = [_program(place, program, name) for program in PROGRAMS]
        if not weights.is_file():
            raise InputError(f"{weights} is missing: build it with doit weights:{name}")
        tokenizer = Tokenizer(root / "tokenizer")
        opened = device or Device()
        prefill, decode = (open_program(file, opened) for file in files)
        drawing = place / "token_sampler.npubin"
        sampler = open_program(drawing, opened) if drawing.is_file() else None
        return cls(prefill, decode, load_weights(weights, decode.program, opened), tokenizer, sampler)

    def generate(
        self,
        prompt: str | Sequence[int],
        *,
        max_tokens: int | None = None,
        sampling: Sampling = GREEDY,
        stop: Sequence[str] = (),
        stop_tokens: Sequence[int] | None = None,
    ) -> Iterator[Piece]:
        """Continues a text, or tokens, a ``Piece`` at a time. ``stop``: texts before which it ends; the text
        of a special token means that token. ``stop_tokens``: by default those that end a text of this model.

        Raises ``InputError``, as ``npu_runtime.generate`` does.
        """
        tokens = self.tokenizer.encode(prompt) if isinstance(prompt, str) else prompt
        special = {text: number for text in stop if (number := self.tokenizer.id_of(text)) is not None}
        ends = self.tokenizer.stop_tokens if stop_tokens is None else stop_tokens
        return generate(
            self.prefill,
            self.decode,
            self.weights,
            tokens,
            max_tokens=max_tokens,
            sampling=sampling,
            stop_tokens={*ends, *special.values()},
            stop_strings=[text for text in stop if text not in special],
            bytes_of=self.tokenizer.bytes_of,
            sampler=self.sampler,
        )

    def chat(
        self,
        messages: str | Sequence[Message],
        *,
        max_tokens: int | None = None,
        sampling: Sampling = GREEDY,
        stop: Sequence[str] = (),
    ) -> Iterator[Piece]:
        """The model's answer to a conversation ({"role": "user", "content": ...}, ...), or to one question.
        Raises as ``generate``, and where the model has no chat template."""
        if isinstance(messages, str):
            messages = [{"role": "user", "content": messages}]
        tokens = self.tokenizer.encode_chat(messages)
        return self.generate(tokens, max_tokens=max_tokens, sampling=sampling, stop=stop)


def _target(root: Path) -> str:
    """The target that the model was built for; ``cpu`` of several."""
    found = sorted(path.parent.name for path in root.glob("*/decode.npubin")) or sorted(
        path.parent.parent.name for path in root.glob("*/parts/decode")
    )
    if len(found) > 1 and "cpu" not in found:
        raise InputError(f"{root.name} was built for {', '.join(found)}: say for which one to run, as "
                         f"{root.name}@{found[0]}")
    return found[0] if len(found) == 1 else "cpu"


def _program(place: Path, program: str, name: str) -> Path:
    whole, parts = place / f"{program}.npubin", place / "parts" / program / "parts.json"
    if not whole.is_file() and not parts.is_file():
        raise InputError(f"{whole} is missing: build it with doit weights:{name}")
    return whole if whole.is_file() else parts


def _check_size(tokenizer: Tokenizer, decode: Runs) -> None:
    """A model may have more tokens than its tokenizer (for alignment), never fewer."""
    sizes = [spec.shape[-1] for spec in decode.program.output_specs if spec.name == "logits"]
    sizes += [spec.upper + 1 for spec in decode.program.input_specs
              if spec.name == "input_ids" and spec.upper is not None]
    known = [size for size in sizes if isinstance(size, int)]
    if known and tokenizer.size > min(known):
        raise InputError(
            f"the tokenizer has {tokenizer.size} tokens and the model {min(known)}: it is another model's "
            "tokenizer, or the configuration's vocabulary size is wrong"
        )
