"""Programs as a whole: same bytes for the same graph, errors that help, texts and weights that are right."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import graphs
import numpy as np
import pytest
import torch
from torch import nn

from npu_compiler.compiler import compile_ir, compile_with_report
from npu_compiler.ctext import Step, body_lines, index_text, size_text, step_text
from npu_compiler.dtypes import literal
from npu_compiler.errors import CompileError, UnsupportedOpError
from npu_compiler.ops import Case, OpDef, load_all, lowers, register
from npu_compiler.pipeline import PASSES
from npu_compiler.weights import Transforms, constant_exprs, first_key
from npu_runtime import transforms
from torch_ir import extract_ir
from torch_ir.expr import evaluate, maximum, minimum, parse, symbol
from torch_ir.ir import IR

sys.path.insert(0, str(Path(__file__).parents[1] / "ops"))
from op_graphs import Sample, samples

ROOT = Path(__file__).parents[2]


def small() -> tuple[nn.Module, torch.Tensor]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(72, 5))
    return model.eval(), torch.randn(2, 3, 5, 5)


def small_ir() -> IR:
    model, x = small()
    return extract_ir(model, x, model_name="small")


def test_the_same_graph_gives_the_same_bytes_in_every_process(tmp_path: Path) -> None:
    small_ir().save(tmp_path / "small.ir.json")
    code = "import sys; from npu_compiler import compile_ir; compile_ir(sys.argv[1]).save(sys.argv[2])"
    files = []
    for seed in ("0", "4711"):
        files.append(tmp_path / f"{seed}.npubin")
        environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": f"{ROOT / 'npu'}:{ROOT}"}
        subprocess.run(
            [sys.executable, "-c", code, tmp_path / "small.ir.json", files[-1]],
            check=True,
            env=environment,
            cwd=tmp_path,
        )
    assert files[0].read_bytes() == files[1].read_bytes()


def test_source_lines_do_not_reach_the_program() -> None:
    ir = small_ir()
    moved = replace(ir, nodes=tuple(replace(node, loc=f"{node.loc}0") for node in ir.nodes))
    assert compile_ir(ir) == compile_ir(moved)


def test_a_report_lists_templates_decisions_and_dumps() -> None:
    report = compile_with_report(small_ir())
    assert "ops/conv_igemm.cl.j2" in report.templates and "lib/prelude.cl.j2" in report.templates
    assert list(report.dumps)[:2] == ["00-extracted", f"01-{PASSES[0].__name__}"]
    assert any("product" in decision and "18" in decision for decision in report.decisions)


def test_every_step_names_where_it_came_from() -> None:
    report = compile_with_report(small_ir())
    extracted = {node.name for node in small_ir().nodes}
    for step in report.program.steps:
        assert step.origin and set(step.origin) <= extracted


def test_kernel_files_hold_one_kernel_each() -> None:
    program = compile_ir(small_ir())
    for kernel in program.kernels:
        assert kernel.file == f"kernels/{kernel.entry}.cl"
        assert program.kernel_sources[kernel.file].count("__kernel") == 1


def test_intermediate_values_can_be_outputs(guarded: graphs.GuardedDevice) -> None:
    model, x = small()
    ir = extract_ir(model, x, model_name="small")
    program = compile_ir(ir, expose_values=True)
    names = [spec.name for spec in program.output_specs]
    assert names[0] == "output" and len(names) > 1
    ran = graphs.run(program, guarded, {next(iter(ir.inputs)): x}, model.state_dict(), guarded=True)
    with torch.no_grad():
        np.testing.assert_allclose(ran.outputs["output"], model(x).numpy(), rtol=2e-5, atol=2e-5)
        relu = model[:3](x).numpy()
    assert any(
        array.shape == relu.shape and np.allclose(array, relu, atol=2e-5) for array in ran.outputs.values()
    )
    assert ran.damage == []


class Counter(nn.Module):
    """Swaps two states and counts."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("a", torch.tensor([1.0, 2.0, 3.0]))
        self.register_buffer("b", torch.tensor([10.0, 20.0, 30.0]))
        self.register_buffer("steps", torch.zeros(1, dtype=torch.int64))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        old = self.a.clone()
        self.a.copy_(self.b)
        self.b.copy_(old)
        self.steps.add_(1)
        return x + old


def test_states_that_swap_keep_apart(guarded: graphs.GuardedDevice) -> None:
    model = Counter()
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    ir = extract_ir(model, torch.zeros(3), model_name="counter")
    ran = graphs.run(compile_ir(ir), guarded, {next(iter(ir.inputs)): torch.ones(3)}, weights, guarded=True)
    np.testing.assert_array_equal(ran.outputs["output"], [2, 3, 4])
    np.testing.assert_array_equal(ran.states["a"], [10, 20, 30])
    np.testing.assert_array_equal(ran.states["b"], [1, 2, 3])
    np.testing.assert_array_equal(ran.states["steps"], [1])
    assert ran.damage == []


@pytest.mark.parametrize("batch", [1, 3, 8])
def test_one_program_for_all_batch_sizes(batch: int, guarded: graphs.GuardedDevice) -> None:
    model, x = small()
    ir = extract_ir(model, x, model_name="small", dynamic_shapes={"input": {0: ("batch", 1, 8)}})
    program = compile_ir(ir)
    data = torch.randn(batch, 3, 5, 5, generator=torch.Generator().manual_seed(batch))
    ran = graphs.run(program, guarded, {"input": data}, model.state_dict(), guarded=True)
    with torch.no_grad():
        np.testing.assert_allclose(ran.outputs["output"], model(data).numpy(), rtol=2e-5, atol=2e-5)
    assert ran.damage == []


