"""Causal language models: the usage guide's Qwen sections as they are written, and the programs' logits.

The guide never defines ``weights`` and the input buffers; they are defined here before its blocks run.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import graphs
import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import save_file
from test_usage_guide import GUIDE, code_blocks
from tiny_decoders import decoder_programs
from torch import nn

from npu_compiler.compiled_program import CompiledProgram
from npu_compiler.compiler import compile_ir
from npu_runtime.buffer import NPUBuffer
from npu_runtime.device import Device
from npu_runtime.errors import InputError
from npu_runtime.executor import Executor
from npu_runtime.weight_loader import Weights, load_weights
from pipelines.extract import extract_program, share_states
from pipelines.schema import Program
from pipelines.zoo.causal_lm import causal_lm, randomize

CACHE, LONGEST, VOCABULARY = 256, 200, 211
CONFIG: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 48,
    "intermediate_size": 104,
    "num_hidden_layers": 2,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "rope_parameters": {"rope_type": "default", "rope_theta": 1000000.0},
    "tie_word_embeddings": True,
}
LENGTHS = (1, 7, 64, 128, 200)


PROGRAMS = decoder_programs(CACHE, LONGEST)


class Runner:
    """Both programs of a model on the device, with one set of weights."""

    def __init__(self, prefill: CompiledProgram, decode: CompiledProgram, weights: Any) -> None:
        device = Device()
        self._prefill, self._decode = Executor(prefill, device), Executor(decode, device)
        self.weights = load_weights(weights, prefill, device)

    @classmethod
    def of(cls, model: nn.Module, wanted: dict[str, Program], weights: Any) -> Runner:
        """Extracts ``model``, which may lie on the meta device, and compiles it."""
        own, graphs = type(model), {}
        for name, program in wanted.items():
            model.__class__ = own
            graphs[name] = extract_program("small", model, program, "meta")
        made = {name: compile_ir(ir, program=name) for name, ir in share_states(graphs).items()}
        return cls(made["prefill"], made["decode"], weights)

    def prefill(self, ids: Any, mask: Any) -> Any:
        """The last logits [B, vocabulary] of prompts that are padded on the left where ``mask`` is 0."""
        positions = np.maximum(mask.cumsum(1) - 1, 0)
        inputs = {"input_ids": ids, "attention_mask": mask, "position_ids": positions}
        return self._prefill.run(inputs, self.weights)["logits"].to_numpy()[:, -1]

    def decode(self, ids: Any, position: int, mask: Any) -> Any:
        """The logits of one more token for each prompt; ``mask`` [B, position + 1] as for the prompt."""
        room = self._decode.program.input_specs[-1].shape[1]
        inputs = {
            "input_ids": ids,
            "cache_position": np.array([position]),
            "position_ids": mask.sum(1, keepdims=True) - 1,
            "attention_mask": np.pad(mask, ((0, 0), (0, int(room) - mask.shape[1]))),
        }
        return self._decode.run(inputs, self.weights)["logits"].to_numpy()[:, -1]


def built(architecture: str, dtype: str) -> nn.Module:
    return randomize(causal_lm(architecture=architecture, config=CONFIG, max_cache=CACHE, dtype=dtype), 3)


class Model:
    """A small random model: IR files and weights in ``folder``, and what ``transformers`` makes of it."""

    def __init__(self, folder: Path, architecture: str, dtype: str) -> None:
        self.folder = folder
        graphs = {}
        for name, program in PROGRAMS.items():
            with torch.device("meta"):
                module = causal_lm(architecture=architecture, config=CONFIG, max_cache=CACHE, dtype=dtype)
            graphs[name] = extract_program("tiny", module, program, "meta")
        for name, ir in share_states(graphs).items():
            ir.save(folder / f"qwen_{name}_ir.json")
        made = built(architecture, dtype)
        state = {
            key: tensor.contiguous() for key, tensor in made.state_dict().items() if key != "lm_head.weight"
        }
        save_file(state, folder / "qwen.safetensors")
        self.reference: Any = getattr(transformers, architecture)(made.config).eval().float()
        self.reference.load_state_dict({k: v.float() for k, v in made.state_dict().items()})
        made.__class__ = made.architecture  # as ``transformers`` runs it, in ``dtype``
        self.narrow: Any = made

    def logits(self, ids: list[int]) -> Any:
        """``transformers``' logits of the last position, in float32."""
        with torch.no_grad():
            return self.reference(torch.tensor([ids])).logits[0, -1].numpy()


