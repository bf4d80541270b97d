"""Greedy continuations of prompts: what the compiled programs write against what PyTorch writes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from npu_runtime.dag_executor import DAGExecutor
from npu_runtime.errors import InputError
from npu_runtime.executor import Executor
from npu_runtime.generate import generate
from npu_runtime.weight_loader import Weights
from pipelines import factory
from pipelines.inputs import Array
from pipelines.job import Job
from pipelines.results import ContinuationCheck
from pipelines.schema_text import Continuations
from pipelines.tokenizer import Tokenizer

if TYPE_CHECKING:
    from pipelines.reference import Reference


class ContinuationError(ValueError):
    """Continuations cannot be compared."""


def compare(
    job: Job,
    wanted: Continuations,
    executors: Mapping[str, Executor | DAGExecutor],
    weights: Weights,
    reference: Reference,
) -> Iterator[ContinuationCheck]:
    """Each prompt's continuation, up to the first token in which the two differ."""
    continuation = factory.function_of(job.config, "continuation")
    if continuation is None:
        raise ContinuationError(
            f"{job.label}: verify.continuations: the module of {job.config.factory} has no function "
            "continuation(model, prompt, count, forced)"
        )
    try:
        tokenizer = Tokenizer(job.tokenizer_dir)
    except InputError:
        tokenizer = None
    prompts = list(_prompts(job, wanted, tokenizer, int(_vocabulary(executors["decode"]))))
    for number, (text, tokens) in enumerate(prompts):
        job.progress("continuations", number, len(prompts))
        pieces = generate(executors["prefill"], executors["decode"], weights.new_state(), tokens,
                          max_tokens=wanted.tokens)
        found = [piece.token for piece in pieces]
        expected, scores = continuation(reference.module, tokens, len(found))
        same = [ours == theirs for ours, theirs in zip(found, expected, strict=True)]
        equal = [*same, False].index(False)
        margin = error = None
        if equal < len(found):
            row = scores[equal].numpy()
            margin = float(row[expected[equal]] - row[found[equal]])
            error = _error(job, reference, continuation, tokens, expected, scores, equal)
        said = tokenizer.decode(found) if tokenizer is not None else ""
        yield ContinuationCheck(text, len(tokens), len(found), equal, margin, error, said)


def problem_of(check: ContinuationCheck) -> str | None:
    """What is wrong with a continuation; None where it is PyTorch's, or leaves it at a step at which two
    tokens are closer than arithmetic of this precision can tell."""
    if check.margin is None or check.error is None or check.margin <= check.error:
        return None
    return (f"the continuation of {check.prompt!r} differs from PyTorch's in token {check.equal + 1} of "
            f"{check.tokens}: its logit is {check.margin:.2e} below the best, and the error allowed there "
            f"{check.error:.2e}")


def _error(
    job: Job, reference: Reference, continuation: Any, prompt: list[int], expected: list[int], scores: Any,
    step: int,
) -> float:
    """The error that the logits of a step may have."""
    knobs = job.config.verify
    row = scores[step].numpy()
    allowed = knobs.max_relative_error * float(np.abs(row).max())
    if reference.narrow is not None:
        _, eager = continuation(reference.narrow, prompt, step + 1, expected)
        allowed = max(allowed, knobs.max_eager_ratio * float(np.abs(eager[step].numpy() - row).max()))
    return allowed


def _vocabulary(executor: Executor | DAGExecutor) -> Any:
    return next(spec.shape[-1] for spec in executor.program.output_specs if spec.name == "logits")


def _prompts(
    job: Job, wanted: Continuations, tokenizer: Tokenizer | None, vocabulary: int
) -> Iterator[tuple[str, list[int]]]:
    """Each prompt for people, and its tokens."""
    lengths = list(wanted.lengths)
    for text in wanted.prompts:
        if tokenizer is not None:
            yield text, tokenizer.encode(text)
        else:
            lengths.append(max(1, len(text.split())))
    for number, length in enumerate(lengths):
        random = np.random.default_rng([job.config.verify.seed, number])
        ids: Array = random.integers(0, vocabulary, length)
        yield f"{length} random tokens", [int(token) for token in ids]
