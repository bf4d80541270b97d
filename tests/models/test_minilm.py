"""The shipped sentence encoder as compiled: fully padded rows, and tokens that the vocabulary lacks."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from npu_compiler import compile_ir
from npu_runtime.device import Device, list_devices
from npu_runtime.errors import InputError
from npu_runtime.executor import Executor
from npu_runtime.weight_loader import load_weights
from pipelines.zoo.minilm import SentenceEncoder
from pipelines.zoo.randomize import randomize
from torch_ir import extract_ir

pytestmark = pytest.mark.skipif(not list_devices(), reason="no OpenCL device on this machine")


@pytest.fixture(scope="module")
def encoder() -> tuple[SentenceEncoder, object]:
    """A small one, and what runs it compiled."""
    model = randomize(SentenceEncoder(99, 32, layers=2, width=32, heads=4, inner=37), 0)
    shape = {0: ("batch", 1, 4), 1: ("length", 1, 16)}
    example = {name: torch.ones(2, 3, dtype=torch.int64) for name in ("input_ids", "attention_mask")}
    ir = extract_ir(model, example, dynamic_shapes=dict.fromkeys(example, shape), output_names=["embedding"])
    device = Device()
    program = compile_ir(ir)
    weights = load_weights({key: value.numpy() for key, value in model.state_dict().items()}, program, device)
    executor = Executor(program, device)
    return model, lambda **inputs: executor.run(inputs, weights)["embedding"].to_numpy()


@pytest.mark.parametrize(
    "masks", [[[1]], [[1, 1, 1, 1, 0], [1, 0, 0, 0, 0]], [[1, 0, 1], [0, 0, 0], [0, 1, 1]]]
)
def test_vectors_of_padded_sentences_are_pytorchs(encoder: tuple, masks: list[list[int]]) -> None:
    model, compiled = encoder
    mask = np.array(masks, np.int64)
    tokens = np.random.default_rng(0).integers(1, 99, mask.shape)
    with torch.no_grad():
        expected = model(torch.from_numpy(tokens), torch.from_numpy(mask)).numpy()
    np.testing.assert_allclose(compiled(input_ids=tokens, attention_mask=mask), expected, atol=1e-5)


@pytest.mark.parametrize("token", [-1, 99, 1 << 40])
def test_a_token_outside_the_vocabulary_is_an_error(encoder: tuple, token: int) -> None:
    tokens = np.array([[1, token, 2]])
    with pytest.raises(InputError, match=f"input_ids.*{token}"):
        encoder[1](input_ids=tokens, attention_mask=np.ones_like(tokens))
