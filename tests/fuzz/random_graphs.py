"""Random small modules from a seed: the same seed gives the same module, inputs and weights, always.

A module is a list of steps. While it is made, every step runs at each size of the symbolic dimension, in its
own precision and in float64: a step whose results grow, or that amplifies rounding, is not taken. So results
can be compared to a tight tolerance, whatever the chain.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

Values = tuple[torch.Tensor, ...]
#: What a step computes from a module (for weights and its ``real`` dtype) and the values that it reads.
Function = Callable[..., Any]
Step = tuple[tuple[int, ...], Function]
MAX_NUMEL, MAX_SIZE = 20_000, 60.0
#: The relative error of a well-conditioned chain in each dtype: what comparisons allow.
TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-4, torch.float16: 3e-2, torch.bfloat16: 2e-1}
#: How near a jump (of ``floor``, of a comparison) a value may come.
NEAR = {torch.float64: 2e-2, torch.float32: 2e-2, torch.float16: 0.1, torch.bfloat16: 0.4}
#: dtypes of inputs and weights, and how often each is drawn.
REALS = {torch.float32: 6, torch.float64: 1, torch.float16: 1, torch.bfloat16: 1}
#: Sizes of the symbolic dimension at which a module runs; the first is that of its example.
SIZES = (3, 1, 6)
BOUNDS = (1, 8)


class Rejected(Exception):
    """A step cannot be made of these values."""


class RandomModule(nn.Module):
    """Steps that read earlier values; the last values that nothing reads, and some others, are outputs.

    ``real`` is the dtype of its floating point inputs and weights.
    """

    def __init__(self, weights: dict[str, torch.Tensor], real: torch.dtype) -> None:
        super().__init__()
        self.steps: list[Step] = []
        self.outputs: list[int] = []
        self.real = real
        for name, tensor in weights.items():
            self.register_buffer(name, tensor)

    def forward(self, *inputs: torch.Tensor) -> Values:
        values = list(inputs)
        for reads, function in self.steps:
            values += results_of(function(self, *(values[i] for i in reads)))
        return tuple(values[i] for i in self.outputs)


def results_of(result: Any) -> list[torch.Tensor]:
    return [result] if isinstance(result, torch.Tensor) else list(result)


@dataclass
class Sample:
    """A random module with its inputs: one set per size, only one where no dimension is symbolic."""

    seed: int
    module: RandomModule
    inputs: tuple[Values, ...]
    symbolic: tuple[int, ...]
    """The inputs whose first dimension is symbolic."""

    def dynamic_shapes(self) -> tuple[dict[int, Any], ...] | None:
        if not self.symbolic:
            return None
        count = len(self.inputs[0])
        return tuple({0: ("n", *BOUNDS)} if i in self.symbolic else {} for i in range(count))


@dataclass
class Maker:
    """What steps are drawn with."""

    rng: random.Random
    real: torch.dtype
    symbolic: bool
    weights: dict[str, torch.Tensor] = field(default_factory=dict)

    def normal(self, *shape: int) -> torch.Tensor:
        generator = torch.Generator().manual_seed(self.rng.randrange(1 << 30))
        return torch.randn(*shape, generator=generator)

    def whole(self, low: int, high: int, *shape: int) -> torch.Tensor:
        """Whole numbers from ``low`` below ``high``."""
        generator = torch.Generator().manual_seed(self.rng.randrange(1 << 30))
        return torch.randint(low, high, shape, generator=generator)

    def weight(self, *shape: int, positive: bool = False) -> str:
        """A new weight, small enough for products to keep their size."""
        inner = max(1, int(torch.tensor(shape[1:]).prod())) if len(shape) > 1 else 1
        tensor = self.normal(*shape) / inner**0.5
        return self.keep((tensor.abs() + 0.3 if positive else tensor).to(self.real))

    def keep(self, tensor: torch.Tensor) -> str:
        name = f"w{len(self.weights)}"
        self.weights[name] = tensor
        return name

    def dim(self, x: torch.Tensor) -> int:
        """A dimension of ``x``, never the symbolic one."""
        first = 1 if self.symbolic else 0
        if x.dim() <= first:
            raise Rejected
        return self.rng.randrange(first, x.dim())

    def dims(self, x: torch.Tensor) -> list[int]:
        """One or more dimensions to reduce; the symbolic one is among them now and then."""
        return sorted(self.rng.sample(range(x.dim()), self.rng.randint(1, x.dim())))

    def chance(self, probability: float) -> bool:
        return self.rng.random() < probability

    def choice(self, items: Sequence[Any]) -> Any:
        return self.rng.choice(items)


def apart(*distances: torch.Tensor) -> None:
    """Rejects a step that jumps where one of these distances is 0, unless all are well away from it."""
    for distance in distances:
        near = NEAR.get(distance.dtype)
        if near is not None and distance.numel() and float(distance.abs().min()) < near:
            raise Rejected


def make(seed: int, attempt: int = 0) -> Sample:
    """A module of 4 to 18 steps, and inputs for it; another one for each ``attempt``."""
    from steps import KINDS

    rng = random.Random(f"{seed}.{attempt}")
    real = rng.choices(list(REALS), list(REALS.values()))[0]
    m = Maker(rng, real, symbolic=rng.random() < 0.3)
    inputs, symbolic = _inputs(m)
    worlds = [_World(RandomModule({}, real), list(given)) for given in inputs]
    worlds += [_World(RandomModule({}, torch.float64), [_wide(x) for x in given]) for given in inputs]
    steps: list[Step] = []
    wanted = m.rng.randint(4, 18)
    for _ in range(wanted * 30):
        if len(steps) == wanted:
            break
        kind = m.rng.choices(KINDS, [kind.weight for kind in KINDS])[0]
        reads = _reads(m, kind.types, kind.fits, worlds[0].values)
        if reads is None or worlds[0].values[reads[0]].dim() not in kind.ranks:
            continue
        kept = dict(m.weights)
        function = _accepted(m, kind.build, reads, worlds)
        if function is None:
            m.weights = kept
        else:
            steps.append((reads, function))
    module = worlds[0].module
    module.steps = steps
    read = {i for reads, _ in steps for i in reads}
    made = range(len(inputs[0]), len(worlds[0].values))
    module.outputs = [i for i in made if i not in read or m.chance(0.15)]
    return Sample(seed, module.eval(), inputs, symbolic)


def _reads(m: Maker, types: str, fits: Callable[[str, torch.Tensor], bool], values: Values) -> Any:
    """Which values a step reads: recent ones rather than old ones; None if there are none of its types."""
    reads = []
    for letter in types:
        fitting = [i for i, x in enumerate(values) if fits(letter, x)]
        if not fitting:
            return None
        reads.append(m.choice(fitting[-4:]))
    return tuple(reads)


def _inputs(m: Maker) -> tuple[tuple[Values, ...], tuple[int, ...]]:
    """Inputs per size, and which of them have the symbolic dimension."""
    shapes = [(2, 3, 7, 9), (1, 8, 5, 5), (1, 5, 6, 6), (3, 13), (2, 5, 8), (1, 16, 9, 8), (4,), (3, 1, 7)]
    shape = m.choice(shapes)
    with_batch = [True]
    wanted = [shape]
    if m.chance(0.5):
        other = m.choice([shape, shape[-1:], (*shape[:-1], 1), (1, *shape[1:])])
        wanted.append(other)
        with_batch.append(other in (shape, (*shape[:-1], 1)))
    whole = m.chance(0.5)
    if whole:
        wanted.append(m.choice([shape, (shape[0], 4), (3,)]))
        with_batch.append(len(wanted[-1]) > 1)
    if m.symbolic and len(shape) == 1:
        m.symbolic = False
    symbolic = tuple(i for i, batch in enumerate(with_batch) if batch) if m.symbolic else ()
    sets = []
    for size in SIZES if m.symbolic else (0,):
        given = []
        for i, dims in enumerate(wanted):
            dims = (size, *dims[1:]) if i in symbolic else dims
            real = m.normal(*dims).to(m.real)
            given.append(m.whole(-9, 10, *dims) if whole and i == len(wanted) - 1 else real)
        sets.append(tuple(given))
    return tuple(sets), symbolic


@dataclass
class _World:
    """All values of a module at one size in one precision."""

    module: RandomModule
    values: list[torch.Tensor]

    def results(self, weights: dict[str, torch.Tensor], reads: Sequence[int], step: Function) -> list[Any]:
        for name, tensor in weights.items():
            if name not in self.module._buffers:
                self.module.register_buffer(name, tensor if self._same() else _wide(tensor))
        with torch.no_grad():
            return results_of(step(self.module, *(self.values[i] for i in reads)))

    def _same(self) -> bool:
        return self.module.real != torch.float64

    def forget(self, names: Sequence[str]) -> None:
        for name in names:
            self.module._buffers.pop(name, None)


def _wide(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.double() if tensor.is_floating_point() else tensor


def _accepted(m: Maker, build: Callable[..., Function], reads: Sequence[int], worlds: list[_World]) -> Any:
    """The step, with its results in every world; None if it does not fit or is badly conditioned."""
    before = set(m.weights)
    try:
        step = build(m, *(worlds[0].values[i] for i in reads))
        results = [world.results(m.weights, reads, step) for world in worlds]
        largest = max(
            (float(t.abs().max()) for made in results for t in made if t.is_floating_point()), default=0
        )
        if 8.0 < largest < 1e4:  # the step ends with a factor that brings its results back
            step = _Scaled(step, 1.0 / largest)
            results = [world.results(m.weights, reads, step) for world in worlds]
    except (RuntimeError, IndexError, ValueError, TypeError, Rejected):
        results = None  # values that do not fit
    if results is None or not _well_conditioned(results):
        for world in worlds:
            world.forget([name for name in m.weights if name not in before])
        return None
    for world, made in zip(worlds, results, strict=True):
        world.values += made
    return step


@dataclass(frozen=True)
class _Scaled:
    step: Function
    factor: float

    def __call__(self, module: RandomModule, *values: torch.Tensor) -> Any:
        results = [
            t * self.factor if t.is_floating_point() else t for t in results_of(self.step(module, *values))
        ]
        return results[0] if len(results) == 1 else tuple(results)


def _well_conditioned(results: list[list[torch.Tensor]]) -> bool:
    half = len(results) // 2
    for narrow, wide in zip(results[:half], results[half:], strict=True):
        if len(narrow) != len(wide):
            return False
        for x, exact in zip(narrow, wide, strict=True):
            if x.numel() > MAX_NUMEL or 0 in x.shape or x.shape != exact.shape or x.is_complex():
                return False
            if not x.is_floating_point():
                if not torch.equal(x, exact) or float(x.double().abs().max()) > 1e6:
                    return False
                continue
            if not bool(torch.isfinite(x).all()) or float(x.abs().max()) > MAX_SIZE:
                return False
            scale = max(1.0, float(exact.double().square().mean().sqrt()))
            if float((x.double() - exact).abs().max()) > TOLERANCE[x.dtype] * scale / 4:
                return False
    return True
