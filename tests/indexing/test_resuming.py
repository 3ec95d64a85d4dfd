"""A run that was interrupted, and the run after it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from imgsearch.collection import Collection
from imgsearch.indexing.report import Progress
from imgsearch.storage.catalog import Catalog
from imgsearch.storage.layout import Layout
from imgsearch.storage.shards import open_ids, open_shard
from tests.support.outcomes import ids_in
from tests.support.pictures import picture
from tests.support.small_network import DIM


def contents(directory: Path) -> list[tuple[Any, ...]]:
    """Return id, path and embedding of each image, ordered by id."""
    with Collection.open(directory, device="cpu") as collection:
        paths = {id_: path for path, id_ in ids_in(collection).items()}
    layout = Layout(directory)
    catalog = Catalog(layout.catalog)
    rows = [
        (id_, paths[id_], row.tolist())
        for shard in catalog.shards()
        for id_, row in zip(
            open_ids(layout.vectors, shard).tolist(),
            open_shard(layout.vectors, shard, DIM),
            strict=True,
        )
    ]
    catalog.close()
    return rows


def interrupt_after(done: int) -> Callable[[Progress], None]:
    def interrupt(progress: Progress) -> None:
        if progress.done >= done:
            raise KeyboardInterrupt

    return interrupt


def test_an_interrupted_run_keeps_what_it_has_and_the_next_one_resumes(
    empty: Path, tree: Path, tmp_path: Path
) -> None:
    undisturbed = shutil.copytree(empty, tmp_path / "undisturbed")
    (tree / "0000.txt").write_text("")
    with Collection.open(undisturbed, device="cpu") as collection:
        collection.index([tree])
    with Collection.open(empty, device="cpu") as collection:
        for done in (3, 8):
            with pytest.raises(KeyboardInterrupt):
                collection.index([tree], progress=interrupt_after(done))
            assert collection.info().images in (done, done - 1)
        report = collection.index([tree])
    assert report.unchanged >= 7
    assert contents(empty) == contents(undisturbed)


@pytest.mark.parametrize("assigned", [0, 1], ids=["while trained", "while filled"])
def test_an_interrupt_while_the_index_is_made_loses_no_image(
    collection: Collection, tree: Path, assigned: int
) -> None:
    def interrupt(progress: Progress) -> None:
        if progress.training and progress.assigned >= assigned:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        collection.index([tree], nlist=3, progress=interrupt)
    assert collection.info().ivf is None
    assert collection.info().tail == 12
    assert len(collection.query(picture(0), k=100)) == 12
    collection.index([tree], nlist=3)
    assert collection.info().tail == 0


def test_what_a_crash_left_behind_is_removed(
    collection: Collection, empty: Path, tree: Path
) -> None:
    collection.index([tree], nlist=2)
    orphans = [
        empty / "vectors" / "00000099.npy",
        empty / "vectors" / "00000002.npy.tmp",
        empty / "segments" / "00000099.faiss",
        empty / "segments" / "00000002.faiss.tmp",
    ]
    for path in orphans:
        path.write_bytes(b"half of it")
    collection.index([tree])
    assert not any(path.exists() for path in orphans)
    assert len(collection.query(picture(0), k=100)) == 12


def test_a_shard_that_was_written_but_not_committed_is_written_again(
    collection: Collection, empty: Path, tree: Path
) -> None:
    (empty / "vectors" / "00000001.npy").write_bytes(b"written just before the crash")
    collection.index([tree])
    assert len(collection.query(picture(0), k=100)) == 12
