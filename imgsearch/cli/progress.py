"""A progress bar on stderr; none where stderr is no terminal."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from imgsearch.reports import Progress

__all__ = ["ByteBar", "CountBar", "ProgressBar"]


class ProgressBar:
    """Show count, rate and time left of an indexing run. A context manager."""

    def __init__(self) -> None:
        self._bar = _bar(desc="indexing", unit=" files")

    @property
    def shown(self) -> bool:
        """Whether there is a terminal to show it on."""
        return not self._bar.disable

    def __call__(self, progress: Progress) -> None:
        """Show how far the run is."""
        self._bar.total = progress.total
        self._bar.update(progress.done - self._bar.n)
        if progress.training:
            self._bar.set_description("making the index")

    def __enter__(self) -> ProgressBar:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._bar.close()


class CountBar:
    """Show how many of all are done. A context manager."""

    def __init__(self, verb: str, unit: str, *, scale: bool = False) -> None:
        self._bar = _bar(desc=verb, unit=unit, unit_scale=scale)

    def __call__(self, done: int, total: int) -> None:
        """Show how far it is."""
        self._bar.total = total
        self._bar.update(done - self._bar.n)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()


class ByteBar(CountBar):
    """Show how many bytes of all have been read. A context manager."""

    def __init__(self, verb: str) -> None:
        super().__init__(verb, "B", scale=True)


def _bar(**options: Any) -> Any:
    from tqdm import tqdm

    tqdm.monitor_interval = 0  # its thread would complain of a second Ctrl-C at the end
    return tqdm(disable=None, dynamic_ncols=True, leave=False, **options)
