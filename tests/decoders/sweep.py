"""A causal language model of ``transformers``, small, as programs: equal to the library's own eager forward
over the whole sequence, or refused."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import transformers
from small_configs import entries
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from npu_compiler.compiler import compile_ir
from npu_compiler.errors import CompileError
from npu_runtime.device import Device
from npu_runtime.errors import InputError
from npu_runtime.executor import Executor
from npu_runtime.weight_loader import load_weights
from pipelines.extract import extract_program, share_states
from pipelines.schema import Input, Program, Symbol
from pipelines.zoo.causal_lm import causal_lm, randomize
from pipelines.zoo.decoder_cache import UnsupportedDecoderError
from torch_ir.eager import run as run_graph
from torch_ir.errors import IRError
from torch_ir.ir import IR

CACHE, LENGTHS, STEPS = 32, (1, 7, 13), 3
TOLERANCE = 1e-4
#: Larger models than this have sizes that no pattern of ``small_configs`` knows.
LARGEST = 20_000_000

Run = Callable[[str, dict[str, Any]], Any]


@dataclass(frozen=True)
class Outcome:
    """``kind``: equal, refused, differs, crash, or unbuilt: no default configuration."""

    kind: str
    detail: str
    seconds: float = 0.0


def class_names() -> list[str]:
    """All classes that the library maps to causal language models."""
    names = MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values()
    return sorted({name for name in names if isinstance(name, str)})


def check(name: str, graphs_only: bool = False) -> Outcome:
    """Builds, extracts, compiles and runs one class. ``graphs_only``: PyTorch runs the graphs, nothing is
    compiled."""
    began = time.perf_counter()
    try:
        config = entries(name, getattr(transformers, name).config_class)
    except Exception as error:
        return Outcome("unbuilt", f"{type(error).__name__}: {' '.join(str(error).split())}")
    try:
        kind, detail = "equal", f"{_largest_difference(name, config, graphs_only):.1e}"
        if not float(detail) <= TOLERANCE:
            kind = "differs"
    except (UnsupportedDecoderError, IRError, CompileError, InputError) as error:
        kind, detail = "refused", f"{type(error).__name__}: {error}"
    except Exception as error:
        kind, detail = "crash", f"{type(error).__name__}: {error}"
    return Outcome(kind, " ".join(detail.split()), time.perf_counter() - began)


def _largest_difference(name: str, config: dict[str, Any], graphs_only: bool) -> float:
    made = {"architecture": name, "config": config, "max_cache": CACHE}
    with torch.device("meta"):
        weightless = causal_lm(**made)
    size = sum(parameter.numel() for parameter in weightless.parameters())
    if size > LARGEST:
        raise AssertionError(f"its configuration is not small: {size} parameters")
    model: Any = randomize(causal_lm(**made), 5)
    state = {key: value.contiguous().numpy() for key, value in model.state_dict().items()}
    run = _runner(weightless, state, model, graphs_only)
    model.__class__ = model.architecture
    model.set_attn_implementation("eager")
    vocabulary = int(getattr(model.config.get_text_config(decoder=True), "vocab_size", 0) or 99)
    worst = 0.0
    for length in LENGTHS:
        ids = np.random.default_rng(length).integers(4, min(vocabulary, 99), (1, length + STEPS))
        count = 0
        for end in range(length, length + STEPS + 1):
            places = np.arange(end)[None]
            with torch.no_grad():  # NOTE: with its own cache Moshi's windows are not right in the library
                wanted = model(input_ids=torch.tensor(ids[:, :end]), use_cache=False).logits[:, -1].numpy()
            got = run("prefill" if not count else "decode", _inputs(ids, places, count, end))[:, -1]
            if not wanted.std() > 1e-3 or not np.isfinite(wanted).all():
                raise AssertionError("the library's logits are constant or not finite, which proves nothing")
            gap = np.abs(got - wanted).max() / np.abs(wanted).max()
            worst, count = max(worst, float("inf") if np.isnan(gap) else float(gap)), end
    return worst


def _inputs(ids: Any, places: Any, count: int, end: int) -> dict[str, Any]:
    inputs = {"input_ids": ids[:, count:end], "position_ids": places[:, count:]}
    if not count:
        return {**inputs, "attention_mask": np.ones_like(inputs["input_ids"])}
    used = (np.arange(CACHE)[None] < end).astype(np.int64)
    return {**inputs, "attention_mask": used, "cache_position": np.array([end - 1])}


def _programs() -> dict[str, Program]:
    prompt, one = Input(shape=(1, "length"), dtype="int64"), Input(shape=(1, 1), dtype="int64")
    inputs = dict.fromkeys(("input_ids", "attention_mask", "position_ids"), prompt)
    later = {"input_ids": one, "cache_position": Input(shape=(1,), dtype="int64"), "position_ids": one,
             "attention_mask": Input(shape=(1, CACHE), dtype="int64")}
    length = {"length": Symbol(min=1, max=CACHE)}
    return {"prefill": Program(method="prefill", symbols=length, inputs=inputs, outputs=("logits",)),
            "decode": Program(method="decode", inputs=later, outputs=("logits",))}


def _runner(weightless: Any, state: dict[str, Any], model: Any, graphs_only: bool) -> Run:
    own, graphs = type(weightless), {}
    for name, program in _programs().items():
        weightless.__class__ = own
        graphs[name] = extract_program("small", weightless, program, "meta")
    shared = share_states(graphs)
    if graphs_only:
        return _graph_runner(shared, state)
    made = {name: compile_ir(ir, program=name) for name, ir in shared.items()}
    device = Device()
    weights = load_weights(state, made["prefill"], device)
    executors = {name: Executor(program, device) for name, program in made.items()}
    return lambda name, inputs: executors[name].run(inputs, weights)["logits"].to_numpy()


def _graph_runner(graphs: dict[str, IR], state: dict[str, Any]) -> Run:
    states: dict[str, Any] = {}

    def run(name: str, inputs: dict[str, Any]) -> Any:
        held = {state.key: states[state.key] for state in graphs[name].states.values() if state.key in states}
        result = run_graph(graphs[name], inputs, state, held)
        states.update(result.states)
        return np.asarray(result.outputs["logits"])

    return run
