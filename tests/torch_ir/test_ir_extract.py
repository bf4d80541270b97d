"""Every case: extract, verify, save, load, print, parse, run; equal to the module, states included."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from ir_cases import CASES, Cache, Call, Case, ConvBlock, values
from torch import nn
from torch._higher_order_ops import while_loop

from torch_ir import IR, IRError, eager, extract_ir
from torch_ir.functionalize import is_in_place
from torch_ir.printer import from_text, to_text


def build(case: Case) -> nn.Module:
    torch.manual_seed(1)
    model = case.make().eval()
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    return model


def extracted(case: Case, model: nn.Module) -> IR:
    example = case.inputs if case.example is None else case.example
    return extract_ir(model, example, model_name="case", dynamic_shapes=case.dynamic_shapes)


def flat(result: object) -> list[torch.Tensor]:
    return [leaf for leaf in torch.utils._pytree.tree_leaves(result) if leaf is not None]


@pytest.fixture(scope="module", params=CASES)
def graph(request: pytest.FixtureRequest) -> tuple[Case, nn.Module, IR]:
    case = CASES[request.param]
    model = build(case)
    return case, model, extracted(case, model)


def test_graph_is_functional_and_complete(graph: tuple[Case, nn.Module, IR]) -> None:
    case, _, ir = graph
    ir.verify()
    assert tuple(output.name for output in ir.outputs) == case.outputs
    assert {state.key for state in ir.states.values()} == set(case.states)
    ops = [node.op for node in ir.nodes]
    assert not [op for op in ops if is_in_place(op) or "getitem" in op or "sym_size" in op]
    assert set(case.ops) <= set(ops)


def test_inputs_follow_the_schema(graph: tuple[Case, nn.Module, IR]) -> None:
    for node in graph[2].nodes:
        name, overload = node.op.removeprefix("aten.").split(".")
        schema = getattr(getattr(torch.ops.aten, name), overload)._schema
        kinds = {argument.name: str(argument.type) for argument in schema.arguments}
        tensors = [key for key, kind in kinds.items() if kind in ("Tensor", "Optional[Tensor]")]
        sizes = node.attrs.get("_tensor_list_sizes", ())
        assert len(node.inputs) == len([key for key in tensors if key not in node.attrs]) + sum(sizes)
        assert set(node.attrs) - {"_tensor_list_sizes"} <= set(kinds)
        assert None not in node.attrs.values()


def test_file_and_text_round_trip(graph: tuple[Case, nn.Module, IR], tmp_path: Path) -> None:
    ir = graph[2]
    ir.save(tmp_path / "ir.json")
    assert IR.load(tmp_path / "ir.json") == ir
    text = to_text(ir)
    assert from_text(text) == ir
    assert to_text(from_text(text)) == text
    assert [path.name for path in tmp_path.iterdir()] == ["ir.json"]


def test_eager_equals_the_module(graph: tuple[Case, nn.Module, IR]) -> None:
    case, model, ir = graph
    model = copy.deepcopy(model)
    weights = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    states: dict[str, torch.Tensor] | None = None
    for _ in range(2):  # states carry over
        inputs = {name: tensor.clone() for name, tensor in case.inputs.items()}
        result = eager.run(ir, inputs, weights, states)
        with torch.no_grad():
            expected = flat(model(**{name: tensor.clone() for name, tensor in case.inputs.items()}))
        assert len(expected) == len(result.outputs)
        for found, wanted in zip(result.outputs.values(), expected, strict=True):
            assert found.dtype == wanted.dtype
            torch.testing.assert_close(found, wanted, rtol=0, atol=case.tolerance)
        buffers = dict(model.named_buffers())
        for key, state in result.states.items():
            assert torch.equal(state, buffers[key]), key
        states = result.states
        for name, tensor in inputs.items():
            assert torch.equal(tensor, case.inputs[name]), f"{name} was changed"
    assert any(tensor.float().nan_to_num().abs().sum() > 0 for tensor in result.outputs.values())


class Difference(nn.Module):
    """Two inputs whose order matters, and a weight."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor([2.0, 3.0]))

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return x - y * self.scale


