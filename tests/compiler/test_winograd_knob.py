"""The switch ``winograd``: it chooses the kernels of 3x3 convolutions and leaves their accuracy."""

from __future__ import annotations

import numpy as np
import pytest

from npu_compiler import compile_ir
from npu_runtime.device import Device
from npu_runtime.executor import Executor
from npu_runtime.weight_loader import load_weights
from torch_ir.ir import IR, Node, Output, TensorSpec

CHANNELS, SIZE = 32, 20


def convolutions() -> IR:
    """Two of them: the second reads vectors of channels, as Winograd's form needs."""
    image = TensorSpec((1, CHANNELS, SIZE, SIZE), "float32")
    attrs = {"stride": (1, 1), "padding": (1, 1), "dilation": (1, 1), "groups": 1}
    nodes = tuple(Node(made, "aten.conv2d.default", (read, "w", None), (made,), (image,), attrs)
                  for read, made in (("x", "inner"), ("inner", "y")))
    return IR("conv", {"x": image}, (Output("y", "y"),), nodes,
              {"w": TensorSpec((CHANNELS, CHANNELS, 3, 3), "float32")}, {"w": "w"})


def test_the_switch_changes_the_kernels_and_keeps_the_accuracy() -> None:
    torch = pytest.importorskip("torch")
    random = np.random.default_rng(0)
    x = random.standard_normal((1, CHANNELS, SIZE, SIZE), np.float32)
    w = random.standard_normal((CHANNELS, CHANNELS, 3, 3), np.float32)
    exact = torch.from_numpy(x).double()
    for _ in range(2):
        exact = torch.nn.functional.conv2d(exact, torch.from_numpy(w).double(), padding=1)
    device, found = Device(), {}
    for switch in (True, False):
        program = compile_ir(convolutions(), winograd=switch)
        weights = load_weights({"w": w}, program, device)
        found[switch] = Executor(program, device).run({"x": x}, weights)["y"].to_numpy()
        assert any("winograd" in step.kernel for step in program.steps) == switch
        assert np.abs(found[switch] - exact.numpy()).max() < 1e-5 * float(exact.abs().max())
    assert (found[True] != found[False]).any()
