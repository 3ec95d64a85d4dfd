"""Divide a batch of queries among threads.

Each thread searches for queries of its own, from beginning to end. It is quicker than to have each
step share its work among the threads of OpenMP, and the next step among those of NumPy's BLAS:
these wait for each other by spinning, on cores that the others need.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import faiss
import numpy as np

from imgsearch.ann.vectors import Vectors

__all__ = ["in_order", "in_parts", "matrix_product", "single_threaded_blas"]

LEAST, MOST = 64, 1_024  # queries in a part

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def in_parts(count: int, action: Callable[[slice], _Result]) -> list[_Result]:
    """Run an action on parts of a batch, and return the results in the order of the parts.

    Args:
        count: Number of queries in the batch; few are one part, as none are.
        action: Function of the rows of a part. It runs in up to as many threads as Faiss may use
            here, and may use one thread itself, unless there is only one part.
    """
    threads = min(faiss.omp_get_max_threads(), count // LEAST)
    if threads < 2:
        return [action(slice(start, start + MOST)) for start in range(0, max(count, 1), MOST)]

    def alone(rows: slice) -> _Result:
        faiss.omp_set_num_threads(1)  # for what this thread starts
        return action(rows)

    size = min(-(-count // threads), MOST)
    rows = [slice(start, start + size) for start in range(0, count, size)]
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(alone, rows))


def in_order(action: Callable[[_Item], _Result], items: Iterable[_Item]) -> Iterator[_Result]:
    """Run an action on each of some items, and yield the results in the order of the items.

    Args:
        action: Function of an item. It runs in as many threads as Faiss may use here, and may use
            one thread itself, unless there is only one.
        items: The items. No more are taken than threads are at work, and one.
    """
    threads = faiss.omp_get_max_threads()
    if threads < 2:
        yield from map(action, items)
        return
    running: deque[Future[_Result]] = deque()
    alone = {"initializer": faiss.omp_set_num_threads, "initargs": (1,)}
    with ThreadPoolExecutor(threads, **alone) as pool:
        for item in items:
            running.append(pool.submit(action, item))
            if len(running) > threads:
                yield running.popleft().result()
        while running:
            yield running.popleft().result()


def matrix_product(left: Vectors, right: Vectors) -> Vectors:
    """Return the product of each row with each row, float32 `[n, m]`, by Faiss's BLAS.

    Unlike NumPy's, it uses no more threads than Faiss may use here.

    Args:
        left: Vectors, float32 `[n, dim]`.
        right: Vectors, float32 `[m, dim]`.
    """
    transform = faiss.LinearTransform(right.shape[1], len(right), False)
    faiss.copy_array_to_vector(np.ascontiguousarray(right, np.float32).reshape(-1), transform.A)
    transform.is_trained = True
    found: Vectors = transform.apply(np.ascontiguousarray(left, np.float32))
    return found


@contextmanager
def single_threaded_blas() -> Iterator[None]:
    """Limit NumPy's BLAS to one thread meanwhile, in the whole process (`threadpoolctl`).

    This is for work that is divided among threads already. OpenBLAS would divide each larger
    product once more, among threads of its own, which then wait for the next one by spinning.
    Faiss keeps its threads, as its OpenBLAS uses those of OpenMP.
    """
    from threadpoolctl import ThreadpoolController

    with ThreadpoolController().select(threading_layer="pthreads").limit(limits=1):
        yield
