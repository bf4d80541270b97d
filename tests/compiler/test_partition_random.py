"""Random graphs, cut at random: every seed gives the same graph and the same refusals again."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest

from npu_compiler import partition
from npu_runtime import DAGExecutor, load_weights
from npu_runtime.device import Device, list_devices
from npu_runtime.dtypes import numpy_dtype
from npu_runtime.weight_loader import Weights
from torch_ir import eager
from torch_ir.expr import symbol
from torch_ir.ir import IR, Constant, Node, Output, State, TensorSpec

if not list_devices():
    pytest.skip("running parts takes an OpenCL device", allow_module_level=True)

N = symbol("n")
ROW, WIDE = TensorSpec((4,), "float32"), TensorSpec((N, 4), "float32")


def graph(seed: int, count: int = 18) -> tuple[IR, frozenset[str]]:
    """A graph with two dynamic inputs, a weight, a constant and two states, and the names of the nodes to
    refuse."""
    rng = random.Random(seed)
    constant = Constant(ROW, np.arange(4, dtype="float32").tobytes())
    specs = {"x": WIDE, "y": WIDE, "p_w": ROW, "c_k": ROW, "b_s": ROW, "b_t": ROW}
    rows = ["p_w", "c_k", "b_s", "b_t"]
    nodes: list[Node] = []

    def add(op: str, inputs: tuple[str, ...], outs: tuple[TensorSpec, ...], **attrs: object) -> None:
        name = f"{op.split('.')[1]}_{len(nodes)}"
        outputs = (name,) if len(outs) == 1 else tuple(f"{name}_{index}" for index in range(len(outs)))
        nodes.append(Node(name, op, inputs, outputs, outs, attrs))  # type: ignore[arg-type]
        specs.update(zip(outputs, outs, strict=True))
        rows.extend(output for output, spec in zip(outputs, outs, strict=True) if spec == ROW)

    for _ in range(count):
        kind = rng.choice(["tanh", "add", "mul", "sum", "split"])
        a, b = rng.choice(list(specs)[-9:]), rng.choice(list(specs))
        wide = WIDE if WIDE in (specs[a], specs[b]) else ROW
        if kind == "tanh":
            add("aten.tanh.default", (a,), (specs[a],))
        elif kind in ("add", "mul"):
            add(f"aten.{kind}.Tensor", (a, b), (wide,))
        elif kind == "sum" and specs[a] == WIDE:
            add("aten.mean.dim", (a,), (ROW,), dim=(0,))
        elif kind == "split":
            halves = tuple(replace(specs[a], shape=(*specs[a].shape[:-1], 2)) for _ in range(2))
            add("aten.split.Tensor", (a,), halves, split_size=2, dim=-1)
            first, second = nodes[-1].outputs
            for half in (first, second):
                del specs[half]
            add("aten.cat.default", (second, first), (specs[a],), _tensor_list_sizes=(2,), dim=-1)
    values = [name for name in specs if name not in ("p_w", "c_k")]
    outputs = tuple(Output(f"out{index}", rng.choice(values[-6:])) for index in range(3))
    states = {
        "b_s": State("s", ROW, rng.choice(rows)),
        "b_t": State("t", ROW, rng.choice(rows), persistent=True),
    }
    weights, mapping = {"w": ROW, "t": ROW}, {"p_w": "w"}
    ir = IR(
        f"random {seed}", {"x": WIDE, "y": WIDE}, (*outputs, Output("same", "y")), tuple(nodes), weights,
        mapping, {"c_k": constant}, states, {"n": (1, 5)},
    )  # fmt: skip
    share = rng.choice([0.2, 0.5, 0.8])
    return ir, frozenset(node.name for node in nodes if rng.random() < share)


def state_of(weights: Weights, device: Device, executor: DAGExecutor, key: str) -> np.ndarray:
    (spec,) = [spec for spec in executor.program.states if spec.name == key]
    content = np.empty(spec.shape, numpy_dtype(spec.dtype))
    device.read(weights.state(spec), content.reshape(-1).view(np.uint8))
    return content


@pytest.mark.parametrize(
    "seed", [*range(12), *(pytest.param(seed, marks=pytest.mark.full) for seed in range(12, 300))]
)
def test_random_cuts_equal_pytorch(seed: int) -> None:
    ir, refused = graph(seed)
    device = Device()
    parts = partition(ir, lambda node: "refused by the test" if node.name in refused else None)
    executor = DAGExecutor(parts, device, cpu_runner=eager.run)
    source = {"w": np.array([0.5, -1, 2, 0.25], "float32"), "t": np.array([1, 2, -1, 0.5], "float32")}
    weights, states = load_weights(source, executor.program, device), None
    for size in (2, 5, 1):
        random = np.random.default_rng([seed, size])
        inputs = {name: random.standard_normal((size, 4)).astype("float32") for name in ir.inputs}
        outputs = executor.run(inputs, weights)
        wanted = eager.run(ir, inputs, source, states)
        states = wanted.states
        for name, tensor in wanted.outputs.items():
            np.testing.assert_allclose(outputs[name].to_numpy(), tensor.numpy(), rtol=2e-4, atol=1e-5)
        for state in executor.program.states:
            found = state_of(weights, device, executor, state.name)
            np.testing.assert_allclose(found, wanted.states[state.name].numpy(), rtol=2e-4, atol=1e-5)
