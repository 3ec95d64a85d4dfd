"""Measure queries: the whole of a cold process, and warm ones against raw Faiss.

Cold: wall time of `python -m imgsearch -c C query IMAGE` and of `--help`, process start included;
`-X importtime` tells whether torch was imported. Warm: `Collection.query_many` with embeddings, as
arrays and as hits, ranked by cosine, against `faiss.Index.search` on the same segment file, opened
with the same flag, with the same nprobe (that of the middle band of the promise), threads and
queries. "Promised" is `query_many` as arrays without an nprobe: each query probes what its band
takes to keep the promise, and the few beyond the last band are answered exactly; "found exactly" is
their share. All take turns; figures are medians.

Two collections: real images, and one grown from real embeddings (see benchmarks/subjects.py).
"""

from __future__ import annotations

import argparse
import itertools
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import faiss
import numpy as np

from benchmarks.common import (
    find_photos,
    in_fresh_process,
    make_parser,
    note,
    print_table,
    write_json,
)
from benchmarks.subjects import Subject, embed_photos, grow, index_folder
from imgsearch import Collection
from imgsearch.storage.catalog import Catalog
from imgsearch.storage.layout import Layout

K = 10
REAL_SETS = ("corel1k/images", "corel1k/queries", "web250", "ukbench500")
HEAVY = ("torch", "torchvision")


@dataclass(frozen=True, slots=True)
class Cold:
    """Seconds that whole processes took, and which heavy packages they imported."""

    command: str
    seconds: tuple[float, ...]
    imported: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Warm:
    """Seconds a query in each turn, a batch at a time.

    `same` is the share of ids that raw Faiss finds, too, `exact` that of queries that keep their
    promise only by exact search.
    """

    collection: str
    images: int
    nlist: int
    nprobe: int
    batch: int
    raw: tuple[float, ...]
    arrays: tuple[float, ...]
    hits: tuple[float, ...]
    promised: tuple[float, ...]
    same: float
    exact: float

    @property
    def share_of_raw(self) -> float:
        """Return the queries/s as arrays, as a share of raw Faiss's; median of the turns."""
        return median(raw / ours for raw, ours in zip(self.raw, self.arrays, strict=True))

    @property
    def hit_cost(self) -> float:
        """Return the seconds a query more that hits take than arrays; median of the turns."""
        return median(hits - ours for hits, ours in zip(self.hits, self.arrays, strict=True))


def main() -> None:
    """Run the benchmark."""
    options = _parse()
    sets = find_photos(options.data, REAL_SETS)
    if options.data is None:
        images, queries = sets[0].paths[::2], sets[0].paths[1::2]
        sources = sets[0].paths
    else:
        images, queries = sets[0].paths, sets[1].paths
        sources = tuple(path for photos in sets for path in photos.paths)
    if options.quick:
        images, queries, sources = images[:300], queries[:20], sources[::8]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        title = "corel1k" if options.data else "scikit-image"
        note(f"indexing {title}, and growing {options.grown} embeddings from {len(sources)}")
        # Elsewhere, because making a collection imports torch.
        real, _ = in_fresh_process(index_folder, title, folder / "real", images, queries)
        vectors, _ = in_fresh_process(embed_photos, folder / "sources", sources)
        grown, _ = in_fresh_process(grow, folder / "grown", vectors, options.grown, 1_000)
        cold = _cold(real, grown, queries[0], options.cold)
        warm = [
            _warm(subject, batch, options) for subject in (real, grown) for batch in options.batches
        ]
    _print_cold(cold)
    _print_warm(warm)
    write_json(options.json, "query", options, [*cold, *warm])


def _parse() -> argparse.Namespace:
    parser = make_parser("benchmarks.bench_query", __doc__)
    parser.add_argument("--grown", type=int, help="embeddings to grow  [default: 50000]")
    parser.add_argument("--cold", type=int, help="cold processes  [default: 10]")
    parser.add_argument("--turns", type=int, help="alternations  [default: 15]")
    parser.add_argument("--seconds", type=float, help="a turn takes at least  [default: 0.3]")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 32, 1_000])
    options = parser.parse_args()
    options.grown = options.grown or (2_000 if options.quick else 50_000)
    options.cold = options.cold or (2 if options.quick else 10)
    options.turns = options.turns or (3 if options.quick else 15)
    options.seconds = options.seconds or (0.02 if options.quick else 0.3)
    return options


def _cold(real: Subject, grown: Subject, image: Path, count: int) -> list[Cold]:
    note("starting cold processes")
    commands = {
        "an interpreter that does nothing": ["-c", "pass"],
        "imgsearch --help": ["-m", "imgsearch", "--help"],
    }
    for subject in (real, grown):
        arguments = ["-m", "imgsearch", "-c", str(subject.directory), "query", "--all", str(image)]
        commands[f"imgsearch query, {subject.name}, {subject.images} images"] = arguments
    seconds: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(count):
        for name, arguments in commands.items():
            started = time.perf_counter()
            _python(*arguments)
            seconds[name].append(time.perf_counter() - started)
    return [
        Cold(name, tuple(seconds[name]), _imported(arguments))
        for name, arguments in commands.items()
    ]


