"""A small random Llama in a GGUF file, built from its YAML and talked to from the shell, without PyTorch."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from gguf_files import gpt2_fields, learned, write_gguf
from tiny_decoders import CONFIG

from npu_runtime.errors import InputError
from npu_runtime.generate import Sampling
from pipelines.config import load_config
from pipelines.execute import execute
from pipelines.job import Job
from pipelines.language_model import LanguageModel
from pipelines.stages import STAGES
from pipelines.tokenizer import Tokenizer
from pipelines.zoo.causal_lm import causal_lm, randomize

ROOT = Path(__file__).parents[2]
SIZE, CACHE = 320, 96
TEMPLATE = ("{% for m in messages %}<|start|>{{ m.role }}\n{{ m.content }}<|end|>\n{% endfor %}"
            "{% if add_generation_prompt %}<|start|>assistant\n{% endif %}")
YAML = f"""\
factory: pipelines.zoo.causal_lm:causal_lm
factory_args:
  architecture: LlamaForCausalLM
  max_cache: {CACHE}
  config: {json.dumps({**CONFIG, "vocab_size": SIZE})}
weights: {{file: {{path: tiny.gguf}}}}
programs:
  prefill:
    method: prefill
    symbols: {{length: {{min: 1, max: {CACHE}}}}}
    inputs:
      input_ids: {{shape: [1, length], dtype: int64}}
      attention_mask: {{shape: [1, length], dtype: int64}}
      position_ids: {{shape: [1, length], dtype: int64}}
    outputs: [logits]
  decode:
    method: decode
    inputs:
      input_ids: {{shape: [1, 1], dtype: int64}}
      cache_position: {{shape: [1], dtype: int64}}
      position_ids: {{shape: [1, 1], dtype: int64}}
      attention_mask: {{shape: [1, {CACHE}], dtype: int64}}
    outputs: [logits]
"""
NAMES = {"embed_tokens": "token_embd", "norm": "output_norm", "input_layernorm": "attn_norm",
         "post_attention_layernorm": "ffn_norm", "q_proj": "attn_q", "k_proj": "attn_k", "v_proj": "attn_v",
         "o_proj": "attn_output", "gate_proj": "ffn_gate", "up_proj": "ffn_up", "down_proj": "ffn_down"}
#: What a machine without the build's libraries lacks.
ABSENT = ("torch", "transformers", "doit", "yaml", "gguf", "safetensors.torch")


def gguf_tensors(state: dict[str, torch.Tensor]) -> dict[str, tuple[Any, str]]:
    """As llama.cpp's converter names tensors and orders rows."""
    made = {}
    for key, tensor in state.items():
        if key == "lm_head.weight":
            continue
        *path, part, _ = key.split(".")
        layer = f"blk.{path[2]}." if "layers" in path else ""
        values = tensor.numpy()
        if part in ("q_proj", "k_proj"):
            heads = CONFIG["num_attention_heads" if part == "q_proj" else "num_key_value_heads"]
            values = values.reshape(heads, 2, -1, values.shape[1]).swapaxes(1, 2).reshape(values.shape)
        made[f"{layer}{NAMES[part]}.weight"] = (values, "F32")
    return made


class Built:
    """The project, and the model as ``transformers`` runs it."""

    def __init__(self, root: Path) -> None:
        self.root, self.folder = root, root / "artifacts" / "tiny"
        made = randomize(causal_lm(architecture="LlamaForCausalLM", max_cache=CACHE,
                                   config={**CONFIG, "vocab_size": SIZE}), 11)
        self.reference = transformers.LlamaForCausalLM(made.config).eval()
        self.reference.load_state_dict(made.state_dict())
        self.reference.generation_config.eos_token_id = None
        fields = {**gpt2_fields(learned(300), "smollm"), "llama.attention.head_count": 6,
                  "llama.attention.head_count_kv": 2, "tokenizer.chat_template": TEMPLATE}
        write_gguf(root / "tiny.gguf", fields, gguf_tensors(made.state_dict()))
        path = root / "configs" / "models" / "tiny.yaml"
        path.parent.mkdir(parents=True)
        path.write_text(YAML)
        job = Job(root, load_config(path, root), "cpu")
        for stage in STAGES[:4]:
            execute(stage, job)
        self.tokenizer = Tokenizer(self.folder / "tokenizer")

    def greedy(self, tokens: list[int], count: int) -> list[int]:
        ids = torch.tensor([tokens])
        with torch.no_grad():
            made = self.reference.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=count,
                                           do_sample=False, pad_token_id=0)
        return [int(token) for token in made[0, len(tokens):]]

    def command(self, *arguments: str, standard_input: str = "") -> subprocess.CompletedProcess[str]:
        """``npubin generate`` in a process that cannot import what is not installed everywhere."""
        code = (f"import sys; sys.modules.update(dict.fromkeys({ABSENT!r})); "
                "from pipelines.cli import main; sys.exit(main())")
        path = os.pathsep.join([str(ROOT / "npu"), str(ROOT)])
        return subprocess.run(
            [sys.executable, "-c", code, "generate", *arguments], cwd=self.root, capture_output=True,
            text=True, check=False, input=standard_input, env={**os.environ, "PYTHONPATH": path})


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    return Built(tmp_path_factory.mktemp("project"))


