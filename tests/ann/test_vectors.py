"""What is taken for an embedding, and membership in sorted ids."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgsearch.ann.vectors import as_queries, columns_of, places_among, rows_of
from imgsearch.errors import InputError
from tests.support.small_network import random_embeddings


def test_one_embedding_is_a_row_and_several_stay_as_they_are() -> None:
    embeddings = random_embeddings(3, dim=5)
    np.testing.assert_array_equal(as_queries(embeddings, 5), embeddings)
    np.testing.assert_array_equal(as_queries(embeddings[0], 5), embeddings[:1])


def test_embeddings_of_another_precision_or_order_are_taken() -> None:
    embeddings = random_embeddings(4, dim=5)
    for other in (embeddings.astype(np.float64), np.asfortranarray(embeddings)):
        taken = as_queries(other, 5)
        np.testing.assert_array_equal(taken, embeddings)
        assert taken.dtype == np.float32
        assert taken.flags.c_contiguous


@pytest.mark.parametrize("shape", [(4,), (6,), (2, 4), (2, 2, 5), ()])
def test_another_shape_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="has 5 values, but this array has the shape"):
        as_queries(np.ones(shape, np.float32), 5)


@pytest.mark.parametrize("factor", [0, np.nan, np.inf, -np.inf])
def test_what_cannot_be_normalised_is_refused(factor: float) -> None:
    embeddings = random_embeddings(3, dim=5)
    with np.errstate(invalid="ignore"):
        embeddings[1] *= np.float32(factor)
    with pytest.raises(InputError, match="embedding 1 has a value that is not finite, or only"):
        as_queries(embeddings, 5)


@given(
    factor=st.floats(1e-300, 1e300) | st.floats(-1e300, -1e-300),
    kind=st.sampled_from(["<f8", ">f8"]),
    only_read=st.booleans(),
)
def test_what_is_not_normalised_is_normalised(factor: float, kind: str, only_read: bool) -> None:
    unit = random_embeddings(3, dim=5)
    given_ = unit.astype(np.float64)
    given_[1] *= factor
    array = given_.astype(kind)
    array.flags.writeable = not only_read
    before = array.copy()
    found = as_queries(array, 5)
    np.testing.assert_allclose(found[1], np.sign(factor) * unit[1], atol=1e-6)
    np.testing.assert_array_equal(found[::2], unit[::2])
    np.testing.assert_array_equal(array, before)


@pytest.mark.parametrize("kind", ["f2", "f4", ">f4", "i4", "u1"])
def test_embeddings_of_any_number_are_taken_and_stay_as_they_are(kind: str) -> None:
    array = np.array([[3, 0, 4, 0, 0], [0, 0, 0, 0, 1]], kind)
    before = array.copy()
    np.testing.assert_allclose(as_queries(array, 5)[0], [0.6, 0, 0.8, 0, 0], atol=1e-6)
    np.testing.assert_array_equal(array, before)
    np.testing.assert_allclose(as_queries(array[::-1, ::-1], 5)[1], [0, 0, 0.8, 0, 0.6], atol=1e-6)


@pytest.mark.parametrize("array", [np.array(["a"] * 5), np.array([{}] * 5, dtype=object)])
def test_what_holds_no_numbers_is_refused(array: npt.NDArray[Any]) -> None:
    with pytest.raises(InputError, match="numbers"):
        as_queries(array, 5)


@given(ids=st.lists(st.integers(-5, 50)), wanted=st.sets(st.integers(-5, 50)))
def test_rows_are_those_with_a_wanted_id(ids: list[int], wanted: set[int]) -> None:
    found = rows_of(np.array(ids, np.int64), np.array(sorted(wanted), np.int64))
    assert found.tolist() == [id_ in wanted for id_ in ids]


@given(first=st.integers(-5, 5), wanted=st.sets(st.integers(0, 30)), data=st.data())
def test_ids_without_a_gap_are_members_by_the_same_rule(
    first: int, wanted: set[int], data: st.DataObject
) -> None:
    among = np.arange(first, first + len(wanted))  # without a gap
    ids = np.array(data.draw(st.lists(st.integers(-9, 40))), np.int64)
    assert rows_of(ids, among).tolist() == [id_ in set(among.tolist()) for id_ in ids.tolist()]


@pytest.mark.parametrize("among", [[4, 5, 6, 7], [4, 6, 9]])
def test_a_place_is_that_of_the_id(among: list[int]) -> None:
    found = places_among(np.array([[among[2], among[0]], [99, -1]]), np.array(among))
    assert found[0].tolist() == [2, 0]
    assert ((found >= 0) & (found < len(among))).all()


def test_columns_are_those_of_each_row() -> None:
    values = np.arange(12).reshape(3, 4)
    columns = np.array([[3, 0], [1, 1], [2, 3]])
    np.testing.assert_array_equal(
        columns_of(values, columns), np.take_along_axis(values, columns, 1)
    )
