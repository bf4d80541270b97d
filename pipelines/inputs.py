"""Made-up inputs of a program, the same on every machine."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, TypeAlias

import numpy as np

from npu_runtime.dtypes import numpy_dtype
from pipelines.schema import Input, ModelConfig, Program

Array: TypeAlias = "np.ndarray[Any, np.dtype[Any]]"
Sizes: TypeAlias = Mapping[str, int]


def made_up_inputs(program: Program, sizes: Sizes, seed: tuple[int, ...]) -> dict[str, Array]:
    """An array per input of ``program``, from ``seed`` alone. ``sizes`` gives its symbols; others are
    ignored.

    Floats are normally distributed, whole numbers 0, unless the input has a ``range``: then evenly
    distributed in it, its ends included for whole numbers.
    """
    return {
        name: _array(item, shape_of(item, sizes), np.random.default_rng([*seed, index]))
        for index, (name, item) in enumerate(program.inputs.items())
    }


def shape_of(item: Input, sizes: Sizes) -> tuple[int, ...]:
    """The input's shape at ``sizes``."""
    return tuple(sizes[size] if isinstance(size, str) else size for size in item.shape)


def upper_sizes(config: ModelConfig, given: Sizes) -> dict[str, int]:
    """Every symbol of the model: as in ``given``, else its upper bound."""
    return {
        name: given.get(name, bounds.max)
        for program in config.programs.values()
        for name, bounds in program.symbols.items()
    }


def checked_sizes(config: ModelConfig) -> Iterator[dict[str, int]]:
    """The sizes at which a model is verified: those of ``verify.sizes`` (symbols that an entry leaves out
    at their upper bound), else all symbols at their lower bound, at a size between and at their upper
    bound."""
    if config.verify.sizes:
        yield from (upper_sizes(config, given) for given in config.verify.sizes)
        return
    bounds = {
        name: symbol for program in config.programs.values() for name, symbol in program.symbols.items()
    }
    seen: list[dict[str, int]] = []
    for share in (0.0, 0.3, 1.0):
        sizes = {
            name: symbol.min + round((symbol.max - symbol.min) * share) for name, symbol in bounds.items()
        }
        if sizes not in seen:
            seen.append(sizes)
            yield sizes


def _array(item: Input, shape: tuple[int, ...], random: np.random.Generator) -> Array:
    dtype = numpy_dtype(item.dtype)
    floating = item.dtype.startswith(("float", "bfloat"))
    if item.range is None:
        return (random.standard_normal(shape) if floating else np.zeros(shape)).astype(dtype)
    low, high = item.range
    values: Array = (
        random.uniform(low, high, shape)
        if floating
        else random.integers(round(low), round(high), shape, endpoint=True)
    )
    return values.astype(dtype)
