"""The file format: public files, constants of every dtype, and refusal of everything malformed."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from torch_ir import IR, IRError, eager
from torch_ir.constants import from_nested, to_nested
from torch_ir.expr import symbol
from torch_ir.ir import ITEM_SIZE, Constant, Node, Output, State, TensorSpec
from torch_ir.serialize import ir_from_dict, ir_to_dict

PUBLIC = Path(__file__).parent / "public"


def sample() -> IR:
    """A graph with one of everything."""
    n = symbol("n")
    f32 = TensorSpec((n, 4), "float32")
    nodes = (
        Node(
            "conv", "aten.conv1d.default", ("x", "p_w", None), ("conv",), (f32,), {"stride": (1,)}, "m.py:3"
        ),
        Node(
            "top",
            "aten.topk.default",
            ("conv",),
            ("top_0", "top_1"),
            (TensorSpec((n, 2), "float32"), TensorSpec((n, 2), "int64")),
            {"k": 2, "note": "a, b"},
        ),
        Node(
            "pick",
            "aten.index.Tensor",
            ("top_0", None, "c_at"),
            ("pick",),
            (TensorSpec((n, 1), "float32"),),
            {"_tensor_list_sizes": (2,), "fill": float("-inf"), "size": (2 * n, -1, (n // 3 + 1,))},
        ),
        Node("next", "aten.add.Tensor", ("b_count", "b_count"), ("next",), (TensorSpec((2,), "int32"),)),
    )
    return IR(
        "sample",
        {"x": f32},
        (Output("logits", "pick"), Output("again", "top_1"), Output("same", "x")),
        nodes,
        {
            "w": TensorSpec((4, 4, 1), "float32"),
            "unused": TensorSpec((0,), "bfloat16"),
            "count": TensorSpec((2,), "int32"),
        },
        {"p_w": "w"},
        {"c_at": from_nested([1], TensorSpec((1,), "int64"), "c_at")},
        {
            "b_count": State("count", TensorSpec((2,), "int32"), "next", True),
            "b_seed": State("seed", TensorSpec((1,), "float64"), None, False, np.array([0.1]).tobytes()),
        },
        {"n": (1, 9)},
        "2.13.0",
    )


def test_round_trip_and_stable_bytes(tmp_path: Path) -> None:
    ir = sample()
    ir.verify()
    assert ir_from_dict(ir_to_dict(ir)) == ir
    ir.save(tmp_path / "a.json")
    IR.load(tmp_path / "a.json").save(tmp_path / "b.json")
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()
    names = [node["op_type"] for node in json.loads((tmp_path / "a.json").read_text())["nodes"]]
    assert names.count("<built-in function getitem>") == 2


def test_a_failed_save_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "ir.json"
    path.write_text("old")
    broken = replace(sample(), outputs=(Output("logits", "nowhere"),))
    with pytest.raises(KeyError):
        broken.save(path)
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("dtype", list(ITEM_SIZE))
def test_constants_of_every_dtype(dtype: str) -> None:
    rng = np.random.default_rng(3)
    spec = TensorSpec((3, 2), dtype)
    data = (
        rng.integers(0, 2, 6, dtype=np.uint8).tobytes()
        if dtype == "bool"
        else rng.bytes(6 * ITEM_SIZE[dtype])
    )
    if dtype in ("bfloat16", "float16", "float32", "float64") or dtype.startswith("complex"):
        data = (
            b"\x80\x3f" * (len(data) // 2)
            if dtype == "bfloat16"
            else np.asarray(rng.standard_normal(12), "f8")
            .astype({"float16": "f2", "float32": "f4", "complex64": "f4"}.get(dtype, "f8"))[
                : 12 if dtype.startswith("complex") else 6
            ]
            .tobytes()
        )
    constant = Constant(spec, data)
    assert from_nested(json.loads(json.dumps(to_nested(constant))), spec, "c") == constant


@pytest.mark.parametrize("value", [1.0, 1.00390625, -3.3895314e38, float("inf"), 1e-40, 0.1, 3.0e38])
def test_bfloat16_rounds_as_pytorch_does(value: float) -> None:
    expected = (
        torch.tensor([value], dtype=torch.float32).to(torch.bfloat16).view(torch.int16).numpy().tobytes()
    )
    assert from_nested([value], TensorSpec((1,), "bfloat16"), "c").data == expected


@pytest.mark.parametrize(
    ("name", "ops", "states"),
    [
        (
            "conv",
            ["aten.conv2d.default", "aten.batch_norm.default", "aten.add.Tensor", "aten.relu.default"],
            [],
        ),
        (
            "multi",
            [
                "aten.layer_norm.default",
                "aten.split.Tensor",
                "aten.sum.dim_IntList",
                "aten.add.Tensor",
                "aten.cat.default",
                "aten.max.dim",
                "aten.index.Tensor",
                "aten.add.Tensor",
                "aten.mul.Tensor",
            ],
            ["count"],
        ),
        (
            "attention",
            ["aten.scaled_dot_product_attention.default", "aten.gt.Scalar", "aten.masked_fill.Scalar"],
            [],
        ),
    ],
)
def test_public_files_are_read(name: str, ops: list[str], states: list[str]) -> None:
    ir = IR.load(PUBLIC / f"{name}.json")
    assert [node.op for node in ir.nodes] == ops
    assert [state.key for state in ir.states.values()] == states
    assert ir_from_dict(ir_to_dict(ir)) == ir


def test_absent_inputs_of_public_files() -> None:
    conv, norm, *_ = IR.load(PUBLIC / "conv.json").nodes
    assert conv.inputs == ("x", "p_conv_weight", None)
    assert norm.inputs == ("conv2d", None, None, "b_norm_running_mean", "b_norm_running_var")
    multi = {node.name: node for node in IR.load(PUBLIC / "multi.json").nodes}
    assert multi["layer_norm"].inputs == ("x", None, "p_bias")
    assert multi["index"].inputs == ("split_0", None, "c_lifted_tensor_0")
    assert multi["index"].attrs["_tensor_list_sizes"] == (2,)


def test_public_file_runs() -> None:
    ir = IR.load(PUBLIC / "multi.json")
    x = torch.arange(12.0).reshape(2, 6).sin()
    weights = {"bias": torch.linspace(0, 1, 6), "count": torch.ones(6)}
    result = eager.run(ir, {"x": x}, weights)
    normal = torch.nn.functional.layer_norm(x, (6,), None, weights["bias"])
    expected = [normal[:, [1, 0]] + 1e-6, normal.max(1).values, (1 + x.sum(0)) * 2]
    for found, wanted in zip(result.outputs.values(), expected, strict=True):
        torch.testing.assert_close(found, wanted)
    torch.testing.assert_close(result.states["count"], 1 + x.sum(0))


def test_in_place_operation_that_is_not_simple_is_kept() -> None:
    data = json.loads((PUBLIC / "conv.json").read_text())
    data["nodes"][2]["op_type"] = "aten.frobnicate_.default"
    ir = ir_from_dict(data)
    assert [node.op for node in ir.nodes][2:] == ["aten.frobnicate_.default", "aten.relu_.default"]


def test_unknown_keys_are_accepted() -> None:
    data = ir_to_dict(sample())
    for entry in (data, data["nodes"][0], data["graph_inputs"][0], data["weights"][0]):
        entry["later"] = {"anything": 1}
    assert ir_from_dict(data) == sample()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: data.pop("nodes"), "missing required field `nodes`"),
        (lambda data: data.update(ir_version=99), "reads up to 1; update npubin"),
        (lambda data: data["nodes"][0]["inputs"][0].update(name="lost"), "conv reads lost"),
        (lambda data: data["graph_inputs"][0].update(shape=[-1, 4]), "negative size -1"),
        (lambda data: data["graph_inputs"][0].update(shape=["m", 4]), "undeclared symbol m"),
        (lambda data: data["graph_inputs"][0].update(shape=["__import__('os')", 4]), "outside the grammar"),
        (lambda data: data["graph_inputs"][0].update(shape=[1.5, 4]), "shape"),
        (lambda data: data["graph_inputs"][0].update(dtype="float23"), "unknown dtype 'float23'"),
        (lambda data: data["graph_inputs"].append(data["graph_inputs"][0]), "two graph inputs share a name"),
        (lambda data: data["nodes"][0].update(none_mask=[True]), "mask of absent ones"),
        (lambda data: data["nodes"][0]["attrs"].update(stride={"a": 1}), "conv.stride"),
        (lambda data: data["nodes"][2]["attrs"].update(index=7), "getitem takes index 7"),
        (lambda data: data["constants"]["c_at"].update(data=["x"]), "do not fit int64"),
        (lambda data: data["constants"]["c_at"].update(data=[0.5]), "whole numbers"),
        (lambda data: data["constants"]["c_at"].update(data=[1, 2]), "do not fit int64"),
        (lambda data: data["states"][0].update(update="lost"), "is missing"),
        (lambda data: data["symbols"][0].update(lower=10), "bounds 10 to 9"),
    ],
)
def test_refusals_name_the_place(change: Any, message: str, tmp_path: Path) -> None:
    data = ir_to_dict(sample())
    change(data)
    path = tmp_path / "broken.json"
    path.write_text(json.dumps(data))
    with pytest.raises(IRError, match=message) as error:
        IR.load(path)
    assert "broken.json" in str(error.value) and "extract the IR again" in str(error.value)


@pytest.mark.parametrize("text", ["", "[]", "3", "null", "{", "\x00", '{"nodes": []}', "[" * 100_000])
def test_what_is_no_ir_file(text: str, tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(IRError, match=r"x\.json"):
        IR.load(tmp_path / "x.json")


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(IRError, match=r"no\.json: cannot be read: .*extract the IR first"):
        IR.load(tmp_path / "no.json")


def test_every_truncation_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    sample().save(path)
    whole = path.read_bytes()
    for length in range(0, len(whole) - 2, 97):
        path.write_bytes(whole[:length])
        with pytest.raises(IRError):
            IR.load(path)


def places(data: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if path:
        yield path
    for key, value in (
        data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    ):
        yield from places(value, (*path, key))


@pytest.mark.parametrize("source", ["ours", "public"])
@pytest.mark.parametrize(
    "wrong", [None, True, -1, 1.5, "x", [], {}, [None], {"expr": "1 +"}, 10**30, "delete"], ids=repr
)
def test_a_wrong_value_anywhere_is_an_ir_error_or_harmless(source: str, wrong: Any) -> None:
    data = ir_to_dict(sample()) if source == "ours" else json.loads((PUBLIC / "multi.json").read_text())
    refused = 0
    for path in list(places(data))[len(repr(wrong)) % 3 :: 3]:
        changed = copy.deepcopy(data)
        parent = changed
        for key in path[:-1]:
            parent = parent[key]
        if wrong == "delete":
            del parent[path[-1]]
        else:
            parent[path[-1]] = wrong
        try:
            ir = ir_from_dict(changed)
        except IRError:
            refused += 1
        else:
            ir_to_dict(ir)
    assert refused > 5
