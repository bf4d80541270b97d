"""The switch ``winograd``: it chooses the kernels of 3x3 convolutions and leaves their accuracy."""

from __future__ import annotations

import numpy as np
import pytest

from npu_compiler.compiler import compile_with_report
from npu_runtime.device import Device
from npu_runtime.executor import Executor
from npu_runtime.weight_loader import load_weights
from torch_ir.ir import IR, Node, Output, TensorSpec


def convolutions(channels: int, size: int, stride: int) -> IR:
    """Two of them: the second, with ``stride``, reads vectors of channels, as Winograd's form needs."""
    image = TensorSpec((1, channels, size, size), "float32")
    out = (size - 1) // stride + 1
    nodes = tuple(Node(made, "aten.conv2d.default", (read, "w", None), (made,), (spec,),
                       {"stride": (step, step), "padding": (1, 1), "dilation": (1, 1), "groups": 1})
                  for read, made, spec, step in (
                      ("x", "inner", image, 1),
                      ("inner", "y", TensorSpec((1, channels, out, out), "float32"), stride)))
    return IR("conv", {"x": image}, (Output("y", "y"),), nodes,
              {"w": TensorSpec((channels, channels, 3, 3), "float32")}, {"w": "w"})


@pytest.mark.parametrize(("channels", "size", "stride", "space", "tile"), [
    (64, 20, 1, "conv3x3", "winograd4"),
    (192, 7, 1, "conv3x3", "winograd2"),
    (72, 57, 2, "conv3x3_strided", "winograd4"),
    (136, 25, 2, "conv3x3_strided", "winograd2"),
])
def test_the_switch_changes_the_kernels_and_keeps_the_accuracy(
    channels: int, size: int, stride: int, space: str, tile: str
) -> None:
    torch = pytest.importorskip("torch")
    random = np.random.default_rng(0)
    x = random.standard_normal((1, channels, size, size), np.float32)
    w = random.standard_normal((channels, channels, 3, 3), np.float32)
    exact = torch.from_numpy(x).double()
    for step in (1, stride):
        exact = torch.nn.functional.conv2d(exact, torch.from_numpy(w).double(), stride=step, padding=1)
    device, found = Device(), {}
    for switch in (True, False):
        result = compile_with_report(convolutions(channels, size, stride), winograd=switch)
        program = result.program
        chosen = {answer.space: answer.choice["form"] for answer in result.answers
                  if answer.space.startswith("conv3x3")}
        assert chosen == ({space: tile} if switch else {})
        weights = load_weights({"w": w}, program, device)
        found[switch] = Executor(program, device).run({"x": x}, weights)["y"].to_numpy()
        assert any("winograd" in step.kernel for step in program.steps) == switch
        assert np.abs(found[switch] - exact.numpy()).max() < 1e-5 * float(exact.abs().max())
    assert (found[True] != found[False]).any()
