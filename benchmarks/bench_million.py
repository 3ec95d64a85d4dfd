"""Index a collection that is larger than the memory it may take, and query it.

A million embeddings of 1280 values, 5.1 GB, are written as a real collection (catalog and shards,
by the code that an indexing run uses), and indexed, flat and then compact, each time in a process
of its own. All the while a thread samples the anonymous memory of that process (RssAnon of
/proc/self/status: what no file stands for); 4 GiB are allowed. Mapped files are not in it: the
system keeps as much of them in memory as there is room for.

The vectors are grown from real embeddings (`GrownEmbeddings` in benchmarks/subjects.py): each lies
somewhere between a real one, drawn at random, and one of its 20 nearest; then each value is
multiplied by exp(N(0, 0.3)), and the whole is L2-normalised. So they are as dense and as sparse as
the real ones, and where these are; a million has some 570 of each of 1,750.

Half of the queries are more of them, held out; the others are members of the collection, changed
as much again. They are asked one at a time, k = 10, by the collection's promise of 0.95, as arrays
through `Collection.query_many`, in a process of its own, after all of them were asked once. Recall
is measured against exact search. Required: a p50 of 10 ms at a recall of 0.95.

Then 1,000 more embeddings are committed to the compact collection and its index is brought in step,
as by a run that finds as many new images, without their neighbour lists: 10 s are allowed.
"""

from __future__ import annotations

import argparse
import tempfile
import threading
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import numpy as np

from benchmarks.common import (
    find_photos,
    in_fresh_process,
    make_parser,
    note,
    print_table,
    write_json,
)
from benchmarks.growing import run_update
from benchmarks.subjects import (
    ROWS,
    SEED,
    GrownEmbeddings,
    commit_vectors,
    embed_photos,
    make_empty,
)
from imgsearch import Collection
from imgsearch.ann.vectors import Ids, Vectors
from imgsearch.indexing.fold import fold
from imgsearch.querying.view import open_view
from imgsearch.storage.catalog import Catalog
from imgsearch.storage.files import exclusive
from imgsearch.storage.layout import Layout
from imgsearch.storage.records import Storage
from imgsearch.storage.writer import CatalogWriter

SETS = ("corel1k/images", "corel1k/queries", "web250", "ukbench500")
STORAGES: tuple[Storage, ...] = ("flat", "compact")
K = 10
GIB = 1 << 30
MOST_MEMORY = 4 * GIB
MOST_P50 = 0.010
MOST_STEP = 10.0  # seconds
LEAST_RECALL = 0.95
STEP = 1_000  # new images


@dataclass(frozen=True, slots=True)
class Built:
    """What a step took: seconds, and bytes of anonymous memory at most."""

    step: str
    seconds: float
    anonymous: int


@dataclass(frozen=True, slots=True)
class Asked:
    """Queries one at a time, in seconds; `exactly` is the share that was answered by exact search.

    `kind` is the storage of the index and the kind of the queries. `lists` is the 99th percentile
    of all others. `bytes_an_image` are those of the segments.
    """

    kind: str
    nprobe: tuple[int, ...]
    nlist: int
    p50: float
    p90: float
    p99: float
    mean: float
    lists: float
    recall: float
    exactly: float
    bytes_an_image: float
    anonymous: int


