"""Measure recall within a filter against the promise, and what a filtered query costs.

Filters keep a share of the embeddings of a flat and of a compact collection: a random share, or
whole neighbourhoods, as a folder of similar images does. The queries are held out; most have no
near images in these neighbourhoods. Recall@10 is measured within the filter, against exact search.
Times are medians of single queries, with the filter and without one.

The vectors are those of `--embeddings`, a `.npy` of L2-normalised float32, the last of which are
held out; without it, they are grown from real ones (`GrownEmbeddings` in benchmarks/subjects.py).
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np

from benchmarks.bench_storage import make_view, recall_of, vectors_of
from benchmarks.common import make_parser, note, print_table, write_json
from benchmarks.subjects import SEED, Vectors
from imgsearch.ann.inverted import Chosen
from imgsearch.ann.vectors import Ids
from imgsearch.querying.view import View

K = 10
SHARES = (0.5, 0.05, 0.005)
RECALLS = (0.9, 0.95, 0.99)
NEAR = 40  # neighbourhoods that a filter consists of
TIMED = 200


@dataclass(frozen=True, slots=True)
class Result:
    """A filter with a promise; times in milliseconds, of a query with the filter and without it."""

    index: str
    kept: str
    images: int
    promise: float
    recall: float
    exactly: float
    milliseconds: float
    plain: float


def main() -> None:
    """Measure, and print a table."""
    options = _options()
    results = []
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        base, queries = vectors_of(options, Path(folder))
        for storage in ("flat", "compact"):
            note(f"making the {storage} index")
            view, _ = make_view(Path(folder, storage), base, storage, options.pca)
            for kept, ids in _filters(base):
                results += [
                    _measure(view, storage, kept, ids, queries, promise) for promise in RECALLS
                ]
    rows = [
        (
            *(each.index, each.kept, f"{each.images:,}", f"{each.promise:.2f}"),
            *(f"{each.recall:.4f}", f"{each.exactly:.2f}"),
            *(f"{each.milliseconds:.2f}", f"{each.plain:.2f}"),
        )
        for each in results
    ]
    header = ("index", "filter", "images", "promise", "recall@10", "exact", "ms", "ms without")
    print_table(f"{len(base):,} x {base.shape[1]}", header, rows)
    write_json(options.json, "filters", options, results)


def _filters(base: Vectors) -> Iterator[tuple[str, Ids]]:
    """Yield filters by name, and the ids that they keep; the ids of the vectors begin with 1."""
    random = np.random.default_rng(SEED)
    for share in SHARES:
        count = round(share * len(base))
        drawn = random.choice(len(base), count, replace=False)
        yield f"{share:.1%}, at random", np.sort(drawn).astype(np.int64) + 1
        middles = base[random.choice(len(base), NEAR, replace=False)]
        nearest = np.argsort(-(base @ middles.T).max(axis=1))[:count]
        yield f"{share:.1%}, alike", np.sort(nearest).astype(np.int64) + 1


def _measure(
    view: View, storage: str, kept: str, ids: Ids, queries: Vectors, promise: float
) -> Result:
    among = Chosen(ids)
    true = view.search(queries, K, recall=None, nprobe=None, exact=True, among=among)[1]
    _, found, searches = view.search(
        queries, K, recall=promise, nprobe=None, exact=False, among=among
    )
    times: dict[Chosen | None, list[float]] = {among: [], None: []}
    for query in queries[:TIMED]:
        for limit, taken in times.items():
            started = time.perf_counter()
            view.search(query[None], K, recall=promise, nprobe=None, exact=False, among=limit)
            taken.append(1_000 * (time.perf_counter() - started))
    return Result(
        *(storage, kept, len(ids), promise, recall_of(found, true)),
        float(np.mean([search.kind == "exact" for search in searches])),
        *(median(times[among]), median(times[None])),
    )


def _options() -> argparse.Namespace:
    parser = make_parser("benchmarks.bench_filters", __doc__)
    parser.add_argument("--embeddings", type=Path, help="a .npy file, float32 [n, dim]")
    parser.add_argument("--count", type=int, default=50_000, help="vectors, if they are grown")
    parser.add_argument("--queries", type=int, default=1_000)
    parser.add_argument("--pca", type=int, default=256)
    parser.add_argument("--folder", type=Path, help="for temporary files: a real disk")
    options = parser.parse_args()
    if options.quick:
        options.count, options.queries = 2_000, 200
    return options


if __name__ == "__main__":
    main()
