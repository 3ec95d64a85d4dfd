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
from pathlib import Path
from statistics import median

import numpy as np

from benchmarks.common import find_photos, in_fresh_process, make_parser
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


def main() -> None:
    """Print what was measured."""
    parser = make_parser("benchmarks.bench_milvus", __doc__)
    parser.add_argument("location")
    parser.add_argument("--count", type=int, default=20_000, help="vectors  [default: 20000]")
    parser.add_argument("--server", type=Path, help="start a server with its files in this folder")
    given = parser.parse_args()
    photos = [path for found in find_photos(given.data, SETS) for path in found.paths]
    with tempfile.TemporaryDirectory() as folder:
        real, _ = in_fresh_process(embed_photos, Path(folder) / "real", tuple(photos))
    server = Server(given.server / "data") if given.server else None
    if server:
        started = time.perf_counter()
        server.start()
        print(f"server started in {time.perf_counter() - started:.1f} s")
    try:
        _measure(Store(Address.of(given.location)), real, given.count)
    finally:
        if server:
            server.kill()
    if given.server:
        used = sum(path.stat().st_size for path in given.server.rglob("*") if path.is_file())
        print(f"files of the server: {used / 1e6:,.0f} MB")


def _measure(store: Store, real: Vectors, count: int) -> None:
    source = GrownEmbeddings(real)
    store.create(real.shape[1])
    store.load()
    seconds = 0.0
    for start in range(0, count, BLOCK):
        vectors = source.draw(min(BLOCK, count - start))
        numbers = range(start, start + len(vectors))
        rows = [Row.of(b"/%d" % number, b"%032d" % number, number, None) for number in numbers]
        started = time.perf_counter()
        store.upsert(rows, vectors)
        seconds += time.perf_counter() - started
    print(f"{store.version()}: {count:,} in {seconds:.1f} s, {count / seconds:,.0f} images/s")
    started = time.perf_counter()
    store.flush()
    nlist = choose_nlist(count)
    store.make_index(nlist)
    print(f"IVF_FLAT, nlist {nlist}: made and loaded in {time.perf_counter() - started:.1f} s")
    queries = GrownEmbeddings(real, seed=SEED + 1).draw(QUERIES)
    truth = store.search(queries, K).ids
    for nprobe in (nlist // 128, nlist // 32, nlist // 8, nlist):
        times, found = [], []
        for query in queries:
            started = time.perf_counter()
            found.append(store.search(query[None], K, max(nprobe, 1)).ids[0])
            times.append(1000 * (time.perf_counter() - started))
        recall = np.mean([np.isin(*each).mean() for each in zip(truth, found, strict=True)])
        p50, p99 = median(times), np.quantile(times, 0.99)
        print(f"nprobe {nprobe:4}: recall@10 {recall:.3f}, p50 {p50:.1f} ms, p99 {p99:.1f} ms")
    print(f"{store.count():,} images are there")
    store.close()


if __name__ == "__main__":
    main()
