"""Embed files part by part on a cluster: paths in, outcomes out, in the same order.

Staged outcomes are kept until the collection has them, so that a killed run can be resumed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from typing import Protocol

from imgsearch.backends.ray.staging import StagedFile, Staging
from imgsearch.embedding.pipeline import Embedded, Known, Outcome
from imgsearch.errors import StorageError
from imgsearch.files.sources import status_of

__all__ = ["AHEAD", "PART", "Extraction", "Job"]

PART = 128  # files, which a lost worker costs; a staged shard of 655 KB for MobileNetV2
AHEAD = 4  # parts per worker under way, or done but waiting for an earlier one


class Job(Protocol):
    """A job that embeds parts: `imgsearch.backends.ray.job.RayJob`."""

    workers: int

    def put(self, paths: Sequence[str], done: int | None) -> int:
        """Add a part; return its number, one more than the last. Those below `done` are done."""
        ...

    def finish(self) -> None:
        """Declare that no more parts will come."""
        ...

    def take(self) -> tuple[int, str]:
        """Wait for any part; return its number and the name of its staged shard."""
        ...

    def close(self) -> None:
        """End the job, whatever its state."""
        ...


@dataclass(frozen=True, slots=True)
class _Part:
    """Some files, outcomes staged by an earlier run, and the job's part number for the rest."""

    paths: list[str]
    staged: dict[str, Embedded]
    number: int | None


class Extraction:
    """The embedding of files by a job, which is started once there is work for it."""

    def __init__(self, staging: Staging, model: str, start: Callable[[], Job]) -> None:
        """Look up what an earlier run staged.

        Args:
            staging: The folder of the shards.
            model: The SHA-256 (hex) of the ONNX file.
            start: A function that starts a job that stages shards there.

        Raises:
            StorageError: If the staging folder cannot be read.
        """
        self._staging = staging
        self._start = start
        self._job: Job | None = None
        self._shards: dict[int, str] = {}  # finished ones, by part number
        self._spent: list[str] = []
        self._found = staging.find(model)
        self._read = lru_cache(maxsize=2)(staging.read)  # files come in the same order as then

    def embed(
        self, paths: Iterable[str], wanted: Callable[[str, bytes], bool]
    ) -> Generator[Outcome, None, None]:
        """Yield the outcome of each path, in order: see `imgsearch.indexing.engine.Engine`."""
        paths = iter(paths)
        waiting: deque[_Part] = deque()
        exhausted = False
        try:
            while True:
                while not exhausted and len(waiting) < self._most():
                    batch = list(islice(paths, PART))
                    exhausted = len(batch) < PART
                    waiting.append(self._begin(batch, waiting))
                    if exhausted and self._job is not None:
                        self._job.finish()
                if not waiting:
                    return
                yield from self._outcomes(waiting.popleft(), wanted)
        finally:
            if self._job is not None:
                self._job.close()

    def committed(self) -> None:
        """Remove the shards that were yielded in full, as the collection has them."""
        spent, self._spent = self._spent, []
        self._staging.discard(spent)

    def _most(self) -> int:
        return 1 if self._job is None else AHEAD * self._job.workers

    def _begin(self, paths: list[str], before: Iterable[_Part]) -> _Part:
        """Have the job embed the files that are not staged."""
        staged = {path: found for path in paths if (found := self._staged(path)) is not None}
        missing = [path for path in paths if path not in staged]
        if not missing:
            return _Part(paths, staged, None)
        self._job = self._job or self._start()
        under_way = (part.number for part in before if part.number is not None)
        return _Part(paths, staged, self._job.put(missing, next(under_way, None)))

    def _staged(self, path: str) -> Embedded | None:
        """Return the outcome that an earlier run staged, unless the file has changed."""
        found = self._found.pop(path, None)
        if found is None or not _is_unchanged(path, found):
            return None
        try:
            outcome = self._read(found.shard)[found.place]
        except StorageError:  # damaged, or missing: the file is embedded again
            return None
        return outcome if isinstance(outcome, Embedded) else None

    def _outcomes(self, part: _Part, wanted: Callable[[str, bytes], bool]) -> Iterator[Outcome]:
        shard = None if part.number is None else self._shard(part.number)
        new = iter(() if shard is None else self._staging.read(shard))
        for path in part.paths:
            outcome = part.staged.get(path) or next(new)
            if isinstance(outcome, Embedded) and not wanted(path, outcome.digest):
                yield Known(outcome.digest, outcome.size, outcome.mtime_ns)
            else:
                yield outcome
        if shard is not None:
            self._spent.append(shard)

    def _shard(self, number: int) -> str:
        """Wait for the shard of a part; others may be done earlier."""
        assert self._job is not None  # noqa: S101 - for the type checker
        while number not in self._shards:
            other, shard = self._job.take()
            if shard:
                self._shards[other] = shard
        return self._shards.pop(number)


def _is_unchanged(path: str, staged: StagedFile) -> bool:
    try:
        status = status_of(path)
    except OSError:
        return False
    as_it_was = staged.size, staged.mtime_ns, staged.ctime_ns
    return staged.mtime_ns is not None and as_it_was == (
        status.size,
        status.mtime_ns,
        status.ctime_ns,
    )
