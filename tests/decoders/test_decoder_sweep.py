"""Causal language models of ``transformers``, small: as programs they are equal to the library's forward, or
refused with a reason."""

from __future__ import annotations

import pytest
import sweep

#: One of each kind of attention, mask, cache and positions; their graphs run by default.
FAMILIES = (
    "BertLMHeadModel",  # causal if its configuration says so
    "RobertaForCausalLM",  # counts positions by itself
    "FalconForCausalLM",  # one key for all heads, attention of its own
    "GptOssForCausalLM",  # sinks, windows, experts
    "Gemma4ForCausalLM",  # heads of several widths
    "Llama4ForCausalLM",  # chunks
)


@pytest.mark.parametrize("name", FAMILIES)
def test_the_graphs_of_a_family_give_the_library_s_logits(name: str) -> None:
    found = sweep.check(name, graphs_only=True)
    assert found.kind == "equal", found.detail


def test_a_difference_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweep, "TOLERANCE", 1e-12)
    assert sweep.check("BertLMHeadModel", graphs_only=True).kind == "differs"


@pytest.mark.full
@pytest.mark.parametrize("name", sweep.class_names())
def test_a_class_is_equal_or_refused(name: str) -> None:
    found = sweep.check(name)
    assert found.kind in ("equal", "refused", "unbuilt"), found.detail
