"""Files that the public package wrote compile and run to what PyTorch gives; files of ours have its form.

``python -m tests.torch_ir.public`` makes the files anew and lets the public package read ours.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import graphs
import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent / "public"))
from modules import MODULES

from npu_compiler.compiler import compile_ir
from npu_compiler.errors import UnsupportedOpError
from torch_ir import extract_ir
from torch_ir.errors import IRError
from torch_ir.ir import IR
from torch_ir.serialize import ir_from_dict, ir_to_dict

FILES = Path(__file__).parent / "public" / "files"
Array = np.ndarray[Any, Any]
#: What the format does not say, so that the file is refused, and a part of the reason.
REFUSED = {
    "no_gradients": "without what is in it",
    "no_gradients_several": "without what is in it",
    "autocast": "without what is in it",
    "clamp_by_one_tensor": "does not say which of min, max",
    "maybe_a_view": "works in place, on memory that other values may share",
}
RUNS = sorted(MODULES.keys() - REFUSED.keys())


@dataclass
class Together:
    """What the files of a session gave, run as one program, and what PyTorch gives."""

    got: dict[str, list[Array]]
    expected: dict[str, list[Array]]
    states: dict[str, tuple[Array, Array]]
    damage: list[str]


def together(irs: dict[str, IR], device: graphs.GuardedDevice) -> Together:
    arrays: dict[str, Array] = {}
    weights: dict[str, Array] = {}
    expected: dict[str, list[Array]] = {}
    after: dict[str, Array] = {}
    for name, ir in irs.items():
        module, inputs = MODULES[name]()
        arrays.update({f"{name}.{k}": graphs.array(x) for k, x in zip(ir.inputs, inputs, strict=True)})
        weights.update({f"{name}.{k}": graphs.array(t).copy() for k, t in module.state_dict().items()})
        with torch.no_grad():
            results = module(*inputs)
        results = [results] if isinstance(results, torch.Tensor) else list(results)
        expected[name] = [graphs.array(t) for t in results]
        after.update({f"{name}.{k}": graphs.array(t) for k, t in module.state_dict().items()})
    ran = graphs.run(compile_ir(graphs.merge(irs)), device, arrays, weights, guarded=True)
    got = {name: [ran.outputs[f"{name}.{o.name}"] for o in ir.outputs] for name, ir in irs.items()}
    return Together(got, expected, {k: (v, after[k]) for k, v in ran.states.items()}, ran.damage)


@pytest.fixture(scope="module")
def ran(guarded: graphs.GuardedDevice) -> Together:
    return together({name: IR.load(FILES / f"{name}.json") for name in RUNS}, guarded)


@pytest.mark.parametrize("name", RUNS)
def test_a_public_file_gives_what_pytorch_gives(name: str, ran: Together) -> None:
    assert len(ran.got[name]) == len(ran.expected[name])
    for got, right in zip(ran.got[name], ran.expected[name], strict=True):
        assert (got.shape, got.dtype) == (right.shape, right.dtype)
        wide, exact = got.astype(np.float64), right.astype(np.float64)
        np.testing.assert_allclose(wide, exact, rtol=2e-5, atol=1e-5)


def test_buffers_that_change_end_as_in_pytorch(ran: Together) -> None:
    assert len(ran.states) == 4 and ran.damage == []
    for got, right in ran.states.values():
        np.testing.assert_allclose(got, right, rtol=2e-5, atol=1e-5)


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_what_a_public_file_does_not_say_is_refused(name: str) -> None:
    with pytest.raises((UnsupportedOpError, IRError), match=REFUSED[name]):
        compile_ir(FILES / f"{name}.json")


def test_every_module_has_its_file() -> None:
    assert {path.stem for path in FILES.glob("*.json")} == MODULES.keys()


@pytest.mark.parametrize("inputs", [["x", "mul"], ["x", "p_norm_center"]])
def test_absent_inputs_that_no_name_tells_are_refused(inputs: list[str]) -> None:
    data = json.loads((FILES / "layer_norm_of_bias_alone.json").read_text())
    for entry, name in zip(data["nodes"][0]["inputs"], inputs, strict=True):
        data = json.loads(json.dumps(data).replace(json.dumps(entry["name"]), json.dumps(name)))
    with pytest.raises(IRError, match="does not say which of weight, bias"):
        ir_from_dict(data)


@pytest.mark.parametrize("name", sorted(MODULES))
def test_our_files_have_the_public_form(name: str) -> None:
    """As its reader wants it: every input names a value that exists, in order, and every tensor of a node
    is described; names are those of the file's nodes."""
    module, inputs = MODULES[name]()
    data = ir_to_dict(extract_ir(module, inputs, model_name=name))
    known = {entry["name"] for entry in data["graph_inputs"]} | data["weight_name_mapping"].keys()
    known |= {state["name"] for state in data["states"]}
    assert set(data["weight_name_mapping"].values()) <= {entry["name"] for entry in data["weights"]}
    names = [node["name"] for node in data["nodes"]]
    assert len(set(names)) == len(names)
    for node in data["nodes"]:
        for entry in node["inputs"]:
            assert entry["name"] in known and all(isinstance(size, int) for size in entry["shape"])
            producer = entry.get("producer_node")
            assert producer is None or producer in names or producer in known
        known |= {entry["name"] for entry in node["outputs"]}
    assert {entry["name"] for entry in data["graph_outputs"]} <= known
    assert not any(isinstance(value, dict) for node in data["nodes"] for value in node["attrs"].values())