@pytest.fixture(scope="module")
def model(built: Built) -> LanguageModel:
    return LanguageModel.open(built.folder)


def said(model: LanguageModel, prompt: Any, **settings: Any) -> str:
    return "".join(piece.text for piece in model.generate(prompt, **settings))


@pytest.mark.parametrize("prompt", ["The capital of France is", "  two   spaces 123", "naïve 😀", "x"])
def test_tokens_and_text_are_those_of_transformers(prompt: str, built: Built, model: LanguageModel) -> None:
    tokens = built.tokenizer.encode(prompt)
    wanted = built.greedy(tokens, 30)
    pieces = list(model.generate(prompt, max_tokens=30, stop_tokens=()))
    assert [piece.token for piece in pieces] == wanted
    assert "".join(piece.text for piece in pieces) == built.tokenizer.decode(wanted)


def test_a_continued_text(built: Built) -> None:
    tokens = built.tokenizer.encode("The capital")
    wanted = built.greedy(tokens, 12)
    assert 0 not in wanted
    done = built.command("tiny", "--prompt", "The capital", "--max-tokens", "12")
    assert (done.returncode, done.stdout) == (0, built.tokenizer.decode(wanted) + "\n")
    assert f"[{len(tokens)} prompt tokens, first token after " in done.stderr
    assert "; 12 tokens, " in done.stderr
    assert "reached --max-tokens]" in done.stderr


def test_an_answered_message(built: Built) -> None:
    text = "<|start|>system\nBe brief.<|end|>\n<|start|>user\nthe end?<|end|>\n<|start|>assistant\n"
    tokens = built.tokenizer.encode(text)
    assert tokens.count(1) == 3
    wanted = built.tokenizer.decode(built.greedy(tokens, 8))
    done = built.command("artifacts/tiny", "--chat", "the end?", "--system", "Be brief.", "--max-tokens", "8")
    assert (done.returncode, done.stdout) == (0, wanted + "\n")


def test_a_conversation(built: Built) -> None:
    first = built.tokenizer.encode("<|start|>user\nthe<|end|>\n<|start|>assistant\n")
    answer = built.tokenizer.decode(built.greedy(first, 4))
    turns = f"<|start|>user\nthe<|end|>\n<|start|>assistant\n{answer}<|end|>\n<|start|>user\nend<|end|>\n"
    second = built.greedy(built.tokenizer.encode(turns + "<|start|>assistant\n"), 4)
    done = built.command("tiny@cpu", "--max-tokens", "4", standard_input="the\n\nend\n")
    assert done.stdout == f"{answer}\n{built.tokenizer.decode(second)}\n"


def test_sampling_repeats_with_its_seed_and_matches_python(built: Built, model: LanguageModel) -> None:
    options = ("--temperature", "0.9", "--top-k", "40", "--top-p", "0.95", "--min-p", "0.01",
               "--repetition-penalty", "1.1", "--max-tokens", "16")
    sampling = Sampling(0.9, 40, 0.95, 0.01, 1.1, seed=4)
    wanted = said(model, "The", sampling=sampling, max_tokens=16)
    assert built.command("tiny", "--prompt", "The", *options, "--seed", "4").stdout == wanted + "\n"
    assert said(model, "The", sampling=sampling, max_tokens=16) == wanted
    assert said(model, "The", sampling=Sampling(0.9, 40, 0.95, 0.01, 1.1, 5), max_tokens=16) != wanted