def _python(*arguments: str) -> str:
    """Run an interpreter; return what it wrote to stderr."""
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"python {' '.join(arguments)} failed: {done.stderr}")
    return done.stderr


def _imported(arguments: list[str]) -> tuple[str, ...]:
    """Return which of `HEAVY` a command imports, by `python -X importtime`."""
    lines = _python("-X", "importtime", *arguments).splitlines()
    names = {line.rpartition("|")[2].strip().partition(".")[0] for line in lines}
    return tuple(name for name in HEAVY if name in names)


def _warm(subject: Subject, batch: int, options: argparse.Namespace) -> Warm:
    """Let raw Faiss, arrays, hits and promises take turns on batches of queries."""
    note(f"{subject.name}: warm queries, {batch} at a time")
    queries = np.resize(
        subject.queries, (max(batch, len(subject.queries)), subject.queries.shape[1])
    )
    starts = range(0, len(queries) - batch + 1, batch)
    batches = [np.ascontiguousarray(queries[start : start + batch]) for start in starts]
    with Collection.open(subject.directory) as collection:
        info = collection.info()
        if info.ivf is None:
            raise SystemExit(f"{subject.name} has no inverted lists")
        nprobe = info.nprobe[(len(info.nprobe) - 1) // 2]
        index = _open_segment(subject.directory)
        parameters = faiss.SearchParametersIVF(nprobe=nprobe)

        def raw(block: Any) -> Any:
            return index.search(block, K, params=parameters)

        def arrays(block: Any) -> Any:
            return collection.query_many(block, k=K, nprobe=nprobe, arrays=True, rank="cosine")

        def hits(block: Any) -> Any:
            return collection.query_many(block, k=K, nprobe=nprobe, rank="cosine")

        def promised(block: Any) -> Any:
            return collection.query_many(block, k=K, arrays=True, rank="cosine")

        same = np.mean([(raw(block)[1] == arrays(block).ids).mean() for block in batches])
        answers = collection.answer(subject.queries, k=K)
        exact = np.mean([answer.search.kind == "exact" for answer in answers])
        ways = (raw, arrays, hits, promised)
        turns = [
            [_time(way, batches, seconds) for way in ways]
            for seconds in (0, *[options.seconds] * options.turns)
        ]
    times = [tuple(column[1:]) for column in zip(*turns, strict=True)]  # the first warms up
    return Warm(
        collection=subject.name,
        images=subject.images,
        nlist=info.ivf.nlist,
        nprobe=nprobe,
        batch=batch,
        raw=times[0],
        arrays=times[1],
        hits=times[2],
        promised=times[3],
        same=float(same),
        exact=float(exact),
    )


def _open_segment(directory: Path) -> Any:
    """Open the one segment of a collection as `imgsearch.ann.flat` does."""
    layout = Layout(directory)
    with closing(Catalog(layout.catalog)) as catalog:
        (segment,) = catalog.snapshot().segments
    mapped = faiss.IO_FLAG_MMAP if sys.platform == "darwin" else faiss.IO_FLAG_MMAP_IFC
    return faiss.read_index(str(layout.segment(segment.number)), mapped)


def _time(way: Callable[[Any], Any], batches: list[Any], seconds: float) -> float:
    """Return the seconds a query, over at least one round of the batches."""
    started = time.perf_counter()
    for count, block in enumerate(itertools.cycle(batches), 1):
        way(block)
        elapsed = time.perf_counter() - started
        if elapsed >= seconds and count >= len(batches):
            return elapsed / (count * len(block))
    raise AssertionError("there are no batches")


def _print_cold(results: list[Cold]) -> None:
    print_table(
        f"Cold processes, seconds, of {len(results[0].seconds)} each",
        ("command", "median", "least", "most", "imports torch"),
        [
            (
                result.command,
                *(f"{figure(result.seconds):.3f}" for figure in (median, min, max)),
                ", ".join(result.imported) or "no",
            )
            for result in results
        ],
    )


def _print_warm(results: list[Warm]) -> None:
    print_table(
        f"Warm queries, k = {K}, {faiss.omp_get_max_threads()} threads, µs a query, medians",
        (
            "collection",
            "nprobe/nlist",
            "batch",
            "raw Faiss",
            "arrays",
            "hits",
            "arrays/raw",
            "hits - arrays",
            "same ids",
            "promised",
            "found exactly",
        ),
        [
            (
                f"{r.collection}, {r.images} images",
                f"{r.nprobe}/{r.nlist}",
                str(r.batch),
                *(f"{median(times) * 1e6:.1f}" for times in (r.raw, r.arrays, r.hits)),
                f"{r.share_of_raw:.3f}",
                f"{r.hit_cost * 1e6:.1f}",
                f"{r.same:.4f}",
                f"{median(r.promised) * 1e6:.1f}",
                f"{r.exact:.3f}",
            )
            for r in results
        ],
    )


if __name__ == "__main__":
    main()
