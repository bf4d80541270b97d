"""Nodes that no lowering takes become simpler ones by PyTorch's tables, or stay and are refused by their own
name."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import graphs
import pytest
import torch
from pass_cases import values

from npu_compiler import ops
from npu_compiler.compiler import compile_ir
from npu_compiler.coverage import coverage
from npu_compiler.errors import UnsupportedOpError
from npu_compiler.interpret import interpret
from npu_compiler.partitioning import partition
from npu_compiler.passes.decompose import decompose
from torch_ir import eager, extract_ir
from torch_ir.ir import IR, Node, Output, TensorSpec

F32 = TensorSpec((3, 5), "float32")

#: What decomposes: by a table, by its composite kernel, with several results, with sizes in its attributes,
#: with in-place operations inside.
CALLS: dict[str, tuple[Callable[..., Any], tuple[torch.Tensor, ...]]] = {
    "table": (torch.logaddexp, (values(4, 5), values(4, 5, seed=1))),
    "composite": (torch.trapz, (values(4, 5),)),
    "constant": (lambda x: torch.nn.functional.huber_loss(x, x * 2 + 1), (values(4, 5),)),
    "not_its_table": (
        lambda x: torch.nn.functional.cross_entropy(x, x.argmax(1), reduction="sum"),
        (values(4, 5),),
    ),
    "several": (lambda x, y: torch.broadcast_tensors(x, y), (values(4, 5), values(1))),
    "steps": (torch.heaviside, (values(4, 5).round(), values(4, 5))),
    "in_place": (lambda x: torch.vander(x[0]) + x.sum(), (values(4, 5),)),
    "renorm": (lambda x: torch.renorm(x, 2, 1, 0.5), (values(4, 5),)),
    "sizes": (lambda x: torch.unflatten(x.flatten(), 0, (x.shape[0], 5)).logaddexp(x), (values(4, 5),)),
}


def extracted(
    function: Callable[..., Any], inputs: tuple[torch.Tensor, ...], dynamic: bool
) -> tuple[IR, torch.nn.Module]:
    class Calling(torch.nn.Module):
        def forward(self, x: torch.Tensor, y: torch.Tensor | None = None) -> Any:
            return function(x) if y is None else function(x, y)

    module = Calling()
    sizes: dict[str, Any] = {"x": {0: ("n", 2, 40)}}
    if len(inputs) > 1:
        sizes["y"] = {0: ("n", 2, 40)} if inputs[1].shape == inputs[0].shape else {}
    return extract_ir(module, inputs, dynamic_shapes=sizes if dynamic else None), module


@pytest.mark.parametrize("dynamic", [False, True], ids=["numbers", "symbols"])
@pytest.mark.parametrize("name", CALLS)
def test_what_a_node_becomes_gives_what_the_node_gave(name: str, dynamic: bool) -> None:
    function, inputs = CALLS[name]
    ir, module = extracted(function, inputs, dynamic)
    simpler = decompose(ir, graphs.CPU)
    simpler.verify("decompose")
    assert simpler != ir
    changed = {node.name for node in ir.nodes} - {node.name for node in simpler.nodes if not node.origin}
    assert {name for node in simpler.nodes for name in node.origin} <= changed
    for size in (4, 2, 13) if dynamic else (4,):
        given = tuple(values(size, *x.shape[1:]) if x.shape[0] == 4 else x for x in inputs)
        expected = torch.utils._pytree.tree_leaves(module(*given))
        got = interpret(simpler, dict(zip(ir.inputs, given, strict=True))).outputs.values()
        for left, right in zip(got, expected, strict=True):
            torch.testing.assert_close(left, right)


def test_an_op_without_any_decomposition_stays_under_its_own_name() -> None:
    ir, _ = extracted(lambda x: torch.logaddexp(torch.special.bessel_j0(x), x), (values(3, 5),), False)
    simpler = decompose(ir, graphs.CPU)
    assert "aten.special_bessel_j0.default" in {node.op for node in simpler.nodes}
    assert "aten.logaddexp.default" not in {node.op for node in simpler.nodes}
    with pytest.raises(UnsupportedOpError) as caught:
        compile_ir(ir)
    (refusal,) = caught.value.refusals
    assert (refusal.node, refusal.op) == ("special_bessel_j0", "aten.special_bessel_j0.default")
    assert "test_decompose.py" in refusal.loc and refusal.remedy


def test_what_draws_numbers_does_not_decompose() -> None:
    spec = {"x": F32}
    node = Node("y", "aten.rand_like.default", ("x",), ("y",), (F32,))
    ir = IR("random", spec, (Output("y", "y"),), (node,))
    assert decompose(ir, graphs.CPU) == ir


def test_what_the_tables_compute_in_another_way_does_not_decompose() -> None:
    image = torch.arange(32, dtype=torch.uint8).reshape(1, 2, 4, 4)
    ir, _ = extracted(lambda x: torch.nn.functional.interpolate(x, (3, 5), mode="bilinear"), (image,), False)
    assert decompose(ir, graphs.CPU) == ir
    with pytest.raises(UnsupportedOpError, match="interpolation of whole numbers"):
        compile_ir(ir)


def test_coverage_and_partition_see_what_nodes_become() -> None:
    ir, _ = extracted(
        lambda x: torch.special.bessel_j0(torch.logaddexp(x, x + 1)) + torch.trapz(x).sum(),
        (values(3, 5),),
        False,
    )
    found = coverage(ir)
    assert [item.op for item in found.uncovered] == ["aten.special_bessel_j0.default"]
    parts = partition(ir)
    assert [part.kind for part in parts] == ["target", "fallback", "target"]
    assert "aten.logaddexp.default" in {node.op for node in parts[0].ir.nodes}
    assert parts[0].compile().steps


def test_a_decomposition_that_another_node_refuses_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """All of a node or none of it; and the refusal is the node's."""
    _, lowerings = ops.load_all()

    def refuse(b: Any, node: Node) -> str:
        raise AssertionError("not today")

    monkeypatch.setitem(lowerings, "aten.log1p.default", refuse)  # type: ignore[arg-type]
    ir, _ = extracted(lambda x: (torch.logaddexp(x, x), torch.trapz(x), x.log1p()), (values(3, 5),), False)
    found = {item.op: item for item in coverage(ir).uncovered}
    assert found.keys() == {"aten.logaddexp.default", "aten.log1p.default"}
    assert found["aten.logaddexp.default"].reason == "no lowering knows this operation"
    crash = found["aten.log1p.default"]
    assert crash.reason == "internal: AssertionError: not today"
    assert "aten.log1p.default(" in crash.remedy and "test_decompose.py" in crash.loc


def test_without_pytorch_the_refusal_says_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    ir, _ = extracted(torch.logaddexp, (values(3, 5), values(3, 5)), False)
    monkeypatch.setitem(sys.modules, "torch", None)
    assert decompose(ir, graphs.CPU) == ir
    with pytest.raises(UnsupportedOpError, match=r"aten\.logaddexp\.default.*install PyTorch"):
        compile_ir(ir)


def test_a_program_with_decomposed_nodes_runs_for_all_sizes(guarded: graphs.GuardedDevice) -> None:
    def function(x: torch.Tensor) -> torch.Tensor:
        return torch.logaddexp(x, x.flip(0)) + torch.renorm(x, 2, 1, 0.5)

    ir, module = extracted(function, (values(4, 5),), True)
    program = compile_ir(ir)
    for size in (2, 7, 40):
        x = values(size, 5)
        ran = graphs.run(program, guarded, {"x": x.numpy()})
        torch.testing.assert_close(torch.from_numpy(ran.outputs["output"]), module(x))
        want = eager.run(ir, {"x": x}, {}).outputs["output"]
        torch.testing.assert_close(want, module(x))
