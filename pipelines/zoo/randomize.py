"""Seeded random weights for a model that comes without a checkpoint."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping
from typing import Any, TypeAlias, TypeVar

import numpy as np
import torch
from torch import nn

Array: TypeAlias = "np.ndarray[Any, np.dtype[Any]]"
Shape: TypeAlias = tuple[int, ...]
Model = TypeVar("Model", bound=nn.Module)


def randomize(model: Model, seed: int) -> Model:
    """Fills every parameter and buffer of ``model`` from ``seed``; returns it in evaluation mode.

    The values depend on the seed and the modules' names alone: the same on every machine, whatever the
    order of the modules. Convolutions and linear layers get zero-sum rows with a gain that keeps the
    variance of activations near 1 behind a ReLU (a random network whose rows do not sum to zero answers
    nearly the same to every input). Batch norms get statistics, scales and shifts that all vary, so that a
    compiler which drops one of them is found out. The last norm of a block is scaled down a little, for the
    sum with its shortcut. A model on the meta device gets memory on the CPU.
    """
    if any(tensor.is_meta for tensor in model.state_dict(keep_vars=True).values()):
        model = model.to_empty(device="cpu")
    branch_ends = set(_branch_ends(model))
    with torch.no_grad():
        for name, module in model.named_modules():
            own = dict(module.named_parameters(recurse=False)) | dict(module.named_buffers(recurse=False))
            if not own:
                continue
            random = np.random.default_rng([seed, zlib.crc32(name.encode())])
            shapes = {leaf: tuple(tensor.shape) for leaf, tensor in own.items()}
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                values = _norm(random, shapes, gain=0.8 if name in branch_ends else 1.0)
            else:
                values = {leaf: _weight(random, shape) for leaf, shape in shapes.items()}
            for leaf, tensor in own.items():
                tensor.copy_(torch.from_numpy(np.asarray(values[leaf], np.float64)).to(tensor.dtype))
    return model.eval()


def _branch_ends(model: nn.Module) -> Iterator[str]:
    """The last batch norm of every block: a module that has several of its own, and no classifier."""
    for name, module in model.named_modules():
        children = dict(module.named_children())
        norms = [child for child, sub in children.items() if isinstance(sub, nn.modules.batchnorm._BatchNorm)]
        if len(norms) > 1 and not any(isinstance(sub, nn.Linear) for sub in children.values()):
            yield f"{name}.{norms[-1]}" if name else norms[-1]


def _norm(random: np.random.Generator, shapes: Mapping[str, Shape], gain: float) -> dict[str, Array]:
    """The shift follows the mean, so that the two nearly cancel and activations stay centred."""
    shape = shapes.get("running_mean") or shapes["weight"]
    mean, variance = random.normal(0.0, 0.3, shape), random.uniform(0.6, 1.6, shape)
    scale = random.uniform(0.6, 1.4, shape) * gain
    shift = scale * mean / np.sqrt(variance) + random.normal(0.0, 0.05, shape)
    return {"weight": scale, "bias": shift, "running_mean": mean, "running_var": variance,
            "num_batches_tracked": np.asarray(random.integers(1, 1000))}


def _weight(random: np.random.Generator, shape: Shape) -> Array:
    if len(shape) < 2:
        return random.normal(0.0, 0.1, shape)
    fan_in = int(np.prod(shape[1:]))
    values: Array = random.normal(0.0, 1.0, shape)
    if fan_in > 8:
        values -= values.mean(axis=tuple(range(1, len(shape))), keepdims=True)
    return values * np.sqrt(2.0 / fan_in)
