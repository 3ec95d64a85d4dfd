"""Measure what Ray costs on one machine, and what a second worker and a second node bring.

The photographs are copied, each copy with bytes of its own behind it, at which decoders stop, so
that all contents differ. Each turn makes a collection of them, in a fresh process: without Ray and
with `RayEngine("local")`, by 1 worker and by 2. A Ray worker is an actor with one process that
decodes and runs the model, as a local worker is. The last way is a cluster of two nodes that are
started on this machine (`ray.cluster_utils`), each with one CPU and a worker; the run is on the
first.

`index` is the whole of `Collection.index`, Ray's start and end included; `first` are the seconds
until the first image is accounted for; `images/s` is the rate from then on. Figures are medians.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from benchmarks.common import (
    Photos,
    cores,
    find_photos,
    in_fresh_process,
    make_parser,
    note,
    print_table,
    write_json,
)
from benchmarks.subjects import copy_collection, make_empty
from imgsearch import Collection
from imgsearch.backends.ray import RayEngine
from imgsearch.indexing.engine import Engine
from imgsearch.indexing.report import Progress

SETS = ("corel1k",)
NODES = "Ray, two nodes"


@dataclass(frozen=True, slots=True)
class Turns:
    """Seconds of each turn of one way to index: the whole, and until the first image."""

    name: str
    workers: int
    images: int
    index: tuple[float, ...]
    first: tuple[float, ...]

    @property
    def rate(self) -> float:
        """Images a second, from the first one on."""
        pairs = zip(self.index, self.first, strict=True)
        return median(self.images / (whole - first) for whole, first in pairs)


def main() -> None:
    """Run the benchmark."""
    parser = make_parser("benchmarks.bench_ray", __doc__)
    parser.add_argument("--copies", type=int, default=8, help="of each photograph (8)")
    parser.add_argument("--turns", type=int, default=3, help="of each way to index (3)")
    options: argparse.Namespace = parser.parse_args()
    if options.quick:
        options.copies, options.turns = 1, 1
    (photos,) = find_photos(options.data, SETS)
    with tempfile.TemporaryDirectory(prefix="bench-ray-") as scratch:
        results = _measure(Path(scratch), photos, options.copies, options.turns)
    rows = [
        (
            f"{each.name}, {each.workers}",
            f"{median(each.index):.1f} s",
            f"{median(each.first):.1f} s",
            f"{each.rate:.0f}",
        )
        for each in results
    ]
    title = f"{results[0].images:,} photographs of {photos.name}, {cores()} cores"
    print_table(title, ("engine, workers", "index", "first", "images/s"), rows)
    write_json(options.json, "ray", options, results)


def _measure(scratch: Path, photos: Photos, copies: int, turns: int) -> list[Turns]:
    folder = scratch / "photos"
    images = _copy(photos, folder, copies)
    empty = scratch / "empty"
    make_empty(empty)
    ways = [(name, workers) for workers in (1, 2) for name in ("local", "Ray")]
    ways.append((NODES, 2))
    times: dict[tuple[str, int], list[tuple[float, float]]] = {way: [] for way in ways}
    for turn in range(turns):
        for name, workers in ways:
            collection = scratch / f"collection-{turn}-{name}-{workers}"
            copy_collection(empty, collection)
            taken, _ = in_fresh_process(_index, name, workers, collection, folder)
            note(f"turn {turn + 1}: {name}, {workers}: {taken[0]:.1f} s, first {taken[1]:.1f} s")
            times[name, workers].append(taken)
            shutil.rmtree(collection)
    return [
        Turns(name, workers, images, *(tuple(each) for each in zip(*times[name, workers])))  # noqa: B905 - equal lengths
        for name, workers in ways
    ]


def _copy(photos: Photos, folder: Path, copies: int) -> int:
    folder.mkdir()
    for number in range(copies):
        for place, path in enumerate(photos.paths):
            name = f"{number:03}-{place:06}{path.suffix}"
            (folder / name).write_bytes(path.read_bytes() + f"copy {number}".encode())
    return copies * len(photos.paths)


def _index(name: str, workers: int, collection: Path, folder: Path) -> tuple[float, float]:
    """Index in this process; return the seconds of the whole, and until the first image."""
    began = time.perf_counter()
    first: list[float] = []

    def progress(state: Progress) -> None:
        if state.done and not first:
            first.append(time.perf_counter() - began)

    with Collection.open(collection, device="cpu") as photos:
        began = time.perf_counter()
        with _engine(name, workers, collection) as engine:
            report = photos.index([folder], workers=workers, engine=engine, progress=progress)
        whole = time.perf_counter() - began
    if report.failed or report.copied:
        raise SystemExit(f"not all photographs were indexed: {report}")
    return whole, first[0]


@contextmanager
def _engine(name: str, workers: int, collection: Path) -> Iterator[Engine | None]:
    engine: AbstractContextManager[Engine | None] = nullcontext()
    with ExitStack() as stack:
        if name != "local":
            address = stack.enter_context(_two_nodes()) if name == NODES else "local"
            engine = RayEngine(address, staging=collection / "staging", workers=workers)
        yield stack.enter_context(engine)


@contextmanager
def _two_nodes() -> Iterator[str]:
    """Start a cluster of two nodes with one CPU each, and yield its address."""
    from ray.cluster_utils import Cluster

    node = {"num_cpus": 1, "object_store_memory": 1 << 27}
    cluster = Cluster(initialize_head=True, head_node_args={**node, "include_dashboard": False})
    try:
        cluster.add_node(**node)
        cluster.wait_for_nodes()
        yield cluster.address
    finally:
        cluster.shutdown()


if __name__ == "__main__":
    main()
