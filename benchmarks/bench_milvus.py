"""How fast Milvus takes images, and answers: random unit vectors, one client.

`python -m benchmarks.bench_milvus milvus:FILE.db`, or a server: `milvus://HOST:PORT/NAME`. The
package `milvus` carries one; in a network namespace of its own:
`unshare -Urnpf --mount-proc --kill-child python -m tests.scale.milvus_server \
python -m benchmarks.bench_milvus milvus://127.0.0.1:19530/bench --server FOLDER`.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from statistics import median

import numpy as np

from imgsearch.ann.kmeans import choose_nlist
from imgsearch.backends.milvus.rows import Address, Row
from imgsearch.backends.milvus.store import Store
from tests.scale.milvus_server import Server

__all__ = ["main"]

DIM = 1280
BLOCK = 1_000
QUERIES = 50


def main() -> None:
    """Print what was measured."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("location")
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--server", type=Path, help="start a server with its files in this folder")
    given = parser.parse_args()
    server = Server(given.server / "data") if given.server else None
    if server:
        started = time.perf_counter()
        server.start()
        print(f"server started in {time.perf_counter() - started:.1f} s")
    try:
        _measure(Store(Address.of(given.location)), given.count)
    finally:
        if server:
            server.kill()
    if given.server:
        used = sum(path.stat().st_size for path in given.server.rglob("*") if path.is_file())
        print(f"files of the server: {used / 1e6:,.0f} MB")


def _measure(store: Store, count: int) -> None:
    store.create(DIM)
    store.load()
    random = np.random.default_rng(0)
    seconds = 0.0
    queries = np.empty((0, DIM), np.float32)
    for start in range(0, count, BLOCK):
        vectors = random.standard_normal((BLOCK, DIM), dtype=np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        digests = (b"%032d" % number for number in range(start, start + BLOCK))
        rows = [Row.of(b"/%d" % n, digest, n, None) for n, digest in enumerate(digests, start)]
        started = time.perf_counter()
        store.upsert(rows, vectors)
        seconds += time.perf_counter() - started
        queries = vectors[:QUERIES]
    print(
        f"{store.version()}: {count:,} x {DIM} in {seconds:.1f} s, {count / seconds:,.0f} images/s"
    )
    started = time.perf_counter()
    store.flush()
    nlist = choose_nlist(count)
    store.make_index(nlist)
    print(f"IVF_FLAT, nlist {nlist}: made and loaded in {time.perf_counter() - started:.1f} s")
    for nprobe in (nlist // 32, nlist // 8, nlist):
        times = []
        for query in queries:
            started = time.perf_counter()
            store.search(query[None], 10, max(nprobe, 1))
            times.append(1000 * (time.perf_counter() - started))
        low, high = np.quantile(times, (0.05, 0.95))
        print(
            f"nprobe {nprobe:4}: p50 {median(times):.1f} ms, 5 to 95 %: {low:.1f} to {high:.1f} ms"
        )
    print(f"{store.count():,} images are there")
    store.close()


if __name__ == "__main__":
    main()
