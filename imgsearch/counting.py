"""Count the files ahead of a run, for its progress only."""

from __future__ import annotations

import threading
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from imgsearch.tops import Tops, count_tops

__all__ = ["Ahead"]


class Ahead:
    """Counts files in a thread of its own once it is started; a context manager, which ends it.

    `total` is their number, None until it is known.
    """

    def __init__(self, tops: Tops, collection: Path) -> None:
        self.total: int | None = None
        self._tops = tops
        self._collection = collection
        self._started = False
        self._over = threading.Event()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._over.set()

    def start(self) -> None:
        """Begin to count, unless that has been begun."""
        if not self._started:
            self._started = True
            threading.Thread(target=self._count, daemon=True).start()  # it may hang on a slow drive

    def _count(self) -> None:
        total = 0
        with suppress(OSError):
            for files in count_tops(self._tops, self._collection):
                total += files
                if self._over.is_set():
                    return
            self.total = total
