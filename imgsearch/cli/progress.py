"""Show progress on stderr: a bar on a terminal; elsewhere a few lines, or nothing."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import click

if TYPE_CHECKING:
    from imgsearch.indexing.report import Progress

__all__ = ["ByteBar", "CountBar", "ProgressBar"]

FIRST_PAUSE, LAST_PAUSE = 30.0, 240.0  # seconds between two lines; each pause doubles the last


class ProgressBar:
    """A context manager that shows the count, rate and time left of an indexing run.

    On a terminal it shows a bar; elsewhere it prints a line now and then, as suits a log.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Show an empty bar; `clock` returns seconds."""
        self._bar = _bar(desc="indexing", unit=" files")
        self._clock = clock
        self._started = clock()
        self._told, self._pause = self._started, FIRST_PAUSE

    def __call__(self, progress: Progress) -> None:
        """Show the progress of the run."""
        if self._bar.disable:
            self._say(progress)
            return
        self._bar.total = progress.total
        self._bar.update(progress.done - self._bar.n)
        if progress.training:
            self._bar.set_description(_building(progress))
        if progress.fingerprints:
            self._bar.set_description("making fingerprints")

    def _say(self, progress: Progress) -> None:
        now = self._clock()
        if now - self._told < self._pause:
            return
        self._told, self._pause = now, min(2 * self._pause, LAST_PAUSE)
        if progress.training:
            click.echo(_building(progress), err=True)
            return
        if progress.fingerprints:
            told = f"making fingerprints: {progress.done:,} of {progress.total:,} images"
            click.echo(told, err=True)
            return
        rate = progress.done / (now - self._started)
        text = f"indexing: {progress.done:,} files"
        left = ""
        if progress.total is not None:
            text = f"indexing: {progress.done:,} of {progress.total:,} files"
            if rate:
                left = f", {_duration((progress.total - progress.done) / rate)} left"
        click.echo(f"{text}, {rate:,.0f} files/s{left}", err=True)

    def __enter__(self) -> ProgressBar:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._bar.close()


def _building(progress: Progress) -> str:
    if not progress.assigned:
        return "building the index"
    return f"building the index: {progress.assigned:,} images in its lists"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(max(0, round(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


class CountBar:
    """A context manager that shows how many items of the total are done."""

    def __init__(self, verb: str, unit: str, *, scale: bool = False) -> None:
        self._bar = _bar(desc=verb, unit=unit, unit_scale=scale)

    def __call__(self, done: int, total: int) -> None:
        """Show the progress."""
        self._bar.total = total
        self._bar.update(done - self._bar.n)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()


class ByteBar(CountBar):
    """A context manager that shows how many bytes of the total have been read."""

    def __init__(self, verb: str) -> None:
        super().__init__(verb, "B", scale=True)


def _bar(**options: Any) -> Any:
    from tqdm import tqdm

    tqdm.monitor_interval = 0  # its thread would print an error at a second Ctrl-C
    return tqdm(disable=None, dynamic_ncols=True, leave=False, **options)
