"""The shipped models: layouts that published checkpoints have, and random weights that are worth
compiling."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from pipelines.zoo.efficientnet_lite import SameConv2d, efficientnet_lite0
from pipelines.zoo.minilm import all_minilm_l6_v2
from pipelines.zoo.randomize import randomize
from pipelines.zoo.resnet import resnet18, resnet50

FACTORIES = {"resnet18": resnet18, "resnet50": resnet50, "efficientnet_lite0": efficientnet_lite0}
LAYOUTS = {**FACTORIES, "all_minilm_l6_v2": all_minilm_l6_v2}
PARAMETERS = {
    "resnet18": 11_689_512,
    "resnet50": 25_557_032,
    "efficientnet_lite0": 4_652_008,
    "all_minilm_l6_v2": 22_565_376,
}


def layout(name: str) -> dict[str, tuple[int, ...]]:
    """state_dict key -> shape, from the committed list."""
    section, found = "", {}
    for line in (Path(__file__).parent / "state_dicts.txt").read_text().splitlines():
        if line.startswith("["):
            section = line.strip("[]")
        elif section == name and line:
            key, *sizes = line.split()
            if sizes[0] == "norm":
                leaves = ("weight", "bias", "running_mean", "running_var")
                found.update({f"{key}.{leaf}": (int(sizes[1]),) for leaf in leaves})
                found[f"{key}.num_batches_tracked"] = ()
            else:
                found[key] = tuple(map(int, sizes))
    return found


@pytest.mark.parametrize("name", LAYOUTS)
def test_state_dict_has_the_published_keys_and_shapes(name: str) -> None:
    with torch.device("meta"):
        model = LAYOUTS[name]()
    assert {key: tuple(tensor.shape) for key, tensor in model.state_dict().items()} == layout(name)
    assert sum(parameter.numel() for parameter in model.parameters()) == PARAMETERS[name]


def varied_images(count: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(count, 3, 64, 64, generator=generator)


@pytest.mark.parametrize("name", FACTORIES)
def test_random_weights_answer_differently_to_different_inputs(name: str) -> None:
    with torch.device("meta"):
        model = FACTORIES[name]()
    model = randomize(model, 0)
    assert not model.training
    with torch.no_grad():
        logits = model(varied_images(6))
    assert torch.isfinite(logits).all()
    assert 0.1 < logits.std() < 20
    assert len(set(logits.argmax(1).tolist())) > 1
    assert logits.std(0).mean() > 0.1 * logits.std()


def test_random_weights_follow_from_the_seed() -> None:
    first, second, other = (randomize(resnet18(10), seed).state_dict() for seed in (3, 3, 4))
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert not any(torch.equal(first[key], other[key]) for key in first if not key.endswith("tracked"))


def test_random_batch_norms_would_show_any_part_that_a_compiler_drops() -> None:
    for name, tensor in randomize(resnet18(10), 0).state_dict().items():
        if "bn" in name and tensor.dim():
            neutral = 1.0 if name.endswith(("running_var", "weight")) else 0.0
            assert (tensor - neutral).abs().mean() > 0.05, name
            assert tensor.std() > 0.05, name


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "padding"),
    [
        (224, 3, 2, (0, 1)),
        (113, 3, 2, (1, 1)),
        (112, 5, 2, (1, 2)),
        (7, 5, 1, (2, 2)),
        (56, 1, 1, (0, 0)),
        (2, 5, 2, (1, 2)),
    ],
)
def test_same_padding_is_tensorflows(size: int, kernel: int, stride: int, padding: tuple[int, int]) -> None:
    assert SameConv2d(1, 1, kernel, stride)._padding(size, 0) == padding
    out = SameConv2d(1, 1, kernel, stride)(torch.zeros(1, 1, size, size))
    assert out.shape[-2:] == (-(-size // stride),) * 2
