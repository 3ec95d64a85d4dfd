"""One Ray Data job: parts of files in, staged shards out, in any order. Imports Ray."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import ray
from ray.data import ActorPoolStrategy, DataContext, read_datasource
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from imgsearch.backends.ray.feed import Feed, PartSource
from imgsearch.backends.ray.parts import Columns, PartEmbedder, Recipe
from imgsearch.errors import ImgsearchError, ModelError, reason_of

__all__ = ["CPUS", "RayJob", "speaking_plainly"]

#: CPUs reserved per worker, although it keeps a whole core busy: so the workers of a lost machine
#: find room on the others. Otherwise, Ray would wait for another machine.
CPUS = 0.5

ASK = 1.0  # seconds between checks whether the job has failed

#: Parts that may wait for a worker: more than ever really wait, as parts whose rows Ray has lost
#: (see `Feed`) count as waiting for ever.
QUEUE = 8


class RayJob:
    """A job that takes parts while it runs: see `imgsearch.backends.ray.extraction.Job`."""

    def __init__(self, recipe: Recipe, *, workers: int, gpus: float) -> None:
        """Start the job.

        Args:
            recipe: The recipe for the workers.
            workers: The number of actors that embed in parallel.
            gpus: The number of GPUs per actor, or the share of one.
        """
        self.workers = workers
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        feed = ray.remote(Feed)
        self._feed: Any = feed.options(num_cpus=0, scheduling_strategy=here).remote()
        self._put = 0
        self._reported: deque[tuple[int, str]] = deque()
        self._reports = self._feed.reports.remote()
        self._error: Exception | None = None
        rows = _make(recipe, self._feed, workers, gpus).iter_rows()
        self._driver = threading.Thread(target=self._drive, args=(rows,), daemon=True)
        self._driver.start()

    def put(self, paths: Sequence[str], done: int | None) -> int:
        """Add a part."""
        encoded = [os.fsencode(path) for path in paths]
        number = self._put
        with speaking_plainly():
            ray.get(self._feed.put.remote(number, encoded, number if done is None else done))
        self._put += 1
        return number

    def finish(self) -> None:
        """Declare that no more parts will come."""
        with speaking_plainly():
            ray.get(self._feed.finish.remote(self._put))

    def take(self) -> tuple[int, str]:
        """Wait for any part."""
        while not self._reported:
            over = not self._driver.is_alive()
            with speaking_plainly():
                if ray.wait([self._reports], timeout=ASK)[0]:
                    self._reported.extend(ray.get(self._reports))
                    self._reports = self._feed.reports.remote()
                elif self._error is not None:
                    raise self._error
            if over and not self._reported:
                raise ModelError("the Ray job ended before all files were embedded; index again")
        return self._reported.popleft()

    def close(self) -> None:
        """End the job: without the feed, it has no parts any more."""
        ray.kill(self._feed)

    def _drive(self, rows: Iterable[Any]) -> None:
        """Consume the rows, which makes Ray Data work; their content is of no use."""
        try:
            for _ in rows:
                pass
        except Exception as error:  # whatever it is, the caller waiting for a part gets it
            self._error = error


class _Reporter(PartEmbedder):
    """An embedder of parts that reports to the feed."""

    def __init__(self, recipe: Recipe, feed: Any) -> None:
        super().__init__(recipe)
        self._feed = feed

    def __call__(self, batch: Columns) -> Columns:
        done = super().__call__(batch)
        for number, shard in zip(done["part"].tolist(), done["shard"].tolist(), strict=True):
            if shard:
                ray.get(self._feed.report.remote(number, shard))
        return {"part": done["part"]}


def _make(recipe: Recipe, feed: Any, workers: int, gpus: float) -> Any:
    """Return the job as a lazy Ray dataset."""
    context = DataContext.get_current().copy()
    context.enable_progress_bars = False  # ours counts files
    context.target_max_block_size = 1  # byte: each part travels by itself, none waits for more
    with DataContext.current(context):
        parts = read_datasource(PartSource(feed), num_cpus=0, override_num_blocks=1)
        return parts.map_batches(
            _Reporter,
            fn_constructor_args=(recipe, feed),
            batch_size=1,
            compute=ActorPoolStrategy(size=workers, max_tasks_in_flight_per_actor=QUEUE),
            num_cpus=CPUS,
            num_gpus=gpus or None,
        )


@contextmanager
def speaking_plainly() -> Iterator[None]:
    """Raise the error of a worker, or else report that Ray failed.

    Raises:
        ImgsearchError: If a worker raised it.
        ModelError: If anything else made the cluster fail.
    """
    try:
        yield
    except RayError as error:
        cause: BaseException | None = error
        while cause is not None:
            for each in (cause, getattr(cause, "cause", None)):
                if isinstance(each, ImgsearchError):
                    raise each from error
            cause = cause.__cause__
        reason = reason_of(error).rsplit(": ", 1)[-1][:200]
        raise ModelError(
            f"Ray failed ({type(error).__name__}: {reason}); everything embedded so far is kept; "
            f"run the same command again to resume"
        ) from error
