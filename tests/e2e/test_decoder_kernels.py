"""How many kernels a layer of a decoder takes. More than these are a pattern that does not fire any more."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from tiny_decoders import decoder_programs

from npu_compiler.compiler import compile_ir
from npu_runtime.program import THREADS, CompiledProgram
from npu_runtime.symbols import evaluate_shape
from pipelines.extract import extract_program, share_states
from pipelines.zoo.causal_lm import causal_lm

CACHE = 64
SMALL: dict[str, Any] = {
    "vocab_size": 99,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
}
WINDOW = {"sliding_window": 5}

@dataclass(frozen=True)
class Decoder:
    """A class of the library, and how many kernels a layer of its programs takes. ``period``: after how many
    layers they repeat; ``quick`` ones run by default."""

    name: str
    architecture: str
    kernels: int
    config: dict[str, Any] = field(default_factory=dict)
    period: int = 1
    dtype: str = "float32"
    quick: bool = False


#: Normalisation, product for queries, keys and values, cache (with the keys' rotation), attention (with that
#: of queries), product with the residual; normalisation, gated product, product with the residual.
LLAMA = 8
#: Of these a prompt's normalisations and next product join the product before them (of 16 bits, where numbers
#: are rounded in between, they do not).
CHAINED = 3
DECODERS = (
    Decoder("llama", "LlamaForCausalLM", LLAMA, dtype="bfloat16"),
    Decoder("smollm2", "LlamaForCausalLM", LLAMA, {"tie_word_embeddings": True}, quick=True),
    Decoder("qwen2", "Qwen2ForCausalLM", LLAMA),
    Decoder("qwen3", "Qwen3ForCausalLM", LLAMA + 2, quick=True),  # queries and keys are normalised
    Decoder("mistral", "MistralForCausalLM", LLAMA, WINDOW),
    Decoder("gemma", "GemmaForCausalLM", LLAMA),
    # what is added is normalised before, and in Gemma 3 queries and keys are
    Decoder("gemma2", "Gemma2ForCausalLM", LLAMA + 4, WINDOW, period=2),
    Decoder("gemma3", "Gemma3ForCausalLM", LLAMA + 4 + 2, WINDOW, period=2),
    Decoder("phi3", "Phi3ForCausalLM", LLAMA, WINDOW),
)


def steps(decoder: Decoder, layers: int) -> dict[str, int]:
    """Kernels that each program runs on a device of one thread, a prompt as long as can be."""
    settings = {**SMALL, **decoder.config, "num_hidden_layers": layers}
    graphs = {}
    for name, program in decoder_programs(CACHE, CACHE).items():
        with torch.device("meta"):
            model = causal_lm(architecture=decoder.architecture, config=settings, max_cache=CACHE,
                              dtype=decoder.dtype)
        graphs[name] = extract_program("tiny", model, program, "meta")
    return {name: launched(compile_ir(ir)) for name, ir in share_states(graphs).items()}


def launched(program: CompiledProgram) -> int:
    values = {**{symbol.name: symbol.upper for symbol in program.symbols}, THREADS: 1}
    return sum(all(evaluate_shape(step.global_size, values)) for step in program.steps)


@pytest.mark.parametrize("decoder", [
    pytest.param(item, id=item.name, marks=() if item.quick else pytest.mark.full) for item in DECODERS])
def test_kernels_of_a_layer(decoder: Decoder) -> None:
    few, more = (steps(decoder, times * decoder.period) for times in (1, 2))
    found = {name: (more[name] - few[name]) / decoder.period for name in few}
    prefill = decoder.kernels - (CHAINED if decoder.dtype == "float32" else 0)
    assert found == {"prefill": prefill, "decode": decoder.kernels}
