"""Decoders of ``transformers``, small: what prefill and decode give is what the library's own forward gives
with its own cache and plain attention. What cannot be right is refused."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch
from test_language_models import Runner
from tiny_decoders import decoder_programs
from torch import nn

from pipelines.zoo.causal_lm import causal_lm, randomize

CACHE, VOCABULARY = 32, 211
SMALL: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 48,
    "intermediate_size": 104,
    "num_hidden_layers": 2,
    "num_attention_heads": 6,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


@dataclass(frozen=True)
class Decoder:
    """A class of the library with its configuration. ``quick`` ones run by default."""

    name: str
    architecture: str
    config: dict[str, Any] = field(default_factory=dict)
    groups: int | None = 2
    batch: int = 1
    quick: bool = False

    @property
    def settings(self) -> dict[str, Any]:
        grouped = {} if self.groups is None else {"num_key_value_heads": self.groups}
        return {**SMALL, **grouped, **self.config}


def rope(kind: str, **parameters: Any) -> dict[str, Any]:
    return {"rope_parameters": {"rope_type": kind, "rope_theta": 10000.0, **parameters}}


LLAMA3 = rope("llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
              original_max_position_embeddings=16)
YARN = rope("yarn", factor=4.0, original_max_position_embeddings=16)
MIXED = ["sliding_attention", "full_attention"]
WIDE = {"head_dim": 16}

DECODERS = (
    Decoder("qwen2_batch_2", "Qwen2ForCausalLM", batch=2),
    Decoder("qwen2_windows", "Qwen2ForCausalLM",
            {"use_sliding_window": True, "sliding_window": 5, "max_window_layers": 1}),
    Decoder("qwen3", "Qwen3ForCausalLM", WIDE),
    Decoder("llama_llama3_batch_2", "LlamaForCausalLM", LLAMA3, batch=2, quick=True),
    Decoder("llama_linear", "LlamaForCausalLM", rope("linear", factor=4.0)),
    Decoder("llama_yarn", "LlamaForCausalLM", YARN),
    Decoder("llama_biases", "LlamaForCausalLM", {"attention_bias": True, "mlp_bias": True}, groups=6),
    Decoder("mistral_window", "MistralForCausalLM", {"sliding_window": 5}),
    Decoder("gemma", "GemmaForCausalLM", WIDE, groups=1),
    Decoder("gemma2", "Gemma2ForCausalLM",
            {"head_dim": 16, "sliding_window": 5, "query_pre_attn_scalar": 20, "attn_logit_softcapping": 2.0},
            quick=True),
    Decoder("gemma3", "Gemma3ForCausalLM", {"head_dim": 16, "sliding_window": 5, "layer_types": MIXED}),
    Decoder("phi", "PhiForCausalLM", {"partial_rotary_factor": 0.5}, groups=None),
    Decoder("phi3_window", "Phi3ForCausalLM", {"sliding_window": 5}),
    Decoder("olmo2", "Olmo2ForCausalLM"),
    Decoder("olmo3", "Olmo3ForCausalLM", {"sliding_window": 5, "layer_types": MIXED}),
    Decoder("smollm3", "SmolLM3ForCausalLM", {"no_rope_layer_interval": 2}),
    Decoder("gpt_neox", "GPTNeoXForCausalLM", groups=None),
    Decoder("gpt2", "GPT2LMHeadModel", groups=None),
    Decoder("stablelm", "StableLmForCausalLM"),
    Decoder("granite", "GraniteForCausalLM",
            {"attention_multiplier": 0.3, "logits_scaling": 3.0, "residual_multiplier": 0.7,
             "embedding_multiplier": 2.0}),
    Decoder("starcoder2_window", "Starcoder2ForCausalLM", {"sliding_window": 5}),
    Decoder("cohere", "CohereForCausalLM"),
    Decoder("nemotron", "NemotronForCausalLM"),
    Decoder("glm4", "Glm4ForCausalLM", WIDE),
    Decoder("exaone4", "Exaone4ForCausalLM"),
    Decoder("ernie4_5", "Ernie4_5ForCausalLM"),
)


def tokens(count: int, batch: int) -> Any:
    return np.random.default_rng(count).integers(3, VOCABULARY, (batch, count))


def plain(model: Any) -> nn.Module:
    """The same weights as the library runs them."""
    model.__class__ = model.architecture
    model.set_attn_implementation("eager")
    return model


@pytest.mark.parametrize("decoder", [
    pytest.param(item, id=item.name, marks=() if item.quick else pytest.mark.full) for item in DECODERS])
def test_a_decoder_gives_the_logits_of_transformers(decoder: Decoder) -> None:
    made = {"architecture": decoder.architecture, "config": decoder.settings, "max_cache": CACHE,
            "batch": decoder.batch}
    with torch.device("meta"):
        weightless = causal_lm(**made)
    trained = randomize(causal_lm(**made), 5)
    state = {key: value.contiguous().numpy() for key, value in trained.state_dict().items()}
    runner = Runner.of(weightless, decoder_programs(CACHE, CACHE, batch=decoder.batch), state)
    reference: Any = plain(trained)
    padding = np.arange(decoder.batch) * 4  # every row but the first has fewer tokens than the longest
    for length in (1, 19):
        ids = tokens(length, decoder.batch)
        shift = np.minimum(padding, length - 1)
        mask = (np.arange(length)[None] >= shift[:, None]).astype(np.int64)
        got, cache, count = runner.prefill(ids, mask), None, 0
        for position in range(length, length + 3):
            positions = np.maximum(np.arange(position)[None] - shift[:, None], 0)
            with torch.no_grad():
                out = reference(torch.tensor(ids[:, count:]), attention_mask=torch.tensor(mask),
                                use_cache=True, position_ids=torch.tensor(positions[:, count:]),
                                **{reference.cache_argument: cache})
            wanted, cache, count = out.logits[:, -1].numpy(), out[reference.cache_argument], position
            assert wanted.std() > 0.01
            assert np.abs(got - wanted).max() <= 1e-4 * np.abs(wanted).max(), (length, position)
            ids = np.concatenate([ids, wanted.argmax(-1)[:, None]], 1)
            mask = np.concatenate([mask, np.ones_like(mask[:, :1])], 1)
            got = runner.decode(ids[:, -1:], position, mask)


REFUSED = (
    ("GptOssForCausalLM", {}, "attends with s_aux"),
    ("Llama4ForCausalLM", {}, "layers of chunked_attention"),
    ("Qwen3NextForCausalLM", {}, "layers of linear_attention"),
    ("DeepseekV3ForCausalLM", {}, "layer 0 keeps 1 heads of 512 numbers"),
    ("MambaForCausalLM", {}, "takes no position_ids"),
    ("BloomForCausalLM", {}, "takes no position_ids"),
    ("FalconForCausalLM", {}, "does not attend by the interface"),
    ("LlamaForCausalLM", rope("dynamic", factor=2.0), "frequencies of rope_type dynamic"),
    ("Qwen3ForCausalLM", rope("longrope", short_factor=[1.0] * 4, long_factor=[2.0] * 4,
                              original_max_position_embeddings=16), "frequencies of rope_type longrope"),
    ("NoSuchForCausalLM", {}, "has no class NoSuchForCausalLM"),
    ("BertModel", {}, "takes no logits_to_keep"),
)


@pytest.mark.parametrize(("architecture", "config", "words"), REFUSED, ids=[case[0] for case in REFUSED])
def test_what_keeps_something_else_is_refused(architecture: str, config: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        model: Any = causal_lm(architecture=architecture, config={**SMALL, **config}, max_cache=CACHE)
        ids = torch.zeros(1, 3, dtype=torch.long)
        model.prefill(ids, torch.ones_like(ids), ids)
