"""Queries by words, over REST and in Python, on a collection whose network knows words."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import pytest
from starlette.testclient import TestClient

from imgsearch import Collection, SettingError, Words
from imgsearch.indexing.policy import FoldPolicy
from tests.support.embedding_here import EngineInProcess
from tests.support.pictures import save_pictures
from tests.support.small_clip import make_worded_collection
from tests.web.conftest import Served
from tests.web.test_api import ask, assert_problem, paths


@pytest.fixture(scope="module")
def worded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a collection of 70 pictures with a ranking, for reading only."""
    folder = tmp_path_factory.mktemp("worded")
    directory = make_worded_collection(folder / "collection")
    save_pictures(folder / "photos", 70)
    with Collection.open(directory, device="cpu") as collection:
        ranked = FoldPolicy(ranked_from=64)
        collection.index([folder / "photos"], engine=EngineInProcess(), policy=ranked)
    return directory


@pytest.fixture
def client(served: Served, worded: Path) -> TestClient:
    return served(worded)


def test_words_find_images_without_a_band(client: TestClient, worded: Path) -> None:
    with Collection.open(worded, device="cpu") as collection:
        asked = collection.embed([Words("a red bicycle")])
        similarities = (collection.embeddings() @ asked.T)[:, 0]
        expected = [collection.paths[place] for place in np.argsort(-similarities)[:5]]
        assert None not in {hit.z for hit in collection.query(id=1)}  # as there is a ranking
        for hits in (
            collection.query(Words("a red bicycle"), k=5),
            *collection.query_many(asked, k=5, by_words=True),
        ):
            assert [hit.path for hit in hits] == expected
            assert {(hit.band, hit.z, hit.score) for hit in hits} == {(None, None, None)}
    found = ask(client, text="a red bicycle", k=5)
    assert paths(found) == expected
    assert {hit[name] for hit in found.json()["hits"] for name in ("band", "z", "score")} == {None}
    assert found.json()["query"] is None


def test_words_are_combined_with_images(client: TestClient, worded: Path) -> None:
    with Collection.open(worded, device="cpu") as collection:
        path = collection.paths[3]
        query = collection.combine([path, Words("snow")])
        by_both = collection.query(query, by_words=True, exclude=[[path]])
    found = ask(client, Path(path), text="snow", k=11, include_self="true")
    assert [each for each in paths(found) if each != path][:10] == [hit.path for hit in by_both]
    assert len(paths(ask(client, like=4, text="snow", fold="true"))) == 10


def test_words_are_refused_where_they_make_no_sense(served: Served, indexed: Path) -> None:
    client = served(indexed)
    assert_problem(ask(client, text="snow"), 422, "knows no words; send an image")
    assert_problem(ask(client, text=" "), 422, "text must have 1 to 1,000 characters")
    assert_problem(ask(client, text="x" * 1001), 422, "text must have 1 to 1,000 characters")
    assert_problem(ask(client, k=3), 422, "send an image, an embedding, a like or a text")
    assert_problem(ask(client, text=["a", "b"]), 422, "text is given twice")
    assert_problem(ask(client, like=1, text="a", crop="0,0,1,1"), 422, "crop applies to")


def test_words_are_refused_in_python_where_they_make_no_sense(worded: Path) -> None:
    told = "leave it out of a query by words"
    with (
        Collection.open(worded, device="cpu") as collection,
        pytest.raises(SettingError, match=told),
    ):
        collection.query(Words("snow"), verify=True)


def test_words_are_a_query_like_any_other(worded: Path) -> None:
    with Collection.open(worded, device="cpu") as collection:
        texts = [Words("snow"), Words("a dog")]
        rows = collection.embed(texts)
        np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-6)
        found = collection.query_many(texts, arrays=True, k=3)
        np.testing.assert_array_equal(
            found.ids, collection.query_many(rows, arrays=True, k=3, by_words=True).ids
        )
        (hit, *_) = asyncio.run(collection.aquery(Words("snow"), fold=True, name="photos"))
        assert hit.id == found.ids[0, 0]
