"""The same questions to a collection in a directory and to its copy elsewhere."""

from __future__ import annotations

from pathlib import Path

import pytest

from imgsearch.backends.milvus.export import export
from imgsearch.collection import Collection
from imgsearch.querying.hits import Answer

__all__ = ["assert_same_answers"]

NLIST = 24
QUERIES = 100
SHORT = 1e-3


def assert_same_answers(data: Path, directory: Path, location: str) -> None:
    """Index Corel in a directory, copy it to `location`, and ask both with the same 100 images."""
    with Collection.create(directory, device="cpu") as local:
        local.index([data / "corel1k" / "images"], nlist=NLIST)
        paths = sorted((data / "corel1k" / "images").rglob("*.jpg"))[:: 1000 // QUERIES]
        queries = local.embed(paths[:QUERIES])
        here = local.answer(queries, nprobe=NLIST, rank="cosine")
        count = local.info().images
    sent = export(directory, location)
    assert sent.sent == sent.images == count
    again = export(directory, location)
    assert (again.sent, again.there) == (0, count)
    same = export(directory, location, verify=True)
    assert (same.there, same.others, same.different) == (count, 0, 0)
    assert same.compared > 0
    with Collection.open(location, device="cpu") as copy:
        there = copy.answer(queries, nprobe=NLIST)
        assert copy.info().ivf is not None
    for one, other in zip(here, there, strict=True):
        _assert_alike(one, other)


def _assert_alike(here: Answer, there: Answer) -> None:
    for one, other in zip(here.hits, there.hits, strict=True):
        assert one.distance == pytest.approx(other.distance, abs=SHORT)
        near = {hit.path for hit in here.hits if abs(hit.distance - one.distance) < SHORT}
        last = abs(here.hits[-1].distance - one.distance) < SHORT
        assert other.path in near or last
