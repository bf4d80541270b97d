"""weights: the original weights as all programs of the target want them, in one prepared file."""

from __future__ import annotations

import msgspec

from npu_runtime.program import Transform
from pipelines.job import Job


class TransformClash(ValueError):
    """Two programs call different transforms by one name."""


def run(job: Job) -> None:
    """Makes ``prepared_weights``."""
    from npu_runtime.weight_loader import prepare_file
    transforms: dict[str, Transform] = {}
    for program in job.programs:
        for item in msgspec.json.decode(job.transforms(program).read_bytes(), type=list[Transform]):
            if transforms.setdefault(item.name, item) != item:
                raise TransformClash(f"{job.label}: the weight {item.name} of {program} is not the one "
                                     "of that name in another program; this is a defect of the compiler")
    job.progress(f"{len(transforms)} tensors")
    prepare_file(job.source_weights, list(transforms.values()), job.prepared_weights)
