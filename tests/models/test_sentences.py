"""Sentences as inputs: tokens and masks by hand, known cosines, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tokenizers

from pipelines.config import ConfigError, load_config
from pipelines.datasets import DatasetError
from pipelines.results import Environment, SentenceCheck, VerifyResult
from pipelines.schema import Sentences, VerifyKnobs
from pipelines.sentences import cosine, encode
from pipelines.verify import VerifyError, _require_cosines

WORDS = {"[PAD]": 9, "[UNK]": 0, "a": 1, "happy": 2, "dog": 3, "barks": 4}
PAIR = {"first": "a happy dog", "second": "dog", "cosine": 0.5}


def sentences(**keys: object) -> Sentences:
    return Sentences.model_validate(
        {"package": "words", "version": "1.0", "sha256": "0" * 64, "tokenizer": "words/tokenizer.json",
         "pairs": (PAIR,), **keys}
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """With a tokenizer that splits at spaces, and that would pad and cut to five tokens if it was let."""
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(WORDS, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer.enable_padding(length=5, pad_id=9)
    tokenizer.enable_truncation(5)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    return tmp_path


@pytest.mark.parametrize(
    ("texts", "length", "tokens", "mask"),
    [
        (("a happy dog", "dog"), None, [[1, 2, 3], [3, 9, 9]], [[1, 1, 1], [1, 0, 0]]),
        (("dog", "a cat"), 4, [[3, 9, 9, 9], [1, 0, 9, 9]], [[1, 0, 0, 0], [1, 1, 0, 0]]),
        (("a a a a a a a", "dog"), None, [[1] * 7, [3] + [9] * 6], [[1] * 7, [1] + [0] * 6]),
    ],
)
def test_tokens_and_masks(
    folder: Path, texts: tuple[str, ...], length: int | None, tokens: object, mask: object
) -> None:
    found = encode(folder, sentences(), texts, length)
    assert [array.tolist() for array in found] == [tokens, mask]
    assert {array.dtype for array in found} == {np.dtype(np.int64)}


def test_a_text_that_is_too_long_is_named(folder: Path) -> None:
    with pytest.raises(DatasetError, match=r"'a happy dog' has 3 tokens, and the program takes at most 2"):
        encode(folder, sentences(), ("dog", "a happy dog"), 2)


@pytest.mark.parametrize("content", ["", "{", '{"model": 1}'])
def test_a_file_that_is_no_tokenizer_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(DatasetError, match=r"tokenizer\.json is not a tokenizer file"):
        encode(tmp_path, sentences(), ("dog",), None)


def test_cosines_by_hand() -> None:
    assert cosine(np.array([3.0, 4.0]), np.array([6.0, 8.0])) == pytest.approx(1.0)
    assert cosine(np.array([3.0, 4.0], np.float32), np.array([4.0, -3.0], np.float32)) == pytest.approx(0.0)


@pytest.mark.parametrize(
    ("found", "passes"), [(0.5009, True), (0.4991, True), (0.502, False), (float("nan"), False)]
)
def test_a_cosine_beside_the_known_one_fails(found: float, passes: bool) -> None:
    here = Environment("", "", "", 1, "", "", "", {})
    result = VerifyResult("words", "cpu", True, {}, (), here, {},
                          sentences=(SentenceCheck("a", "b", 0.5, 0.5, found),))
    knobs = VerifyKnobs(sentences=sentences())
    if passes:
        _require_cosines("words", result, knobs)
    else:
        with pytest.raises(VerifyError, match=r"'a' and 'b' have the cosine .* 0\.5 is expected"):
            _require_cosines("words", result, knobs)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("tokens: input_id", r'tokens: no input is called "input_id"; did you mean "input_ids"'),
        ("pairs: []", "pairs"),
        ("tolerance: 0", "tolerance"),
        ("tokenizers: x", "tokenizer"),
    ],
)
def test_mistakes_in_the_configuration_are_named(tmp_path: Path, line: str, message: str) -> None:
    shipped = (Path(__file__).parents[2] / "configs" / "models" / "minilm.yaml").read_text()
    key = line.split(":")[0]
    kept = [row for row in shipped.splitlines() if not row.startswith(f"    {key}:")]
    if key == "pairs":
        kept = [row for row in kept if not row.startswith("      - {first")]
    at = kept.index("  sentences:") + 1
    path = tmp_path / "configs" / "models" / "minilm.yaml"
    path.parent.mkdir(parents=True)
    path.write_text("\n".join([*kept[:at], f"    {line}", *kept[at:]]))
    with pytest.raises(ConfigError, match=message):
        load_config(path, tmp_path)
