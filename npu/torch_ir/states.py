"""States that several programs of one model share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from torch_ir.errors import IRError
from torch_ir.ir import IR, State


def share_states(programs: Mapping[str, IR]) -> dict[str, IR]:
    """The programs of a model with one view of its states.

    A buffer that one program changes is a state in the others too: one that only reads it was extracted with
    a weight or a constant in its place. Raises ``IRError`` if two programs disagree on a state's shape or
    dtype.
    """
    known: dict[str, State] = {}
    for program, ir in programs.items():
        for state in ir.states.values():
            first = known.setdefault(state.key, state)
            if first.spec != state.spec:
                raise IRError(
                    f"{program}: state {state.key} is {state.spec.dtype}{list(state.spec.shape)} here and "
                    f"{first.spec.dtype}{list(first.spec.shape)} in another program of the model"
                )
    return {program: _with_states(ir, known) for program, ir in programs.items()}


def _with_states(ir: IR, known: Mapping[str, State]) -> IR:
    mapping = dict(ir.weight_name_mapping)
    constants = dict(ir.constants)
    states = dict(ir.states)
    for name, key in ir.weight_name_mapping.items():
        if key in known:
            states[name] = replace(known[key], update=None)
            del mapping[name]
    for name, constant in ir.constants.items():
        if constant.key in known:
            states[name] = replace(known[constant.key], update=None)
            del constants[name]
    return replace(ir, weight_name_mapping=mapping, constants=constants, states=states)
