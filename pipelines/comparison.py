"""Compares what programs make with what PyTorch makes, and says what is too far off."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from pipelines.inputs import Array
from pipelines.metrics import ErrorSum, agreement, error_stats
from pipelines.results import TensorCheck
from pipelines.schema import VerifyKnobs


@dataclass(frozen=True)
class Setting:
    """One set of inputs: their kind, the symbols' values, and the inputs of each program up to the one at
    hand."""

    case: str
    sizes: Mapping[str, int]
    inputs: Mapping[str, Mapping[str, Array]]


@dataclass
class Comparison:
    """An output or a state of a program over the runs of a case; the setting of its worst run is kept."""

    program: str
    name: str
    kind: str
    setting: Setting
    shape: tuple[int, ...]
    errors: ErrorSum = field(default_factory=ErrorSum)
    worst: float = -1.0
    top1: list[float] = field(default_factory=list)
    top5: list[float] = field(default_factory=list)
    runs: int = 0
    eager: ErrorSum | None = None

    def add(self, found: Array, expected: Array, setting: Setting, eager: Array | None = None) -> None:
        self.errors.add(found, expected)
        if eager is not None:
            self.eager = self.eager or ErrorSum()
            self.eager.add(eager, expected)
        self.runs += 1
        stats = error_stats(found, expected)
        relative = stats.max_relative if not stats.mismatched else float("inf")
        if relative > self.worst:
            self.worst, self.setting = relative, setting
        if is_scores(expected) and not stats.mismatched:
            self.top1.append(agreement(found, expected, 1))
            self.top5.append(agreement(found, expected, 5))

    def check(self) -> TensorCheck:
        """What the result file says of it."""
        return TensorCheck(
            self.program,
            self.name,
            self.kind,
            self.setting.case,
            dict(self.setting.sizes),
            self.shape,
            self.runs,
            self.errors.stats(),
            float(np.mean(self.top1)) if self.top1 else None,
            float(np.mean(self.top5)) if self.top5 else None,
            self.eager.stats() if self.eager is not None else None,
        )


def problem_of(check: TensorCheck, knobs: VerifyKnobs) -> str | None:
    """What is wrong with a comparison; None if it is within the tolerance."""
    where = f"{check.program}.{check.name} on {check.case}" + "".join(
        f", {name} = {size}" for name, size in check.symbols.items()
    )
    errors = check.errors
    if errors.mismatched:
        return (
            f"{where}: {errors.mismatched} of {errors.elements} values are infinite or NaN on one side only"
        )
    if errors.max_relative > knobs.max_relative_error and check.eager is None:
        return (
            f"{where} differs from PyTorch by {errors.max_relative:.2e} of its largest value; "
            f"verify.max_relative_error allows {knobs.max_relative_error:.2e}"
        )
    if check.eager is not None:
        # A state is taken by its mean error: of thousands of equally rounded numbers one is always unlucky.
        kind = "mean_abs" if check.kind == "state" else "max_abs"
        found, eager = getattr(errors, kind), getattr(check.eager, kind)
        small = errors.max_relative <= knobs.max_relative_error
        if not small and found > knobs.max_eager_ratio * eager:
            return (
                f"{where} differs from PyTorch in float32 by {found:.2e} ({kind.partition('_')[0]}), and "
                f"PyTorch in 16 bits by {eager:.2e}, of which verify.max_eager_ratio allows "
                f"{knobs.max_eager_ratio:g} times"
            )
    if knobs.min_snr_db is not None and errors.snr_db is not None and errors.snr_db < knobs.min_snr_db:
        return (
            f"{where} has an SNR of {errors.snr_db:.1f} dB; verify.min_snr_db asks for {knobs.min_snr_db:.1f}"
        )
    if knobs.min_agreement is not None and check.top1 is not None and check.top1 < knobs.min_agreement - 1e-9:
        return (
            f"{where} has PyTorch's best class in {check.top1:.1%} of its rows; "
            f"verify.min_agreement asks for {knobs.min_agreement:.1%}"
        )
    return None


def is_scores(values: Array) -> bool:
    """Whether ``values`` look like class scores: rows of at least ten floats."""
    return values.ndim == 2 and values.shape[1] >= 10 and values.dtype.kind not in "iub"


def is_as_good(tokens: Array, logits: Array, eager: Array | None, knobs: VerifyKnobs) -> bool:
    """Whether ``tokens`` [B, 1] are the best of the last row of ``logits`` [B, S, vocabulary], or below it by
    no more than the error that logits may have (``eager``: those of PyTorch in 16 bits)."""
    row = logits[:, -1]
    allowed = knobs.max_relative_error * float(np.abs(row).max())
    if eager is not None:
        allowed = max(allowed, knobs.max_eager_ratio * float(np.abs(eager[:, -1] - row).max()))
    if not ((tokens >= 0) & (tokens < row.shape[1])).all():
        return False
    return bool((row.max(1, keepdims=True) - np.take_along_axis(row, tokens, 1) <= allowed).all())
