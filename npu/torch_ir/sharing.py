"""States that several programs of a model have in common. Never imports PyTorch."""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import replace
from typing import TypeVar

from torch_ir.ir import IR

Value = TypeVar("Value")


def share_states(graphs: Mapping[str, IR]) -> dict[str, IR]:
    """A buffer that one program of the model changes is a state in every program, also where it is only read.

    ``graphs`` are the programs by name; so is the result. Extraction sees one program at a time, and takes a
    buffer that is only read there for a weight (or, if it is not persistent, for a constant). Without this,
    the runtime makes such weights anew after every change, which is slower.
    """
    changed = {state.key: state for graph in graphs.values() for state in graph.states.values()}
    buffers = {name: state.key for graph in graphs.values() for name, state in graph.states.items()}
    shared = {}
    for program, graph in graphs.items():
        states = {
            name: replace(changed[key], update=None)
            for name, key in graph.weight_name_mapping.items()
            if key in changed
        }
        states |= {
            name: replace(changed[buffers[name]], update=None) for name in graph.constants if name in buffers
        }
        shared[program] = replace(
            graph,
            states={**graph.states, **states},
            weight_name_mapping=_without(graph.weight_name_mapping, states),
            constants=_without(graph.constants, states),
        )
        shared[program].verify("sharing states between programs")
    return shared


def _without(values: Mapping[str, Value], names: Container[str]) -> dict[str, Value]:
    return {name: value for name, value in values.items() if name not in names}
