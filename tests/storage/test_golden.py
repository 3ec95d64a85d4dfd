"""A collection of each format version, as it was written then, is read and updated today.

`golden/collection-1` has 10 pictures in a root, /tmp/golden/photos, and an index of 4 lists over
them. Then picture 1 was replaced by picture 100, and 10 and 11 came: these three are its tail. One
file failed, one was skipped.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from imgsearch.collection import Collection
from imgsearch.storage.layout import FORMAT_VERSION
from tests.pictures import picture, save_pictures

GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture(params=range(1, FORMAT_VERSION + 1))
def golden(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Collection]:
    directory = shutil.copytree(GOLDEN / f"collection-{request.param}", tmp_path / "collection")
    with Collection.open(directory, device="cpu") as collection:
        yield collection


def test_what_a_golden_collection_holds_is_known(golden: Collection) -> None:
    info = golden.info()
    assert (info.images, info.failed, info.skipped, info.tail) == (12, 1, 1, 3)
    assert info.roots == ("/tmp/golden/photos",)
    assert info.ivf is not None
    assert (info.ivf.nlist, info.ivf.requested_nlist) == (4, 4)
    assert sum(info.list_sizes) == 10


def test_what_a_golden_collection_answers_is_known(golden: Collection) -> None:
    names = {0: "0000.jpg", 9: "0009.png", 100: "0001.png", 10: "below/0010.jpg"}
    for exact in (False, True):
        for seed, name in names.items():
            best = golden.query(picture(seed), k=1, exact=exact)[0]
            assert best.path == f"/tmp/golden/photos/{name}"
            assert best.similarity > 0.99
        hits = golden.query(picture(1), k=100, exact=exact)
        assert sorted(hit.id for hit in hits) == [1, *range(3, 14)]
        assert hits[0].similarity < 0.99


def test_a_golden_collection_can_be_updated(golden: Collection, tmp_path: Path) -> None:
    paths = save_pictures(tmp_path / "new", 3, first=50)
    assert golden.index(tmp_path / "new").indexed == 3
    assert (golden.info().images, golden.info().tail) == (15, 0)
    assert [hits[0].id for hits in golden.query_many(paths)] == [14, 15, 16]
