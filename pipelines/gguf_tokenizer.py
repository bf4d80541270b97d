"""The tokenizer in a GGUF file's metadata, as the ``tokenizers`` library writes one.

``tokenizer.ggml.model`` says how words become tokens: "gpt2" by merging the bytes of a word, "llama" as
SentencePiece does, where the scores of tokens order the merges. For "gpt2", ``tokenizer.ggml.pre`` says where
words begin; the expressions are those of the models' own tokenizer files, as llama.cpp lists them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from pipelines.gguf_file import open_gguf
from pipelines.packages import FetchError
from pipelines.token_bytes import BYTE_CHARACTERS

_CONTROL, _USER_DEFINED = 3, 4
_SPACE = "\u2581"

#: Words with their leading character, numbers of so many digits at most, runs of signs, spaces.
_WORDS = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|%s"
          r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")

#: ``tokenizer.ggml.pre`` -> where words begin: "gpt2" is the rule of GPT-2, "digits" the same after every
#: digit stands alone, anything else an expression. A file that names no rule has GPT-2's.
PRE_TOKENIZERS: Mapping[str, str] = {
    **dict.fromkeys(("default", "gpt-2", "gpt2", "mpt", "olmo", "jais", "trillion"), "gpt2"),
    **dict.fromkeys(("smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b"),
                    "digits"),
    **dict.fromkeys(("qwen2", "stablelm2", "hunyuan", "megrez", "deepseek-r1-qwen"), _WORDS % r"\p{N}"),
    **dict.fromkeys(("llama-bpe", "llama3", "llama-v3", "falcon3", "dbrx", "smaug-bpe"),
                    _WORDS % r"\p{N}{1,3}"),
}
#: Those whose tokenizer begins every text with the begin token, and takes a word that is a token as it is.
_LLAMA_3 = ("llama-bpe", "llama3", "llama-v3", "falcon3")


def read(file: Path) -> tuple[str, dict[str, Any]]:
    """The JSON of a tokenizer, and what ``pipelines.tokenizer`` keeps beside it. Raises ``FetchError`` for
    metadata that is missing or damaged, and for a kind of tokenizer that is not known."""
    fields = _fields(file)
    try:
        tokens: list[str] = fields["tokenizer.ggml.tokens"]
        kind = fields["tokenizer.ggml.model"]
        if kind == "gpt2":
            tokenizer = _byte_level(file, fields, tokens)
        elif kind == "llama":
            tokenizer = _sentencepiece(fields, tokens)
        else:
            raise FetchError(f"{file.name}: its tokenizer is of the kind {kind}; known are gpt2 and llama")
        _add_special(tokenizer, tokens, fields.get("tokenizer.ggml.token_type", ()))
        ids = {name: fields.get(f"tokenizer.ggml.{name}_token_id") for name in ("bos", "eos", "eot", "eom")}
        names = {name: tokens[number] for name, number in ids.items() if number is not None}
    except (KeyError, IndexError, TypeError) as error:
        raise FetchError(f"{file.name}: its tokenizer is not whole: {error}") from None
    begins = kind == "llama" or fields.get("tokenizer.ggml.pre") in _LLAMA_3
    _frame(tokenizer, names.get("bos") if fields.get("tokenizer.ggml.add_bos_token", begins) else None,
           names.get("eos") if fields.get("tokenizer.ggml.add_eos_token", False) else None)
    special = {f"{name}_token": names[name] for name in ("bos", "eos") if name in names}
    for name, key in (("unk_token", "unknown"), ("pad_token", "padding")):
        number = fields.get(f"tokenizer.ggml.{key}_token_id")
        if number is not None and number < len(tokens):
            special[name] = tokens[number]
    stops = sorted({number for name, number in ids.items() if name != "bos" and number is not None})
    return tokenizer.to_str(), {"chat_template": fields.get("tokenizer.chat_template"),
                                "special_tokens": special, "stop_tokens": stops}


def _fields(file: Path) -> dict[str, Any]:
    reader = open_gguf(file)
    try:
        found = {name: field.contents() for name, field in reader.fields.items()
                 if name.startswith("tokenizer.")}
    except (ValueError, IndexError) as error:
        raise FetchError(f"{file.name} is not a whole GGUF file: {error}") from None
    if "tokenizer.ggml.tokens" not in found:
        raise FetchError(f"{file.name} has no tokenizer in it")
    return found


def _library() -> Any:
    try:
        return import_module("tokenizers")
    except ImportError:
        raise FetchError("reading a model's tokenizer needs the library tokenizers: "
                         "pip install 'npubin[text]'") from None


def _byte_level(file: Path, fields: Mapping[str, Any], tokens: Sequence[str]) -> Any:
    """Merges of bytes, each written as a character of its own."""
    library = _library()
    pre = fields.get("tokenizer.ggml.pre", "default")
    if pre not in PRE_TOKENIZERS:
        raise FetchError(f"{file.name}: where its words begin follows the rule {pre} (tokenizer.ggml.pre), "
                         f"which is not known; known are {', '.join(PRE_TOKENIZERS)}")
    types = fields.get("tokenizer.ggml.token_type", ())
    alphabet = set(BYTE_CHARACTERS.values())
    vocabulary: dict[str, int] = {}
    for number, token in enumerate(tokens):
        whole = number < len(types) and types[number] in (_CONTROL, _USER_DEFINED)
        if not whole and not set(token) <= alphabet:
            token = "".join(BYTE_CHARACTERS[byte] for byte in token.encode())
        vocabulary.setdefault(token, number)
    merges = [tuple(merge.split(" ")) for merge in fields["tokenizer.ggml.merges"]]
    _check_merges(file, merges, vocabulary)
    tokenizer = library.Tokenizer(library.models.BPE(
        vocabulary, merges, fuse_unk=False, byte_fallback=False, ignore_merges=pre in _LLAMA_3))
    rule, parts = PRE_TOKENIZERS[pre], library.pre_tokenizers
    split = {"gpt2": [], "digits": [parts.Digits(individual_digits=True)]}.get(
        rule, [parts.Split(library.Regex(rule), behavior="isolated")])
    bytes_of = parts.ByteLevel(add_prefix_space=False, use_regex=rule in ("gpt2", "digits"))
    tokenizer.pre_tokenizer = parts.Sequence([*split, bytes_of])
    tokenizer.decoder = library.decoders.ByteLevel()
    return tokenizer


def _check_merges(file: Path, merges: Sequence[tuple[str, ...]], vocabulary: Mapping[str, int]) -> None:
    for merge in merges:
        if len(merge) != 2 or not {*merge, "".join(merge)} <= vocabulary.keys():
            raise FetchError(f"{file.name}: its tokenizer merges {' and '.join(merge)}, "
                             "which are no two tokens that make one")


def _sentencepiece(fields: Mapping[str, Any], tokens: Sequence[str]) -> Any:
    """Merges of characters: of all pairs of tokens that make one, the one of the highest score first. A
    character without a token becomes its bytes."""
    library = _library()
    vocabulary: dict[str, int] = {}
    for number, token in enumerate(tokens):
        vocabulary.setdefault(token, number)
    scores: Sequence[float] = fields["tokenizer.ggml.scores"]
    pairs = [(-scores[number], at, len(token) - at, token) for token, number in vocabulary.items()
             for at in range(1, len(token)) if token[:at] in vocabulary and token[at:] in vocabulary]
    pairs.sort(key=lambda pair: (pair[0], -pair[1], -pair[2], vocabulary[pair[3]]))
    unknown = fields.get("tokenizer.ggml.unknown_token_id")
    tokenizer = library.Tokenizer(library.models.BPE(
        vocabulary, [(token[:at], token[at:]) for _, at, _, token in pairs], fuse_unk=True,
        byte_fallback=True, unk_token=None if unknown is None else tokens[unknown]))
    prefix = fields.get("tokenizer.ggml.add_space_prefix", True)
    normalizers, decoders = library.normalizers, library.decoders
    tokenizer.normalizer = normalizers.Sequence(
        [*([normalizers.Prepend(_SPACE)] if prefix else []), normalizers.Replace(" ", _SPACE)])
    tokenizer.decoder = decoders.Sequence([
        decoders.Replace(_SPACE, " "), decoders.ByteFallback(), decoders.Fuse(),
        *([decoders.Strip(" ", 1, 0)] if prefix else [])])
    return tokenizer


def _add_special(tokenizer: Any, tokens: Sequence[str], types: Sequence[int]) -> None:
    """Tokens that are found in a text as they are written: those that control the model are special, those
    that a user defined are text."""
    added = _library().AddedToken
    for kind, special in ((_CONTROL, True), (_USER_DEFINED, False)):
        found = [added(token, normalized=False, special=special)
                 for token, type_ in zip(tokens, types, strict=False) if type_ == kind and token]
        (tokenizer.add_special_tokens if special else tokenizer.add_tokens)(found)


def _frame(tokenizer: Any, first: str | None, last: str | None) -> None:
    """Puts tokens before and behind every text."""
    ends = [(token, tokenizer.token_to_id(token)) for token in (first, last) if token is not None]
    if ends:
        parts = [token for token in (first, "$A", last) if token is not None]
        tokenizer.post_processor = _library().processors.TemplateProcessing(
            single=parts, special_tokens=list(dict(ends).items()))