@pytest.mark.parametrize("dynamic", [None, {"x": {0: ("n", 1, 4)}, "y": {0: ("n", 1, 4)}}])
def test_one_tensor_as_several_inputs_is_several_inputs(dynamic: object) -> None:
    model, same = Difference(), torch.ones(2, 2)
    ir = extract_ir(model, {"x": same, "y": same}, dynamic_shapes=dynamic)
    inputs = {"x": torch.randn(2, 2), "y": torch.randn(2, 2)}
    (found,) = eager.run(ir, inputs, model.state_dict()).outputs.values()
    torch.testing.assert_close(found, model(**inputs))


def test_a_weight_given_as_an_input_is_an_input() -> None:
    model = Difference()
    ir = extract_ir(model, {"x": torch.ones(2), "y": model.scale})
    inputs = {"x": torch.ones(2), "y": torch.ones(2) * 5}
    (found,) = eager.run(ir, inputs, model.state_dict()).outputs.values()
    torch.testing.assert_close(found, torch.tensor([-9.0, -14.0]))


@pytest.mark.parametrize("name", ["conv_bn_relu", "state_add", "sizes", "norms", "no_grad"])
def test_float64_reference(name: str) -> None:
    case, model = CASES[name], build(CASES[name])
    result = eager.run(extracted(case, model), case.inputs, model.state_dict(), dtype=torch.float64)
    with torch.no_grad():
        expected = flat(model.double()(**{key: value.double() for key, value in case.inputs.items()}))
    for found, wanted in zip(result.outputs.values(), expected, strict=True):
        assert found.dtype in (torch.float64, torch.int64)
        torch.testing.assert_close(found.double(), wanted.double(), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    "name",
    [
        "conv_bn_relu",
        "dynamic_batch_example_1",
        "tied",
        "state_add",
        "deep_in_place",
        "autocast",
        "norms",
        "recurrent",
        "state_zeros",
        "sequential",
    ],
)
def test_meta_model_gives_the_same_graph(name: str) -> None:
    case = CASES[name]
    on_cpu = extracted(case, build(case))
    with torch.device("meta"):
        model = case.make().eval()
    example = case.inputs if case.example is None else case.example
    held = {key: id(tensor) for key, tensor in model.state_dict(keep_vars=True).items()}
    found = extract_ir(model, example, model_name="case", dynamic_shapes=case.dynamic_shapes)
    assert to_text(found) == to_text(on_cpu)
    assert {key: id(tensor) for key, tensor in model.state_dict(keep_vars=True).items()} == held
    assert all(parameter.device.type == "meta" for parameter in model.parameters())


def test_meta_example_for_a_model_on_the_cpu() -> None:
    ir = extract_ir(ConvBlock().eval(), torch.empty(2, 3, 7, 5, device="meta"))
    assert ir.inputs["x"].shape == (2, 3, 7, 5)


def test_extraction_is_deterministic() -> None:
    case = CASES["sizes"]
    texts = {to_text(extracted(case, build(case))) for _ in range(2)}
    assert len(texts) == 1


def test_symbols_and_locations() -> None:
    case = CASES["sizes"]
    ir = extracted(case, build(case))
    assert dict(ir.symbols) == {"batch": (1, 8), "length": (2, 64)}
    assert str(ir.inputs["x"].shape[0]) == "batch"
    assert {node.loc.rsplit(":", 1)[0] for node in ir.nodes} == {"tests/torch_ir/ir_cases.py"}
    assert all(not node.loc.startswith("/") for node in ir.nodes)
    deep = extracted(CASES["deep_in_place"], build(CASES["deep_in_place"]))
    assert all(node.loc.startswith("tests/torch_ir/ir_cases.py:") for node in deep.nodes)


@pytest.mark.parametrize(
    "shapes",
    [
        {"x": {0: torch.export.Dim("batch", min=1, max=8)}},
        ({0: torch.export.Dim("batch", min=1, max=8)},),
        {"x": (("batch", 1, 8), None, None, None)},
        {"x": {0: ["batch", 1, 8]}},
        {"x": {-4: ("batch", 1, 8)}},
    ],
    ids=["dim", "tuple", "per_dimension", "list", "negative"],
)
def test_forms_of_dynamic_shapes(shapes: object) -> None:
    check_batch(shapes, 1)


@pytest.mark.parametrize("example_batch", [0, 3, 20])
def test_any_example_of_a_dynamic_dimension(example_batch: int) -> None:
    check_batch({"x": {0: ("batch", 1, 8)}}, example_batch)