@pytest.fixture(
    scope="module",
    params=["Qwen2ForCausalLM-float32", "Qwen2ForCausalLM-bfloat16", "LlamaForCausalLM-float32"],
)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Model:
    architecture, dtype = request.param.split("-")
    return Model(tmp_path_factory.mktemp("tiny"), architecture, dtype)


@pytest.fixture(scope="module")
def running(model: Model) -> tuple[Executor, Executor, Weights]:
    device = Device()
    prefill, decode = (compile_ir(model.folder / f"qwen_{name}_ir.json", program=name) for name in PROGRAMS)
    weights = load_weights(model.folder / "qwen.safetensors", prefill, device)
    return Executor(prefill, device), Executor(decode, device), weights


def prompt(length: int) -> list[int]:
    return [int(x) for x in np.random.default_rng(length).integers(0, VOCABULARY, length)]


def fill(executor: Executor, weights: Weights, ids: list[int]) -> Any:
    length = len(ids)
    outputs = executor.run(
        {
            "input_ids": np.array([ids]),
            "attention_mask": np.ones((1, length), np.int64),
            "position_ids": np.arange(length)[None],
        },
        weights,
    )
    return outputs["logits"].to_numpy()[0, -1]


def step(executor: Executor, weights: Weights, token: int, position: int) -> Any:
    outputs = executor.run(
        {
            "input_ids": np.array([[token]]),
            "cache_position": np.array([position]),
            "position_ids": np.array([[position]]),
            "attention_mask": (np.arange(CACHE) <= position).astype(np.int64)[None],
        },
        weights,
    )
    return outputs["logits"].to_numpy()[0, -1]


@pytest.mark.parametrize("length", LENGTHS)
def test_logits_are_those_of_transformers(
    length: int, model: Model, running: tuple[Executor, Executor, Weights]
) -> None:
    prefill, decode, weights = running
    ids = prompt(length)
    got, errors, allowed = fill(prefill, weights, ids), [], []
    for position in range(length, length + 4):
        wanted = model.logits(ids)
        assert got.dtype == np.float32
        assert wanted.std() > 0.1
        with torch.no_grad():
            narrow = model.narrow(torch.tensor([ids])).logits[0, -1].float().numpy()
        size = np.abs(wanted).max()
        errors.append(np.abs(got - wanted).max() / size)
        allowed.append(np.abs(narrow - wanted).max() / size)
        ids.append(int(wanted.argmax()))
        got = step(decode, weights, ids[-1], position)
    if str(model.narrow.dtype) == "torch.float32":
        assert max(errors) < 1e-4
    else:
        assert np.mean(errors) <= 1.5 * np.mean(allowed)


def test_a_shorter_prompt_forgets_a_longer_one(running: tuple[Executor, Executor, Weights]) -> None:
    prefill, decode, weights = running
    ids = prompt(9)
    fill(prefill, weights, ids)
    fresh = step(decode, weights, 5, 9)
    fill(prefill, weights, prompt(150))
    fill(prefill, weights, ids)
    assert np.array_equal(step(decode, weights, 5, 9), fresh)


def test_a_state_goes_on_where_it_was_saved(
    running: tuple[Executor, Executor, Weights], tmp_path: Path
) -> None:
    prefill, decode, weights = running
    fill(prefill, weights, prompt(9))
    weights.save_state(tmp_path / "nine")
    wanted = step(decode, weights, 5, 9)
    later = weights.new_state()
    assert not np.array_equal(step(decode, later, 5, 9), wanted)
    later.restore_state(tmp_path / "nine")
    assert np.array_equal(step(decode, later, 5, 9), wanted)
    later.reset()
    assert not np.array_equal(step(decode, later, 5, 9), wanted)
    later.save_state(tmp_path / "again")
    later.restore_state(tmp_path / "nine")
    later.save_state(tmp_path / "same")
    assert (tmp_path / "same").read_bytes() == (tmp_path / "nine").read_bytes()
    assert (tmp_path / "same").read_bytes() != (tmp_path / "again").read_bytes()


