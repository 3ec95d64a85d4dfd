"""One Ray Data job: parts of files in, staged shards out, in any order. Imports Ray."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import ray
from ray.data import ActorPoolStrategy, DataContext, read_datasource
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from imgsearch.cluster.feed import Feed, PartSource
from imgsearch.cluster.parts import PartEmbedder, Recipe
from imgsearch.errors import ImgsearchError, ModelError, reason_of

__all__ = ["CPUS", "RayJob", "speaking_plainly"]

#: Of a worker, which keeps a whole core busy: so that the workers of a machine that is lost find
#: room on the others. Without that, Ray would wait for another machine.
CPUS = 0.5


class RayJob:
    """A job that takes parts while it runs: see `imgsearch.cluster.extraction.Job`."""

    def __init__(self, recipe: Recipe, *, workers: int, gpus: float) -> None:
        """Start it.

        Args:
            recipe: for the workers.
            workers: actors that embed side by side.
            gpus: how many GPUs each has, or what share of one.
        """
        self.workers = workers
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        feed = ray.remote(Feed)
        self._feed: Any = feed.options(num_cpus=0, scheduling_strategy=here).remote()
        self._put = 0
        context = DataContext.get_current().copy()
        context.enable_progress_bars = False  # ours counts files
        context.target_max_block_size = 1  # byte: each part travels by itself, none waits for more
        with DataContext.current(context):
            parts = read_datasource(PartSource(self._feed), num_cpus=0, override_num_blocks=1)
            shards = parts.map_batches(
                PartEmbedder,
                fn_constructor_args=(recipe,),
                batch_size=1,
                compute=ActorPoolStrategy(size=workers),
                num_cpus=CPUS,
                num_gpus=gpus or None,
            )
        self._rows: Iterator[dict[str, Any]] = iter(shards.iter_rows())

    def put(self, paths: Sequence[str], done: int | None) -> int:
        """Add a part."""
        encoded = [os.fsencode(path) for path in paths]
        number = self._put
        with speaking_plainly():
            ray.get(self._feed.put.remote(number, encoded, number if done is None else done))
        self._put += 1
        return number

    def finish(self) -> None:
        """Say that no more parts will come."""
        with speaking_plainly():
            ray.get(self._feed.finish.remote(self._put))

    def take(self) -> tuple[int, str]:
        """Wait for any part."""
        with speaking_plainly():
            row = next(self._rows, None)
        if row is None:
            raise ModelError("the Ray job ended before all files were embedded; index again")
        return int(row["part"]), str(row["shard"])

    def close(self) -> None:
        """End it; Ray Data ends a job whose rows nobody can ask for any more."""
        del self._rows
        ray.kill(self._feed)


@contextmanager
def speaking_plainly() -> Iterator[None]:
    """Raise what a worker raised, or else that Ray failed.

    Raises:
        ImgsearchError: a worker raised it.
        ModelError: anything else made the cluster fail.
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
            f"Ray failed ({type(error).__name__}: {reason}); what is embedded is kept, and the "
            "same command goes on from there"
        ) from error
