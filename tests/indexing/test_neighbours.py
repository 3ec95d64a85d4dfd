"""The ranking is kept in step with the images by rules: see docs/answers.md."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from imgsearch.ann.vectors import Ids, Neighbours, Vectors
from imgsearch.collection import Collection
from imgsearch.errors import DamagedError
from imgsearch.indexing.policy import FoldPolicy
from imgsearch.maintenance.verify import verify
from imgsearch.querying.view import View
from tests.support.grower import Grower, clustered


@pytest.fixture
def grower(empty: Path) -> Iterator[Grower]:
    with Grower(empty) as grower:
        yield grower


def ranking(view: View) -> Ids:
    """Return the ids of all images in the order of each of them as a query, itself left out."""
    assert view.ranking is not None
    ids = view.live_ids()
    vectors = view.rows(ids)
    distances = 2 - 2 * (vectors @ vectors.T).astype(np.float64)
    np.fill_diagonal(distances, np.inf)
    found = view.search(vectors, min(201, len(ids)), recall=None, nprobe=None, exact=True)
    near = Neighbours(found.distances, found.ids).without(found.ids == ids[:, None])
    order = view.ranking.order_all(vectors, near.first(near.ids.shape[1] - 1), ids, distances)
    return order[:, :-1]  # itself comes last


def mean_average_precision(view: View, labels: Ids) -> float:
    """Return the mAP of the images of a view, whose labels are in the order of their ids."""
    relevant = labels[ranking(view)] == labels[:, None]
    precision = np.cumsum(relevant, axis=1) / np.arange(1, relevant.shape[1] + 1)
    return float(((precision * relevant).sum(axis=1) / relevant.sum(axis=1)).mean())


def grown(directory: Path, vectors: Vectors, steps: int, *, removed: Ids | None = None) -> Grower:
    """Return a collection to which vectors are added step by step; then some are removed."""
    grower = Grower(directory)
    ids = []
    for part in np.array_split(vectors, steps):
        ids.append(grower.add(part))
        grower.fold()
    if removed is not None:
        grower.remove(np.concatenate(ids)[removed])
        grower.fold()
    return grower


def test_there_is_a_ranking_from_256_images_on_until_there_are_fewer_again(grower: Grower) -> None:
    ids = grower.add(clustered(255, seed=1))
    assert grower.fold().ranking is None
    grower.add(clustered(1, seed=2))
    assert grower.fold().ranking is not None
    assert grower.view().ranking is not None
    grower.remove(ids[:1])
    snapshot = grower.fold()
    assert (snapshot.ranking, snapshot.layers) == (None, ())


def test_every_image_has_a_row_after_a_run_and_none_names_what_is_gone(grower: Grower) -> None:
    ids = grower.add(clustered(300, seed=1))
    grower.fold()
    for seed in range(2, 6):
        grower.add(clustered(7, seed=seed))
        grower.remove(ids[10 * seed : 10 * seed + 5])
        grower.fold()
    view = grower.view()
    assert view.ranking is not None
    layers, live = view.ranking.layers, view.live_ids()
    places = layers.places(live)
    assert places.there.all()
    named = np.unique(layers.take("neighbours", places))
    assert np.isin(named[named > 0], live).all()


def test_a_run_without_changes_writes_no_layer(grower: Grower) -> None:
    grower.add(clustered(300, seed=1))
    before = grower.fold()
    assert grower.fold() == before


def test_a_collection_without_a_ranking_gets_one_with_the_next_run(grower: Grower) -> None:
    grower.add(clustered(300, seed=1))
    grower.fold()
    grower.catalog.drop_ranking()  # as an older version left it
    assert grower.view().ranking is None
    assert grower.fold().ranking is not None
    grower.fold()  # deletes what was replaced
    assert len(list(grower.layout.layers.iterdir())) == 1


def test_the_mean_is_frozen_until_the_images_have_doubled(grower: Grower) -> None:
    grower.add(clustered(300, seed=1))
    first = grower.fold().ranking
    grower.add(clustered(299, seed=2))
    assert grower.fold().ranking == first
    grower.add(clustered(1, seed=3))
    last = grower.fold().ranking
    assert last is not None
    assert last != first
    assert last.trained == 600


@pytest.mark.whole("test_every_image_has_a_row_after_a_run_and_none_names_what_is_gone")
def test_what_is_added_in_steps_ranks_as_if_it_was_added_at_once(
    tmp_path: Path, empty: Path
) -> None:
    vectors = clustered(600, seed=1)
    labels = np.argmax(vectors @ clustered(12, seed=2).T, axis=1)
    values = []
    for steps in (1, 12):
        directory = shutil.copytree(empty, tmp_path / f"{steps}")
        with grown(directory, vectors, steps) as grower:
            values.append(mean_average_precision(grower.view(), labels))
    assert abs(values[0] - values[1]) < 0.004


def test_removed_images_leave_a_ranking_like_one_without_them(tmp_path: Path, empty: Path) -> None:
    vectors = clustered(600, seed=1)
    labels = np.argmax(vectors @ clustered(12, seed=2).T, axis=1)
    kept = np.arange(600) % 4 > 0
    left = shutil.copytree(empty, tmp_path / "left")
    with grown(left, vectors, 3, removed=np.flatnonzero(~kept)) as grower:
        value = mean_average_precision(grower.view(), labels[kept])
    anew = shutil.copytree(empty, tmp_path / "anew")
    with grown(anew, vectors[kept], 1) as grower:
        assert abs(value - mean_average_precision(grower.view(), labels[kept])) < 0.004


@pytest.mark.whole("test_every_image_has_a_row_after_a_run_and_none_names_what_is_gone")
def test_a_large_collection_is_compared_list_by_list_and_finds_the_same_neighbours(
    tmp_path: Path, empty: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vectors = clustered(700, seed=1)
    lists = []
    for name, most in (("exact", 8_000), ("lists", 500)):
        monkeypatch.setattr("imgsearch.indexing.neighbours.EXACT_UP_TO", most)
        with grown(shutil.copytree(empty, tmp_path / name), vectors, 1) as grower:
            view = grower.view()
            assert view.ranking is not None
            places = view.ranking.layers.places(view.live_ids())
            lists.append(view.ranking.layers.take("neighbours", places))
    shared = [len(np.intersect1d(*rows)) for rows in zip(*lists, strict=True)]
    assert np.mean(shared) > 36  # of 40


def test_copies_of_one_picture_are_ranked_and_removed(grower: Grower) -> None:
    ids = grower.add(np.repeat(clustered(1, seed=1), 300, axis=0))
    assert grower.fold().layers
    view = grower.view()
    assert view.ranking is not None
    assert view.ranking.layers.places(ids).there.all()
    grower.remove(ids)
    grower.fold()
    grower.add(clustered(300, seed=2))
    assert grower.fold().layers


@pytest.mark.whole("test_every_image_has_a_row_after_a_run_and_none_names_what_is_gone")
def test_many_copies_of_a_picture_leave_the_others_their_neighbours(
    tmp_path: Path, empty: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    others = clustered(700, seed=1)
    vectors = np.concatenate([np.repeat(others[:1], 1_500, axis=0), others])
    monkeypatch.setattr("imgsearch.indexing.neighbours.EXACT_UP_TO", 500)
    lists = []
    for name, most in (("all", 5_000), ("some", 200)):
        monkeypatch.setattr("imgsearch.indexing.neighbours.MOST_OF_LIST", most)
        with grown(shutil.copytree(empty, tmp_path / name), vectors, 1) as grower:
            view = grower.view()
            assert view.ranking is not None
            places = view.ranking.layers.places(view.live_ids()[1_500:])
            lists.append(view.ranking.layers.take("neighbours", places))
    shared = [len(np.intersect1d(*rows)) for rows in zip(*lists, strict=True)]
    assert np.mean(shared) > 36  # of 40


@pytest.mark.few(1)
@pytest.mark.parametrize("harm", ["lost", "cut", "altered"])
def test_a_damaged_layer_is_found_and_made_again(grower: Grower, harm: str) -> None:
    grower.add(clustered(300, seed=1))
    grower.fold()
    before = ranking(grower.view())
    (layer,) = grower.layout.layers.iterdir()
    content = bytearray(layer.read_bytes())
    content[-9] ^= 1
    layer.unlink()
    if harm != "lost":
        layer.write_bytes(content[: -5 if harm == "cut" else None])
    if harm != "altered":
        with pytest.raises(DamagedError):
            grower.view()
    report = verify(grower.layout.directory, sample=0)
    assert [damage.file for damage in report.damages] == [f"layers/{layer.name}"]
    assert verify(grower.layout.directory, sample=0, repair=True).left == ()
    np.testing.assert_array_equal(ranking(grower.view()), before)


def test_a_ranking_of_few_images_is_made_by_who_asks_for_it(grower: Grower) -> None:
    grower.policy = FoldPolicy(ranked_from=5)
    grower.add(clustered(9, seed=1))
    assert grower.fold().ranking is not None
    view = grower.view()
    assert sorted(ranking(view)[0].tolist()) == list(range(1, 9))


@pytest.mark.few(0)
@pytest.mark.parametrize("steps", [100])
def test_corel_added_in_a_hundred_steps_ranks_as_if_it_was_added_at_once(
    data: Path, mobilenet_empty: Path, tmp_path: Path, steps: int
) -> None:
    source = shutil.copytree(mobilenet_empty, tmp_path / "source")
    with Collection.open(source, device="cpu") as collection:
        collection.index(data / "corel1k" / "images")
        entries = collection.entries.after(0, 1_000)
        vectors = collection.entries.embeddings([entry.id for entry in entries])
    with (data / "corel1k" / "labels.csv").open(newline="") as file:
        label_of = {row["path"]: row["label"] for row in csv.DictReader(file)}
    named = [label_of[f"images/{Path(entry.path).name}"] for entry in entries]
    drawn = np.random.default_rng(1).permutation(len(vectors))
    labels = np.unique(named, return_inverse=True)[1][drawn]
    values = []
    for count in (1, steps):
        directory = shutil.copytree(mobilenet_empty, tmp_path / f"{count}")
        with grown(directory, vectors[drawn], count) as grower:
            values.append(mean_average_precision(grower.view(), labels))
    assert abs(values[0] - values[1]) < 0.002
    assert values[0] > 0.95