def test_a_prompt_may_be_as_long_as_its_bound_and_no_longer(
    model: Model, running: tuple[Executor, Executor, Weights]
) -> None:
    prefill, decode, weights = running
    ids = prompt(LONGEST)
    for cut in (LONGEST, LONGEST - 1):
        assert fill(prefill, weights, ids[:cut]).argmax() == model.logits(ids[:cut]).argmax()
    before = step(decode, weights, 5, LONGEST - 1)
    fill(prefill, weights, ids[: LONGEST - 1])
    with pytest.raises(InputError, match=r"input 'input_ids' dim 1 is 201: this program takes 1 to 200"):
        fill(prefill, weights, [*ids, 3])
    with pytest.raises(InputError, match=r"input 'attention_mask' dim 1 is 9: expected 8"):
        prefill.run({"input_ids": np.array([ids[:8]]), "attention_mask": np.ones((1, 9), np.int64),
                     "position_ids": np.arange(8)[None]}, weights)
    with pytest.raises(InputError, match=r"'attention_mask' is int64\[1, 255\]: expected int64\[1, 256\]"):
        decode.run({"input_ids": np.array([[5]]), "cache_position": np.array([199]),
                    "position_ids": np.array([[199]]), "attention_mask": np.ones((1, 255), np.int64)},
                   weights)
    assert np.array_equal(step(decode, weights, 5, LONGEST - 1), before)


def test_sequences_of_one_set_of_weights_are_independent(running: tuple[Executor, Executor, Weights]) -> None:
    prefill, decode, weights = running
    other = weights.new_state()
    fill(prefill, weights, prompt(9))
    fill(prefill, other, prompt(17))
    alone = step(decode, weights, 5, 9)
    step(decode, other, 7, 17)
    fill(prefill, weights, prompt(9))
    assert np.array_equal(step(decode, weights, 5, 9), alone)


@pytest.mark.parametrize(
    ("token", "position", "name"),
    [(VOCABULARY, 3, "input_ids"), (-1, 3, "input_ids"), (3, CACHE, "cache_position")],
)
def test_what_is_out_of_range_changes_no_cache(
    token: int, position: int, name: str, running: tuple[Executor, Executor, Weights]
) -> None:
    prefill, decode, weights = running
    fill(prefill, weights, prompt(9))
    before = step(decode, weights, 5, 9)
    fill(prefill, weights, prompt(9))
    with pytest.raises(InputError, match=name):
        step(decode, weights, token, position)
    assert np.array_equal(step(decode, weights, 5, 9), before)


def test_the_tied_table_lies_on_the_device_once(running: tuple[Executor, Executor, Weights]) -> None:
    for executor in running[:2]:
        names = [t.name.split("@")[0] for t in executor.program.transforms]
        assert names.count("model.embed_tokens.weight") == graphs.copies_of_a_table(executor.program)
        assert "lm_head.weight" not in names


def test_the_guide_runs_as_it_is_written(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(model.folder)
    first, second = code_blocks("Qwen2.5-1.5B Example")
    device, ids = Device(), prompt(7)
    program: CompiledProgram = compile_ir("qwen_prefill_ir.json")
    names: dict[str, Any] = {
        "compile_ir": compile_ir,
        "Executor": Executor,
        "device": device,
        "weights": load_weights("qwen.safetensors", program, device),
        "token_buf": NPUBuffer.from_numpy(np.array([ids]), device),
        "mask_buf": NPUBuffer.from_numpy(np.ones((1, 7), np.int64), device),
        "pos_buf": NPUBuffer.from_numpy(np.arange(7)[None], device),
    }
    exec(compile(first, str(GUIDE), "exec"), names)
    token = int(names["prefill_outputs"]["logits"].to_numpy().argmax())
    assert token == int(model.logits(ids).argmax())
    names |= {
        "max_tokens": 1,
        "next_token_buf": NPUBuffer.from_numpy(np.array([[token]]), device),
        "cache_pos_buf": NPUBuffer.from_numpy(np.array([7]), device),
        "pos_buf": NPUBuffer.from_numpy(np.array([[7]]), device),
        "mask_buf": NPUBuffer.from_numpy((np.arange(CACHE) <= 7).astype(np.int64)[None], device),
    }
    exec(compile(second, str(GUIDE), "exec"), names)
    assert names["next_token"] == int(model.logits([*ids, token]).argmax())
