"""The switch ``winograd``: it chooses the kernels of 3x3 convolutions and leaves their accuracy."""

from __future__ import annotations

import numpy as np
import pytest

from npu_compiler.compiler import compile_with_report
from npu_runtime.device import Device
from npu_runtime.executor import Executor
from npu_runtime.weight_loader import load_weights
from torch_ir.ir import IR, Node, Output, TensorSpec


def convolutions(channels: int, size: int) -> IR:
    """Two of them: the second reads vectors of channels, as Winograd's form needs."""
    image = TensorSpec((1, channels, size, size), "float32")
    attrs = {"stride": (1, 1), "padding": (1, 1), "dilation": (1, 1), "groups": 1}
    nodes = tuple(Node(made, "aten.conv2d.default", (read, "w", None), (made,), (image,), attrs)
                  for read, made in (("x", "inner"), ("inner", "y")))
    return IR("conv", {"x": image}, (Output("y", "y"),), nodes,
              {"w": TensorSpec((channels, channels, 3, 3), "float32")}, {"w": "w"})


@pytest.mark.parametrize(("channels", "size", "tile"), [(64, 20, "winograd4"), (192, 7, "winograd2")])
def test_the_switch_changes_the_kernels_and_keeps_the_accuracy(channels: int, size: int, tile: str) -> None:
    torch = pytest.importorskip("torch")
    random = np.random.default_rng(0)
    x = random.standard_normal((1, channels, size, size), np.float32)
    w = random.standard_normal((channels, channels, 3, 3), np.float32)
    exact = torch.from_numpy(x).double()
    for _ in range(2):
        exact = torch.nn.functional.conv2d(exact, torch.from_numpy(w).double(), padding=1)
    device, found = Device(), {}
    for switch in (True, False):
        result = compile_with_report(convolutions(channels, size), winograd=switch)
        program = result.program
        forms = {answer.choice["form"] for answer in result.answers if answer.space == "conv3x3"}
        assert forms == ({tile} if switch else set())
        weights = load_weights({"w": w}, program, device)
        found[switch] = Executor(program, device).run({"x": x}, weights)["y"].to_numpy()
        assert any("winograd" in step.kernel for step in program.steps) == switch
        assert np.abs(found[switch] - exact.numpy()).max() < 1e-5 * float(exact.abs().max())
    assert (found[True] != found[False]).any()
