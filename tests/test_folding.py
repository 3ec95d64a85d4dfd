"""The index: when it is made, how many lists it has, and what it promises."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from imgsearch.collection import Collection
from tests.pictures import picture, save_pictures
from tests.small_network import DIM


def test_without_nlist_the_index_is_made_from_256_images_on(
    collection: Collection, tmp_path: Path
) -> None:
    save_pictures(tmp_path / "many", 255)
    collection.index([tmp_path / "many"])
    assert collection.info().ivf is None
    assert collection.info().list_sizes == ()
    assert collection.info().tail == 255
    save_pictures(tmp_path / "many", 1, first=255)
    collection.index([tmp_path / "many"])
    info = collection.info()
    assert info.ivf is not None
    assert (info.ivf.nlist, info.ivf.requested_nlist) == (6, None)
    assert (len(info.list_sizes), sum(info.list_sizes), info.tail) == (6, 256, 0)
    assert info.ivf.recall_bound >= 0.95 or info.ivf.nprobe == 6


def test_the_recall_that_is_promised_is_the_recall_that_is_had(
    collection: Collection, tmp_path: Path
) -> None:
    paths = save_pictures(tmp_path / "many", 300)
    collection.index([tmp_path / "many"], nlist=12)
    ivf = collection.info().ivf
    assert ivf is not None
    by_default = collection.query_many(paths, k=10, exclude_self=True)
    exact = collection.query_many(paths, k=10, exact=True, exclude_self=True)
    shared = [
        len({hit.id for hit in some} & {hit.id for hit in best}) / 10
        for some, best in zip(by_default, exact, strict=True)
    ]
    assert np.mean(shared) == pytest.approx(ivf.recall, abs=1e-6)
    assert ivf.recall_bound >= 0.95


@pytest.mark.parametrize(("nlist", "made"), [(1, 1), (5, 5), (40, 40), (500, 40)])
def test_nlist_is_kept_to_at_any_size_but_is_at_most_one_an_image(
    opened: Collection, nlist: int, made: int
) -> None:
    opened.index(nlist=nlist)
    info = opened.info()
    assert info.ivf is not None
    assert (info.ivf.nlist, info.ivf.requested_nlist) == (made, nlist)
    assert len(info.list_sizes) == made
    assert sum(info.list_sizes) == 40
    assert opened.query(picture(3), k=40, nprobe=made)[0].path.endswith("0003.png")


def test_nlist_is_kept_for_later_runs_until_another_is_given(
    opened: Collection, tmp_path: Path
) -> None:
    opened.index(nlist=60)
    save_pictures(tmp_path / "more", 30, first=100)
    opened.index([tmp_path / "more"])
    assert len(opened.info().list_sizes) == 60
    opened.index(nlist=4)
    assert len(opened.info().list_sizes) == 4
    opened.index()
    assert len(opened.info().list_sizes) == 4


def test_the_index_stays_as_it_is_while_nothing_changes(ivf: Collection, indexed: Path) -> None:
    before = [(path.name, path.stat().st_mtime_ns) for path in (indexed / "segments").iterdir()]
    ivf.index()
    ivf.index(nlist=5)
    assert before == [
        (path.name, path.stat().st_mtime_ns) for path in (indexed / "segments").iterdir()
    ]


def test_the_index_is_divided_into_segments_that_answer_as_one(
    collection: Collection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("imgsearch.updating.COMMIT_IMAGES", 20)
    monkeypatch.setattr("imgsearch.folding.SEGMENT_BYTES", 30 * 4 * DIM)
    paths = save_pictures(tmp_path / "many", 70)
    collection.index([tmp_path / "many"], nlist=6)
    paths[0].write_bytes(b"")
    collection.index(nlist=6)
    assert len(list((tmp_path / "empty" / "segments").iterdir())) > 3  # old ones are still there
    assert sum(collection.info().list_sizes) == 69
    exact = collection.query_many(paths[1:], k=8, exact=True)
    probed = collection.query_many(paths[1:], k=8, nprobe=6)
    assert [[hit.id for hit in hits] for hits in exact] == [
        [hit.id for hit in hits] for hits in probed
    ]
