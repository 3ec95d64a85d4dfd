"""Compare imgsearch's k-means with scikit-learn's: seconds and objective.

13,000 embeddings of 1280 values and 128 centroids, as the original system had it. Each seed draws
other embeddings, which both get, one after the other. scikit-learn: `KMeans(128, n_init=1)`, else
as it comes. imgsearch: `imgsearch.ann.kmeans.train`, which the index is trained by. Both use all
cores.

The objective is the sum of squared distances to the nearest centroid, computed alike for both, in
float64. Required of the medians: a quarter of the seconds, and an objective at most 1 % higher.

The embeddings are grown from real ones (`GrownEmbeddings` in benchmarks/subjects.py).
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np

from benchmarks.common import find_photos, make_parser, note, print_table, write_json
from benchmarks.subjects import SEED, GrownEmbeddings, embed_photos
from imgsearch.ann.kmeans import train
from imgsearch.ann.vectors import Vectors

SETS = ("corel1k/images", "corel1k/queries", "web250", "ukbench500")
LEAST_SPEED = 4.0
MOST_OBJECTIVE = 1.01
_BLOCK = 1_024


@dataclass(frozen=True, slots=True)
class Result:
    """Seconds and objective of both, with one seed."""

    seed: int
    seconds: float
    objective: float
    sklearn_seconds: float
    sklearn_objective: float

    @property
    def speed(self) -> float:
        """Return how many times as fast imgsearch is."""
        return self.sklearn_seconds / self.seconds

    @property
    def worse(self) -> float:
        """Return the objective by that of scikit-learn."""
        return self.objective / self.sklearn_objective


def main() -> None:
    """Run the benchmark."""
    options = _parse()
    photos = [path for found in find_photos(options.data, SETS) for path in found.paths]
    note(f"embedding {len(photos)} photographs to grow from")
    with tempfile.TemporaryDirectory() as folder:
        real = embed_photos(Path(folder) / "real", tuple(photos))
    train(real, min(options.nlist, len(real)))  # both libraries have started their threads then
    results = [
        _compare(GrownEmbeddings(real, seed=seed).draw(options.count), options.nlist, seed)
        for seed in range(SEED, SEED + options.seeds)
    ]
    speed = median(each.speed for each in results)
    worse = median(each.worse for each in results)
    print_table(
        f"{options.count:,} embeddings, {options.nlist} centroids",
        ("seed", "imgsearch, s", "scikit-learn, s", "speed", "objective", "its", "ratio"),
        [*map(_row, results), ("median", "", "", f"{speed:.1f}", "", "", f"{worse:.4f}")],
    )
    write_json(options.json, "kmeans", options, results)
    if not options.quick and (speed < LEAST_SPEED or worse > MOST_OBJECTIVE):
        raise SystemExit("what is required was missed")


def _compare(vectors: Vectors, nlist: int, seed: int) -> Result:
    from sklearn.cluster import KMeans

    ours, seconds = _time(lambda: train(vectors, nlist))
    kmeans = KMeans(nlist, n_init=1, random_state=seed)
    theirs, sklearn_seconds = _time(lambda: kmeans.fit(vectors).cluster_centers_)
    return Result(
        *(seed, seconds, _objective(vectors, ours)),
        *(sklearn_seconds, _objective(vectors, theirs)),
    )


def _time(work: Callable[[], Vectors]) -> tuple[Vectors, float]:
    started = time.perf_counter()
    done = work()
    return done, time.perf_counter() - started


def _objective(vectors: Vectors, centroids: Vectors) -> float:
    """Return the sum of squared distances to the nearest centroid, block by block."""
    wide = centroids.astype(np.float64)
    total = 0.0
    for start in range(0, len(vectors), _BLOCK):
        block = vectors[start : start + _BLOCK].astype(np.float64)
        squares = np.square(wide).sum(axis=1) - 2 * block @ wide.T
        total += float((squares.min(axis=1) + np.square(block).sum(axis=1)).sum())
    return total


def _row(each: Result) -> tuple[str, ...]:
    return (
        *(str(each.seed), f"{each.seconds:.2f}", f"{each.sklearn_seconds:.2f}"),
        *(f"{each.speed:.1f}", f"{each.objective:.1f}"),
        *(f"{each.sklearn_objective:.1f}", f"{each.worse:.4f}"),
    )


def _parse() -> argparse.Namespace:
    parser = make_parser("benchmarks.bench_kmeans", __doc__)
    parser.add_argument("--count", type=int, help="embeddings  [default: 13000]")
    parser.add_argument("--nlist", type=int, default=128)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    options.count = options.count or (2_000 if options.quick else 13_000)
    return options


if __name__ == "__main__":
    main()
