"""Index a collection that is larger than the memory it may take, and query it.

    python -m benchmarks.bench_million                        # a million, flat and compact
    python -m benchmarks.bench_million --millions 10 --storages compact --folder DISK --keep

Embeddings of 1280 values, 5.1 GB a million, are written as a real collection (catalog and shards,
by the code that an indexing run uses), and indexed, each time in a process of its own. All the
while a thread samples the anonymous memory of that process (RssAnon of /proc/self/status: what no
file stands for); 4 GiB are allowed. Mapped files are not in it: the system keeps as much of them in
memory as there is room for. A storage for which the disk has no room is left out.

The vectors are grown from real embeddings (`GrownEmbeddings` in benchmarks/subjects.py), those of
Corel-1k, 250 web photos, and four crops of each: each lies somewhere between a real one, drawn at
random, and one of its 20 nearest; then each value is multiplied by exp(N(0, 0.3)), and the whole is
L2-normalised. So they are as dense and as sparse as the real ones, and where these are; a million
has some 160 of each of 6,250. Images are ranked by cosine alone: their neighbour lists would take
1,550 bytes an image more.

A third of the queries are more of them, held out; another third are members of the collection,
changed as much again; and the others, foreign ones, are real photographs of UKBench, from which
nothing was grown. They are asked one at a time, k = 10, by the collection's promise of 0.95, as
arrays through `Collection.query_many`, in a process of its own: once to read what they need from
the disk, which is timed apart, and once more. Recall is measured against exact search. Required,
for each kind: a p50 of 5 ms and a p99 of 50 ms at a recall of 0.95.

Then 1,000 more embeddings are committed and the index is brought in step, as by a run that finds as
many new images, and the catalog is sealed, as by every run: 10 s are allowed.

With --keep, what is made stays in --folder, and a later run with the same options goes on from
there: it writes what is missing, even after it was killed, and measures again what is to measure.
"""

from __future__ import annotations

import argparse
import shutil
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
    save_crops,
)
from imgsearch import Collection
from imgsearch.ann.metrics import Values
from imgsearch.ann.vectors import Ids, Vectors
from imgsearch.indexing.fold import fold
from imgsearch.indexing.policy import FoldPolicy
from imgsearch.querying.view import open_view
from imgsearch.storage.catalog import Catalog
from imgsearch.storage.files import exclusive
from imgsearch.storage.layout import Layout
from imgsearch.storage.records import Storage
from imgsearch.storage.seal import check_sealed, seal
from imgsearch.storage.writer import CatalogWriter

SETS = ("corel1k/images", "corel1k/queries", "web250")
FOREIGN = ("ukbench500",)
CROPS = 4  # of each photograph
STORAGES: tuple[Storage, ...] = ("flat", "compact")
SPARE = 8 << 30  # bytes to leave on the disk
UNRANKED = FoldPolicy(ranked_from=1 << 60)
K = 10
GIB = 1 << 30
MOST_MEMORY = 4 * GIB
MOST_P50, MOST_P99 = 0.005, 0.050
MOST_STEP = 10.0  # seconds
LEAST_RECALL = 0.95
STEP = 1_000  # new images
TOLD = 200_000  # vectors after which progress is told


@dataclass(frozen=True, slots=True)
class Built:
    """What a step took: seconds, and bytes of anonymous memory at most."""

    step: str
    seconds: float
    anonymous: int


@dataclass(frozen=True, slots=True)
class Asked:
    """Queries one at a time, in seconds.

    `kind` is the storage of the index and the kind of the queries. `first_p50` and `first_p99` are
    those of asking each query for the first time, the others of asking it again. `exactly` and
    `widely` are the shares that were answered by exact search, and by all lists. `bytes_an_image`
    are those of the segments.
    """

    kind: str
    nprobe: tuple[int, ...]
    nlist: int
    p50: float
    p90: float
    p99: float
    mean: float
    first_p50: float
    first_p99: float
    recall: float
    exactly: float
    widely: float
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
    if options.keep:
        options.folder.mkdir(parents=True, exist_ok=True)
        built, asked = _measure(options.folder, options)
    else:
        with tempfile.TemporaryDirectory(dir=options.folder) as name:
            built, asked = _measure(Path(name), options)
    _print(built, asked, options)
    write_json(options.json, "million", options, [*built, *asked])
    kept = all(each.anonymous <= MOST_MEMORY for each in built)
    quick = all(
        each.p50 <= MOST_P50 and each.p99 <= MOST_P99 and each.recall >= LEAST_RECALL
        for each in asked
    )
    if not (kept and quick and built[-1].seconds <= MOST_STEP):
        raise SystemExit("what is required was missed")


