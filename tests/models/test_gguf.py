"""GGUF files: tensors and tokenizers, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gguf_files import CORPUS, RULES, by_hand, gpt2_fields, learned, parts_of, write_gguf
from safetensors.numpy import load_file
from tokenizers import Tokenizer

from pipelines import gguf_checkpoint, gguf_tokenizer
from pipelines.packages import FetchError

HEADS = {"llama.attention.head_count": 4, "llama.attention.head_count_kv": 2}
PIECES = ("a", "the", " ", "  ", "\n", "1", "42", "'s", "don't", "é", "日本", "😀", "#", "()", "\t", "_", "½",
          "\u200d", "\r\n", "THE", "'RE", "٣", "  x", "!?")


def texts(count: int = 300) -> list[str]:
    random = np.random.default_rng(7)
    made = ["".join(random.choice(PIECES, random.integers(1, 15))) for _ in range(count)]
    return [*CORPUS, *made, ""]


@pytest.fixture(scope="module")
def bpe() -> Any:
    return learned()


@pytest.mark.parametrize("pre", sorted(RULES))
def test_texts_become_the_tokens_of_the_rules(pre: str, bpe: Any, tmp_path: Path) -> None:
    fields = gpt2_fields(bpe, pre, **{"tokenizer.ggml.add_bos_token": False})
    text, _ = gguf_tokenizer.read(write_gguf(tmp_path / "m.gguf", fields))
    tokenizer, expected = Tokenizer.from_str(text), by_hand(*parts_of(bpe), pre)
    for line in texts():
        assert tokenizer.encode(line).ids == expected(line), line
        assert tokenizer.decode(tokenizer.encode(line).ids) == line


@pytest.mark.parametrize("pre", [None, "default", "gpt-2", "qwen2", "llama3"])
def test_texts_become_the_tokens_of_transformers(pre: str | None, bpe: Any, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    fields = gpt2_fields(bpe, pre, **{"tokenizer.chat_template": "{{ messages }}"})
    text, info = gguf_tokenizer.read(write_gguf(tmp_path / "m.gguf", fields))
    theirs = AutoTokenizer.from_pretrained(tmp_path, gguf_file="m.gguf")
    tokenizer = Tokenizer.from_str(text)
    begins = [1] if pre == "llama3" else []
    for line in [*texts(), "a<|end|> b<|start|>", "<|end|><|end|>"]:
        assert tokenizer.encode(line).ids == begins + theirs.encode(line, add_special_tokens=False), line
    assert info["special_tokens"] == {"bos_token": "<|start|>", "eos_token": "<|end|>"}
    assert info["stop_tokens"] == [0]
    assert info["chat_template"] == theirs.chat_template


def test_begin_and_end_tokens_frame_a_text(bpe: Any, tmp_path: Path) -> None:
    more = {"tokenizer.ggml.add_bos_token": True, "tokenizer.ggml.add_eos_token": True,
            "tokenizer.ggml.eot_token_id": 5}
    text, info = gguf_tokenizer.read(write_gguf(tmp_path / "m.gguf", gpt2_fields(bpe, "qwen2", **more)))
    tokenizer = Tokenizer.from_str(text)
    inner = tokenizer.encode("the end", add_special_tokens=False).ids
    assert tokenizer.encode("the end").ids == [1, *inner, 0]
    assert info["stop_tokens"] == [0, 5]


def test_the_same_file_gives_the_same_bytes(bpe: Any, tmp_path: Path) -> None:
    file = write_gguf(tmp_path / "m.gguf", gpt2_fields(bpe, "smollm"))
    assert gguf_tokenizer.read(file) == gguf_tokenizer.read(file)


def test_tokens_of_users_are_text_and_found_whole(bpe: Any, tmp_path: Path) -> None:
    fields = gpt2_fields(bpe, "gpt-2")
    fields["tokenizer.ggml.tokens"] = [*fields["tokenizer.ggml.tokens"], "<think here>", "[PAD7]"]
    fields["tokenizer.ggml.token_type"] = [*fields["tokenizer.ggml.token_type"], 4, 5]
    size = len(fields["tokenizer.ggml.tokens"])
    text, _ = gguf_tokenizer.read(write_gguf(tmp_path / "m.gguf", fields))
    tokenizer = Tokenizer.from_str(text)
    assert size - 2 in tokenizer.encode("a<think here>b").ids
    assert tokenizer.decode(tokenizer.encode("a<think here>b<|end|>").ids) == "a<think here>b"
    assert tokenizer.get_vocab_size() == size


def sentencepiece() -> dict[str, Any]:
    letters = list("▁abcdehlnorstwy.,'")
    words = ["▁t", "▁th", "▁the", "he", "ll", "hell", "▁hell", "▁hello", "lo", "or", "wor", "▁wor", "ld",
             "▁w", "▁wo", "▁world", "st", "▁▁"]
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *letters, *words]
    types = [2, 3, 3, *[6] * 256, *[1] * (len(letters) + len(words))]
    scores = [0.0] * (259 + len(letters)) + [-float(place) for place in range(len(words))]
    return {"tokenizer.ggml.model": "llama", "tokenizer.ggml.tokens": tokens, "tokenizer.ggml.scores": scores,
            "tokenizer.ggml.token_type": types, "tokenizer.ggml.bos_token_id": 1,
            "tokenizer.ggml.eos_token_id": 2, "tokenizer.ggml.unknown_token_id": 0}


def test_sentencepiece_texts_become_the_tokens_of_transformers(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    text, info = gguf_tokenizer.read(write_gguf(tmp_path / "m.gguf", sentencepiece()))
    theirs = AutoTokenizer.from_pretrained(tmp_path, gguf_file="m.gguf")
    tokenizer = Tokenizer.from_str(text)
    random = np.random.default_rng(3)
    words = ["hello", "world", "the", " ", "  ", "store", "é", "日", ".", "hells", "x"]
    for line in ["hello world", "the world.", *("".join(random.choice(words, 9)) for _ in range(200))]:
        if not line.startswith(" "):  # SentencePiece's mark comes before every text; theirs has no second
            assert tokenizer.encode(line).ids == theirs.encode(line), line
            assert tokenizer.decode(tokenizer.encode(line).ids) == line
    assert tokenizer.encode(" the").tokens == ["<s>", "▁", "▁the"]
    assert info["stop_tokens"] == [2]


def without(fields: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in fields.items() if key != f"tokenizer.ggml.{name}"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: {**f, "tokenizer.ggml.model": "rwkv"}, "is of the kind rwkv; known are gpt2 and llama"),
        (lambda f: {**f, "tokenizer.ggml.pre": "martian"}, "follows the rule martian.*known are default"),
        (lambda f: without(f, "tokens"), "m.gguf has no tokenizer in it"),
        (lambda f: without(f, "model"), "not whole: 'tokenizer.ggml.model'"),
        (lambda f: without(f, "merges"), "not whole: 'tokenizer.ggml.merges'"),
        (lambda f: {**f, "tokenizer.ggml.merges": ["a b c"]}, "merges a and b and c"),
        (lambda f: {**f, "tokenizer.ggml.merges": ["é zz"]}, "which are no two tokens that make one"),
        (lambda f: {**f, "tokenizer.ggml.eos_token_id": 10**6}, "is not whole"),
    ],
)
def test_tokenizers_that_are_refused(change: Any, message: str, bpe: Any, tmp_path: Path) -> None:
    file = write_gguf(tmp_path / "m.gguf", change(gpt2_fields(bpe, "qwen2")))
    with pytest.raises(FetchError, match=message):
        gguf_tokenizer.read(file)


def test_tensors_are_dequantised_and_rows_put_back(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    wanted = {
        "token_embd.weight": random.standard_normal((7, 64)),
        "blk.0.attn_q.weight": random.standard_normal((32, 64)),
        "blk.0.attn_k.weight": random.standard_normal((16, 64)),
        "blk.0.attn_v.weight": random.standard_normal((16, 64)),
        "output_norm.weight": random.standard_normal(64),
    }
    kinds = ("Q8_0", "F32", "F16", "Q4_1", "F32")
    tensors = {name: (value, kind) for (name, value), kind in zip(wanted.items(), kinds, strict=True)}
    gguf_checkpoint.convert(write_gguf(tmp_path / "m.gguf", HEADS, tensors), tmp_path / "out.safetensors")
    found = load_file(tmp_path / "out.safetensors")
    prefix = "model.layers.0.self_attn"
    assert sorted(found) == [
        "model.embed_tokens.weight", *(f"{prefix}.{part}_proj.weight" for part in "kqv"), "model.norm.weight"]
    assert all(array.dtype == np.float32 for array in found.values())
    np.testing.assert_allclose(found["model.embed_tokens.weight"], wanted["token_embd.weight"], atol=0.02)
    np.testing.assert_allclose(found[f"{prefix}.v_proj.weight"], wanted["blk.0.attn_v.weight"], atol=0.2)
    # the converter puts row 2i+j of a head where row j*half+i was
    for name, part, heads in (("q", "attn_q", 4), ("k", "attn_k", 2)):
        rows = wanted[f"blk.0.{part}.weight"].reshape(heads, 4, 2, 64)
        halves = np.concatenate([rows[:, :, 0], rows[:, :, 1]], axis=1).reshape(-1, 64)
        np.testing.assert_allclose(found[f"{prefix}.{name}_proj.weight"], halves, atol=2e-3)


def test_a_quantisation_that_is_not_known(tmp_path: Path) -> None:
    tensors = {"output_norm.weight": (np.ones(64), "F32"), "token_embd.weight": (np.ones((7, 256)), "Q8_0")}
    file = write_gguf(tmp_path / "m.gguf", HEADS, tensors)
    data = bytearray(file.read_bytes())
    place = data.index(b"token_embd.weight") + len(b"token_embd.weight") + 4 + 2 * 8
    assert data[place] == 8  # Q8_0
    for number, shown in ((99, "quantised as type 99, which is not known; known are F32"),
                          (15, "quantised as Q8_K, which cannot be read")):
        data[place] = number
        file.write_bytes(data + bytes(4096))
        with pytest.raises(FetchError, match=rf"m\.gguf: token_embd\.weight is {shown}"):
            gguf_checkpoint.convert(file, tmp_path / "out.safetensors")
    assert not (tmp_path / "out.safetensors").exists()


@pytest.mark.parametrize(
    ("fields", "tensors", "architecture", "message"),
    [
        (HEADS, {"blk.0.ssm_in.weight": (np.ones(32), "F32")}, "llama", "ssm_in.weight is not one of a"),
        (HEADS, {"blk.0.attn_q.weight": (np.ones((12, 32)), "F32")}, "llama", "12 rows, which are not pairs"),
        (HEADS, {}, "mamba", "the architecture mamba is not known; known are llama, qwen2"),
        ({}, {}, "llama", "has no field llama.attention.head_count"),
    ],
)
def test_tensors_that_are_refused(
    fields: Any, tensors: Any, architecture: str, message: str, tmp_path: Path
) -> None:
    file = write_gguf(tmp_path / "m.gguf", fields, tensors, architecture)
    with pytest.raises(FetchError, match=message):
        gguf_checkpoint.convert(file, tmp_path / "out.safetensors")


@pytest.mark.parametrize("keep", [0, 3, 10, 200, 3000])
def test_damaged_files_are_refused(keep: int, bpe: Any, tmp_path: Path) -> None:
    file = write_gguf(tmp_path / "m.gguf", {**HEADS, **gpt2_fields(bpe, "qwen2")})
    data = file.read_bytes()
    assert len(data) > 3000
    for changed in (data[:keep], data[:keep] + b"\xff" * 16 + data[keep + 16:]):
        file.write_bytes(changed)
        with pytest.raises(FetchError, match=r"m\.gguf"):
            gguf_checkpoint.convert(file, tmp_path / "out.safetensors")
            json.loads(gguf_tokenizer.read(file)[0])
