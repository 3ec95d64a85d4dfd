"""Feed parts of a listing that is still growing to a Ray Data job. Imports Ray."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import ray
from ray.data import Datasource, ReadTask
from ray.data.block import BlockMetadata

__all__ = ["Feed", "PartSource"]


class Feed:
    """An actor between the run and its workers: parts go in, names of their shards come out.

    The names do not come as rows of the job: Ray 2.60 may lose some rows that a machine had worked
    on when it was lost, although it repeats the work.
    """

    def __init__(self) -> None:
        self._parts: dict[int, list[bytes]] = {}
        self._done = 0
        self._end: int | None = None
        self._reports: list[tuple[int, str]] = []
        self._changed = asyncio.Condition()

    async def put(self, number: int, paths: list[bytes], done: int) -> None:
        """Add a part; those below `done` are no longer needed."""
        async with self._changed:
            self._parts[number] = paths
            for old in range(self._done, done):
                self._parts.pop(old, None)
            self._done = done
            self._changed.notify_all()

    async def finish(self, number: int) -> None:
        """Declare that the parts end before `number`."""
        async with self._changed:
            self._end = number
            self._changed.notify_all()

    async def get(self, number: int) -> list[bytes] | None:
        """Return a part once it is available: empty if it is done, None after the last."""
        async with self._changed:
            await self._changed.wait_for(
                lambda: number in self._parts or number < self._done or number == self._end
            )
            return None if number == self._end else self._parts.get(number, [])

    async def report(self, number: int, shard: str) -> None:
        """Note that a part is done."""
        async with self._changed:
            self._reports.append((number, shard))
            self._changed.notify_all()

    async def reports(self) -> list[tuple[int, str]]:
        """Return the reports since the last call, as soon as there are any."""
        async with self._changed:
            await self._changed.wait_for(lambda: bool(self._reports))
            reports, self._reports = self._reports, []
            return reports


class PartSource(Datasource):
    """A source of the parts of a `Feed`, one row each, read by a single task that waits for them.

    If the task has to be repeated, Ray asks for the rows from the first one on, and skips those
    that it has: these may therefore be empty.
    """

    def __init__(self, feed: Any) -> None:
        self._feed = feed

    @property
    def supports_distributed_reads(self) -> bool:
        """Stay on the machine of the run, which cannot outlive it anyway."""
        return False

    def estimate_inmemory_data_size(self) -> int | None:
        """Return None, as the size is unknown."""
        return None

    def get_read_tasks(self, parallelism: int, *_: Any, **__: Any) -> list[ReadTask]:
        """Return the one task."""
        del parallelism
        feed = self._feed
        unknown = BlockMetadata(num_rows=None, size_bytes=None, input_files=None, exec_stats=None)
        return [ReadTask(lambda: _read(feed), unknown)]


def _read(feed: Any) -> Iterator[pa.Table]:
    number = 0
    while (paths := ray.get(feed.get.remote(number))) is not None:
        column = pa.array([paths], pa.list_(pa.binary()))
        yield pa.table({"part": pa.array([number], pa.int64()), "paths": column})
        number += 1
