"""Sections of a language model's YAML: what it is asked to write when it is verified and measured."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from pipelines.config_errors import problem
from pipelines.schema_base import Positive, Section


class Continuations(Section):
    """Prompts that the compiled programs and PyTorch continue, each time with the best token."""

    prompts: tuple[str, ...] = ()
    """Texts. Where the model has no tokenizer, each is a prompt of random tokens, as in ``lengths``."""
    lengths: tuple[Positive, ...] = ()
    """Prompts of so many random tokens."""
    tokens: Positive = 16
    """How many are compared."""

    @model_validator(mode="after")
    def _some(self) -> Self:
        if not self.prompts and not self.lengths:
            raise problem("there is nothing to continue; give prompts or lengths")
        return self


class GenerationBench(Section):
    """The rows of a table, named as llama-bench does: ``pp128`` reads a prompt of 128 tokens, ``tg64 @ d512``
    writes 64 tokens behind one of 512."""

    prompts: tuple[Positive, ...] = (128, 512)
    tokens: Annotated[int, Field(ge=2)] = 64
    depths: tuple[Annotated[int, Field(ge=0)], ...] = (0, 512)
    """Tokens in the cache before the first that is written; 0 is a prompt of one token."""
    warmup: Annotated[int, Field(ge=0)] = 1
    """Runs of each row that do not count."""
    repeats: Positive = 5
