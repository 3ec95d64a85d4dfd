"""Hits are ranked by what the collection knows of its images, and tell what they mean."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Unpack

import numpy as np
import pytest

from imgsearch.ann.vectors import Vectors
from imgsearch.collection import Collection
from imgsearch.errors import SettingError
from imgsearch.indexing.policy import FoldPolicy
from imgsearch.querying.hits import Hit
from imgsearch.querying.options import QueryOptions
from imgsearch.querying.ranking import BANDS, band_numbers
from tests.support.commands import Run
from tests.support.grower import Grower, clustered
from tests.support.pictures import picture
from tests.support.small_network import DIM

GROUP = 8  # images of each thing
ORDER: dict[str | None, int] = {name: number for number, name in enumerate(BANDS)}


def things(count: int, *, seed: int) -> Vectors:
    """Return embeddings of things, `GROUP` of each in a row, float32 `[count, DIM]`."""
    random = np.random.default_rng(seed)
    middles = random.standard_normal((count // GROUP, DIM)) / DIM**0.5
    vectors = np.repeat(middles, GROUP, axis=0) + 0.05 * random.standard_normal((count, DIM))
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)


@pytest.fixture
def ranked(empty: Path) -> Iterator[Collection]:
    """A collection of 400 images, `GROUP` of each thing, and one of picture 7."""
    with Grower(empty) as grower, Collection.open(empty, device="cpu") as collection:
        grower.add(things(400, seed=1))
        grower.add(collection.embed([picture(7)]))
        grower.fold()
        yield collection


def ask(collection: Collection, query: Vectors, **options: Unpack[QueryOptions]) -> list[Hit]:
    """Return the hits of an embedding."""
    return collection.query(query, **options)


def test_the_nearest_image_is_the_first_of_its_band(ranked: Collection) -> None:
    for number, hits in enumerate(
        ranked.query_many(things(400, seed=1)[::GROUP], k=20, rank="collection")
    ):
        assert hits[0].id == number * GROUP + 1
        nearest = max(hits, key=lambda hit: hit.similarity)
        assert hits[0] == nearest


def test_hits_are_in_the_order_of_their_bands_and_then_of_their_scores(ranked: Collection) -> None:
    for hits in ranked.query_many(clustered(20, seed=5), k=50, rank="collection"):
        bands = [ORDER[hit.band] for hit in hits]
        assert bands == sorted(bands, reverse=True)
        for band in set(bands):
            scores = [
                hit.score for hit in hits if ORDER[hit.band] == band and hit.score is not None
            ]
            assert scores[1:] == sorted(scores[1:], reverse=True)  # the nearest is the first
        assert [hit.rank for hit in hits] == list(range(1, len(hits) + 1))


def test_hits_are_ranked_by_the_collection_unless_told_otherwise(ranked: Collection) -> None:
    queries = clustered(20, seed=5)
    hits = ranked.query_many(queries, k=30)
    assert hits == ranked.query_many(queries, k=30, rank="collection")
    assert hits != ranked.query_many(queries, k=30, rank="cosine")


def test_more_hits_begin_with_the_same_hits(ranked: Collection) -> None:
    query = things(400, seed=1)[3]
    few, many = (ask(ranked, query, k=k, exact=True) for k in (10, 401))
    assert [hit.id for hit in few] == [hit.id for hit in many[:10]]
    assert len({hit.id for hit in many}) == 401


def test_ranked_by_cosine_the_similarity_falls_and_there_is_no_score(ranked: Collection) -> None:
    hits = ask(ranked, clustered(1, seed=5)[0], k=50, rank="cosine")
    similarities = [hit.similarity for hit in hits]
    assert similarities == sorted(similarities, reverse=True)
    assert all(hit.score is None and hit.z is not None and hit.band in BANDS for hit in hits)


def test_images_of_one_thing_are_the_same_thing_and_others_are_weak(ranked: Collection) -> None:
    for number, hits in enumerate(
        ranked.query_many(things(400, seed=1)[1::GROUP], k=20, rank="collection")
    ):
        same = {hit.id for hit in hits if hit.band == "same thing"}
        assert same <= set(range(number * GROUP + 1, number * GROUP + GROUP + 1))
        assert len(same) == GROUP
    for hits in ranked.query_many(clustered(20, seed=5, first=1_000), k=20, rank="collection"):
        assert {hit.band for hit in hits} == {"weak"}


def test_z_is_the_symmetric_normalisation_of_the_centred_similarity(ranked: Collection) -> None:
    ids = list(range(1, 402))
    vectors = ranked.entries.embeddings(ids)
    mean = vectors.mean(axis=0)
    z = vectors - mean
    z /= np.linalg.norm(z, axis=1, keepdims=True)
    query = clustered(1, seed=9)[0]
    q = (query - mean) / np.linalg.norm(query - mean)
    among = z @ z.T
    np.fill_diagonal(among, np.nan)
    means, deviations = np.nanmean(among, axis=1), np.nanstd(among, axis=1)
    own = z @ q
    expected = ((own - own.mean()) / own.std() + (own - means) / deviations) / 2
    for hit in ask(ranked, query, k=401, exact=True):
        assert hit.z == pytest.approx(expected[hit.id - 1], abs=0.01)


def test_a_cosine_that_strangers_have_is_weak_and_a_high_one_is_similar_whatever_z_is() -> None:
    z = np.array([9, 9, 9, 3.5, 1, 1, np.nan], np.float32)
    cosines = np.array([0.6, 0.72, 0.9, 0.72, 0.85, 0.96, 0.9], np.float32)
    assert band_numbers(z, cosines).tolist() == [0, 1, 2, 1, 1, 2, -1]


@pytest.mark.parametrize("band", BANDS)
def test_hits_below_the_wanted_band_are_left_out(ranked: Collection, band: str) -> None:
    query = things(400, seed=1)[0]
    every = ask(ranked, query, k=30)
    hits = ask(ranked, query, k=30, min_band=band)  # type: ignore[arg-type]  # a str
    assert [hit.id for hit in hits] == [hit.id for hit in every if ORDER[hit.band] >= ORDER[band]]


@pytest.mark.parametrize("option", [{"min_band": "strong"}, {"rank": "best"}, {"rank": None}])
def test_an_unknown_band_or_ranking_is_refused(ranked: Collection, option: dict[str, str]) -> None:
    with pytest.raises(SettingError, match=next(iter(option))):
        ranked.query(clustered(1, seed=1)[0], **option)  # type: ignore[arg-type]  # wrong on purpose


def test_an_image_that_was_just_added_is_found_before_the_next_fold(empty: Path) -> None:
    with Grower(empty) as grower, Collection.open(empty, device="cpu") as collection:
        grower.add(things(400, seed=1))
        grower.fold()
        (new,) = grower.add(clustered(1, seed=77, first=500)).tolist()
        first, *_ = ask(collection, clustered(1, seed=77, first=500)[0], k=5)
        assert (first.id, first.band) == (new, "same thing")
        assert collection.info().unranked == 1


def test_few_images_have_no_bands_and_none_is_withheld(empty: Path) -> None:
    with Grower(empty) as grower, Collection.open(empty, device="cpu") as collection:
        grower.add(clustered(40, seed=1))
        grower.fold()
        for options in ({}, {"min_band": "same thing"}, {"rank": "cosine"}):
            hits = ask(collection, clustered(1, seed=5, first=99)[0], k=10, **options)  # type: ignore[arg-type]  # a dict
            assert len(hits) == 10
            assert all((hit.score, hit.z, hit.band) == (None, None, None) for hit in hits)
        assert collection.info().rank == "cosine"


def test_a_ranking_with_too_few_references_has_scores_but_no_bands(empty: Path) -> None:
    with Grower(empty) as grower, Collection.open(empty, device="cpu") as collection:
        grower.policy = FoldPolicy(ranked_from=5)
        grower.add(clustered(30, seed=1))
        grower.fold()
        hits = ask(collection, clustered(1, seed=5)[0], k=10, min_band="similar")
        assert [hit.band for hit in hits] == [None] * 10
        assert all(hit.score is not None for hit in hits)


def test_arrays_hold_what_hits_hold(ranked: Collection) -> None:
    queries = clustered(3, seed=5)
    found = ranked.query_many(queries, arrays=True, k=5, rank="collection")
    for row, hits in enumerate(ranked.query_many(queries, k=5, rank="collection")):
        assert found.ids[row].tolist() == [hit.id for hit in hits]
        assert found.scores[row].tolist() == [hit.score for hit in hits]
        assert found.z[row].tolist() == [hit.z for hit in hits]
        assert [BANDS[number] for number in found.bands[row]] == [hit.band for hit in hits]


@pytest.mark.whole("test_hits_below_the_wanted_band_are_left_out")
def test_the_command_shows_the_band_first_and_stops_where_nothing_is_similar(
    ranked: Collection, run: Run, tmp_path: Path
) -> None:
    directory = ranked.info().directory
    known, foreign = tmp_path / "known.png", tmp_path / "foreign.png"
    picture(7).save(known)
    picture(8).save(foreign)
    found = run("query", known, "-c", directory, "-k", "5")
    heading, row = found.out.splitlines()[1:3]
    assert heading.split() == ["#", "band", "path"]
    assert row.split(maxsplit=1)[1].startswith("same thing  /grown/00000401.jpg")
    assert len(found.out.splitlines()) == 3
    assert found.code == 0
    nothing = run("query", foreign, "-c", directory, "-k", "5")
    assert (nothing.code, nothing.out) == (1, "")
    assert "nothing similar; the nearest: /grown/" in nothing.err
    for options in (["--all"], ["--min-band", "weak"], ["--min-similarity", "-1"]):
        every = run("query", foreign, "-c", directory, "-k", "5", "--json", *options)
        hits = json.loads(every.out)["hits"]
        assert (every.code, len(hits)) == (0, 5)
        assert {hit["band"] for hit in hits} == {"weak"}
    strict = run("query", foreign, "-c", directory, "--min-band", "same-thing")
    assert strict.code == 1
    combined = run("query", foreign, foreign, "--combine", "-c", directory, "-k", "5", "--paths")
    assert (combined.code, len(combined.out.splitlines())) == (0, 5)


def test_ranked_by_cosine_the_table_shows_numbers_and_bands(
    ranked: Collection, run: Run, tmp_path: Path
) -> None:
    picture(7).save(tmp_path / "known.png")
    directory = ranked.info().directory
    found = run("query", tmp_path / "known.png", "-c", directory, "--all", "--rank", "cosine")
    assert found.out.splitlines()[1].split() == ["#", "similarity", "band", "path"]
    similarities = [float(line.split()[1]) for line in found.out.splitlines()[2:]]
    assert similarities == sorted(similarities, reverse=True)


def test_a_notebook_shows_no_numbers_that_hits_are_not_in_the_order_of(ranked: Collection) -> None:
    query = clustered(1, seed=5)[0]
    for rank, shown in (("collection", False), ("cosine", True)):
        hits = ask(ranked, query, k=5, rank=rank)  # type: ignore[arg-type]  # a str
        page = hits._repr_html_()  # type: ignore[attr-defined]  # what notebooks look for
        assert all((f"{hit.similarity:.4f}" in page) == shown for hit in hits)
        assert all(str(hit.band) in page for hit in hits)


def test_many_queries_get_what_each_gets_by_itself_from_several_layers(empty: Path) -> None:
    with Grower(empty) as grower, Collection.open(empty, device="cpu") as collection:
        vectors = things(400, seed=1)
        grower.add(vectors[:392])
        grower.fold()
        grower.add(vectors[392:])
        grower.remove([394, 396])
        assert len(grower.fold().layers) > 1
        queries = np.concatenate([vectors[::6], clustered(20, seed=5)])
        for query, hits in zip(queries, collection.query_many(queries, k=20), strict=True):
            alone = ask(collection, query, k=20)
            assert [hit.id for hit in hits] == [hit.id for hit in alone]
            assert [hit.score for hit in hits] == pytest.approx([hit.score for hit in alone])


def test_hits_of_a_compact_collection_are_ranked_by_exact_similarities(empty: Path) -> None:
    with Grower(empty) as grower, Collection.open(empty, device="cpu") as collection:
        vectors = things(600, seed=1)
        grower.catalog.change_settings(nlist=None, recall=None, storage="compact", pca=4)
        grower.add(vectors)
        grower.fold()
        assert collection.info().ivf is not None
        for number in range(0, 600, 60):
            hits = ask(collection, vectors[number], k=20)
            assert hits[0].id == number + 1
            ids = [hit.id for hit in hits]
            similarities = collection.entries.embeddings(ids) @ vectors[number]
            assert [hit.similarity for hit in hits] == pytest.approx(similarities, abs=1e-5)
            assert {hit.id for hit in hits if hit.band == "same thing"} <= set(
                range(number // GROUP * GROUP + 1, number // GROUP * GROUP + GROUP + 1)
            )


def test_info_tells_how_hits_are_ranked_and_what_that_takes(ranked: Collection, run: Run) -> None:
    info = ranked.info()
    assert (info.rank, info.unranked) == ("collection", 0)
    assert info.ranking_bytes == sum(
        path.stat().st_size for path in Path(info.directory, "layers").iterdir()
    )
    assert (
        "ranking     by the collection, or by cosine" in run("info", "-v", "-c", info.directory).out
    )
