"""Neighbour lists, their weights, and the augmented embeddings that follow from them."""

from __future__ import annotations

import numpy as np
import pytest

from imgsearch.ann.neighbourhood import (
    NEAR,
    NEIGHBOURS,
    Centre,
    centred,
    centred_sums,
    code_products,
    dequantised,
    leaders_of,
    near_lists,
    nearest,
    quantised,
    similarity_from_code,
    similarity_to_code,
    weighted_sums,
    weights,
)
from imgsearch.ann.vectors import Block, Ids, Vectors
from tests.support.grower import clustered


def listed(similarities: Vectors, leaders: Ids, own: int = -1) -> tuple[list[int], Vectors]:
    """Return the candidates that one image gets as neighbours, and the similarities of its list."""
    there = np.ones((1, len(similarities)), np.bool_)
    lists = near_lists(similarities[None], leaders[None], np.array([own]), there)
    return [place for place in lists.places[0].tolist() if place >= 0], lists.similarities[0]


def falling(count: int) -> Vectors:
    """Return similarities that fall from 0.9."""
    return np.linspace(0.9, 0.1, count, dtype=np.float32)


def test_a_list_has_the_nearest_candidates_and_the_next_one_sets_the_bound() -> None:
    similarities = np.random.default_rng(1).permutation(falling(100)).astype(np.float32)
    places, found = listed(similarities, np.arange(100))
    order = np.argsort(-similarities)
    assert places == order[:NEIGHBOURS].tolist()
    np.testing.assert_array_equal(found, similarities[order[: NEIGHBOURS + 1]])


def test_of_near_copies_only_the_nearest_is_a_neighbour_and_never_one_of_the_image_itself() -> None:
    leaders = np.array([7, 5, 5, 8, 5, 9, 7])
    places, _ = listed(falling(7), leaders, own=7)
    assert places == [1, 3]  # 5, 8 and 9 are left, and 9 sets the bound


def test_fewer_candidates_than_a_list_holds_are_all_neighbours_but_the_last() -> None:
    places, found = listed(falling(5), np.arange(5))
    assert places == [0, 1, 2, 3]
    assert (found[4:] == falling(5)[4]).all()
    assert listed(falling(1), np.arange(1))[0] == []


def test_weights_fall_from_one_to_nothing_at_the_bound() -> None:
    found = weights(falling(NEIGHBOURS + 1)[None])[0]
    assert found[0] == 1
    assert (np.diff(found) <= 0).all()
    assert found[-1] == 0


@pytest.mark.parametrize(("scale", "offset"), [(0.5, 0.1), (1.05, -0.2)])
def test_weights_do_not_change_under_an_affine_change_of_the_similarities(
    scale: float, offset: float
) -> None:
    similarities = falling(NEIGHBOURS + 1)[None]
    changed = (scale * similarities + offset).astype(np.float32)
    np.testing.assert_allclose(weights(changed), weights(similarities), atol=1e-4)


def test_near_copies_do_not_set_the_scale_of_the_weights() -> None:
    similarities = falling(NEIGHBOURS + 1)
    with_copy = np.concatenate([[np.float32(0.99)], similarities[:-1]])
    assert with_copy[0] > NEAR
    found = weights(with_copy[None])[0]
    assert found[0] == found[1] == 1  # the copy, and the nearest that is none


def test_the_leader_is_the_lowest_id_among_near_copies() -> None:
    candidates = np.array([[9, 3, 4], [5, 3, -1]])
    similarities = np.array([[0.97, 0.96, 0.5], [0.99, 0.2, 1.0]], np.float32)
    assert leaders_of(np.array([7, 2]), candidates, similarities).tolist() == [3, 2]


def test_centred_similarities_follow_from_cosines_and_products_with_the_mean() -> None:
    vectors = clustered(50, seed=1)
    centre = Centre(vectors.mean(axis=0))
    along = centre.along(vectors)
    expected = centred(vectors, centre) @ centred(vectors, centre).T
    found = centre.similarities(vectors @ vectors.T, along[:, None], along)
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("queries", [1, 20])
def test_neighbours_are_summed_by_their_weights(queries: int) -> None:
    vectors = clustered(6, seed=2)
    weight = np.tile(np.array([0.5, 0, 0.25], np.float32), (queries, 1))
    neighbours = np.tile(np.array([4, 99, 2]), (queries, 1))
    found = weighted_sums(neighbours, weight, lambda ids: vectors[ids])
    expected = 0.5 * vectors[4] + 0.25 * vectors[2]
    np.testing.assert_allclose(found, np.tile(expected, (queries, 1)), atol=1e-6)


def test_without_neighbours_the_sum_is_nothing() -> None:
    nothing = np.zeros((3, 2), np.float32)
    found = weighted_sums(
        np.zeros((3, 2), np.int64), nothing, lambda ids: np.ones((len(ids), 5), np.float32)
    )
    assert found.tolist() == np.zeros((3, 5)).tolist()


@pytest.mark.parametrize(("queries", "images"), [(2, 40), (20, 40), (20, 400)])
def test_only_the_wanted_rows_of_codes_are_multiplied(queries: int, images: int) -> None:
    random = np.random.default_rng(6)
    codes = random.integers(-127, 128, (images, 16)).astype(np.int8)
    asked = random.standard_normal((queries, 16)).astype(np.float32)
    rows = random.integers(0, images, (queries, 30))
    wanted = random.random(rows.shape) < 0.7
    found = code_products(asked, codes, rows, wanted)
    expected = np.einsum("nd,nmd->nm", asked, codes.astype(np.float32)[rows])
    np.testing.assert_allclose(found, np.where(wanted, expected, 0), rtol=1e-4, atol=1e-2)


def test_sums_are_those_of_vectors_without_the_mean() -> None:
    vectors = clustered(12, seed=2)
    centre = Centre(vectors.mean(axis=0))
    weight = np.array([[0.5, 1], [0, 0.25]], np.float32)
    neighbours = np.array([[3, 9], [99, 2]])
    along = centre.along(vectors)[neighbours % 12]
    found = centred_sums(centre, neighbours, weight, along, lambda ids: vectors[ids])
    without = centred(vectors, centre)
    expected = np.stack([0.5 * without[3] + without[9], 0.25 * without[2]])
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_the_nearest_are_those_of_all_blocks_without_the_image_itself() -> None:
    vectors = clustered(90, seed=3)
    ids = np.arange(10, 100)
    blocks = [Block(ids[:40], vectors[:40]), Block(ids[40:], vectors[40:])]
    found = nearest(ids[:5], vectors[:5], blocks, 7)
    expected = np.argsort(-(vectors[:5] @ vectors.T), axis=1)[:, 1:8] + 10
    np.testing.assert_array_equal(found.ids, expected)


def test_where_there_are_fewer_others_the_rest_are_none() -> None:
    vectors = clustered(3, seed=3)
    found = nearest(np.array([7, 99]), vectors[:2], [Block(np.array([7, 8, 9]), vectors)], 3)
    assert sorted(found.ids[0].tolist()) == [-1, 8, 9]
    assert found.ids[0, 2] == -1
    assert set(found.ids[1].tolist()) == {7, 8, 9}


def test_stored_numbers_are_close_to_what_they_were() -> None:
    vectors = clustered(20, seed=4)
    codes, scales = quantised(vectors)
    assert codes.dtype == np.int8
    np.testing.assert_allclose(dequantised(codes, scales), vectors, atol=scales.max())
    similarities = np.linspace(-1, 1, 999, dtype=np.float32)
    stored = similarity_to_code(similarities)
    np.testing.assert_allclose(similarity_from_code(stored), similarities, atol=2e-5)
