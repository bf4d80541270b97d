"""Models compiled for GPUs: one file for every device, processors too; and for NVIDIA, without one."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import graphs
import numpy as np
import pytest
import torch
import transformers
from tiny_decoders import CONFIG, decoder_programs
from torch import nn

from npu_compiler.compiler import compile_ir
from npu_compiler.target import load_target
from npu_runtime.backend import Backend
from npu_runtime.device import Device, list_devices
from npu_runtime.errors import DeviceError, InputError
from npu_runtime.executor import Executor
from npu_runtime.null_device import NullDevice
from npu_runtime.program import CompiledProgram
from npu_runtime.weight_loader import load_weights
from pipelines.extract import extract_program, share_states
from pipelines.zoo.causal_lm import causal_lm, randomize
from pipelines.zoo.resnet import BasicBlock
from torch_ir import extract_ir
from torch_ir.ir import IR

CACHE = 48
QWEN: dict[str, Any] = {
    "architecture": "Qwen2ForCausalLM",
    "config": {
        **CONFIG,
        "vocab_size": 1000,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_attention_heads": 4,
    },
    "max_cache": CACHE,
}
PROMPT = np.random.default_rng(5).integers(0, 1000, (1, 21))
TOKENS = (7, 999, 255, 256)
#: Every device with the targets whose programs it runs.
DEVICES = [
    (target, info.selector)
    for target in ("gpu", "nvidia")
    for info in list_devices()
    if target == "gpu" or info.vendor == target
] or [pytest.param("gpu", "", marks=pytest.mark.skip(reason="no OpenCL device: results cannot be compared"))]


class Images(nn.Module):
    """ResNet-18's parts: a stem, a pool, blocks beside a shortcut and beside a convolution, a classifier."""

    def __init__(self) -> None:
        super().__init__()
        down = nn.Sequential(nn.Conv2d(16, 32, 1, stride=2, bias=False), nn.BatchNorm2d(32))
        self.stem = nn.Sequential(
            nn.Conv2d(3, 16, 7, stride=2, padding=3, bias=False), nn.BatchNorm2d(16), nn.ReLU()
        )
        self.pool = nn.MaxPool2d(3, stride=2, padding=1)
        self.blocks = nn.Sequential(BasicBlock(16, 16, 1, None), BasicBlock(16, 32, 2, down))
        self.fc = nn.Linear(32, 13)

    def forward(self, x: Any) -> Any:
        return self.fc(self.blocks(self.pool(self.stem(x))).mean((2, 3)))


@cache
def images() -> tuple[IR, nn.Module, torch.Tensor]:
    """In float16."""
    torch.manual_seed(1)
    module, x = Images().eval().half(), torch.randn(2, 3, 37, 41).half()
    return extract_ir(module, (x,), model_name="images"), module, x


@cache
def decoder() -> tuple[Mapping[str, IR], nn.Module]:
    """Qwen2 in bfloat16, weights and cache."""
    with torch.device("meta"):
        modules = {name: causal_lm(**QWEN, dtype="bfloat16") for name in ("prefill", "decode")}
    wanted = decoder_programs(CACHE, 32)
    made = {name: extract_program("qwen", module, wanted[name], "meta") for name, module in modules.items()}
    return share_states(made), randomize(causal_lm(**QWEN, dtype="bfloat16"), 3)


def programs(target: str, folder: Path) -> Mapping[str, CompiledProgram]:
    """All programs, from their files."""
    graphs_of = {"images": images()[0], **decoder()[0]}
    for name, ir in graphs_of.items():
        compile_ir(ir, target=target, program=name).save(folder / f"{name}.npubin")
    return {name: CompiledProgram.load(folder / f"{name}.npubin") for name in graphs_of}


def results(made: Mapping[str, CompiledProgram], device: Backend) -> dict[str, np.ndarray[Any, Any]]:
    """The images' logits; those of a prompt and of the tokens behind it, which run on the prompt's cache."""
    state = {key: graphs.array(value) for key, value in images()[1].state_dict().items()}
    ran = Executor(made["images"], device).run(
        {"x": graphs.array(images()[2])}, load_weights(state, made["images"], device)
    )
    found = {"images": next(iter(ran.values())).to_numpy()}
    state = {key: graphs.array(value) for key, value in decoder()[1].state_dict().items()}
    del state["lm_head.weight"]
    weights = load_weights(state, made["prefill"], device)
    prefill, decode = Executor(made["prefill"], device), Executor(made["decode"], device)
    length = PROMPT.shape[1]
    places, ones = np.arange(length)[None], np.ones_like(PROMPT)
    inputs = {"input_ids": PROMPT, "attention_mask": ones, "position_ids": places}
    found["prefill"] = prefill.run(inputs, weights)["logits"].to_numpy()[:, -1]
    for at, token in enumerate(TOKENS, length):
        inputs = {
            "input_ids": np.array([[token]]),
            "cache_position": np.array([at]),
            "position_ids": np.array([[at]]),
            "attention_mask": (np.arange(CACHE) <= at)[None].astype(np.int64),
        }
        found[f"decode{at}"] = decode.run(inputs, weights)["logits"].to_numpy()[:, -1]
    return {name: array.astype(np.float32) for name, array in found.items()}


@cache
def expected() -> dict[str, np.ndarray[Any, Any]]:
    """PyTorch's results in float32 of the same weights."""
    _, module, x = images()
    state = module.state_dict()
    exact = Images().eval()
    exact.load_state_dict(state)
    own = decoder()[1]
    library = transformers.Qwen2ForCausalLM(own.config).eval().float()
    library.load_state_dict({key: value.float() for key, value in own.state_dict().items()})
    with torch.no_grad():
        found = {"images": exact(x.float()).numpy()}
        logits = library(torch.tensor([[*PROMPT[0].tolist(), *TOKENS]])).logits.numpy()
    length = PROMPT.shape[1]
    found["prefill"] = logits[:, length - 1]
    return found | {f"decode{at}": logits[:, at] for at in range(length, length + len(TOKENS))}


