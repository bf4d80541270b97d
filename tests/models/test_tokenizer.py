"""The tokenizer that the build keeps: text to tokens and back, and where it comes from."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gguf_files import CORPUS, gpt2_fields, learned, write_gguf
from test_gguf import sentencepiece, texts

from npu_runtime.errors import FormatError, InputError
from npu_runtime.text_stream import TextStream
from pipelines import tokenizer_source
from pipelines.packages import FetchError
from pipelines.tokenizer import Tokenizer

TEMPLATE = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}{{ eos_token }}"


def made(folder: Path, fields: dict[str, Any]) -> Tokenizer:
    tokenizer_source.from_file(write_gguf(folder / "m.gguf", fields), folder / "tokenizer")
    return Tokenizer(folder / "tokenizer")


def published(folder: Path, **files: Any) -> Path:
    """A folder as Hugging Face lays it out: a tokenizer, and ``files`` as JSON by their names."""
    folder.mkdir(exist_ok=True)
    learned().save(str(folder / "tokenizer.json"))
    for name, content in files.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    return folder


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_the_bytes_of_tokens_are_the_text(kind: str, tmp_path: Path) -> None:
    fields = gpt2_fields(learned(), "smollm") if kind == "gpt2" else sentencepiece()
    tokenizer = made(tmp_path, fields)
    assert tokenizer.size == len(fields["tokenizer.ggml.tokens"])
    for text in [*texts(80), "hello world", "the 日本 world"]:
        tokens = tokenizer.encode(text)
        start = " " if kind == "llama" and text else ""  # SentencePiece begins every text with a space
        assert tokenizer.decode(tokens) == start + text
        stream = TextStream()
        pieces = [*(stream.push(tokenizer.bytes_of(token)) for token in tokens), stream.finish()]
        assert "".join(pieces) == start + text
        assert all("\ufffd" not in piece for piece in pieces)


def test_special_tokens_have_no_text(tmp_path: Path) -> None:
    tokenizer = made(tmp_path, gpt2_fields(learned(), "gpt-2"))
    tokens = tokenizer.encode("the<|end|> end")
    assert 0 in tokens
    assert tokenizer.decode(tokens) == "the end"
    assert tokenizer.bytes_of(0) == b""
    assert tokenizer.bytes_of(tokenizer.size + 5) == b""
    assert (tokenizer.id_of("<|end|>"), tokenizer.id_of("the"), tokenizer.id_of("nothing")) == (0, None, None)


def test_bytes_that_are_no_text_are_kept_apart(tmp_path: Path) -> None:
    tokenizer = made(tmp_path, gpt2_fields(learned(), "gpt-2"))
    library = learned()
    random = np.random.default_rng(1)
    for _ in range(50):
        tokens = [int(token) for token in random.integers(2, tokenizer.size, 12)]
        assert tokenizer.decode(tokens) == library.decode(tokens)


def test_what_a_folder_says(tmp_path: Path) -> None:
    source = published(
        tmp_path / "hub",
        tokenizer_config={"bos_token": {"content": "<|start|>"}, "eos_token": "<|end|>", "pad_token": None,
                          "chat_template": TEMPLATE, "tokenizer_class": "X"},
        generation_config={"eos_token_id": [7, 0]},
        config={"eos_token_id": 3},
    )
    tokenizer_source.from_folder(source, tmp_path / "kept")
    assert (tmp_path / "kept" / "tokenizer.json").read_bytes() == (source / "tokenizer.json").read_bytes()
    tokenizer = Tokenizer(tmp_path / "kept")
    assert tokenizer.special_tokens == {"bos_token": "<|start|>", "eos_token": "<|end|>"}
    assert tokenizer.stop_tokens == (0, 7)
    messages = [{"role": "user", "content": "the end"}]
    assert tokenizer.encode_chat(messages) == tokenizer.encode("user: the end\n<|end|>")
    (source / "chat_template.jinja").write_text("{{ messages[0].content }}")
    tokenizer_source.from_folder(source, tmp_path / "kept")
    assert Tokenizer(tmp_path / "kept").encode_chat(messages) == tokenizer.encode("the end")


@pytest.mark.parametrize(("files", "stops"), [
    ({"config": {"eos_token_id": 3}}, (3,)),
    ({"tokenizer_config": {"eos_token": "<|end|>"}}, (0,)),
    ({"tokenizer_config": {"eos_token": "unheard of"}}, ()),
    ({}, ()),
])
def test_tokens_that_end_a_text(files: dict[str, Any], stops: tuple[int, ...], tmp_path: Path) -> None:
    tokenizer_source.from_folder(published(tmp_path / "hub", **files), tmp_path / "kept")
    assert Tokenizer(tmp_path / "kept").stop_tokens == stops


def test_one_of_several_templates(tmp_path: Path) -> None:
    several = [{"name": "tools", "template": "x"}, {"name": "default", "template": TEMPLATE}]
    source = published(tmp_path / "hub", tokenizer_config={"chat_template": several})
    tokenizer_source.from_folder(source, tmp_path / "kept")
    assert Tokenizer(tmp_path / "kept").chat_template == TEMPLATE


def test_a_model_without_a_chat_template(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has no chat template: give it a text to continue"):
        made(tmp_path, gpt2_fields(learned(), "gpt-2")).encode_chat([{"role": "user", "content": "x"}])


def test_files_that_are_refused(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    with pytest.raises(InputError, match=r"text\.json is missing: build the model again"):
        Tokenizer(kept)
    tokenizer_source.absent("it was never given one", kept)
    with pytest.raises(InputError, match="the model has no tokenizer: it was never given one"):
        Tokenizer(kept)
    tokenizer_source.from_folder(published(tmp_path / "hub"), kept)
    good = (kept / "tokenizer.json").read_text()
    for text, message in (
        ("{", "is not a tokenizer file"),
        (json.dumps({**json.loads(good), "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True}}),
         "its decoder is .*WordPiece.*: only those of byte-level"),
    ):
        (kept / "tokenizer.json").write_text(text)
        with pytest.raises(FormatError, match=message):
            Tokenizer(kept)
    (kept / "tokenizer.json").unlink()
    with pytest.raises(InputError, match=r"tokenizer\.json is missing"):
        Tokenizer(kept)
    for text in ("[]", "{}", "{", '{"chat_template": 1, "special_tokens": {}, "stop_tokens": []}'):
        (kept / "text.json").write_text(text)
        with pytest.raises(FormatError, match=r"text\.json is"):
            Tokenizer(kept)


@pytest.mark.parametrize("text", ["{", "[]", '{"added_tokens": [{"id": 1}]}'])
def test_published_files_that_are_damaged(text: str, tmp_path: Path) -> None:
    source = published(tmp_path / "hub")
    (source / "tokenizer.json").write_text(text)
    with pytest.raises(FetchError, match=r"tokenizer\.json is not a tokenizer file"):
        tokenizer_source.from_folder(source, tmp_path / "kept")


def test_a_damaged_description_is_named(tmp_path: Path) -> None:
    source = published(tmp_path / "hub")
    (source / "generation_config.json").write_text("{")
    with pytest.raises(FetchError, match=r"generation_config\.json is damaged"):
        tokenizer_source.from_folder(source, tmp_path / "kept")
    with pytest.raises(FetchError, match=r"there is no tokenizer\.json where its weights come from"):
        tokenizer_source.from_file(tmp_path / "model.safetensors", tmp_path / "kept")


def test_the_library_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made(tmp_path, gpt2_fields(learned(), "gpt-2"))
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(InputError, match=r"needs the library tokenizers: pip install 'npubin\[text\]'"):
        Tokenizer(tmp_path / "tokenizer")


def test_padding_and_truncation_of_the_file_do_not_matter(tmp_path: Path) -> None:
    source = published(tmp_path / "hub")
    library = learned()
    library.enable_truncation(3)
    library.enable_padding(length=64)
    library.save(str(source / "tokenizer.json"))
    tokenizer_source.from_folder(source, tmp_path / "kept")
    assert Tokenizer(tmp_path / "kept").encode(CORPUS[0]) == learned().encode(CORPUS[0]).ids
