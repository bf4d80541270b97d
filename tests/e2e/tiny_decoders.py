"""Small random decoders, as ``transformers`` runs them and as programs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import transformers

from npu_compiler.compiler import compile_ir
from npu_runtime.device import Device
from npu_runtime.executor import Executor
from npu_runtime.program import CompiledProgram
from npu_runtime.weight_loader import Weights, load_weights
from pipelines.extract import extract_program, share_states
from pipelines.schema import Input, Program, Symbol
from pipelines.zoo.causal_lm import causal_lm, randomize

CONFIG: dict[str, Any] = {
    "hidden_size": 48,
    "intermediate_size": 104,
    "num_hidden_layers": 2,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
    "tie_word_embeddings": True,
}


def decoder_programs(
    cache: int, longest: int, outputs: tuple[str, ...] = ("logits",), batch: int = 1
) -> dict[str, Program]:
    """What a decoder's YAML says of its two programs."""
    suffix = "_best" if "token" in outputs else ""
    prompt = Input(shape=(batch, "length"), dtype="int64")
    one = Input(shape=(batch, 1), dtype="int64")
    return {
        "prefill": Program(
            method=f"prefill{suffix}",
            symbols={"length": Symbol(min=1, max=longest)},
            inputs=dict.fromkeys(("input_ids", "attention_mask", "position_ids"), prompt),
            outputs=outputs,
        ),
        "decode": Program(
            method=f"decode{suffix}",
            inputs={
                "input_ids": one,
                "cache_position": Input(shape=(1,), dtype="int64"),
                "position_ids": one,
                "attention_mask": Input(shape=(batch, cache), dtype="int64"),
            },
            outputs=outputs,
        ),
    }


@dataclass(frozen=True)
class Decoder:
    """A model with programs that run on the default device. ``reference`` is ``transformers``' own."""

    prefill: Executor
    decode: Executor
    weights: Weights
    reference: Any
    programs: dict[str, CompiledProgram]
    state: dict[str, torch.Tensor]

    def greedy(self, prompt: list[int], count: int, **settings: Any) -> list[int]:
        """The tokens that ``transformers`` generates."""
        ids = torch.tensor([prompt])
        with torch.no_grad():
            made = self.reference.generate(
                ids, attention_mask=torch.ones_like(ids), max_new_tokens=count, do_sample=False,
                pad_token_id=0, **settings)
        return [int(token) for token in made[0, len(prompt):]]


def tiny_decoder(
    architecture: str,
    vocabulary: int,
    *,
    cache: int = 96,
    longest: int = 64,
    outputs: tuple[str, ...] = ("logits",),
    batch: int = 1,
    seed: int = 3,
) -> Decoder:
    """Builds, extracts and compiles; seconds."""
    arguments = {"architecture": architecture, "config": {**CONFIG, "vocab_size": vocabulary},
                 "max_cache": cache, "batch": batch}
    graphs = {}
    for name, program in decoder_programs(cache, longest, outputs, batch).items():
        with torch.device("meta"):
            module = causal_lm(**arguments)
        graphs[name] = extract_program("tiny", module, program, "meta")
    programs = {name: compile_ir(ir, program=name) for name, ir in share_states(graphs).items()}
    made = randomize(causal_lm(**arguments), seed)
    reference = getattr(transformers, architecture)(made.config).eval()
    state = made.state_dict()
    reference.load_state_dict(state)
    reference.generation_config.eos_token_id = None
    kept = {key: value for key, value in state.items() if key != "lm_head.weight"}
    device = Device()
    weights = load_weights({key: value.numpy() for key, value in kept.items()}, programs["prefill"], device)
    prefill, decode = (Executor(programs[name], device) for name in ("prefill", "decode"))
    return Decoder(prefill, decode, weights, reference, programs, kept)
