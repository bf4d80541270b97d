"""Small GGUF files, and a way to split words and merge them that shares nothing with the library's."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import regex
from gguf import GGMLQuantizationType, GGUFWriter, quants

from pipelines.token_bytes import BYTE_CHARACTERS

#: What a byte-level tokenizer learns from in these tests.
CORPUS = [
    "The capital of France is Paris, and it's been there for 2000 years; don't you know?",
    "def add(first, second):\n    return first + second  # 12345 times\n\n",
    "naïve café — 日本語のテキスト 😀😀 ½ ² ٣\r\n\tend",
    "the then there their they're THE The 1 12 123 1234  two   spaces",
]


def learned(size: int = 400, special: tuple[str, ...] = ("<|end|>", "<|start|>")) -> Any:
    """A byte-level tokenizer of ``size`` tokens, the special ones first."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size, special_tokens=list(special), show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    tokenizer.train_from_iterator(CORPUS * 3, trainer)
    return tokenizer


def parts_of(tokenizer: Any) -> tuple[list[str], list[str]]:
    """Its tokens by number, and its merges as GGUF spells them."""
    import json

    model = json.loads(tokenizer.to_str())["model"]
    tokens = sorted(model["vocab"], key=model["vocab"].__getitem__)
    return tokens, [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]]


def write_gguf(
    path: Path,
    fields: Mapping[str, Any] = {},
    tensors: Mapping[str, tuple[Any, str]] = {},
    architecture: str = "llama",
) -> Path:
    """A file with these fields of metadata, and tensors (values, quantisation)."""
    writer = GGUFWriter(path, architecture)
    for name, value in fields.items():
        if isinstance(value, bool):
            writer.add_bool(name, value)
        elif isinstance(value, int):
            writer.add_uint32(name, value)
        elif isinstance(value, str):
            writer.add_string(name, value)
        else:
            writer.add_array(name, value)
    for name, (values, kind) in tensors.items():
        quantisation = GGMLQuantizationType[kind]
        writer.add_tensor(name, quants.quantize(np.asarray(values, np.float32), quantisation),
                          raw_dtype=quantisation)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def gpt2_fields(tokenizer: Any, pre: str | None, **more: Any) -> dict[str, Any]:
    """Metadata of a byte-level tokenizer whose two special tokens are the first."""
    tokens, merges = parts_of(tokenizer)
    types = [3 if number < 2 else 1 for number in range(len(tokens))]
    rule = {} if pre is None else {"tokenizer.ggml.pre": pre}
    return {"tokenizer.ggml.model": "gpt2", **rule, "tokenizer.ggml.tokens": tokens,
            "tokenizer.ggml.token_type": types, "tokenizer.ggml.merges": merges,
            "tokenizer.ggml.eos_token_id": 0, "tokenizer.ggml.bos_token_id": 1, **more}


#: Names of ``tokenizer.ggml.pre`` -> expressions that cut a text one after another, as llama.cpp has them:
#: what an expression matches is a piece, and so is what lies between.
_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)"
_LLAMA3 = (r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
           r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
RULES: dict[str, tuple[str, ...]] = {
    "gpt-2": (_GPT2,),
    "smollm": (r"\p{N}", _GPT2),
    "qwen2": (_LLAMA3.replace("{1,3}", ""),),
    "llama-bpe": (_LLAMA3,),
}


def by_hand(tokens: list[str], merges: list[str], pre: str) -> Callable[[str], list[int]]:
    """Text without special tokens -> token ids: the pair of the lowest rank is merged, the leftmost first."""
    numbers = {token: number for number, token in enumerate(tokens)}
    ranks = {tuple(merge.split(" ")): rank for rank, merge in enumerate(merges)}

    def cut(text: str) -> list[str]:
        pieces = [text]
        for rule in RULES[pre]:
            found = []
            for piece in pieces:
                end = 0
                for match in regex.finditer(rule, piece):
                    found += [piece[end:match.start()], match[0]]
                    end = match.end()
                found.append(piece[end:])
            pieces = [piece for piece in found if piece]
        return pieces

    def merged(piece: str) -> list[int]:
        parts = [BYTE_CHARACTERS[byte] for byte in piece.encode()]
        if pre == "llama-bpe" and "".join(parts) in numbers:
            return [numbers["".join(parts)]]
        while True:
            pairs = [(ranks[pair], place) for place, pair in enumerate(pairwise(parts))
                     if pair in ranks]
            if not pairs:
                return [numbers[part] for part in parts]
            _, place = min(pairs)
            parts[place:place + 2] = [parts[place] + parts[place + 1]]

    return lambda text: [number for piece in cut(text) for number in merged(piece)]
