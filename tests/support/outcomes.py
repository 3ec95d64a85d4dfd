"""What an indexing run did, and what the collection holds after it."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest

from imgsearch.collection import Collection
from imgsearch.errors import GoneError
from imgsearch.indexing.report import IndexReport
from tests.support.small_network import DIM

__all__ = ["age", "did", "files_in", "holds", "ids_in", "refused"]

_ages = itertools.count(1_000_000_000)  # seconds; no two files get the same time


def did(report: object) -> dict[str, int]:
    """Return how many files met which fate, those fates that none met left out."""
    assert isinstance(report, IndexReport)
    fates = ("indexed", "copied", "moved", "unchanged", "failed", "skipped", "excluded")
    counts = {name: int(getattr(report, name)) for name in fates}
    assert sum(counts.values()) == report.found
    assert report.failed == len(report.failures)
    counts["removed"] = report.removed
    return {name: count for name, count in counts.items() if count}


def refused(collection: Collection, *paths: Path, why: str) -> IndexReport:
    """Index, which is refused as images are gone; return the report all the same."""
    with pytest.raises(GoneError, match=why) as caught:
        collection.index(paths)
    assert "--prune" in str(caught.value)
    assert isinstance(caught.value.report, IndexReport)
    return caught.value.report


def files_in(*folders: Path) -> list[Path]:
    """Return the images that lie in folders, by their names."""
    files = (path for folder in folders for path in folder.rglob("*.*g"))
    return sorted(path for path in files if path.is_file())


def holds(collection: Collection, files: Iterable[str | Path]) -> bool:
    """Tell whether these are the images of a collection, each found by its present content."""
    expected = sorted(map(str, files))
    ids = ids_in(collection)
    if sorted(ids) != expected or collection.info().images != len(expected):
        return False
    if not expected:
        return True
    found = collection.query_many(collection.embed(expected), k=len(expected), exact=True)
    return all(
        len({hit.id for hit in hits}) == len({hit.path for hit in hits}) == len(expected)
        and any(hit.path == path and hit.distance == 0 for hit in hits)
        for path, hits in zip(expected, found, strict=True)
    )


def ids_in(collection: Collection) -> dict[str, int]:
    """Return the id of the image at each path."""
    anything = np.eye(1, DIM, dtype=np.float32)
    hits = collection.query_many(anything, k=1_000_000, exact=True)[0]
    ids = {hit.path: hit.id for hit in hits}
    assert len(hits) == len(ids) == len(set(ids.values()))
    return ids


def age(*tops: Path) -> None:
    """Make it long ago that the files were written, each at another time: times are trusted."""
    for top in tops:
        for path in [top, *top.rglob("*")]:
            if path.is_file() and not path.is_symlink():
                os.utime(path, (0, next(_ages)))
