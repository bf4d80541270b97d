"""``python -m pipelines cache``: looks after the shared cache that ``NPU_CACHE`` names.

    status                                what it holds
    prune [--max-size 10GiB] [--max-age 30d]    removes what was not used for longest
    fill [MODEL[@TARGET] ...]             stores what is up to date here (else: the default models)
"""

from __future__ import annotations

import argparse
import re
from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from npu_runtime.errors import InputError
from pipelines import devices
from pipelines.cache import Cache, open_cache, read_result
from pipelines.cache_store import GRACE, DamagedError, Store, Stored, is_old, is_temporary
from pipelines.digests import Digests
from pipelines.execute import store_of
from pipelines.job import Job, jobs_of
from pipelines.records import check, read_record
from pipelines.stages import STAGES

_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}


@dataclass(frozen=True)
class Pruned:
    """How many files went, how many bytes they had, and how many bytes are left."""

    files: int
    freed: int
    left: int


def prune(store: Store, max_bytes: int | None, max_age: float | None) -> Pruned:
    """Removes damaged results, those that nobody has used for ``max_age`` seconds, then those not used for
    longest until ``max_bytes`` are left, and what no result needs. What belongs to no result and is younger
    than an hour may be one in the making, and stays. Raises ``CacheError``."""
    found = store.files("")
    results = [file for file in found.values() if file.name.startswith("results/") and not is_temporary(file)]
    kept: deque[tuple[str, ...]] = deque()
    gone: list[tuple[str, ...]] = []
    for file in sorted(results, key=lambda file: (file.when, file.name)):
        needs = _needs(store, file)
        expired = max_age is not None and is_old(file, max_age)
        (gone if expired or len(needs) == 1 else kept).append(needs)
    users = Counter(name for names in kept for name in names if name in found)
    size = sum(found[name].size for name in users)
    while kept and max_bytes is not None and size > max_bytes:
        gone.append(kept.popleft())
        users.subtract(gone[-1])
        size -= sum(found[name].size for name in gone[-1] if name in found and not users[name])
    held = {name for name, count in users.items() if count > 0}
    released = {name for names in gone for name in names}
    removed = [file for file in found.values() if file.name not in held and (
        file.name in released or is_old(file, GRACE))]
    for file in removed:
        store.remove(file.name)
    freed = sum(file.size for file in removed)
    return Pruned(len(removed), freed, sum(file.size for file in found.values()) - freed)


def run(options: argparse.Namespace, root: Path) -> int:
    """The command. Raises ``InputError`` and ``CacheError``."""
    cache = open_cache(root)
    if cache is None:
        raise InputError("no cache is in use: set NPU_CACHE to a folder or a URL, and NPU_CACHE_MODE, where "
                         "it is off, to read or read-write")
    match options.action:
        case "status":
            _status(cache)
        case "prune":
            if options.max_size is None and options.max_age is None:
                raise InputError("cache prune: give --max-size, --max-age or both")
            if not cache.write:
                raise InputError(f"cache prune: {cache.store.shown} may only be read")
            done = prune(cache.store, options.max_size, options.max_age)
            print(f"removed {done.files} files of {_shown(done.freed)}; {_shown(done.left)} are left")
        case "fill":
            if not cache.write:
                raise InputError(f"cache fill: {cache.store.shown} may only be read")
            _fill(cache, jobs_of(options.models, root), root)
    return 0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    actions.add_parser("status")
    pruning = actions.add_parser("prune")
    pruning.add_argument("--max-size", type=parse_size, metavar="SIZE", help="such as 500MiB or 10GiB")
    pruning.add_argument("--max-age", type=parse_age, metavar="AGE", help="since the last use: 12h, 30d")
    filling = actions.add_parser("fill")
    filling.add_argument("models", metavar="MODEL[@TARGET]", nargs="*")


def parse_size(text: str) -> int:
    """ "10GiB" -> bytes. Raises ``ArgumentTypeError``."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no size: write 500MiB or 10GiB")
    return int(float(match[1]) * _UNITS[match[2]])


def parse_age(text: str) -> float:
    """ "30d" -> seconds. Raises ``ArgumentTypeError``."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smhdw])", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no age: write 12h or 30d")
    return float(match[1]) * _SECONDS[match[2]]


def _needs(store: Store, file: Stored) -> tuple[str, ...]:
    """The names of a result, of its question and of its large files; its name alone if it is damaged."""
    try:
        data = store.read(file.name)
        result = read_result(data, file.name)[0] if data is not None else None
    except DamagedError:
        result = None
    if result is None:
        return (file.name,)
    return tuple(dict.fromkeys((file.name, result.question, *result.objects)))


def _status(cache: Cache) -> None:
    files = cache.store.files("")
    print(f"{cache.store.shown}: {'read and write' if cache.write else 'read only'}")
    for kind in ("results", "objects", "questions"):
        sizes = [file.size for name, file in files.items() if name.startswith(f"{kind}/")]
        print(f"{kind}: {len(sizes)}, {_shown(sum(sizes))}")


def _fill(cache: Cache, jobs: Iterable[Job], root: Path) -> None:
    digests = Digests(store_of(root))
    for job in jobs:
        for stage in STAGES:
            record = read_record(stage, job) if stage.shared else None
            if record is None:
                continue
            placed = devices.placed(stage, job, partial(devices.ask, job.target, root))
            assert not isinstance(placed, devices.Absent)  # what needs a device is not shared
            if check(stage, placed, digests).current and cache.save(stage, placed, record, digests):
                print(f"{stage.name}:{job.label}: stored")


def _shown(size: int) -> str:
    return f"{size / (1 << 20):.1f} MiB"

