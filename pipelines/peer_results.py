"""Comparisons with other ways to run a model, as ``benchmarks/peers.py`` leaves them for the report."""

from __future__ import annotations

from collections.abc import Sequence

from pipelines.job import Job
from pipelines.results import Environment, Record, read_result, write_result


class PeerTime(Record, frozen=True):
    """Milliseconds of a peer, and the ratio of ours to it: the typical round's ratio of medians, and the
    quartiles over the rounds."""

    peer: str
    version: str
    median: float
    p10: float
    p90: float
    ratio: float
    ratio_low: float
    ratio_high: float
    samples: tuple[float, ...] = ()


class PeerRun(Record, frozen=True):
    """One sitting. ``digest`` is the program's file; ``busy``: cores that other work kept busy before."""

    threads: int
    when: str
    digest: str
    environment: Environment
    busy: float
    times: tuple[PeerTime, ...]


class PeersResult(Record, frozen=True):
    """The last sitting with each number of threads, the most threads first."""

    runs: tuple[PeerRun, ...]


def keep(job: Job, run: PeerRun) -> None:
    """Puts ``run`` into the job's ``peers`` file, in place of the one with as many threads."""
    runs: Sequence[PeerRun] = read(job).runs
    kept = [other for other in runs if other.threads != run.threads]
    write_result(job.peers, PeersResult(tuple(sorted((*kept, run), key=lambda item: -item.threads))))


def read(job: Job) -> PeersResult:
    """What the file holds; nothing where there is none. Raises ``ValueError`` for a damaged one."""
    return read_result(job.peers, PeersResult) if job.peers.is_file() else PeersResult(())
