"""The switch ``fuse_depthwise``: one kernel, or two, of a convolution and the depthwise one behind it."""

from __future__ import annotations

import numpy as np
import pytest

from npu_compiler.compiler import compile_with_report
from npu_runtime.device import Device
from npu_runtime.executor import Executor
from npu_runtime.weight_loader import load_weights
from torch_ir.ir import IR, Node, Output, TensorSpec

CHANNELS, SIZE = 16, 40


def expansion() -> IR:
    """A 1x1 convolution to four times the channels, and a depthwise 3x3 one."""
    image, wide = (TensorSpec((1, times * CHANNELS, SIZE, SIZE), "float32") for times in (1, 4))
    attrs = {"stride": (1, 1), "padding": (0, 0), "dilation": (1, 1), "groups": 1}
    nodes = (
        Node("inner", "aten.conv2d.default", ("x", "w", None), ("inner",), (wide,), attrs),
        Node("y", "aten.conv2d.default", ("inner", "d", None), ("y",), (wide,),
             {**attrs, "padding": (1, 1), "groups": 4 * CHANNELS}),
    )
    weights = {"w": TensorSpec((4 * CHANNELS, CHANNELS, 1, 1), "float32"),
               "d": TensorSpec((4 * CHANNELS, 1, 3, 3), "float32")}
    names = {name: name for name in weights}
    return IR("expansion", {"x": image}, (Output("y", "y"),), nodes, weights, names)


def test_the_switch_changes_the_kernels_and_keeps_the_result() -> None:
    torch = pytest.importorskip("torch")
    random, graph, device = np.random.default_rng(0), expansion(), Device()
    x, w, d = (random.standard_normal(tuple(map(int, spec.shape)), np.float32)
               for spec in (graph.inputs["x"], graph.weights["w"], graph.weights["d"]))
    exact = torch.nn.functional.conv2d(*(torch.from_numpy(value).double() for value in (x, w)))
    exact = torch.nn.functional.conv2d(exact, torch.from_numpy(d).double(), padding=1, groups=4 * CHANNELS)
    for switch in (True, False):
        result = compile_with_report(graph, fuse_depthwise=switch)
        program = result.program
        asked = {answer.space for answer in result.answers}
        assert ("expanded" in asked, "depthwise" in asked) == (switch, not switch)
        assert any("expanded" in step.kernel for step in program.steps) == switch
        weights = load_weights({"w": w, "d": d}, program, device)
        found = Executor(program, device).run({"x": x}, weights)["y"].to_numpy()
        assert np.abs(found - exact.numpy()).max() < 1e-6 * float(exact.abs().max())
