"""How fast Milvus takes images, and answers, and what it finds: grown embeddings, one client.

The embeddings are grown from real ones (`GrownEmbeddings` in benchmarks/subjects.py), and so are
200 other queries. Recall is measured against a search of all lists, which is exact.

`python -m benchmarks.bench_milvus milvus:FILE.db`, or a server: `milvus://HOST:PORT/NAME`. The
package `milvus` carries one; in a network namespace of its own:
`unshare -Urnpf --mount-proc --kill-child python -m tests.scale.milvus_server \
python -m benchmarks.bench_milvus milvus://127.0.0.1:19530/bench --server FOLDER`.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np

from benchmarks.common import (
    find_photos,
    in_fresh_process,
    make_parser,
    note,
    print_table,
    write_json,
)
from benchmarks.subjects import SEED, GrownEmbeddings, embed_photos
from imgsearch.ann.kmeans import choose_nlist
from imgsearch.ann.vectors import Vectors
from imgsearch.backends.milvus.rows import Address, Row
from imgsearch.backends.milvus.store import Store
from tests.scale.milvus_server import Server

__all__ = ["main"]

SETS = ("corel1k/images", "corel1k/queries", "web250", "ukbench500")
BLOCK = 1_000
QUERIES = 200
K = 10


@dataclass(frozen=True, slots=True)
class Taken:
    """What Milvus takes to hold images: seconds to send them, and to build the index."""

    version: str
    images: int
    sent: float
    indexed: float


@dataclass(frozen=True, slots=True)
class Asked:
    """Queries one at a time, in milliseconds, and the share of the true hits that they found."""

    nprobe: int
    nlist: int
    recall: float
    p50: float
    p99: float


def main() -> None:
    """Run the benchmark."""
    parser = make_parser("benchmarks.bench_milvus", __doc__)
    parser.add_argument("location")
    parser.add_argument("--count", type=int, help="vectors  [default: 20000]")
    parser.add_argument("--server", type=Path, help="start a server with its files in this folder")
    options = parser.parse_args()
    options.count = options.count or (2_000 if options.quick else 20_000)
    photos = [path for found in find_photos(options.data, SETS) for path in found.paths]
    with tempfile.TemporaryDirectory() as folder:
        real, _ = in_fresh_process(embed_photos, Path(folder) / "real", tuple(photos))
    server = Server(options.server / "data") if options.server else None
    if server:
        note("starting the server")
        server.start()
    try:
        taken, *asked = _measure(Store(Address.of(options.location)), real, options.count)
    finally:
        if server:
            server.kill()
    _print(taken, asked)
    if options.server:
        used = sum(path.stat().st_size for path in options.server.rglob("*") if path.is_file())
        print(f"files of the server: {used / 1e6:,.0f} MB")
    write_json(options.json, "milvus", options, [taken, *asked])


def _measure(store: Store, real: Vectors, count: int) -> tuple[Taken, *tuple[Asked, ...]]:
    source, sent, nlist = GrownEmbeddings(real), 0.0, choose_nlist(count)
    store.create(real.shape[1])
    store.load()
    for start in range(0, count, BLOCK):
        vectors = source.draw(min(BLOCK, count - start))
        numbers = range(start, start + len(vectors))
        rows = [Row.of(b"/%d" % number, b"%032d" % number, number, None) for number in numbers]
        started = time.perf_counter()
        store.upsert(rows, vectors)
        sent += time.perf_counter() - started
    started = time.perf_counter()
    store.flush()
    store.make_index(nlist)
    taken = Taken(store.version(), store.count(), sent, time.perf_counter() - started)
    queries = GrownEmbeddings(real, seed=SEED + 1).draw(QUERIES)
    truth = store.search(queries, K).ids
    asked = []
    for nprobe in (max(nlist // 128, 1), max(nlist // 32, 1), max(nlist // 8, 1), nlist):
        times, found = [], []
        for query in queries:
            started = time.perf_counter()
            found.append(store.search(query[None], K, nprobe).ids[0])
            times.append(1000 * (time.perf_counter() - started))
        recall = np.mean([np.isin(*each).mean() for each in zip(truth, found, strict=True)])
        times_of = (median(times), float(np.quantile(times, 0.99)))
        asked.append(Asked(nprobe, nlist, float(recall), *times_of))
    store.close()
    return taken, *asked


def _print(taken: Taken, asked: Sequence[Asked]) -> None:
    print_table(
        f"Milvus {taken.version}, {taken.images:,} images",
        ("", "seconds"),
        [("sent", f"{taken.sent:.1f}"), ("index made and loaded", f"{taken.indexed:.1f}")],
    )
    print_table(
        f"{QUERIES} queries, one at a time",
        ("nprobe", "recall@10", "p50, ms", "p99, ms"),
        [
            (
                f"{each.nprobe} of {each.nlist}",
                f"{each.recall:.3f}",
                f"{each.p50:.1f}",
                f"{each.p99:.1f}",
            )
            for each in asked
        ],
    )


if __name__ == "__main__":
    main()
