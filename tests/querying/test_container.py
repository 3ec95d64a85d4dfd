"""A collection is a container of its images."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from imgsearch.ann.vectors import Vectors
from imgsearch.collection import Collection
from imgsearch.errors import InputError, NoImageError, PackageError
from imgsearch.indexing.policy import FoldPolicy
from imgsearch.querying.hits import Hit
from tests.support.embedding_here import EngineInProcess
from tests.support.pictures import picture


def test_a_collection_is_a_container_of_its_images(opened: Collection, photos: Path) -> None:
    paths = sorted(map(str, photos.iterdir()))
    assert len(opened) == len(list(opened)) == 40
    assert [entry.path for entry in opened] == opened.paths == paths
    assert opened.ids.tolist() == [entry.id for entry in opened]
    own, other = photos / "0003.png", photos / "none.png"
    assert own in opened
    assert opened.id_of(own) in opened
    assert other not in opened
    assert 10**9 not in opened
    assert 1.5 not in opened
    assert opened.entries.get(opened.id_of(str(own))).path == str(own)
    with pytest.raises(InputError, match="is not in the collection"):
        opened.id_of(other)


def test_an_empty_collection_is_true_and_has_nothing(collection: Collection) -> None:
    assert collection
    assert len(collection) == 0
    assert collection.embeddings().shape[0] == 0
    assert collection.to_pandas().empty


def test_a_collection_says_what_it_is(opened: Collection, indexed: Path) -> None:
    assert repr(opened) == f"<DirectoryCollection '{indexed}': 40 images, mobilenet_v2>"
    opened.close()
    assert repr(opened) == f"<DirectoryCollection '{indexed}': closed>"


def test_queries_can_be_awaited(opened: Collection, photos: Path) -> None:
    paths = [photos / "0003.png", photos / "0004.jpg"]

    async def ask() -> list[list[Hit]]:
        return await asyncio.gather(*(opened.aquery(path, k=3) for path in paths))

    assert asyncio.run(ask()) == [opened.query(path, k=3) for path in paths]


def test_embeddings_are_those_of_the_images(opened: Collection) -> None:
    everything = opened.embeddings()
    np.testing.assert_allclose(everything, opened.embed(opened.paths), atol=1e-6)
    some = opened.ids[[7, 3, 7]]
    assert (opened.embeddings(some) == everything[[7, 3, 7]]).all()
    with pytest.raises(NoImageError):
        opened.embeddings([3, 10**9])


def test_embeddings_are_mapped_into_memory_where_they_lie_side_by_side(
    empty: Path, photos: Path
) -> None:
    def is_mapped(embeddings: Vectors) -> bool:
        return not embeddings.flags.owndata and not embeddings.flags.writeable

    with Collection.open(empty, device="cpu") as collection:
        collection.index(
            [photos], engine=EngineInProcess(), policy=FoldPolicy(commit_seconds=600.0)
        )
        assert is_mapped(collection.embeddings())
        assert not collection.embeddings().flags.writeable
        ids = collection.ids
        expected = np.array(collection.embeddings())
        for some in (ids[3:9], ids[5:6], ids[[1, 3]], ids[::-1], ids[:0], ids[[2, 2]]):
            rows = np.searchsorted(ids, some)
            np.testing.assert_array_equal(collection.embeddings(some), expected[rows])
        collection.remove_ids([int(ids[5])])
        assert not is_mapped(collection.embeddings())
        np.testing.assert_array_equal(collection.embeddings(), np.delete(expected, 5, axis=0))


def test_a_query_may_be_an_id(opened: Collection, photos: Path) -> None:
    own = photos / "0003.png"
    by_path = opened.query(own, k=5)
    assert [hit.id for hit in opened.query(id=opened.id_of(own), k=5)] == [
        hit.id for hit in by_path
    ]
    with_it = opened.query(id=opened.id_of(own), k=1, include_self=True)
    assert with_it[0].path == str(own)
    more = opened.query(id=opened.id_of(own), k=1, exclude=[[by_path[0].id]])
    assert more[0].id == by_path[1].id
    wrongs: list[dict[str, Any]] = [{}, {"query": own, "id": 1}]
    for wrong in wrongs:
        with pytest.raises(InputError, match="give either a query"):
            opened.query(**wrong)
    with pytest.raises(NoImageError):
        opened.query(id=10**9)


def test_a_table_has_a_row_for_each_image(opened: Collection, photos: Path) -> None:
    frame = opened.to_pandas(name="*.png")
    assert list(frame["path"]) == sorted(map(str, photos.glob("*.png")))
    assert list(frame.index) == [opened.id_of(path) for path in frame["path"]]
    assert set(frame["width"]) == {48}
    table = opened.to_arrow()
    assert table.column("path").to_pylist() == opened.paths


def test_a_table_names_the_package_that_it_needs(
    opened: Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    for package, make in (("pandas", opened.to_pandas), ("pyarrow", opened.to_arrow)):
        monkeypatch.setitem(sys.modules, package, None)
        with pytest.raises(PackageError, match=f"pip install {package}"):
            make()


def test_hits_are_shown_as_pictures_in_a_notebook(opened: Collection, tmp_path: Path) -> None:
    path = tmp_path / "<b>&.png"
    picture(99).save(path)
    opened.index([path])
    hits = opened.query(picture(99), k=3)
    shown = hits._repr_html_()  # type: ignore[attr-defined]  # what notebooks look for
    assert shown.count('src="data:image/jpeg;base64,') == 3
    assert "&lt;b&gt;&amp;.png" in shown
    assert "<b>" not in shown
    os.unlink(path)
    assert "no picture" in hits._repr_html_()  # type: ignore[attr-defined]
    assert opened.query(picture(99), name="unheard")._repr_html_() == "<em>no hits</em>"  # type: ignore[attr-defined]
