"""Compare what an index can hold: embeddings (flat), bytes of a PCA (compact), a graph (hnswlib).

All in one run, on the same vectors, by the same held-out queries, k = 10, in one batch, on
`--threads` threads: size, recall@10 against exact search, and queries a second, the median of
`ROUNDS` rounds in turns. Memory of a collection is what the anonymous memory of the process grows
by, and all of the segments, which are mapped; the shards, of which a compact index reads a few
rows, are not in it. That of hnswlib is what it says itself: the size of its file.

The vectors are those of `--embeddings`, a `.npy` of L2-normalised float32, the last of which are
held out; without it they are grown from real ones (`GrownEmbeddings` in benchmarks/subjects.py),
and noisier than these. hnswlib is measured if it is installed: M = 16, ef_construction = 200.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
import psutil

from benchmarks.common import cores, find_photos, make_parser, note, print_table, write_json
from benchmarks.subjects import (
    ROWS,
    GrownEmbeddings,
    Vectors,
    commit_vectors,
    embed_photos,
    make_empty,
)
from imgsearch.ann.vectors import Ids
from imgsearch.indexing.fold import fold
from imgsearch.querying.view import View, open_view
from imgsearch.storage.files import exclusive
from imgsearch.storage.layout import Layout
from imgsearch.storage.records import Storage
from imgsearch.storage.writer import CatalogWriter

__all__ = ["make_view", "recall_of", "vectors_of"]

K = 10
ROUNDS = 5
NPROBES = (1, 2, 3, 4, 6, 8, 11, 16, 23, 32)
EFS = (10, 15, 20, 30, 50, 80, 120)
RECALLS = (0.95, 0.98)

Find = Callable[[Vectors], Ids]


@dataclass(frozen=True, slots=True)
class Result:
    """An index with one setting; `megabytes` in memory, `rates` are queries a second."""

    index: str
    setting: str
    megabytes: float
    recall: float
    rates: tuple[float, ...]


def main() -> None:
    """Measure, and print a table."""
    options = _options()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        base, queries = vectors_of(options, Path(folder))
        results = measure(Path(folder), base, queries, options)
    rows = [
        (
            *(each.index, each.setting, f"{each.megabytes:,.0f}"),
            *(f"{each.recall:.4f}", f"{median(each.rates):,.0f}"),
        )
        for each in results
    ]
    header = ("index", "setting", "MB", "recall@10", "queries/s")
    print_table(f"{len(base):,} x {base.shape[1]}, {options.threads} threads", header, rows)
    write_json(options.json, "storage", options, results)


def measure(
    folder: Path, base: Vectors, queries: Vectors, options: argparse.Namespace
) -> list[Result]:
    """Return what each index does with each setting."""
    import faiss

    finders: dict[tuple[str, str], Find] = {}
    sizes: dict[str, float] = {}
    true: Ids | None = None
    for storage in ("flat", "compact"):
        note(f"making the {storage} index")
        view, sizes[storage] = make_view(folder / storage, base, storage, options.pca)
        if true is None:
            true = view.search(queries, K, recall=None, nprobe=None, exact=True)[1]
        for nprobe in NPROBES:
            finders[storage, f"nprobe {nprobe}"] = _finder(view, nprobe, None)
        for recall in RECALLS:
            finders[storage, f"promise {recall}"] = _finder(view, None, recall)
    note("making the graph of hnswlib")
    graph, sizes["hnswlib"] = _graph(base, options.threads)
    finders |= {("hnswlib", f"ef {ef}"): _walker(graph, ef) for ef in EFS} if graph else {}
    faiss.omp_set_num_threads(options.threads)
    rates: dict[tuple[str, str], list[float]] = {key: [] for key in finders}
    recalls: dict[tuple[str, str], float] = {}
    for turn in range(ROUNDS):
        note(f"round {turn + 1} of {ROUNDS}")
        for key, find in finders.items():
            started = time.perf_counter()
            found = find(queries)
            rates[key].append(len(queries) / (time.perf_counter() - started))
            recalls[key] = recall_of(found, true) if true is not None else 0.0
    return [Result(*key, sizes[key[0]], recalls[key], tuple(rates[key])) for key in finders]


def make_view(directory: Path, base: Vectors, storage: Storage, pca: int) -> tuple[View, float]:
    """Make a collection and open it; return the megabytes that its index takes."""
    make_empty(directory)
    layout = Layout(directory)
    with closing(CatalogWriter(layout.catalog)) as catalog, exclusive(directory):
        catalog.change_settings(nlist=None, recall=None, storage=storage, pca=pca)
        for start in range(0, len(base), ROWS):
            commit_vectors(layout, catalog, base[start : start + ROWS])
        fold(layout, catalog, device="cpu")
        before = _anonymous()
        view = open_view(layout, catalog)
        view.search(base[:100], K, recall=None, nprobe=1, exact=False)
        grown = max(0.0, _anonymous() - before)
        return view, grown + sum(each.size for each in view.snapshot.segments) / 1e6


def _graph(base: Vectors, threads: int) -> tuple[object, float]:
    try:
        import hnswlib
    except ImportError:
        note("hnswlib is not installed")
        return None, 0.0
    graph = hnswlib.Index("l2", base.shape[1])
    graph.init_index(len(base), M=16, ef_construction=200)
    graph.set_num_threads(cores())
    graph.add_items(base, np.arange(1, len(base) + 1))
    graph.set_num_threads(threads)
    return graph, graph.index_file_size() / 1e6


def _finder(view: View, nprobe: int | None, recall: float | None) -> Find:
    def find(queries: Vectors) -> Ids:
        return view.search(queries, K, recall=recall, nprobe=nprobe, exact=False)[1]

    return find


def _walker(graph: object, ef: int) -> Find:
    def find(queries: Vectors) -> Ids:
        graph.set_ef(ef)  # type: ignore[attr-defined]  # an hnswlib index
        found = graph.knn_query(queries, K)[0]  # type: ignore[attr-defined]  # an hnswlib index
        return np.asarray(found, np.int64)

    return find


def recall_of(found: Ids, true: Ids) -> float:
    """Return the mean share of the true neighbours that was found, of ids `[n, K]` each."""
    same = [len(set(one) & set(other)) for one, other in zip(found, true, strict=True)]
    return float(np.mean(same)) / K


def _anonymous() -> float:
    """Return the megabytes of this process that no file stands for."""
    memory = psutil.Process().memory_info()
    return float(memory.rss - memory.shared) / 1e6


def vectors_of(options: argparse.Namespace, folder: Path) -> tuple[Vectors, Vectors]:
    """Return the vectors to index and those to query with, as the options say."""
    if options.embeddings:
        vectors: Vectors = np.load(options.embeddings).astype(np.float32)
        return vectors[: -options.queries], vectors[-options.queries :]
    photos = find_photos(options.data, ("corel1k", "web250"))
    paths = tuple(path for each in photos for path in each.paths)
    source = GrownEmbeddings(embed_photos(folder / "real", paths))
    return source.draw(options.count), source.draw(options.queries)


def _options() -> argparse.Namespace:
    parser = make_parser("benchmarks.bench_storage", __doc__)
    parser.add_argument("--embeddings", type=Path, help="a .npy file, float32 [n, dim]")
    parser.add_argument("--count", type=int, default=100_000, help="vectors, if they are grown")
    parser.add_argument("--queries", type=int, default=2_000)
    parser.add_argument("--pca", type=int, default=256)
    parser.add_argument("--threads", type=int, default=cores())
    parser.add_argument("--folder", type=Path, help="for temporary files: a real disk")
    options = parser.parse_args()
    if options.quick:
        options.count, options.queries = 2_000, 200
    return options


if __name__ == "__main__":
    main()
