"""Look at what an interrupted `imgsearch` leaves behind."""

from __future__ import annotations

import hashlib
import sqlite3
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from imgsearch.collection import Collection
from imgsearch.indexing.policy import FoldPolicy
from imgsearch.storage.catalog import Catalog
from imgsearch.storage.fingerprints import prints_name
from imgsearch.storage.layers import layer_name
from imgsearch.storage.layout import Layout
from imgsearch.storage.records import Snapshot
from imgsearch.storage.shards import open_ids, open_shard, shard_files
from tests.support.injection import begin_with

__all__ = ["BUSY", "Embeddings", "busily", "check", "check_alike", "check_tidy"]

Vector: TypeAlias = npt.NDArray[np.float32]
Embeddings: TypeAlias = dict[str, Vector]

# `imgsearch` in steps so small that a few images make commits, folds, merges and compactions.
BUSY = FoldPolicy(commit_files=10, tail_least=15, tail_most=30, small_shard=25, ranked_from=20)
_BUSILY = begin_with(BUSY) + "from imgsearch.cli import main\n"


def busily(*arguments: str | Path, code: str = "main()") -> list[str]:
    """Return the command that runs `imgsearch`, or other code, in small steps."""
    return [sys.executable, "-c", _BUSILY + code, *map(str, arguments)]


def check(directory: Path) -> Embeddings:
    """Check that a collection is whole; return the embedding at each path.

    Each file that the catalog names is as it was written, no id and no path is there twice, and
    every image is found by its own embedding, with the lists and without.
    """
    layout = Layout(directory)
    database = sqlite3.connect(layout.catalog)
    assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    database.close()
    catalog = Catalog(layout.catalog)
    try:
        for file in catalog.prints():
            assert _sha256(layout.fingerprints / prints_name(file.number)) == file.sha256
        rows = _rows(layout, catalog.snapshot())
        paths = catalog.paths(list(rows))
        count = catalog.counts().images
    finally:
        catalog.close()
    assert set(paths) == set(rows)
    assert len(set(paths.values())) == len(rows) == count
    if rows:
        _check_found(directory, rows, paths)
    return {paths[id_]: row for id_, row in rows.items()}


def _rows(layout: Layout, snapshot: Snapshot) -> dict[int, Vector]:
    """Return the embedding of each id, of files whose checksums are right."""
    rows: dict[int, Vector] = {}
    for shard in snapshot.shards:
        sums = {_sha256(layout.vectors / name) for name in shard_files(shard)}
        assert sums == {shard.sha256, shard.ids_sha256} - {None}
        ids = open_ids(layout.vectors, shard).tolist()
        assert not rows.keys() & set(ids)
        vectors = open_shard(layout.vectors, shard, snapshot.model.dim)
        rows.update(zip(ids, vectors, strict=True))
    for segment in snapshot.segments:
        assert _sha256(layout.segment(segment.number)) == segment.sha256
    for layer in snapshot.layers:
        assert _sha256(layout.layers / layer_name(layer.number)) == layer.sha256
    removed = set(snapshot.removed)
    return {id_: row for id_, row in rows.items() if id_ not in removed}


def _check_found(directory: Path, rows: Mapping[int, Vector], paths: Mapping[int, str]) -> None:
    with Collection.open(directory, device="cpu") as collection:
        assert collection.info().images == len(rows)
        for exact in (True, False):
            answers = collection.query_many(np.stack(list(rows.values())), k=5, exact=exact)
            for id_, hits in zip(rows, answers, strict=True):
                assert len({hit.id for hit in hits}) == len({hit.path for hit in hits}) == len(hits)
                (own,) = (hit for hit in hits if hit.id == id_)
                assert own.path == paths[id_]
                assert own.distance < 1e-3


def _sha256(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


def check_alike(directory: Path, undisturbed: Path) -> None:
    """Check that a collection is whole, holds what another holds, and answers as that does."""
    got, expected = check(directory), check(undisturbed)
    assert got.keys() == expected.keys()
    for path, row in expected.items():
        np.testing.assert_allclose(got[path], row, atol=1e-6)
    queries = [expected[path] for path in sorted(expected)[::10]]
    for exact in (True, False):
        answers = zip(
            _distances(directory, queries, exact=exact),
            _distances(undisturbed, queries, exact=exact),
            strict=True,
        )
        for mine, theirs in answers:
            assert mine.keys() == theirs.keys() == expected.keys()
            assert all(abs(mine[path] - theirs[path]) < 1e-3 for path in mine)


def _distances(
    directory: Path, queries: Sequence[Vector], *, exact: bool
) -> list[dict[str, float]]:
    """Return each image's distance from each query, compared with all or found in all lists."""
    nprobe = None if exact else 1_000_000
    with Collection.open(directory, device="cpu") as collection:
        answers = collection.query_many(np.stack(queries), k=1_000_000, exact=exact, nprobe=nprobe)
    return [{hit.path: hit.distance for hit in hits} for hits in answers]


def check_tidy(directory: Path) -> None:
    """Check that nothing is left over after another run, and one to remove what that replaced."""
    with Collection.open(directory, device="cpu") as collection:
        for _ in range(2):
            collection.index()
    layout = Layout(directory)
    catalog = Catalog(layout.catalog)
    snapshot = catalog.snapshot()
    prints = catalog.prints()
    catalog.close()
    named = {prints_name(file.number) for file in prints}
    named |= {name for shard in snapshot.shards for name in shard_files(shard)}
    named |= {layout.segment(segment.number).name for segment in snapshot.segments}
    named |= {layer_name(layer.number) for layer in snapshot.layers}
    there = {path.name for folder in layout.folders for path in folder.iterdir()}
    assert there == named
    assert not list(directory.glob("*.tmp"))