def _parse() -> argparse.Namespace:
    parser = make_parser("benchmarks.bench_million", __doc__)
    parser.add_argument("--millions", type=float, help="million vectors  [default: 1]")
    parser.add_argument("--rows", type=int, default=ROWS, help="vectors a shard")
    parser.add_argument("--queries", type=int, default=500, help="of each kind")
    parser.add_argument("--storages", nargs="+", choices=STORAGES, default=STORAGES)
    parser.add_argument("--folder", type=Path, help="for 5 to 11 GB per million: a real disk")
    parser.add_argument("--keep", action="store_true", help="keep it, and go on from what is there")
    options = parser.parse_args()
    if options.keep and options.folder is None:
        parser.error("--keep needs --folder")
    options.millions = options.millions or (0.01 if options.quick else 1)
    options.count = round(1_000_000 * options.millions)
    return options


def _measure(folder: Path, options: argparse.Namespace) -> tuple[list[Built], list[Asked]]:
    real, foreign = _real(folder, options)
    grown = folder / "grown"
    if not grown.exists():
        in_fresh_process(make_empty, grown)
    note(f"writing {options.count:,} embeddings")
    built = [in_fresh_process(_write, grown, real, options)[0]]
    asking = _asking(folder, grown, real, foreign, options)
    asked = []
    for storage in options.storages:
        if storage == "flat" and not _has_room(grown, len(real[0]) * 4 * options.count):
            note("there is no room for a flat index, of the size of the embeddings")
            continue
        note(f"indexing, {storage}")
        built.append(in_fresh_process(_index, grown, storage)[0])
        note(f"{built[-1].seconds:.0f} s, {built[-1].anonymous / GIB:.2f} GiB; querying")
        for name, queries, truth in asking:
            kind = f"{storage}, {name}"
            asked.append(in_fresh_process(_ask, grown, kind, queries, truth)[0])
    note(f"adding {STEP:,} embeddings")
    new = GrownEmbeddings(real, seed=SEED + 2).draw(STEP)
    built.append(in_fresh_process(_add, grown, new)[0])
    return built, asked


def _real(folder: Path, options: argparse.Namespace) -> tuple[Vectors, Vectors]:
    """Return the real embeddings to grow from, and foreign ones, made once."""
    made = folder / "real.npy", folder / "foreign.npy"
    if not all(path.exists() for path in made):
        own = [path for found in find_photos(options.data, SETS) for path in found.paths]
        other = [path for found in find_photos(options.data, FOREIGN) for path in found.paths]
        if options.data is None:  # both are the same photographs
            own, other = own[::2], own[1::2]
        own = own[:: 8 if options.quick else 1]
        note(f"embedding {len(own)} photographs to grow from, and {CROPS} crops of each")
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            crops = save_crops(tuple(own), Path(scratch, "crops"), CROPS)
            for path, photos in zip(made, ((*own, *crops), tuple(other)), strict=True):
                embedded = in_fresh_process(embed_photos, Path(scratch, path.stem), photos)[0]
                np.save(path, embedded)
    return np.load(made[0]), np.load(made[1])


def _asking(
    folder: Path, grown: Path, real: Vectors, foreign: Vectors, options: argparse.Namespace
) -> list[tuple[str, Vectors, Ids]]:
    """Return each kind of queries by name, with their true neighbours, which are found once."""
    kinds = {
        "held out": GrownEmbeddings(real, seed=SEED + 1).draw(options.queries),
        "members": in_fresh_process(_members, grown, real, options)[0],
        "foreign": foreign[: options.queries],
    }
    path = folder / f"truth, {options.queries} queries among {options.count}.npy"
    if not path.exists():
        note("searching exactly")
        queries = np.concatenate(list(kinds.values()))
        np.save(path, in_fresh_process(_truth, grown, queries)[0])
    ends = np.cumsum([len(queries) for queries in kinds.values()])
    truths = np.split(np.load(path), ends[:-1])
    return [(*kind, truth) for kind, truth in zip(kinds.items(), truths, strict=True)]


def _has_room(directory: Path, size: int) -> bool:
    return shutil.disk_usage(directory).free - size >= SPARE


def _write(directory: Path, real: Vectors, options: argparse.Namespace) -> Built:
    """Write the embeddings that are not there yet; each shard is drawn by a seed of its own."""
    source, layout = GrownEmbeddings(real), Layout(directory)
    started = time.perf_counter()
    with Watch() as watch, closing(CatalogWriter(layout.catalog)) as catalog, exclusive(directory):
        there = sum(shard.count for shard in catalog.snapshot().shards)
        for start in range(there, options.count, options.rows):
            source.restart(SEED, start)
            commit_vectors(layout, catalog, source.draw(min(options.rows, options.count - start)))
            if start // TOLD < (start + options.rows) // TOLD:
                note(f"{start:,} in {time.perf_counter() - started:.0f} s")
    return Built("grow and write", time.perf_counter() - started, watch.most)


