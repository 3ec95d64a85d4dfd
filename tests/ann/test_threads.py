"""Batches that are divided among threads, and products of matrices."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import faiss
import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from imgsearch.ann.threads import MOST, in_order, in_parts, matrix_product, single_threaded_blas
from tests.support.small_network import random_embeddings


def rows_of(part: slice, count: int) -> list[int]:
    return list(range(count))[part]


@pytest.mark.usefixtures("several_threads")
@pytest.mark.parametrize("count", [0, 1, 127, 128, 300, 5_000])
def test_the_parts_of_a_batch_are_all_of_it_in_order(count: int) -> None:
    parts = in_parts(count, lambda part: rows_of(part, count))
    assert [row for part in parts for row in part] == list(range(count))
    assert max(map(len, parts)) <= MOST


@pytest.mark.usefixtures("several_threads")
def test_each_thread_searches_with_one_thread() -> None:
    caller = threading.get_ident()
    seen = in_parts(300, lambda _: (threading.get_ident(), faiss.omp_get_max_threads()))
    assert len(seen) > 1
    assert all(thread != caller and threads == 1 for thread, threads in seen)
    assert faiss.omp_get_max_threads() == 4


@pytest.mark.usefixtures("several_threads")
def test_few_queries_stay_in_the_thread_that_asks() -> None:
    assert in_parts(100, lambda _: threading.get_ident()) == [threading.get_ident()]


@pytest.mark.usefixtures("several_threads")
def test_an_error_in_a_part_reaches_whoever_asked() -> None:
    def action(rows: slice) -> None:
        if rows.start:
            raise FileNotFoundError("gone")

    with pytest.raises(FileNotFoundError, match="gone"):
        in_parts(300, action)


@pytest.mark.usefixtures("several_threads")
def test_results_come_in_the_order_of_the_items_which_are_taken_as_they_are_needed() -> None:
    taken: list[int] = []

    def items() -> Iterator[int]:
        for item in range(100):
            taken.append(item)
            yield item

    def action(item: int) -> tuple[int, int, bool]:
        time.sleep(0.005 * (item % 3))
        return item, faiss.omp_get_max_threads(), threading.get_ident() == caller

    caller = threading.get_ident()
    for number, result in enumerate(in_order(action, items())):
        assert result == (number, 1, False)
        assert len(taken) <= number + 5  # four threads, and one
    assert taken == list(range(100))
    assert list(in_order(str, [])) == []


@pytest.mark.usefixtures("several_threads")
def test_an_error_with_an_item_reaches_whoever_asked() -> None:
    def action(item: int) -> int:
        if item == 7:
            raise FileNotFoundError("gone")
        return item

    results = in_order(action, range(100))
    assert [next(results) for _ in range(7)] == list(range(7))
    with pytest.raises(FileNotFoundError, match="gone"):
        next(results)


@pytest.mark.parametrize("count", [0, 1, 70])
def test_products_are_those_of_numpy(count: int) -> None:
    left, right = random_embeddings(count, seed=1), random_embeddings(50, seed=2)
    np.testing.assert_allclose(matrix_product(left, right), left @ right.T, atol=1e-6)
    strided = np.concatenate([right, right], axis=1)[:, : right.shape[1]]
    np.testing.assert_allclose(matrix_product(left, strided), left @ right.T, atol=1e-6)


@pytest.mark.usefixtures("several_threads")
def test_products_by_one_thread_leave_faiss_its_threads() -> None:
    def of_numpy() -> set[int]:
        found = threadpool_info()
        return {each["num_threads"] for each in found if each.get("threading_layer") == "pthreads"}

    with threadpool_limits(4, "blas"):
        faiss.omp_set_num_threads(4)
        before = of_numpy()
        with single_threaded_blas():
            assert of_numpy() <= {1}
            assert faiss.omp_get_max_threads() == 4
        assert of_numpy() == before
