"""Each pass on small graphs: before and after as text, where it must not act, and that it keeps the
meaning."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import graphs
import numpy as np
import pytest
import torch
from decoder_cases import DECODER_CASES
from gpu_cases import GPU_CASES
from pass_cases import CASES as GENERAL_CASES
from pass_cases import values

from npu_compiler.errors import CompileError, UnsupportedOpError
from npu_compiler.interpret import interpret
from npu_compiler.pipeline import PASSES, run_passes
from npu_compiler.target import Target, load_target
from torch_ir import extract_ir
from torch_ir.ir import IR
from torch_ir.printer import from_text, to_text

CASES = {**GENERAL_CASES, **DECODER_CASES, **GPU_CASES}


def plain(ir: IR) -> IR:
    """The graph without what changes with files and versions."""
    nodes = tuple(replace(node, loc="") for node in ir.nodes)
    return replace(ir, nodes=nodes, pytorch_version="")


def target_of(name: str) -> Target:
    """What the case compiles for."""
    target, limit = load_target(CASES[name].target), CASES[name].limit
    return target if limit is None else graphs.replaced(target, max_alloc_bytes=limit)


def reaching(name: str) -> tuple[IR, Callable[..., IR], torch.nn.Module, tuple[torch.Tensor, ...]]:
    """The graph that reaches the case's pass, the pass, the module and its inputs."""
    case = CASES[name]
    module, inputs = case.make()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ir = plain(extract_ir(module, inputs, model_name=name))
    for step in PASSES:
        if step.__name__ == case.step:
            return ir, step, module, inputs
        ir = step(ir, target_of(name))
    raise AssertionError(f"no pass is called {case.step}")


def run(ir: IR, module: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> dict[str, np.ndarray[Any, Any]]:
    named = dict(zip(ir.inputs, inputs, strict=True))
    found = interpret(ir, named, module.state_dict())
    tensors = {**found.outputs, **found.states}
    return {k: (t.float() if t.dtype == torch.bfloat16 else t).numpy() for k, t in tensors.items()}


@pytest.mark.parametrize("name", CASES)
def test_before_and_after(name: str, golden: Callable[[str, str], None]) -> None:
    before, step, _, _ = reaching(name)
    after = step(before, target_of(name))
    after.verify(step.__name__)
    assert (to_text(before) != to_text(after)) == CASES[name].fires
    assert from_text(to_text(after)) == after
    golden(f"passes/{name}.txt", f"{to_text(before)}\n# after {step.__name__}\n\n{to_text(after)}")


@pytest.mark.parametrize("name", CASES)
def test_a_pass_keeps_the_meaning(name: str) -> None:
    before, step, module, inputs = reaching(name)
    after = step(before, target_of(name))
    left, right = (run(ir, module, inputs) for ir in (before, after))
    assert left.keys() == right.keys()
    near = 2.0**-7 if CASES[name].rounds else 2e-5
    for key in left:
        np.testing.assert_allclose(left[key], right[key], rtol=near, atol=near)


@pytest.mark.parametrize("step", [step.__name__ for step in PASSES])
def test_every_pass_has_a_case_that_fires_and_does_nothing_the_second_time(step: str) -> None:
    names = [name for name, case in CASES.items() if case.step == step and case.fires]
    assert names
    for name in names:
        before, function, _, _ = reaching(name)
        target = target_of(name)
        once = function(before, target)
        assert to_text(function(once, target)) == to_text(once)


def test_the_whole_pipeline_keeps_the_meaning_of_every_case() -> None:
    for name in CASES:
        module, inputs = CASES[name].make()
        ir = extract_ir(module, inputs, model_name=name)
        left, right = run(ir, module, inputs), run(graphs.passed(ir), module, inputs)
        near = 2.0**-7 if CASES[name].rounds else 2e-5
        for key in left:
            np.testing.assert_allclose(left[key], right[key], rtol=near, atol=near)


def test_interpretation_is_pytorchs() -> None:
    """Of the extracted graph, exactly; so the comparisons above rest on PyTorch itself."""
    for name in ("fuse_pointwise_tree", "lower_linear_gelu", "lower_several_outputs"):
        module, inputs = CASES[name].make()
        ir = extract_ir(module, inputs, model_name=name)
        with torch.no_grad():
            expected = torch.utils._pytree.tree_leaves(module(*inputs))
        for got, wanted in zip(run(ir, module, inputs).values(), expected, strict=True):
            np.testing.assert_array_equal(got, wanted.numpy())


def test_interpretation_of_states_and_sizes() -> None:
    ir = from_text(
        'ir counted {pytorch_version="", ir_version=1}\n'
        "symbol n = 1..9\n"
        "input x : f32[n, 3]\n"
        'state s = total : f32[3] {update="sum2"}\n'
        "sum1 = reduce_sum(x) {dims=(0,)} : f32[1, 3]\n"
        "flat = reshape(sum1) {shape=(3,)} : f32[3]\n"
        "sum2 = add(flat, s) : f32[3]\n"
        "wide = expand(sum2) {shape=(<n>, 3)} : f32[n, 3]\n"
        "output wide = wide\n"
    )
    x = values(4, 3)
    first = interpret(ir, {"x": x})
    second = interpret(ir, {"x": x}, states=first.states)
    np.testing.assert_allclose(second.states["total"], 2 * x.sum(0), rtol=1e-6)
    assert tuple(second.outputs["wide"].shape) == (4, 3)
    with pytest.raises(CompileError, match=r"input x is missing"):
        interpret(replace(ir, symbols={}, inputs={"x": replace(ir.inputs["x"], shape=(4, 3))}), {})
    with pytest.raises(CompileError, match=r"no input has n as a dimension"):
        interpret(ir, {})
    with pytest.raises(CompileError, match=r"expected float32\[4, 3\]"):
        interpret(ir, {"x": x.double()})


def test_compilation_stops_after_any_pass_and_goes_on_from_its_text() -> None:
    module, inputs = CASES["fuse_epilogue_residual"].make()
    ir = extract_ir(module, inputs, model_name="resumed")
    whole, dumps = run_passes(ir, graphs.CPU)
    for title in list(dumps)[1:]:
        part, _ = run_passes(ir, graphs.CPU, stop_after=title)
        assert to_text(part) == dumps[title]
        final, _ = run_passes(from_text(dumps[title]), graphs.CPU, start_after=title)
        assert to_text(final) == to_text(whole)
    with pytest.raises(CompileError, match=r"unknown pass 'fuse_all': the passes are 01-complex_as_pairs"):
        run_passes(ir, graphs.CPU, stop_after="fuse_all")


def test_lowering_names_every_node_that_it_refuses() -> None:
    def unusual(m: Any, x: torch.Tensor) -> torch.Tensor:
        return torch.special.bessel_j0(x).cumsum(0) + torch.linalg.det(x)

    module = CASES["fuse_pointwise_tree"].make()[0]
    module.function = unusual
    ir = extract_ir(module, (values(5, 5),), model_name="unusual")
    with pytest.raises(UnsupportedOpError) as caught:
        run_passes(ir, graphs.CPU)
    refused = {refusal.op.split(".")[1] for refusal in caught.value.refusals}
    assert refused >= {"special_bessel_j0", "linalg_det"}
    for refusal in caught.value.refusals:
        assert "pass_cases.py" in refusal.loc and refusal.remedy and refusal.node in str(caught.value)