@pytest.fixture(scope="module")
def for_gpus(tmp_path_factory: pytest.TempPathFactory) -> dict[str, CompiledProgram]:
    return programs("gpu", tmp_path_factory.mktemp("gpu"))


@pytest.fixture(scope="module")
def for_nvidia(tmp_path_factory: pytest.TempPathFactory) -> dict[str, CompiledProgram]:
    return programs("nvidia", tmp_path_factory.mktemp("nvidia"))


@pytest.mark.filterwarnings("ignore:.* was compiled for")
@pytest.mark.parametrize(("target", "selector"), DEVICES)
def test_one_file_runs_on_every_device(target: str, selector: str, request: pytest.FixtureRequest) -> None:
    made: dict[str, CompiledProgram] = request.getfixturevalue(
        "for_nvidia" if target == "nvidia" else "for_gpus"
    )
    assert {program.device_type for program in made.values()} == {"gpu"}
    found = results(made, Device(selector))
    assert found.keys() == expected().keys()
    for name, wanted in expected().items():
        error = np.linalg.norm(found[name] - wanted) / np.linalg.norm(wanted)
        assert error < (4e-3 if name == "images" else 3e-2), f"{name}: {error}"


def test_models_for_nvidia_make_sound_calls(for_nvidia: dict[str, CompiledProgram]) -> None:
    made = for_nvidia
    for program in made.values():
        assert any("mma.sync" in text or "shfl.sync" in text for text in program.kernel_sources.values())
    found = results(made, NullDevice(kind="gpu"))
    assert {name: array.shape for name, array in found.items()} == {
        name: array.shape for name, array in expected().items()
    }


#: Of the models' buffers, the table that embeds tokens and gives logits is larger, as is the images' arena.
LIMIT = 40_960


@pytest.mark.filterwarnings("ignore:.* was compiled for")
@pytest.mark.skipif(not list_devices(), reason="no OpenCL device: results cannot be compared")
def test_small_buffers_give_the_same_numbers(
    for_gpus: Mapping[str, CompiledProgram], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = graphs.replaced(load_target("gpu"), max_alloc_bytes=LIMIT)
    monkeypatch.setattr("npu_compiler.compiler.load_target", lambda name: small)
    made, device = programs("gpu", tmp_path), Device()
    device.largest = LIMIT
    assert made["images"].arena_bytes > LIMIT
    for name in ("prefill", "decode"):
        parts = {spec.name for spec in made[name].transforms if "embed_tokens" in spec.name}
        assert len(parts) == 4, "both readers of the table read the same parts"
        with pytest.raises(DeviceError, match=r"weight 'model.embed_tokens.weight@.* has 128000 bytes"):
            Executor(for_gpus[name], device)
    whole, split = results(for_gpus, Device()), results(made, device)
    for name, wanted in whole.items():
        np.testing.assert_array_equal(split[name], wanted)


@pytest.mark.skipif(not list_devices(), reason="no OpenCL device: kernels cannot be run")
def test_a_token_beyond_a_table_in_parts_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = graphs.replaced(load_target("cpu"), max_alloc_bytes=8192)
    monkeypatch.setattr("npu_compiler.compiler.load_target", lambda name: small)
    table, index = nn.Embedding(600, 8), torch.tensor([[0, 255, 256], [511, 512, 599]])
    program = compile_ir(extract_ir(table, (index,), model_name="table"))
    device = Device()
    state = {"weight": table.weight.detach().numpy()}
    weights, executor = load_weights(state, program, device), Executor(program, device)
    assert len(program.transforms) == 3
    (name,), (output,) = ([spec.name for spec in s] for s in (program.input_specs, program.output_specs))
    found = executor.run({name: index.numpy()}, weights)[output].to_numpy()
    np.testing.assert_array_equal(found, state["weight"][index.numpy()])
    for wrong in (-1, 600):
        with pytest.raises(InputError, match="index"):
            executor.run({name: np.full((2, 3), wrong)}, weights)


@pytest.mark.filterwarnings("ignore:.* was compiled for")
@pytest.mark.skipif(not list_devices(), reason="no OpenCL device: kernels cannot be run")
@pytest.mark.parametrize("target", ["cpu", "gpu"])
def test_a_convolution_whose_weight_is_too_large(target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(2)
    module, x = nn.Sequential(nn.Conv2d(8, 600, 2), nn.ReLU()).eval(), torch.randn(1, 8, 4, 5)
    ir = extract_ir(module, (x,), model_name="wide", output_names=["y"])
    state = {key: value.numpy() for key, value in module.state_dict().items()}
    device = Device()
    device.largest = LIMIT
    whole = compile_ir(ir, target=target)
    with pytest.raises(DeviceError, match=r"weight '0.weight.* has \d+ bytes"):
        Executor(whole, device)
    small = graphs.replaced(load_target(target), max_alloc_bytes=LIMIT)
    monkeypatch.setattr("npu_compiler.compiler.load_target", lambda name: small)
    program = compile_ir(ir, target=target)
    weights = load_weights(state, program, device)
    found = Executor(program, device).run({program.input_specs[0].name: x.numpy()}, weights)["y"].to_numpy()
    np.testing.assert_allclose(found, module(x).detach().numpy(), rtol=1e-5, atol=1e-5)
