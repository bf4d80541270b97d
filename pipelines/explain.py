"""Why a stage runs, in words. Knows nothing of doit."""

from __future__ import annotations

from pathlib import Path

from pipelines.config import ConfigError, place_of
from pipelines.records import Difference, Record, Verdict, changed_outputs

#: What is said of a stage that has no record.
NO_RECORD = "no finished run is on record"


def reasons(verdict: Verdict, model: str, root: Path) -> tuple[str, ...]:
    """A line for everything because of which the stage of ``verdict`` runs; none if it need not."""
    if verdict.previous is None:
        return (NO_RECORD,)
    names = [item.what for item in verdict.differences]
    within = {name for name in names for inner in names if inner.startswith(f"{name}.")}
    return tuple(describe(item, model, root) for item in verdict.differences if item.what not in within)


def describe(item: Difference, model: str, root: Path) -> str:
    """One difference: "configs/models/m.yaml: bench.repeats 3 -> 4", "template ops/conv.cl.j2 changed"..."""
    kind, _, name = item.what.partition(" ")
    match kind:
        case "configuration":
            return f"{_file(name, model, root)}: {name} {item.old or 'unset'} -> {item.new or 'unset'}"
        case "output" if item.new is None:
            return f"{item.what} is missing"
        case "output":
            return f"{item.what} {'was not made by it' if item.old is None else 'is not what was made'}"
        case "library" | "target" | "device" | "stage" | "model":
            return f"{item.what}: {item.old or 'none'} -> {item.new or 'none'}"
    how = "is missing" if item.new is None else "is new" if item.old is None else "changed"
    if item.new is None and kind in ("code", "template"):
        how = "is gone"
    return f"{item.what} {how}"


def made(before: Record | None, after: Record) -> str:
    """What of the outputs a run has changed: "main.npubin, 12 of 30 in kernels"; "the same bytes as before"
    where it has changed nothing."""
    if before is None:
        return ""
    changed: dict[str, int] = {}
    folders = [name for name in after.outputs if name.endswith("/")]
    for item in changed_outputs(before.outputs, after.outputs):
        path = item.what.removeprefix("output ")
        place = next((folder for folder in folders if path.startswith(folder)), path)
        changed[place] = changed.get(place, 0) + 1
    if not changed:
        return "the same bytes as before"
    counts = {place: sum(name.startswith(place) for name in after.outputs) - 1 for place in folders}
    return ", ".join(f"{count} of {counts[place]} in {_base(place)}" if place in counts else _base(place)
                     for place, count in changed.items()) + " changed"


def _base(place: str) -> str:
    return place.rstrip("/").rpartition("/")[2]


def _file(name: str, model: str, root: Path) -> str:
    """The file that sets a key of the configuration, or could."""
    try:
        return place_of(root, model, tuple(name.split("."))).partition(":")[0]
    except ConfigError:
        return f"configs/models/{model}.yaml"
