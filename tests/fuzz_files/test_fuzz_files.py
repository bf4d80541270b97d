"""A few mutated files of every kind in every run; ``python -m tests.fuzz_files`` judges many, in processes
of their own. Seeds that found something are named cases where the fault was."""

from __future__ import annotations

import random
from pathlib import Path

import judges
import mutations
import pytest

from npu_runtime.null_device import NullDevice

COUNTS = {"npubin": 60, "safetensors": 60, "yaml": 60, "ir": 12}


@pytest.mark.parametrize("kind", COUNTS)
def test_mutated_files_are_refused_or_mean_what_they_say(kind: str, tmp_path: Path) -> None:
    (tmp_path / "files").mkdir()
    found = judges.bases(kind, tmp_path / "files")
    path, device = tmp_path / f"mutated.{kind}", NullDevice()
    outcomes = set()
    for seed in range(COUNTS[kind]):
        rng = random.Random(f"{kind} {seed}")
        base = found[rng.choice(sorted(found))]
        path.write_bytes(mutations.mutated(kind, rng, base.data))
        outcomes.add(base.judge(path, rng, device))
    assert "refused" in outcomes
    assert len(outcomes) > 1 or kind == "ir"


def test_a_seed_gives_the_same_file_again() -> None:
    data = b'{"a": [1, 2, {"b": "c"}], "d": 0.5}' * 20
    for kind in ("npubin", "safetensors", "yaml"):
        made = [mutations.mutated(kind, random.Random(f"{kind} 3"), data) for _ in range(2)]
        assert made[0] == made[1] != data
