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
from transformers import AttentionMaskInterface

from pipelines.zoo import cached_attention, decoder_trial
from pipelines.zoo.causal_lm import causal_lm, randomize
from pipelines.zoo.decoder_cache import HeldLayer, UnsupportedDecoderError

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
LATENT = {"q_lora_rank": 16, "kv_lora_rank": 16, "qk_nope_head_dim": 8, "qk_rope_head_dim": 4,
          "v_head_dim": 12, "n_routed_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16,
          "first_k_dense_replace": 1, "head_dim": 4}

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
    Decoder("llama_dynamic", "LlamaForCausalLM",
            {**rope("dynamic", factor=2.0), "max_position_embeddings": 16}),
    Decoder("phi3_longrope", "Phi3ForCausalLM",
            {**rope("longrope", short_factor=[1.0, 1.1, 1.2, 1.3], long_factor=[2.0, 2.5, 3.0, 4.0],
                    original_max_position_embeddings=16), "original_max_position_embeddings": 16}),
    Decoder("gpt_oss", "GptOssForCausalLM",
            {**YARN, "head_dim": 8, "sliding_window": 5, "num_local_experts": 4, "layer_types": MIXED}),
    Decoder("deepseek_v2", "DeepseekV2ForCausalLM", LATENT, groups=6),
    Decoder("deepseek_v3", "DeepseekV3ForCausalLM", {**LATENT, "n_group": 1, "topk_group": 1}, groups=6),
    Decoder("falcon", "FalconForCausalLM", groups=None),
    Decoder("cohere2", "Cohere2ForCausalLM", {"sliding_window": 5, "layer_types": MIXED}),
    Decoder("gemma4", "Gemma4ForCausalLM",
            {"head_dim": 8, "global_head_dim": 16, "sliding_window": 5, "layer_types": MIXED,
             "num_kv_shared_layers": 0, "hidden_size_per_layer_input": 8, "vocab_size_per_layer_input": 211}),
    Decoder("doge", "DogeForCausalLM", {"keep_window_size": 64}),
    Decoder("bert", "BertLMHeadModel", {"is_decoder": True}, groups=None),
    Decoder("roberta", "RobertaForCausalLM", {"is_decoder": True}, groups=None),
    Decoder("llama4", "Llama4ForCausalLM",
            {"head_dim": 8, "attention_chunk_size": 6, "num_local_experts": 2, "intermediate_size_mlp": 64}),
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
    how = reference.arrangement
    padding = np.arange(decoder.batch) * 4  # every row but the first has fewer tokens than the longest
    for length in (1, 19):
        ids = tokens(length, decoder.batch)
        shift = np.minimum(padding, length - 1)
        mask = (np.arange(length)[None] >= shift[:, None]).astype(np.int64)
        got, cache, count = runner.prefill(ids, mask), None, 0
        for position in range(length, length + 3):
            positions = np.maximum(np.arange(position)[None] - shift[:, None], 0)
            places = {"position_ids": torch.tensor(positions[:, count:])} if how.positions else {}
            with torch.no_grad():
                out = reference(torch.tensor(ids[:, count:]), attention_mask=torch.tensor(mask),
                                use_cache=True, **places, **{how.cache: cache})
            wanted, cache, count = out.logits[:, -1].numpy(), out[how.cache], position
            assert wanted.std() > 0.01
            assert np.abs(got - wanted).max() <= 1e-4 * np.abs(wanted).max(), (length, position)
            ids = np.concatenate([ids, wanted.argmax(-1)[:, None]], 1)
            mask = np.concatenate([mask, np.ones_like(mask[:, :1])], 1)
            got = runner.decode(ids[:, -1:], position, mask)


REFUSED = (
    ("BertLMHeadModel", {}, "is_decoder is false.*set is_decoder: true"),
    ("ElectraForCausalLM", {}, "is_decoder is false.*set is_decoder: true"),
    ("RobertaForCausalLM", {}, "is_decoder is false.*set is_decoder: true"),
    ("XLMWithLMHeadModel", {"emb_dim": 48, "n_layers": 2, "n_heads": 6}, "logits of a prompt differ"),
    ("Qwen3NextForCausalLM", {"num_key_value_heads": 2}, r"layer 0 \(Lin.*\) and 1 more keep something else"),
    ("MambaForCausalLM", {}, r"layer 0 \(Lin.*\) and 1 more keep something else"),
    ("OpenAIGPTLMHeadModel", {"n_head": 6}, "forward takes no cache"),
    ("Qwen3ForCausalLM", rope("longrope", short_factor=[1.0] * 4, long_factor=[2.0] * 4,
                              original_max_position_embeddings=16), "transformers itself does not compute"),
    ("Lfm2MoeForCausalLM", {"layer_types": None}, "layer_types|keep something else|does not compute"),
    ("BambaForCausalLM", {}, "makes no configuration of these entries"),
    ("NoSuchForCausalLM", {}, "has no class NoSuchForCausalLM"),
    ("BertModel", {}, "gives no logits"),
)


@pytest.mark.parametrize(("architecture", "config", "words"), REFUSED, ids=[case[0] for case in REFUSED])
def test_what_would_not_compute_the_same_is_refused(
    architecture: str, config: dict[str, Any], words: str
) -> None:
    with pytest.raises(UnsupportedDecoderError, match=words):
        causal_lm(architecture=architecture, config={**SMALL, **config}, max_cache=CACHE)


def test_a_trial_finds_places_that_are_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoder_trial, "_chosen", {})
    monkeypatch.setattr(HeldLayer, "get_seq_length", lambda self: 0)
    with pytest.raises(UnsupportedDecoderError, match="logits of token 1 after a prompt differ"):
        causal_lm(architecture="LlamaForCausalLM", config=SMALL, max_cache=CACHE)


def test_attention_that_is_not_right_gives_way_to_the_library_s(monkeypatch: pytest.MonkeyPatch) -> None:
    def all_seen(q_length: int, kv_length: int, **_: Any) -> torch.Tensor:
        return torch.ones(1, 1, q_length, kv_length, dtype=torch.bool)

    monkeypatch.setattr(decoder_trial, "_chosen", {})
    AttentionMaskInterface.register(cached_attention.NAME, all_seen)
    try:
        model: Any = causal_lm(architecture="LlamaForCausalLM", config=SMALL, max_cache=CACHE)
    finally:
        AttentionMaskInterface.register(cached_attention.NAME, cached_attention.seen)
    assert model.arrangement.implementation == "eager"


def test_a_trial_leaves_the_random_numbers_alone() -> None:
    torch.manual_seed(3)
    wanted = torch.rand(1)
    torch.manual_seed(3)
    with torch.device("meta"):
        causal_lm(architecture="LlamaForCausalLM", config={**SMALL, "hidden_size": 96}, max_cache=CACHE)
    assert torch.rand(1) == wanted