def check_batch(shapes: object, example_batch: int) -> None:
    ir = extract_ir(Call(lambda x: x * 2), torch.zeros(example_batch, 3, 2, 2), dynamic_shapes=shapes)
    assert dict(ir.symbols) == {"batch": (1, 8)}
    assert str(ir.outputs and ir.values()[ir.outputs[0].value].shape[0]) == "batch"


def test_dimension_with_one_possible_size() -> None:
    ir = extract_ir(Call(lambda x: x * 2), torch.zeros(3, 2), dynamic_shapes={"x": {0: ("batch", 5, 5)}})
    assert ir.inputs["x"].shape == (5, 2) and not ir.symbols


def test_derived_dimension() -> None:
    half = torch.export.Dim("half", min=1, max=16)
    ir = extract_ir(
        Call(lambda x: x.reshape(x.shape[0] // 2, 2)), torch.zeros(2), dynamic_shapes={"x": {0: 2 * half}}
    )
    assert str(ir.inputs["x"].shape[0]) == "2*half" and dict(ir.symbols) == {"half": (1, 16)}
    result = eager.run(ir, {"x": values(10)}, {})
    assert result.outputs["output"].shape == (5, 2)


def test_output_names() -> None:
    model = Call(lambda x: (x, None, x.shape[0], 2.5, "text", x + 1))
    ir = extract_ir(model, values(2), output_names=["same", "more"])
    assert [output.name for output in ir.outputs] == ["same", "more"]
    with pytest.raises(IRError, match="returns 2 tensors; give one name per tensor"):
        extract_ir(model, values(2), output_names=["one"])


def in_place_input(x: torch.Tensor) -> torch.Tensor:
    return x.add_(1)


def in_place_view_of_input(x: torch.Tensor) -> torch.Tensor:
    x.view(-1).add_(1)
    return x * 2


@torch.library.custom_op("npubin_tests::raise_", mutates_args={"x"})
def raise_(x: torch.Tensor) -> None:
    x.add_(1)


@raise_.register_fake
def _(x: torch.Tensor) -> None:
    return None


def custom_in_place(x: torch.Tensor) -> torch.Tensor:
    y = x.clone()
    raise_(y)
    return y


class Assigns(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.total = torch.zeros(3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.total = self.total + x.sum(0)
        return x + self.total


class InPlaceParameter(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.weight.add_(1)


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        (ConvBlock(), {"example": values(2, 3, 7, 5)}, r"training mode; call model.eval\(\)"),
        (nn.Dropout(), {}, r"training mode; call model.eval\(\)"),
        (Call(in_place_input), {}, r"changes its input x in place; work on a copy"),
        (Call(in_place_view_of_input), {}, r"changes .*x"),
        (Call(custom_in_place), {}, "calls npubin_tests.raise_.default, which changes its arguments"),
        (Call(lambda x: (x, x.shape[0])), {"dynamic_shapes": {"x": {0: ("n", 2, 8)}}}, "returns n, which is"),
        (Call(lambda x: x), {"example": values(3).to_sparse()}, "x is a tensor of layout sparse_coo"),
        (InPlaceParameter(), {}, "changes its parameter weight"),
        (Assigns(), {}, r"assigns self\.total, .* register_buffer.* call the module once before"),
        (Call(lambda x: x.nonzero()), {}, "depends on the values of a tensor"),
        (Call(torch.cov), {}, "depends on the values of a tensor; choose with torch.where"),
        (Call(lambda x: x.shape[0]), {}, "returns no tensor"),
        (Call(lambda x: None), {}, "returns no tensor"),
        (Call(lambda x: while_loop(lambda y: y.sum() < 9, lambda y: (y + 1,), (x,))), {}, "a Python loop"),
        (Call(lambda x: x), {"example": (values(1), values(1))}, "does not take this example"),
        (Call(lambda x: x), {"dynamic_shapes": {"y": {0: ("n", 1, 2)}}}, "names y, .* its inputs are x"),
        (Call(lambda x: x), {"dynamic_shapes": {"x": {3: ("n", 1, 2)}}}, "x has 2 dimensions"),
        (Call(lambda x: x), {"dynamic_shapes": {"x": {0: ("n", 4, 2)}}}, "is not a dynamic dimension"),
        (
            Call(lambda x: x),
            {"dynamic_shapes": {"x": {0: ("n", 1, 2), 1: ("n", 1, 3)}}},
            "same bounds everywhere",
        ),
        (
            Call(lambda x: x + 1),
            {"dynamic_shapes": {"x": {0: torch.export.Dim("n")}}},
            "n.* has no upper bound",
        ),
        (
            Call(lambda x: x + 1 if x.shape[0] > 5 else x),
            {"dynamic_shapes": {"x": {0: ("n", 1, 8)}}},
            r"\bn\b",
        ),
        (Call(lambda x: x.reshape(4, 3) + 1), {"dynamic_shapes": {"x": {0: ("n", 1, 8)}}}, r"\bn\b"),
        (Cache(lambda c, x: None, False).to("meta"), {}, "cache .*lies on the meta device"),
    ],
    ids=lambda value: None if not isinstance(value, str) else value[:20],
)
def test_refusals_name_the_remedy(model: nn.Module, options: dict[str, object], message: str) -> None:
    example = options.pop("example", None)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(IRError, match=message):
            extract_ir(model, values(4, 3) if example is None else example, **options)


def _checks(x: torch.Tensor) -> torch.Tensor:
    torch._check(x.int().max().item() < 10**6)
    return x + 1


def test_values_of_tensors_may_be_checked() -> None:
    assert [node.op for node in extract_ir(Call(_checks), values(4, 3)).nodes] == ["aten.add.Tensor"]


def _item_of_what_changes(x: torch.Tensor) -> torch.Tensor:
    y = x.clone()
    number = y[0, 0].item()
    y += 1
    return y * number


@pytest.mark.parametrize(
    ("function", "refusal"),
    [
        (lambda x: x * x.max().item(), ""),
        (lambda x: x * x.int().max().item(), ""),
        (lambda x: x - x[:1, 0].item(), ""),
        (lambda x: x[x.argmax() // 3 - 4], ""),
        (_item_of_what_changes, ""),
        (lambda x: x.max().item() - x, "keep it a tensor"),
        (lambda x: x.max().item(), "keep it a tensor"),
    ],
)
def test_the_number_in_a_tensor_is_that_tensor_or_refused(
    function: Callable[[torch.Tensor], torch.Tensor], refusal: str
) -> None:
    x = values(4, 3).abs()
    if refusal:
        with pytest.raises(IRError, match=refusal):
            extract_ir(Call(function), x)
        return
    other = {"x": x.flip(0) * 0.5}
    (found,) = eager.run(extract_ir(Call(function), x), other, {}).outputs.values()
    torch.testing.assert_close(found, function(other["x"]))


def test_eager_refusals() -> None:
    case = CASES["conv_bn_relu"]
    model = build(case)
    ir = extract_ir(model, values(1, 3, 7, 5), dynamic_shapes={"x": {0: ("batch", 1, 8)}})
    weights = model.state_dict()
    for inputs, held, message in [
        ({}, weights, "missing input x"),
        ({"x": values(2, 3, 7, 5), "y": values(1)}, weights, "unknown input y"),
        ({"x": values(2, 3, 7, 4)}, weights, "dimension 3 of input x is 4; expected 5"),
        ({"x": values(9, 3, 7, 5)}, weights, "batch is 9; the graph was extracted for 1 to 8"),
        ({"x": values(2, 3, 7, 5).double()}, weights, "expected float32"),
        ({"x": values(3, 7, 5)}, weights, "3 dimensions; expected 4"),
        ({"x": values(2, 3, 7, 5)}, {}, "weight .* is missing"),
    ]:
        with pytest.raises(IRError, match=message):
            eager.run(ir, inputs, held)


def test_eager_takes_numpy_and_keeps_values() -> None:
    import ml_dtypes
    import numpy as np

    ir = extract_ir(Call(lambda x: (x + 1).relu()), torch.zeros(3, dtype=torch.bfloat16))
    result = eager.run(ir, {"x": np.array([-4.0, 0.5, 2.0], ml_dtypes.bfloat16)}, {}, keep_values=True)
    assert result.outputs["output"].tolist() == [0.0, 1.5, 3.0]
    assert set(result.values) == {"x", "add", "relu"}
