"""Scratch memory: buffer lifetimes -> offsets in one arena, and an independent checker of the plan."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from npu_compiler.errors import CompileError

#: Offsets are multiples of this many bytes: the alignment that OpenCL devices ask of sub-buffers.
ALIGNMENT = 512


@dataclass(frozen=True, slots=True)
class Lifetime:
    """Bytes that must exist from step ``first`` to step ``last``, both included."""

    nbytes: int
    first: int
    last: int


def align(nbytes: int) -> int:
    return -(-nbytes // ALIGNMENT) * ALIGNMENT


def plan(buffers: Mapping[str, Lifetime]) -> tuple[dict[str, int], int]:
    """Offsets and the arena's size, in bytes.

    Greedy by size (Pisarchyk and Lee, "Efficient Memory Management for Deep Neural Net Inference", 2020): the
    largest buffer first, each at the lowest offset where it meets no placed buffer that is alive at the same
    time.
    """
    placed: list[tuple[int, int, Lifetime]] = []
    offsets: dict[str, int] = {}
    for name, life in sorted(buffers.items(), key=lambda item: (-item[1].nbytes, item[1].first, item[0])):
        offset = 0
        for start, end, other in sorted(placed, key=lambda item: item[:2]):
            if other.first <= life.last and life.first <= other.last and start < offset + align(life.nbytes):
                offset = max(offset, end)
        offsets[name] = offset
        placed.append((offset, offset + align(life.nbytes), life))
    return offsets, max((end for _, end, _ in placed), default=0)


def largest_live_set(lifetimes: Sequence[Lifetime]) -> int:
    """The most bytes that are alive at one step: no plan can do with less."""
    steps = {life.first for life in lifetimes}
    return max(
        (sum(life.nbytes for life in lifetimes if life.first <= step <= life.last) for step in steps),
        default=0,
    )


def check(buffers: Mapping[str, Lifetime], offsets: Mapping[str, int], arena: int) -> None:
    """Replays the plan step by step on a list of owned byte ranges. Raises ``CompileError`` if two owners
    ever meet.

    NOTE: deliberately shares nothing with ``plan``.
    """
    for name in buffers:
        if name not in offsets or offsets[name] % ALIGNMENT or offsets[name] < 0:
            raise CompileError(f"memory plan: {name} has no aligned place")
        if offsets[name] + buffers[name].nbytes > arena:
            raise CompileError(f"memory plan: {name} ends outside the arena of {arena} bytes")
    last = max((life.last for life in buffers.values()), default=-1)
    for step in range(last + 1):
        ranges = sorted(
            (offsets[name], offsets[name] + life.nbytes, name)
            for name, life in buffers.items()
            if life.first <= step <= life.last and life.nbytes
        )
        for (_, end, left), (start, _, right) in pairwise(ranges):
            if start < end:
                raise CompileError(f"memory plan: {left} and {right} overlap at step {step}")