def test_errors_name_the_thing_and_the_remedy() -> None:
    ir = small_ir()
    with pytest.raises(CompileError, match=r"unknown target 'cpi'.*did you mean 'cpu'\?"):
        compile_ir(ir, target="cpi")
    with pytest.raises(CompileError, match=r"precision 'float8': expected one of float32"):
        compile_ir(ir, precision="float8")

    class Unusual(nn.Module):
        def forward(self, x: torch.Tensor) -> Any:
            return torch.special.bessel_j0(x), torch.linalg.det(x)

    unusual = extract_ir(Unusual(), torch.eye(3), model_name="unusual")
    with pytest.raises(UnsupportedOpError, match="unusual: 2 nodes cannot be compiled") as caught:
        compile_ir(unusual)
    assert [refusal.op for refusal in caught.value.refusals] == [
        "aten.special_bessel_j0.default",
        "aten.linalg_det.default",
    ]


def test_two_claims_on_one_name_fail() -> None:
    ops, lowerings = load_all()
    with pytest.raises(RuntimeError, match="two records claim the op 'add'"):
        register(ops["add"])
    with pytest.raises(RuntimeError, match=r"two lowerings claim 'aten\.add\.Tensor'"):
        lowers("aten.add.Tensor")(lowerings["aten.add.Tensor"])
    with pytest.raises(RuntimeError, match="exactly one of expr, alias and emit"):
        register(OpDef("nothing", ops["add"].infer, ops["add"].reference, cases=(Case(((3,),)),)))


S, T = symbol("s"), symbol("t")


@pytest.mark.parametrize(
    "dim",
    [
        S * 4 + 3,
        (S + 1) * (T + 2),
        (S * 3 + 5) // 7,
        (S + T) % 5,
        minimum(S, 5) + maximum(T, S),
        S * S * T,
        parse("7"),
    ],
    ids=str,
)
def test_sizes_as_c(dim: Any) -> None:
    text = size_text(dim)
    for s, t in ((0, 0), (1, 7), (13, 4), (29, 113)):
        python = text.replace("/", "//").replace("(int)", "")
        assert eval(python, {"n_s": s, "n_t": t, "min": min, "max": max}) == evaluate(dim, {"s": s, "t": t})


def test_indices_as_c() -> None:
    assert index_text([("i", 1), ("j", 0), ("k", S * 3)], 0, "int") == "i + k * n_s * 3"
    assert index_text([], 0, "int") == "0"
    assert index_text([("i", 5)], 7, "long") == "7 + (long)i * 5"


@pytest.mark.parametrize(
    ("value", "dtype", "text"),
    [
        (1, "float32", "1.0f"),
        (-2.5, "float32", "(-2.5f)"),
        (1e-9, "float32", "1e-09f"),
        (0.1, "float64", "0.1"),
        (float("inf"), "float32", "INFINITY"),
        (-float("inf"), "float32", "(-INFINITY)"),
        (float("nan"), "float32", "NAN"),
        (-3, "int64", "(-3L)"),
        (True, "bool", "1"),
        (-(1 << 63), "int64", "(-9223372036854775807L - 1)"),
    ],
)
def test_numbers_as_c(value: float, dtype: str, text: str) -> None:
    assert literal(value, dtype) == text


def test_steps_as_c() -> None:
    body = (
        Step("mul", ("i0", 2.0), {}, "float32"),
        Step("gt", ("t0", "i1"), {}, "bool"),
        Step("cast", ("t1",), {"dtype": "torch.int64"}, "int64"),
    )
    assert body_lines(body, ["float32", "float32"]) == [
        "const float t0 = (i0 * ((float)(2.0f)));",
        "const uchar t1 = (t0 > i1 ? 1 : 0);",
        "const long t2 = ((long)t1);",
    ]
    assert step_text(Step("relu", ("i0",), {}, "float32"), ["float32"], ["v"], 8) == (
        "(v < (float8)(0) ? (float8)(0) : v)"
    )


WEIGHT_SAMPLES = [
    made
    for sample in samples()
    if sample.op.weight_expr is not None and sample.layout == "row"
    for made in [replace(sample, case=replace(sample.case, constant=tuple(range(len(sample.case.shapes)))))]
    if "y0" in constant_exprs(made.graph())  # a record may do some of its cases only
]


def test_every_op_that_has_an_expression_has_a_case_for_it() -> None:
    assert {sample.op.name for sample in WEIGHT_SAMPLES} == {
        sample.op.name for sample in samples() if sample.op.weight_expr is not None
    }


@pytest.mark.parametrize("sample", WEIGHT_SAMPLES, ids=lambda sample: sample.id)
def test_an_op_on_weights_gives_what_it_gives_in_a_run(sample: Sample) -> None:
    arrays = sample.arrays()
    expr = constant_exprs(sample.graph())["y0"]
    made = transforms.evaluate(expr, lambda key: arrays[int(key[1:])])
    (expected,) = sample.reference(torch, arrays)
    assert made.shape == expected.shape
    np.testing.assert_allclose(made.astype(expected.dtype), expected, rtol=1e-5, atol=1e-6)


def test_equal_weights_are_one_tensor() -> None:
    made = Transforms()
    expr = ["add", ["tensor", "w"], ["tensor", "b"]]
    first = made.add(expr, (3,), "float32")
    assert first == made.add(["add", ["tensor", "w"], ["tensor", "b"]], (3,), "float32")
    assert first != made.add(expr, (1, 3), "float32")
    assert first.startswith("w@") and first_key(["neg", ["const", "float32", [], ""]]) == "constant"
    assert len(made.made) == 2