def test_it_stops_where_it_is_told(built: Built, model: LanguageModel) -> None:
    whole = said(model, "The capital", max_tokens=24)
    stop = whole[9:12]
    end = whole.index(stop)
    done = built.command(
        "tiny", "--prompt", "The capital", "--max-tokens", "24", "--stop", "zzz", "--stop", stop)
    assert done.stdout == whole[:end] + "\n"
    assert "; stopped]" in done.stderr
    tokens = [piece.token for piece in model.generate("The capital", max_tokens=24)]
    library = model.tokenizer
    special = library.id_of
    library.id_of = lambda text: tokens[5] if text == "<|six|>" else special(text)  # type: ignore[method-assign]
    try:
        pieces = list(model.generate("The capital", max_tokens=24, stop=["<|six|>"]))
    finally:
        library.id_of = special  # type: ignore[method-assign]
    assert [piece.token for piece in pieces] == tokens[: tokens.index(tokens[5]) + 1]
    assert pieces[-1].finish == "stop"


@pytest.mark.parametrize(("arguments", "message"), [
    (("other", "--prompt", "x"), "artifacts/other is missing: build the model with doit weights:other"),
    (("tiny@gpu", "--prompt", "x"), "gpu/prefill.npubin is missing: build it with doit weights:tiny"),
    (("tiny", "--prompt", "x", "--chat", "y"), "--prompt continues a text and --chat answers a message"),
    (("tiny", "--prompt", "x", "--system", "y"), "--system goes with --chat"),
    (("tiny", "--prompt", ""), "the prompt is empty"),
    (("tiny", "--prompt", "x" * 200), "the prompt has 200 tokens and the cache room for 96"),
    (("tiny", "--prompt", "x", "--temperature", "-1"), "temperature is -1.0: expected 0"),
    (("tiny", "--prompt", "x", "--device", "nvidia:7"), "no device 'nvidia:7'"),
    (("tiny", "--prompt", "x", "--stop", ""), "a stop string is empty"),
])
def test_what_is_wrong_is_one_line(arguments: tuple[str, ...], message: str, built: Built) -> None:
    done = built.command(*arguments)
    assert done.returncode == 1
    assert done.stderr.startswith("npubin: ")
    assert message in done.stderr
    assert done.stderr.count("\n") == 1


def test_the_document_runs_as_it_is_written(
    built: Built, model: LanguageModel, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(built.root)
    text = (ROOT / "docs" / "generation.md").read_text().replace("smollm2-135m", "tiny")
    first, second, third = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    names: dict[str, Any] = {}
    exec(compile(first, "generation.md", "exec"), names)
    assert capsys.readouterr().out == "".join(
        piece.text for piece in model.chat("What is the capital of France?", max_tokens=64))
    assert len(names["tokens"]) == 32
    exec(compile(second.replace("504, 3575, 282", "50, 51, 52"), "generation.md", "exec"), names)
    assert capsys.readouterr().out == f"{built.greedy([50, 51, 52], 8)}\n"
    keys = next(state for state in names["decode"].states if "keys" in state.name)
    before = names["weights"].read_state(keys)
    exec(compile(third, "generation.md", "exec"), names)
    assert before.any()
    assert np.array_equal(names["other"].read_state(keys), before)
    assert not names["weights"].read_state(keys).any()


def test_a_tokenizer_that_does_not_fit(built: Built, tmp_path: Path) -> None:
    folder = tmp_path / "tiny"
    shutil.copytree(built.folder, folder)
    learned(SIZE + 3).save(str(folder / "tokenizer" / "tokenizer.json"))
    with pytest.raises(InputError, match=rf"tokenizer has {SIZE + 3} tokens and the model {SIZE}"):
        LanguageModel.open(folder)
    (folder / "cpu" / "tiny.safetensors").unlink()
    with pytest.raises(InputError, match=r"tiny\.safetensors is missing: build it with doit weights:tiny"):
        LanguageModel.open(folder)


def test_the_same_weights_give_the_same_tokenizer(built: Built) -> None:
    before = {path.name: path.read_bytes() for path in (built.folder / "tokenizer").iterdir()}
    job = Job(built.root, load_config(built.root / "configs/models/tiny.yaml", built.root), "cpu")
    execute(STAGES[0], job)
    assert sorted(before) == ["text.json", "tokenizer.json"]
    assert before == {path.name: path.read_bytes() for path in (built.folder / "tokenizer").iterdir()}
    assert np.unique(list(before["text.json"])).size > 20