class Watch:
    """Samples the anonymous memory of this process meanwhile; `most` is in bytes."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self.most = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._thread.join()

    def _sample(self) -> None:
        while not self._stop.wait(0.02):
            self.most = max(self.most, _anonymous())


def _anonymous() -> int:
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) << 10
    raise SystemExit("this system does not tell the anonymous memory of a process")


def main() -> None:
    """Run the benchmark."""
    options = _parse()
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        built, asked = _measure(Path(name), options)
    _print(built, asked, options)
    write_json(options.json, "million", options, [*built, *asked])
    kept = all(each.anonymous <= MOST_MEMORY for each in built)
    quick = all(each.p50 <= MOST_P50 and each.recall >= LEAST_RECALL for each in asked)
    if not (kept and quick and built[-1].seconds <= MOST_STEP):
        raise SystemExit("what is required was missed")


def _parse() -> argparse.Namespace:
    parser = make_parser("benchmarks.bench_million", __doc__)
    parser.add_argument("--millions", type=float, help="million vectors  [default: 1]")
    parser.add_argument("--rows", type=int, default=ROWS, help="vectors a shard")
    parser.add_argument("--queries", type=int, default=1_000)
    parser.add_argument("--folder", type=Path, help="for 13 GB of files per million: a real disk")
    options = parser.parse_args()
    options.millions = options.millions or (0.01 if options.quick else 1)
    options.count = round(1_000_000 * options.millions)
    return options


def _measure(folder: Path, options: argparse.Namespace) -> tuple[list[Built], list[Asked]]:
    photos = [path for found in find_photos(options.data, SETS) for path in found.paths]
    drawn = tuple(photos[:: 8 if options.quick else 1])
    note(f"embedding {len(drawn)} photographs to grow from")
    real = in_fresh_process(embed_photos, folder / "real", drawn)[0]
    in_fresh_process(make_empty, folder / "grown")
    note(f"writing {options.count:,} embeddings")
    built = [in_fresh_process(_write, folder / "grown", real, options)[0]]
    held_out = GrownEmbeddings(real, seed=SEED + 1).draw(options.queries)
    members = in_fresh_process(_members, folder / "grown", real, options.queries)[0]
    note("searching exactly")
    asking = [
        (name, queries, in_fresh_process(_truth, folder / "grown", queries)[0])
        for name, queries in (("held out", held_out), ("members", members))
    ]
    asked = []
    for storage in STORAGES:
        note(f"indexing, {storage}")
        built.append(in_fresh_process(_index, folder / "grown", storage)[0])
        note(f"{built[-1].seconds:.0f} s, {built[-1].anonymous / GIB:.2f} GiB; querying")
        for name, queries, truth in asking:
            kind = f"{storage}, {name}"
            asked.append(in_fresh_process(_ask, folder / "grown", kind, queries, truth)[0])
    note(f"adding {STEP:,} embeddings")
    new = GrownEmbeddings(real, seed=SEED + 2).draw(STEP)
    built.append(in_fresh_process(_add, folder / "grown", new)[0])
    return built, asked


def _write(directory: Path, real: Vectors, options: argparse.Namespace) -> Built:
    source, layout = GrownEmbeddings(real), Layout(directory)
    started = time.perf_counter()
    with Watch() as watch, closing(CatalogWriter(layout.catalog)) as catalog, exclusive(directory):
        for start in range(0, options.count, options.rows):
            commit_vectors(layout, catalog, source.draw(min(options.rows, options.count - start)))
    return Built("grow and write", time.perf_counter() - started, watch.most)


def _index(directory: Path, storage: Storage) -> Built:
    """Do what `imgsearch index --storage` does once the images are embedded."""
    layout = Layout(directory)
    started = time.perf_counter()
    with Watch() as watch, closing(CatalogWriter(layout.catalog)) as catalog, exclusive(directory):
        catalog.change_settings(nlist=None, recall=None, storage=storage)
        fold(layout, catalog, device="cpu")
    return Built(f"index, {storage}", time.perf_counter() - started, watch.most)


def _add(directory: Path, vectors: Vectors) -> Built:
    """Do what a run does with new embeddings, without computing them."""
    layout = Layout(directory)
    with Watch() as watch, closing(CatalogWriter(layout.catalog)) as catalog:
        update = run_update(layout, catalog, vectors, len(vectors))
    return Built(f"{len(vectors):,} more", update.seconds, watch.most)


def _members(directory: Path, real: Vectors, count: int) -> Vectors:
    """Draw members of the collection, and change them."""
    layout = Layout(directory)
    with closing(Catalog(layout.catalog)) as catalog:
        view = open_view(layout, catalog)
    ids = view.live_ids()
    drawn = np.random.default_rng(SEED).choice(ids, min(count, len(ids)), replace=False)
    return GrownEmbeddings(real, seed=SEED + 3).changed(view.rows(np.sort(drawn)))


def _truth(directory: Path, queries: Vectors) -> Ids:
    with Collection.open(directory, device="cpu") as collection:
        return collection.query_many(queries, k=K, exact=True, arrays=True, rank="cosine").ids


def _ask(directory: Path, kind: str, queries: Vectors, truth: Ids) -> Asked:
    with Watch() as watch, Collection.open(directory, device="cpu") as collection:
        ways = [answer.search.kind for answer in collection.answer(queries, k=K)]
        seconds, recalls = [], []
        for row in range(-1, len(queries)):  # the last one twice: it is to warm up
            started = time.perf_counter()
            found = collection.query_many(queries[row][None], k=K, arrays=True, rank="cosine").ids
            seconds.append(time.perf_counter() - started)
            recalls.append(np.isin(truth[row], found[0]).mean())
        info = collection.info()
    times, exact = np.array(seconds[1:]), np.array(ways) == "exact"
    return Asked(
        kind=kind,
        nprobe=info.nprobe,
        nlist=info.ivf.nlist if info.ivf else 0,
        p50=float(np.quantile(times, 0.5)),
        p90=float(np.quantile(times, 0.9)),
        p99=float(np.quantile(times, 0.99)),
        mean=float(times.mean()),
        lists=float(np.quantile(times[~exact], 0.99)) if not exact.all() else 0.0,
        recall=float(np.mean(recalls[1:])),
        exactly=float(exact.mean()),
        bytes_an_image=info.index_bytes / info.images,
        anonymous=watch.most,
    )


def _print(built: list[Built], asked: list[Asked], options: argparse.Namespace) -> None:
    print_table(
        f"{options.count:,} embeddings",
        ("", "seconds", "anonymous memory, GiB"),
        [(each.step, f"{each.seconds:.0f}", f"{each.anonymous / GIB:.2f}") for each in built],
    )
    header = ("ms", "p50", "p90", "p99", "mean", "p99 by lists", "recall@10", "exactly")
    print_table(
        f"{options.queries:,} queries, one at a time",
        (*header, "nprobe by band", "bytes/image", "anonymous, GiB"),
        [_row(each) for each in asked],
    )


def _row(each: Asked) -> tuple[str, ...]:
    times = (each.p50, each.p90, each.p99, each.mean, each.lists)
    return (
        each.kind,
        *(f"{1000 * seconds:.2f}" for seconds in times),
        *(f"{each.recall:.4f}", f"{each.exactly:.3f}"),
        f"{', '.join(map(str, each.nprobe))} of {each.nlist:,}",
        f"{each.bytes_an_image:,.0f}",
        f"{each.anonymous / GIB:.2f}",
    )


if __name__ == "__main__":
    main()
