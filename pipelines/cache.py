"""The shared cache: what a stage has made somewhere is copied where its key is the same.

``NPU_CACHE`` names the place, ``NPU_CACHE_MODE`` what may be done there. Below it lie

- ``questions/<digest>``: for a key without what only a run can tell, the things that runs have told;
- ``results/<digest>``: for a whole key, the record of a run and the files that it made, small ones inside;
- ``objects/<digest>``: large files, by the digest of their content.

Nothing of it is believed: every file has its digest checked, a result must have been stored for exactly the
key that is asked for, and its files must be those that the stage makes. What fails any of that counts as not
there, and is told. Measurements are neither stored nor taken.

NOTE: digests tell damage, not intent. Whoever may write to the cache can store a result of their own making
under a key; give strangers (pull requests from forks) the mode ``read``.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Annotated, Any

import msgspec

from npu_runtime.env import cache_mode, cache_url
from pipelines.cache_store import CacheError, DamagedError, Store, file_digest
from pipelines.digests import Digests, text_digest, tree
from pipelines.fingerprint import Key, Observed, key_of, shown
from pipelines.job import Job, write_atomic
from pipelines.records import Record
from pipelines.stages import Stage

FORMAT = 3

#: Files up to this size (bytes) are stored inside their result, so that hundreds of kernels are one request.
INLINE = 1 << 20

#: Answers that a question keeps; the oldest go.
MAX_ANSWERS = 16

#: Seconds for which a cache that could not be reached is left alone: several times what its silence costs.
PATIENCE = 120.0


class _Observed(msgspec.Struct, frozen=True):
    templates: tuple[str, ...]
    modules: tuple[str, ...]
    libraries: tuple[str, ...]
    data: tuple[str, ...]
    tuning: tuple[str, ...]


class File(msgspec.Struct, frozen=True):
    """A file that a stage made; ``name`` is below artifacts/<model>."""

    name: str
    size: Annotated[int, msgspec.Meta(ge=0)]
    digest: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]

    @property
    def stored_as(self) -> str:
        """Where its content lies if it is large."""
        return f"objects/{self.digest[:2]}/{self.digest}"


class Result(msgspec.Struct, frozen=True):
    """The head of ``results/<digest>``, one line; the contents of its small ``files`` follow in order."""

    format: int
    question: str
    stage: str
    key: dict[str, str]
    observed: _Observed
    seconds: float
    memory: int
    folders: tuple[str, ...]
    files: tuple[File, ...]

    @property
    def objects(self) -> tuple[str, ...]:
        """Where the contents of its large files lie."""
        return tuple(file.stored_as for file in self.files if file.size > INLINE)


@dataclass(frozen=True)
class Found:
    """A stored result that was looked up, the small files of it, and the record of the run that made it."""

    name: str
    result: Result
    contents: Mapping[str, bytes]
    record: Record


@dataclass(frozen=True)
class Cache:
    """``write`` says whether results may be stored. ``trouble`` is the file that notes that the cache could
    not be reached, so that not every stage of a build waits for it."""

    store: Store
    write: bool
    trouble: Path

    def look_up(self, stage: Stage, job: Job, digests: Digests) -> Found | None:
        """What is stored of ``stage`` for its key; None if nothing is. Changes nothing. Raises
        ``DamagedError``, ``CacheError``."""
        question = _place("questions", key_of(stage, job, digests, None))
        for answer in self._answers(question):
            observed = Observed(answer.templates, answer.modules, answer.libraries, answer.data,
                                answer.tuning)
            key = key_of(stage, job, digests, observed)
            name = _place("results", key)
            data = self.store.read(name)
            if data is not None:
                result, contents = read_result(data, name)
                self._check(name, result, stage, key, job)
                outputs = _outputs(result, job)
                return Found(name, result, contents,
                             Record(key, outputs, observed, result.seconds, result.memory))
        return None

    def restore(self, stage: Stage, job: Job, staging: Path, digests: Digests) -> Record | None:
        """Puts what ``stage`` would make below ``staging`` (which stands for artifacts/<model>), as it was
        made elsewhere. Returns the record of that run; None, and why is said, if there is none or it cannot
        be had."""
        if not stage.shared or self._is_left_alone(job):
            return None
        try:
            found = self.look_up(stage, job, digests)
            if found is not None:
                self._take(found, staging)
                return found.record
        except DamagedError as error:
            job.say(f"cache: {error}; left aside")
            self._discard(job, error.name)
        except (CacheError, OSError) as error:
            self._note(job, error)
        return None

    def save(self, stage: Stage, job: Job, record: Record, digests: Digests) -> bool:
        """Stores the outputs of ``stage``, which ``record`` is of, and says whether it did. What goes wrong
        is told, and does not matter."""
        if not (self.write and stage.shared) or self._is_left_alone(job):
            return False
        seen = record.observed
        observed = _Observed(seen.templates, seen.modules, seen.libraries, seen.data, seen.tuning)
        question = _place("questions", key_of(stage, job, digests, None))
        try:
            self._keep(stage, job, record, observed, question)
            self._learn(question, observed)
        except (CacheError, OSError) as error:
            self._note(job, error)
            return False
        except DamagedError as error:
            job.say(f"cache: {error}; not stored")
            return False
        return True

    def _answers(self, question: str) -> tuple[_Observed, ...]:
        data = self.store.read(question)
        found: tuple[_Observed, ...] = () if data is None else _decode(data, tuple[_Observed, ...], question)
        return found

    def _learn(self, question: str, observed: _Observed) -> None:
        try:
            known = self._answers(question)
        except DamagedError:
            known = ()
        if known[:1] != (observed,):
            answers = (observed, *(item for item in known if item != observed))
            self.store.write(question, msgspec.json.encode(answers[:MAX_ANSWERS]))

    def _keep(self, stage: Stage, job: Job, record: Record, observed: _Observed, question: str) -> None:
        """Raises ``DamagedError`` where an output is not what was made."""
        folders: list[str] = []
        files: list[File] = []
        contents: list[bytes] = []
        for path in (path for artifact in stage.makes for path in job.paths(artifact)):
            folders += [_below(path, job)] if path.is_dir() else []
            for place in map(Path, tree(path).values()) if path.is_dir() else (path,):
                file = File(_below(place, job), place.stat().st_size, file_digest(place))
                if file.digest != record.outputs.get(shown(place, job)):
                    raise DamagedError(file.name, "has changed since it was made")
                files.append(file)
                if file.size <= INLINE:
                    contents.append(place.read_bytes())
                else:
                    self.store.keep(file.stored_as, place)
        head = Result(FORMAT, question, stage.name, dict(sorted(record.key.parts.items())), observed,
                      record.seconds, record.memory, tuple(folders), tuple(files))
        self.store.write(_place("results", record.key),
                         b"".join((msgspec.json.encode(head), b"\n", *contents)))

    def _check(self, name: str, found: Result, stage: Stage, key: Key, job: Job) -> None:
        if (found.stage, found.key) != (stage.name, dict(key.parts)):
            raise DamagedError(name, "is of another key")
        made = {_below(path, job) for artifact in stage.makes for path in job.paths(artifact)}
        if not _is_whole(found, made):
            raise DamagedError(name, "does not hold what the stage makes")
        for file in found.files:
            if file.size > INLINE and self.store.size(file.stored_as) is None:
                raise DamagedError(name, f"needs {file.stored_as}, which is not there")

    def _take(self, found: Found, staging: Path) -> None:
        for folder in found.result.folders:
            (staging / folder).mkdir(parents=True, exist_ok=True)
        for file in found.result.files:
            path = staging / file.name
            if file.name in found.contents:
                write_atomic(path, found.contents[file.name])
                if file_digest(path) != file.digest:
                    raise DamagedError(found.name)
            else:
                path.parent.mkdir(parents=True, exist_ok=True)
                if not self.store.fetch(file.stored_as, file.digest, path):
                    raise DamagedError(found.name, f"needs {file.stored_as}, which is not there")
        if self.write:
            self.store.touch(found.name)

    def _discard(self, job: Job, name: str) -> None:
        """Makes room for a good copy."""
        if self.write:
            try:
                self.store.remove(name)
            except CacheError as error:
                job.say(f"cache: {error}")

    @property
    def resting(self) -> float | None:
        """Seconds since the cache did not serve, if it is left alone for that; else None."""
        try:
            since = time.time() - self.trouble.stat().st_mtime
            alone = abs(since) < PATIENCE and self.trouble.read_text(encoding="utf-8") == self.store.shown
        except (OSError, UnicodeDecodeError):
            return None
        return since if alone else None

    def _is_left_alone(self, job: Job) -> bool:
        since = self.resting
        if since is not None:
            job.say(f"cache: not asked, since it did not serve {since:.0f} s ago")
        return since is not None

    def _note(self, job: Job, error: Exception) -> None:
        write_atomic(self.trouble, self.store.shown)
        job.say(f"cache: {error}; going on without it")


def open_cache(root: Path) -> Cache | None:
    """The cache that the environment names for the project ``root``; None where it names none, or switches it
    off. Opens nothing yet. Raises ``InputError``."""
    url, mode = cache_url(), cache_mode()
    if url is None or mode == "off":
        return None
    store = Store(url)
    return Cache(store, mode != "read" and not store.read_only, root / "artifacts" / ".cache-trouble")


def read_result(data: bytes, name: str) -> tuple[Result, dict[str, bytes]]:
    """The head of a stored result, and its small files. Raises ``DamagedError``."""
    head, _, rest = data.partition(b"\n")
    found: Result = _decode(head, Result, name)
    small = [file for file in found.files if file.size <= INLINE]
    if found.format != FORMAT:
        raise DamagedError(name, f"has format {found.format}, not {FORMAT}")
    if sum(file.size for file in small) != len(rest):
        raise DamagedError(name, "is shorter or longer than its files")
    contents, start = {}, 0
    for file in small:
        contents[file.name] = rest[start:start + file.size]
        start += file.size
    return found, contents


def _is_whole(found: Result, made: set[str]) -> bool:
    """Whether the files are those of ``made`` (files and folders) and no others: a result does not get to
    write anywhere else."""
    names = [file.name for file in found.files]
    plain = all(PurePosixPath(name).as_posix() == name and ".." not in PurePosixPath(name).parts
                and "\0" not in name for name in names)
    inside = {name for name in names for folder in found.folders if name.startswith(f"{folder}/")}
    return (plain and len(set(names)) == len(names) and len(set(found.folders)) == len(found.folders)
            and {*found.folders, *names} - inside == made and not inside & made)


def _outputs(found: Result, job: Job) -> dict[str, str]:
    """The outputs of a record (``pipelines.records``) when the files are in place."""
    names = sorted(file.name for file in found.files)
    folders = {f"{shown(job.folder / folder, job)}/": ",".join(
        name.removeprefix(f"{folder}/") for name in names if name.startswith(f"{folder}/"))
        for folder in found.folders}
    return folders | {shown(job.folder / file.name, job): file.digest for file in found.files}


def _place(kind: str, key: Key) -> str:
    """Where the question or result of ``key`` lies. What floating-point arithmetic gives may depend on the
    kind of machine."""
    digest = text_digest(f"{key.digest} {platform.system()} {platform.machine()}")
    return f"{kind}/{digest[:2]}/{digest}"


def _below(path: Path, job: Job) -> str:
    return path.relative_to(job.folder).as_posix()


def _decode(data: bytes, kind: Any, name: str) -> Any:
    try:
        return msgspec.json.decode(data, type=kind)
    except msgspec.DecodeError as error:
        raise DamagedError(name, f"cannot be read ({error})") from None
