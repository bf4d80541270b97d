"""Templates say what they take, take nothing else, and refuse what is out of range."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
import jinja2.meta
import pytest

from npu_compiler.emit import Emitter
from npu_compiler.emitted import Options
from npu_compiler.errors import CompileError
from npu_compiler.render import includes, render, template_closure
from npu_compiler.select import kernel_name
from npu_compiler.target import load_target

sys.path.insert(0, str(Path(__file__).parents[1] / "ops"))
from gpu_samples import half_samples
from op_graphs import samples

ROOT = Path(__file__).parents[2] / "templates"
TEMPLATES = sorted(path.relative_to(ROOT).as_posix() for path in ROOT.rglob("*.cl.j2"))
#: Set by Jinja2 or by the environment.
OWN = {"check", "loop", "_"}


def names_used(template: str) -> set[str]:
    """The names that a template and what it includes take from outside."""
    environment = jinja2.Environment(trim_blocks=True, lstrip_blocks=True)
    text = (ROOT / template).read_text(encoding="utf-8")
    used = jinja2.meta.find_undeclared_variables(environment.parse(text)) - OWN
    for other in re.findall(r"{%-?\s*include\s+\"([^\"]+)\"", text):
        used |= names_used(other) - {"item"}
    return used


@cache
def calls() -> dict[str, list[Mapping[str, Any]]]:
    """The parameters that records pass, by template."""
    found: dict[str, list[Mapping[str, Any]]] = {}
    for target, subjects in (("cpu", samples()), ("nvidia", [*samples(), *half_samples()])):
        for sample in subjects:
            emitter = Emitter(sample.graph(), load_target(target), Options())
            emitter.run()
            for call in emitter.calls:
                found.setdefault(call.template, []).append({"entry": call.entry, **call.params})
    return found


@pytest.mark.parametrize("template", [name for name in TEMPLATES if name.startswith("ops/")])
def test_the_first_comment_names_the_parameters(template: str) -> None:
    text = (ROOT / template).read_text(encoding="utf-8")
    assert text.startswith("{#-") and "params:" in text.split("-#}")[0]
    words = set(re.findall(r"\w+", text.split("-#}")[0].split("params:")[1]))
    assert names_used(template) <= words


@pytest.mark.parametrize("template", sorted(calls()))
def test_records_pass_what_the_template_uses(template: str) -> None:
    passed = set().union(*calls()[template])
    assert passed == names_used(template)


@pytest.mark.parametrize("template", TEMPLATES)
def test_includes_are_literal(template: str) -> None:
    assert all((ROOT / name).is_file() for name in includes(template))
    assert template in template_closure([template])


def test_a_computed_include_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from npu_compiler import render as module

    (tmp_path / "x.cl.j2").write_text("{% include name %}")
    monkeypatch.setattr(module, "template_root", lambda: tmp_path)
    with pytest.raises(CompileError, match="must be a literal"):
        includes("x.cl.j2")


@pytest.mark.parametrize(
    ("template", "wrong"),
    [
        ("ops/pointwise.cl.j2", {"index_type": "short"}),
        ("ops/pointwise.cl.j2", {"grain": 0}),
        ("ops/pointwise.cl.j2", {"rows_per_item": 0}),
        ("ops/softmax.cl.j2", {"grain": 0}),
        ("ops/scan.cl.j2", {"operator": "-"}),
        ("ops/scan.cl.j2", {"grain": -1}),
        ("ops/reduce.cl.j2", {"variant": "tree"}),
        ("ops/reduce.cl.j2", {"variant": "lanes", "lane": None}),
        ("ops/arg_reduce.cl.j2", {"index_type": "float"}),
        ("ops/arg_reduce.cl.j2", {"part": "half"}),
        ("ops/arg_reduce.cl.j2", {"lanes": 8}),
        ("ops/gather_rows.cl.j2", {"index_type": "float"}),
        ("ops/gather_rows.cl.j2", {"group": 0}),
        ("ops/scatter_rows.cl.j2", {"grain": 0}),
        ("ops/scatter_rows.cl.j2", {"index_type": "float"}),
        ("ops/gather_along.cl.j2", {"index_type": "short"}),
        ("ops/scatter_along.cl.j2", {"index_type": "short"}),
        ("ops/sort.cl.j2", {"index_type": "short"}),
        ("ops/pool_windows.cl.j2", {"op": "min"}),
        ("ops/embedding_bag.cl.j2", {"mode": "median"}),
        ("ops/scan_best.cl.j2", {"index_type": "short"}),
        ("ops/distance.cl.j2", {"index_type": "short"}),
        ("ops/matmul.cl.j2", {"tm": 9}),
        ("ops/matmul.cl.j2", {"tn": 0}),
        ("ops/conv_igemm.cl.j2", {"mr": 17}),
        ("ops/conv_igemm.cl.j2", {"mr": 0}),
        ("ops/conv_igemm.cl.j2", {"nv": 9}),
        ("ops/conv_igemm.cl.j2", {"unroll": 9}),
        ("ops/conv_igemm.cl.j2", {"parts": 3, "unroll": 4}),
        ("ops/conv_igemm.cl.j2", {"split": -1}),
        ("ops/conv_igemm.cl.j2", {"tail": 2, "mr": 6, "split": 0}),
        ("ops/conv_igemm.cl.j2", {"flat": True, "bounds": True}),
        ("ops/conv_igemm.cl.j2", {"out": "nchw"}),
        ("ops/conv_igemm.cl.j2", {"order": "row"}),
        ("ops/conv_igemm.cl.j2", {"weight": "f64"}),
        ("ops/conv_igemm.cl.j2", {"gate": [], "residual": True}),
        ("ops/attention.cl.j2", {"lanes": 4}),
        ("ops/attention.cl.j2", {"block": 12}),
        ("ops/attention.cl.j2", {"rows": 9}),
        ("ops/attention.cl.j2", {"ahead": 3}),
        ("ops/attention.cl.j2", {"mask": "int"}),
        ("ops/attention.cl.j2", {"index_type": "short"}),
        ("ops/attention.cl.j2", {"tables": ("f32", "f32"), "width": 24}),
        ("ops/attention.cl.j2", {"parts": 0}),
        ("ops/attention_lanes.cl.j2", {"mask": "int"}),
        ("ops/attention_lanes.cl.j2", {"index_type": "short"}),
        ("ops/attention_lanes.cl.j2", {"wide": 4}),
        ("ops/attention_lanes.cl.j2", {"tables": ("f32", "f32"), "width": 7}),
        ("ops/attention_combine.cl.j2", {"parts": 1}),
        ("ops/attention_combine.cl.j2", {"index_type": "short"}),
        ("ops/norm.cl.j2", {"grain": 0}),
        ("ops/norm.cl.j2", {"index_type": "short"}),
        ("ops/norm.cl.j2", {"rounded": "f16", "lanes": 8}),
        ("ops/rotary.cl.j2", {"width": 7}),
        ("ops/rotary.cl.j2", {"index_type": "short"}),
        ("ops/seen_end.cl.j2", {"index_type": "short"}),
        ("ops/cache_rows.cl.j2", {"index_type": "short"}),
        ("ops/cache_rows.cl.j2", {"rotary": True, "width": 7}),
        ("ops/cache_rows.cl.j2", {"index_offset": None, "grain": 0}),
        ("ops/conv_depthwise.cl.j2", {"kh": 10}),
        ("ops/conv_depthwise.cl.j2", {"tw": 17}),
        ("ops/conv_depthwise.cl.j2", {"sw": 0}),
        ("ops/conv_depthwise.cl.j2", {"out": "nchw"}),
        ("ops/expanded_depthwise.cl.j2", {"mr": 200}),
        ("ops/expanded_depthwise.cl.j2", {"unroll": 0}),
        ("ops/expanded_depthwise.cl.j2", {"kw": 10}),
        ("ops/expanded_depthwise.cl.j2", {"tile": 30}),
        ("ops/expanded_depthwise.cl.j2", {"out": "nchw"}),
        ("ops/pool.cl.j2", {"op": "min"}),
        ("ops/pool.cl.j2", {"out": "nchw"}),
        ("ops/pool.cl.j2", {"KH": 0}),
        ("ops/pack_rows.cl.j2", {"channels": 9}),
        ("ops/winograd.cl.j2", {"part": "middle"}),
        ("ops/winograd.cl.j2", {"size": 3}),
        ("ops/winograd_strided.cl.j2", {"part": "middle"}),
        ("ops/winograd_strided.cl.j2", {"size": 3}),
        ("ops/winograd_whole.cl.j2", {"size": 3}),
        ("ops/winograd_whole.cl.j2", {"mr": 0}),
        ("ops/winograd_whole.cl.j2", {"IC": 12}),
        ("ops/winograd_whole.cl.j2", {"TH": 3, "rows": 2}),
        ("ops/attention_group.cl.j2", {"group": 96}),
        ("ops/attention_group.cl.j2", {"rows": 5}),
        ("ops/attention_group.cl.j2", {"lanes": 4}),
        ("ops/attention_group.cl.j2", {"value_width": 257, "lanes": 1}),
        ("ops/attention_group.cl.j2", {"mask": "int"}),
        ("ops/norm_group.cl.j2", {"group": 33}),
        ("ops/norm_group.cl.j2", {"rounded": "f32"}),
        ("ops/softmax_group.cl.j2", {"group": 512}),
        ("ops/reduce_group.cl.j2", {"group": 0}),
        ("ops/conv_depthwise_point.cl.j2", {"KH": 0}),
        ("ops/pool_point.cl.j2", {"op": "min"}),
        ("ops/rotary.cl.j2", {"group": 0}),
        ("ops/cache_rows.cl.j2", {"group": 0}),
        ("ops/seen_end_group.cl.j2", {"group": 100}),
        ("ops/matvec_group.cl.j2", {"pixels": 9}),
        ("ops/matvec_group.cl.j2", {"lanes": 96}),
        ("ops/matvec_group.cl.j2", {"rows": 0}),
        ("ops/matvec_group.cl.j2", {"image": True}),
        ("ops/matvec_group.cl.j2", {"norm": {"eps": "0.0f"}, "x_type": "bf16"}),
        ("ops/matmul_tiled.cl.j2", {"vector": "yes"}),
        ("ops/matmul_mma.cl.j2", {"weight": "f32"}),
        ("ops/matmul_mma.cl.j2", {"nt": 9}),
        ("ops/matmul_mma.cl.j2", {"vector": "yes"}),
        ("ops/matmul_mma.cl.j2", {"gate": [], "nt": 1}),
        ("ops/matmul_mma.cl.j2", {"stages": 1}),
        ("ops/matmul_mma.cl.j2", {"parts": 2, "bias": True}),
        ("ops/matmul_mma.cl.j2", {"stages": 3, "vector": True, "x_type": "bf16", "weight": "bf16", "nt": 3}),
        ("ops/matmul_sum.cl.j2", {"parts": 1}),
        ("ops/attention_mma.cl.j2", {"half": "f32"}),
        ("ops/attention_mma.cl.j2", {"warps": 3}),
        ("ops/attention_mma.cl.j2", {"block": 8}),
        ("ops/attention_mma.cl.j2", {"width": 48}),
        ("ops/attention_mma.cl.j2", {"value_width": 40}),
        ("ops/attention_mma.cl.j2", {"mask": "int"}),
        ("ops/matmul_mma.cl.j2", {"wm": 1, "wn": 3}),
        ("ops/matmul_mma_split.cl.j2", {"weight": "f32"}),
        ("ops/matmul_mma_split.cl.j2", {"slices": 32}),
        ("ops/matmul_mma_split.cl.j2", {"vector": "yes"}),
        ("ops/matmul_mma_split.cl.j2", {"gate": [], "nt": 1}),
        ("ops/draw_token.cl.j2", {"part": "sort"}),
        ("ops/draw_token.cl.j2", {"group": 100}),
        ("ops/draw_token.cl.j2", {"group": 256, "grain": 1000}),
        ("ops/draw_token.cl.j2", {"chunks": 0}),
    ],
)
def test_parameters_out_of_range_are_refused(template: str, wrong: dict[str, Any]) -> None:
    given = calls()[template][0]
    assert render(template, given)
    with pytest.raises(CompileError, match="out of range"):
        render(template, {**given, **wrong})


def test_every_check_of_a_template_has_a_case() -> None:
    """The table above grows with the templates."""
    table = test_parameters_out_of_range_are_refused.pytestmark[0].args[1]  # type: ignore[attr-defined]
    for template in calls():
        checks = len(re.findall(r"{{ check\(", (ROOT / template).read_text(encoding="utf-8")))
        assert sum(name == template for name, _ in table) >= checks, template


@pytest.mark.parametrize("template", sorted(calls()))
def test_missing_parameters_are_an_error(template: str) -> None:
    with pytest.raises(CompileError, match=rf"{re.escape(template)}: '\w+' is undefined"):
        render(template, {"entry": "kernel"})


def test_a_template_that_does_not_exist() -> None:
    with pytest.raises(CompileError, match=r"templates/ops/none\.cl\.j2 does not exist"):
        render("ops/none.cl.j2", {})


def test_kernels_are_named_after_what_they_are() -> None:
    first = kernel_name("conv2d", "f32", "igemm", {"t": "6x16"}, {"mr": 6})
    assert re.fullmatch(r"conv2d_f32_igemm__t6x16_h[0-9a-f]{8}", first)
    assert first == kernel_name("conv2d", "f32", "igemm", {"t": "6x16"}, {"mr": 6})
    assert first != kernel_name("conv2d", "f32", "igemm", {"t": "6x16"}, {"mr": 7})
    assert kernel_name("scale", "f32", "", {"a": -1.5}, {}).startswith("scale_f32__am1p5_h")  # type: ignore[dict-item]


def test_equal_names_mean_equal_kernels() -> None:
    seen: dict[str, str] = {}
    for template, given in ((template, params) for template, all_ in calls().items() for params in all_):
        text = render(template, given)
        assert seen.setdefault(given["entry"], text) == text
        assert given["entry"] in text
