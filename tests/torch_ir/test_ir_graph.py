"""The rules of a legal graph, its text form, and the removal of in-place operations."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from test_ir_file import sample

from torch_ir import IR, IRError
from torch_ir.functionalize import VIEWS, NotSimpleError, functionalize, is_in_place, live_nodes
from torch_ir.ir import Node, Output, State, TensorSpec, verify
from torch_ir.printer import from_text, node_text, to_text

F32 = TensorSpec((2,), "float32")


def node(name: str, op: str, *inputs: str | None, spec: TensorSpec = F32, **attrs: int) -> Node:
    return Node(name, op, inputs, (name,), (spec,), attrs)


def changed_node(ir: IR, index: int, **changes: object) -> IR:
    nodes = list(ir.nodes)
    nodes[index] = replace(nodes[index], **changes)
    return replace(ir, nodes=tuple(nodes))


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (
            lambda ir: changed_node(ir, 0, inputs=("top_0",)),
            "conv reads top_0, which nothing before it defines",
        ),
        (lambda ir: changed_node(ir, 1, outputs=("top_0", "conv")), "conv is defined twice"),
        (lambda ir: changed_node(ir, 1, name="conv"), "two nodes are named conv"),
        (lambda ir: changed_node(ir, 1, outputs=("top_0",)), "1 output names and 2 specs"),
        (lambda ir: changed_node(ir, 0, outs=(TensorSpec((-3,), "float32"),)), "conv: negative size -3"),
        (lambda ir: changed_node(ir, 0, outs=(TensorSpec((3,), "float8"),)), "conv: unknown dtype 'float8'"),
        (lambda ir: replace(ir, symbols={}), "undeclared symbol n"),
        (lambda ir: replace(ir, symbols={"n": (3, 2)}), "symbol n: bounds 3 to 2"),
        (lambda ir: replace(ir, weights={}), "p_w maps to the unknown weight w"),
        (lambda ir: replace(ir, outputs=(Output("y", "lost"),)), "output y is lost, which does not exist"),
        (lambda ir: replace(ir, outputs=(Output("y", "x"), Output("y", "conv"))), "two outputs share a name"),
        (
            lambda ir: replace(ir, states={"b_count": State("count", TensorSpec((2,), "int32"), "x")}),
            "has another spec",
        ),
        (
            lambda ir: replace(ir, states={"b_count": State("count", TensorSpec((2,), "int32"), "no")}),
            "is missing",
        ),
    ],
)
def test_verify_finds(broken: object, message: str) -> None:
    with pytest.raises(IRError, match=f"sample: the graph is not valid after a test: .*{message}"):
        verify(broken(sample()), "a test")  # type: ignore[operator]


def test_values_users_and_results() -> None:
    ir = sample()
    assert list(ir.values()) == [
        "x",
        "p_w",
        "c_at",
        "b_count",
        "b_seed",
        "conv",
        "top_0",
        "top_1",
        "pick",
        "next",
    ]
    assert [reader.name for reader in ir.users()["b_count"]] == ["next"]
    assert ir.results() == {"pick", "top_1", "x", "next"}


def test_text_of_everything() -> None:
    ir = sample()
    text = to_text(ir)
    assert from_text(text) == ir
    assert node_text(ir.nodes[0]) == (
        "conv = aten.conv1d.default(x, p_w, None) {stride=(1,)} : f32[n, 4]  # m.py:3"
    )
    assert 'top_0, top_1 = aten.topk.default(conv) {k=2, note="a, b"} : f32[n, 2], i64[n, 2] @top' in text
    assert "size=(<2*n>, -1, (<(n // 3) + 1>,))" in text or "size=(<2*n>, -1, (<1 + (n // 3)>,))" in text


@pytest.mark.parametrize("name", ["None", "a b", 'quo"te', "1st", "über", "a.b", "from", "input", "weight"])
def test_text_quotes_odd_names(name: str) -> None:
    ir = IR(
        name,
        {name: F32},
        (Output(name, name), Output("y", "n")),
        (
            Node(
                "n",
                "aten.relu.default",
                (name,),
                ("n",),
                (TensorSpec((2,), "float32", "a b"),),
                {"a b": name, "pair": (1e-5, float("inf"), -0.0, True, None, ()), "big": 1 << 63},
                "my file.py:3 # x",
                (name, "k"),
            ),
        ),
    )
    assert from_text(to_text(ir)) == ir


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("ir sample", "ri sample", "line 1: "),
        ("f32[n, 4]", "f33[n, 4]", "unknown dtype 'f33'"),
        ("stride=(1,)", "stride=(1", "line .*expected"),
        ("symbol n = 1..9", "symbol n = 1", "LOWER..UPPER"),
        ("ir_version=1", "ir_version=7", "this npubin reads 1"),
        ("output logits = pick", "output logits = pick pack", "more text than expected"),
        ("output logits = pick", "output logits = lost", "does not exist"),
        ('= "AQ', '= "?Q', "base64"),
        ("input x :", "input x :: ", "line 3"),
    ],
)
def test_text_refusals(old: str, new: str, message: str) -> None:
    text = to_text(sample())
    assert old in text
    with pytest.raises(IRError, match=message):
        from_text(text.replace(old, new, 1))


@pytest.mark.parametrize(
    ("op", "expected"),
    [
        ("aten.relu_.default", True),
        ("aten.exp.out", True),
        ("aten.topk.values_out", True),
        ("aten.__ior__.Tensor", True),
        ("aten.__or__.Tensor", False),
        ("aten.to.dtype_layout", False),
        ("aten.detach_.default", False),
        ("aten.conv2d.default", False),
    ],
)
def test_in_place_by_name(op: str, expected: bool) -> None:
    assert is_in_place(op) == expected


def test_what_is_in_place_by_name_is_so_for_pytorch() -> None:
    found = [schema.is_mutable for op, schema in schemas() if is_in_place(op)]
    assert len(found) > 500 and all(found)


def run(nodes: list[Node], outputs: list[str]) -> tuple[list[str], list[str]]:
    specs = {"x": F32, "b": F32} | {item.name: item.out for item in nodes}
    result = functionalize(nodes, specs, ["x", "b"], outputs)
    return (
        [f"{item.name}={item.op.split('.')[1]}({','.join(map(str, item.inputs))})" for item in result.nodes],
        [result.now(name) for name in (*outputs, "b")],
    )


@pytest.mark.parametrize(
    ("nodes", "outputs", "expected"),
    [
        (
            [
                node("y", "aten.exp.default", "x"),
                node("r", "aten.relu_.default", "y"),
                node("z", "aten.neg.default", "y"),
            ],
            ["y", "z"],
            (["y=exp(x)", "r=relu(y)", "z=neg(r)"], ["r", "z", "b"]),
        ),
        (
            [node("m", "aten.add_.Tensor", "b", "x"), node("n", "aten.mul_.Tensor", "m", "b")],
            ["m"],
            (["m=add(b,x)", "n=mul(m,m)"], ["n", "n"]),
        ),
        (
            [node("c", "aten.copy_.default", "b", "x"), node("d", "aten.add_.Tensor", "c", "x")],
            ["x"],
            (["d=add(x,x)"], ["x", "d"]),
        ),
        ([node("z", "aten.zero_.default", "b")], ["z"], (["z=full_like(b)"], ["z", "z"])),
        (
            [
                node("l", "aten.lift_fresh_copy.default", "x"),
                node("d", "aten.detach_.default", "l"),
                node("y", "aten.neg.default", "d"),
            ],
            ["y"],
            (["y=neg(x)"], ["y", "b"]),
        ),
        (
            [
                node("y", "aten.exp.default", "x"),
                node("v", "aten.view.default", "y"),
                node("r", "aten.relu_.default", "v"),
            ],
            ["r"],
            (["y=exp(x)", "v=view(y)", "r=relu(v)"], ["r", "b"]),
        ),
    ],
)
def test_functionalize(nodes: list[Node], outputs: list[str], expected: tuple[list[str], list[str]]) -> None:
    assert run(nodes, outputs) == expected


@pytest.mark.parametrize(
    ("nodes", "outputs"),
    [
        (
            [
                node("y", "aten.exp.default", "x"),
                node("v", "aten.view.default", "y"),
                node("r", "aten.relu_.default", "v"),
            ],
            ["y"],
        ),
        ([node("v", "aten.view.default", "x"), node("r", "aten.relu_.default", "v")], ["r"]),
        ([node("y", "aten.exp.default", "x"), node("e", "aten.eq_.Scalar", "y", other=1)], ["e"]),
        ([node("y", "aten.exp.default", "x"), node("o", "aten.exp.out", "x", "y")], ["o"]),
        (
            [
                node("h", "aten.exp.default", "x", spec=TensorSpec((2,), "float16")),
                node("a", "aten.add_.Tensor", "h", "x", spec=TensorSpec((2,), "float16")),
            ],
            ["a"],
        ),
    ],
    ids=["view_read_later", "view_of_input", "result_has_another_dtype", "out_variant", "mixed_dtypes"],
)
def test_functionalize_refuses(nodes: list[Node], outputs: list[str]) -> None:
    with pytest.raises(NotSimpleError):
        run(nodes, outputs)


def test_live_nodes_keep_what_results_need() -> None:
    nodes = [
        node("a", "aten.exp.default", "x"),
        node("b", "aten.neg.default", "x"),
        node("c", "aten.neg.default", "a"),
    ]
    assert [item.name for item in live_nodes(nodes, ["c"])] == ["a", "c"]


def schemas() -> Iterator[tuple[str, Any]]:
    for name in torch._C._dispatch_get_all_op_names():
        namespace, _, rest = name.partition("::")
        base, _, overload = rest.partition(".")
        if namespace == "aten":
            packet = getattr(torch.ops.aten, base, None)
            operation = getattr(packet, overload or "default", None)
            if operation is not None:
                yield f"aten.{base}.{overload or 'default'}", operation._schema


def test_all_views_of_pytorch_are_known() -> None:
    found = {
        op.split(".")[1]
        for op, schema in schemas()
        if not schema.is_mutable and any(value.alias_info is not None for value in schema.returns)
    }
    found = {base for base in found if not base.startswith("_")}
    assert len(found) > 50
    assert found - VIEWS == {"alias", "detach", "lift_fresh"}