def _index(directory: Path, storage: Storage) -> Built:
    """Do what `imgsearch index --storage` does once the images are embedded, without a ranking."""
    layout = Layout(directory)
    started = time.perf_counter()
    with Watch() as watch, closing(CatalogWriter(layout.catalog)) as catalog, exclusive(directory):
        catalog.change_settings(nlist=None, recall=None, storage=storage)
        fold(layout, catalog, device="cpu", policy=UNRANKED)
    return Built(f"index, {storage}", time.perf_counter() - started, watch.most)


def _add(directory: Path, vectors: Vectors) -> Built:
    """Do what a run does with new embeddings, without computing them."""
    layout = Layout(directory)
    with exclusive(directory):
        seal(layout)  # as the run before has done
    with Watch() as watch:
        started = time.perf_counter()
        with exclusive(directory):
            check_sealed(layout)
        with closing(CatalogWriter(layout.catalog)) as catalog:
            update = run_update(layout, catalog, vectors, len(vectors), UNRANKED)
        with exclusive(directory):
            seal(layout)
        seconds = time.perf_counter() - started
    note(f"{seconds:.2f} s, of which the catalog's seal {seconds - update.seconds:.2f}")
    return Built(f"{len(vectors):,} more", seconds, watch.most)


def _members(directory: Path, real: Vectors, options: argparse.Namespace) -> Vectors:
    """Draw members of the collection, without those of an earlier step, and change them."""
    layout = Layout(directory)
    with closing(Catalog(layout.catalog)) as catalog:
        view = open_view(layout, catalog)
    ids = view.live_ids()[: options.count]
    many = min(options.queries, len(ids))
    drawn = np.random.default_rng(SEED).choice(ids, many, replace=False)
    return GrownEmbeddings(real, seed=SEED + 3).changed(view.rows(np.sort(drawn)))


def _truth(directory: Path, queries: Vectors) -> Ids:
    with Collection.open(directory, device="cpu") as collection:
        return collection.query_many(queries, k=K, exact=True, arrays=True, rank="cosine").ids


def _ask(directory: Path, kind: str, queries: Vectors, truth: Ids) -> Asked:
    with Watch() as watch, Collection.open(directory, device="cpu") as collection:
        first, _ = _timed(collection, queries)
        ways = [answer.search.kind for answer in collection.answer(queries, k=K)]
        times, found = _timed(collection, queries)
        info = collection.info()
    exact = np.array(ways) == "exact"
    recalls = [np.isin(*rows).mean() for rows in zip(truth, found, strict=True)]
    return Asked(
        kind=kind,
        nprobe=info.nprobe,
        nlist=info.ivf.nlist if info.ivf else 0,
        p50=float(np.quantile(times, 0.5)),
        p90=float(np.quantile(times, 0.9)),
        p99=float(np.quantile(times, 0.99)),
        mean=float(times.mean()),
        first_p50=float(np.quantile(first, 0.5)),
        first_p99=float(np.quantile(first, 0.99)),
        recall=float(np.mean(recalls)),
        exactly=float(exact.mean()),
        widely=ways.count("wide") / len(ways),
        bytes_an_image=info.index_bytes / info.images,
        anonymous=watch.most,
    )


def _timed(collection: Collection, queries: Vectors) -> tuple[Values, Ids]:
    """Return the seconds that each query takes, and the ids that it finds, `[n, K]`."""
    seconds, found = [], []
    for query in queries:
        started = time.perf_counter()
        found.append(collection.query_many(query[None], k=K, arrays=True, rank="cosine").ids)
        seconds.append(time.perf_counter() - started)
    return np.array(seconds), np.concatenate(found)


def _print(built: list[Built], asked: list[Asked], options: argparse.Namespace) -> None:
    print_table(
        f"{options.count:,} embeddings",
        ("", "seconds", "anonymous memory, GiB"),
        [(each.step, f"{each.seconds:.0f}", f"{each.anonymous / GIB:.2f}") for each in built],
    )
    header = ("ms", "p50", "p90", "p99", "mean", "first p50", "first p99", "recall@10")
    print_table(
        f"{options.queries:,} queries of each kind, one at a time",
        (*header, "exactly", "by all lists", "nprobe by band", "bytes/image", "anonymous, GiB"),
        [_row(each) for each in asked],
    )


def _row(each: Asked) -> tuple[str, ...]:
    times = (each.p50, each.p90, each.p99, each.mean, each.first_p50, each.first_p99)
    return (
        each.kind,
        *(f"{1000 * seconds:.2f}" for seconds in times),
        *(f"{each.recall:.4f}", f"{each.exactly:.3f}", f"{each.widely:.3f}"),
        f"{', '.join(map(str, each.nprobe))} of {each.nlist:,}",
        f"{each.bytes_an_image:,.0f}",
        f"{each.anonymous / GIB:.2f}",
    )


if __name__ == "__main__":
    main()
