"""Compare imgsearch with other engines: recall@10 against queries a second.

All get the same vectors, grown from the embeddings of real photographs and of crops of each (see
benchmarks/subjects.py), and the same queries, which are none of them. Each engine builds its index
in a process of its own, and another process opens what was saved and searches: memory is what that
one holds more than before it opened anything (RssAnon, and RssFile for what is mapped). The engines
take turns; queries a second are the median of the turns, all queries at once. The extra `peers` has
what this needs.
"""

from __future__ import annotations

import argparse
import tempfile
import time
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
from benchmarks.peers import PEERS, Peer
from benchmarks.subjects import GrownEmbeddings, embed_photos, save_crops
from imgsearch.ann.exact import search_exactly

K = 10
CROPS = 4  # of each photograph
REAL_SETS = ("corel1k/images", "corel1k/queries", "web250", "ukbench500")
EFFORTS = {
    "nprobe": (1, 2, 4, 8, 16, 32, 64),
    "leaves": (1, 2, 4, 8, 16, 32, 64),
    "ef": (10, 20, 50, 100, 200, 400),
    "all": (1,),
}


@dataclass(frozen=True, slots=True)
class Built:
    """What an index cost: seconds, bytes on disk, and bytes of memory when it is open."""

    engine: str
    seconds: float
    disk: int
    anonymous: int
    mapped: int


@dataclass(frozen=True, slots=True)
class Searched:
    """What one effort gives, and takes: queries a second in each turn."""

    engine: str
    effort: str
    value: int
    recall: float
    rates: tuple[float, ...]


def main() -> None:
    """Run the benchmark."""
    options = _parse()
    sources = tuple(
        path for photos in find_photos(options.data, REAL_SETS) for path in photos.paths
    )
    if options.quick:
        sources = sources[::20]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        note(f"growing {options.grown:,} embeddings from {len(sources):,} photographs and crops")
        in_fresh_process(_grow, folder, sources, options.grown, options.queries)
        built, turns = [], []
        for number in range(options.turns):
            turn: list[tuple[str, str, int, float, float]] = []
            for place, peer in enumerate(PEERS):
                note(f"turn {number + 1} of {options.turns}: {peer.name}")
                if not number:
                    built.append(_build(place, folder, options.threads))
                own = folder / f"{place}"
                turn += in_fresh_process(_search, place, own, folder, options.threads)[0]
            turns.append(turn)
    searched = [
        Searched(engine, effort, value, recall, tuple(turn[row][4] for turn in turns))
        for row, (engine, effort, value, recall, _) in enumerate(turns[0])
    ]
    _print(options, built, searched)
    write_json(options.json, "peers", options, [*built, *searched])
    if options.plot:
        _draw(options, searched)


def _parse() -> argparse.Namespace:
    parser = make_parser("benchmarks.bench_peers", __doc__)
    parser.add_argument("--grown", type=int, help="vectors  [default: 100000]")
    parser.add_argument("--queries", type=int, help="queries  [default: 1000]")
    parser.add_argument("--turns", type=int, help="rounds of all engines  [default: 3]")
    parser.add_argument("--threads", type=int, default=2, help="of each engine  [default: 2]")
    parser.add_argument("--plot", type=Path, help="draw to this file, .png or .svg")
    options = parser.parse_args()
    options.grown = options.grown or (2_000 if options.quick else 100_000)
    options.queries = options.queries or (50 if options.quick else 1_000)
    options.turns = options.turns or (1 if options.quick else 3)
    return options


def _grow(folder: Path, sources: tuple[Path, ...], count: int, queries: int) -> None:
    """Write vectors.npy, queries.npy, and truth.npy: the rows of the true neighbours."""
    crops = save_crops(sources, folder / "crops", CROPS)
    source = GrownEmbeddings(embed_photos(folder / "sources", (*sources, *crops)))
    vectors, asked = source.draw(count), source.draw(queries)
    np.save(folder / "vectors.npy", vectors)
    np.save(folder / "queries.npy", asked)
    rows = np.arange(count, dtype=np.int64)
    np.save(folder / "truth.npy", search_exactly(asked, [(rows, vectors)], K)[1])


def _build(place: int, folder: Path, threads: int) -> Built:
    own = folder / f"{place}"
    own.mkdir()
    seconds, _ = in_fresh_process(_build_here, place, own, folder, threads)
    anonymous, mapped = in_fresh_process(_memory, place, own, folder, threads)[0]
    disk = sum(path.stat().st_size for path in own.rglob("*") if path.is_file())
    return Built(PEERS[place].name, seconds, disk, anonymous, mapped)


def _build_here(place: int, own: Path, folder: Path, threads: int) -> float:
    vectors = np.load(folder / "vectors.npy")
    peer = PEERS[place]()
    started = time.perf_counter()
    peer.build(vectors, own, threads)
    return time.perf_counter() - started


def _memory(place: int, own: Path, folder: Path, threads: int) -> tuple[int, int]:
    """Return the bytes that an open index adds, anonymous and mapped, once all queries ran."""
    queries = np.load(folder / "queries.npy")
    peer = PEERS[place]()
    before = _resident()
    peer.open(own, threads)
    for start in range(0, len(queries), 100):
        peer.search(queries[start : start + 100], K, 16)
    after = _resident()
    return after[0] - before[0], after[1] - before[1]


def _resident() -> tuple[int, int]:
    """Return RssAnon and RssFile of this process, in bytes (Linux)."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    sizes = {name: value.split() for name, _, value in (line.partition(":") for line in lines)}
    return 1_024 * int(sizes["RssAnon"][0]), 1_024 * int(sizes["RssFile"][0])


def _search(
    place: int, own: Path, folder: Path, threads: int
) -> list[tuple[str, str, int, float, float]]:
    """Return engine, name and value of each effort, recall, and queries a second."""
    queries, truth = np.load(folder / "queries.npy"), np.load(folder / "truth.npy")
    peer: Peer = PEERS[place]()
    peer.open(own, threads)
    results = []
    for effort in EFFORTS[peer.effort]:
        found = peer.search(queries, K, effort)  # which warms up, too
        started = time.perf_counter()
        peer.search(queries, K, effort)
        rate = len(queries) / (time.perf_counter() - started)
        recall = float((truth[:, :, None] == found[:, None, :]).any(axis=2).mean())
        results.append((peer.name, peer.effort, effort, recall, rate))
    return results


def _print(options: argparse.Namespace, built: list[Built], searched: list[Searched]) -> None:
    print_table(
        f"Indexes of {options.grown:,} vectors, {options.threads} threads",
        ("engine", "build s", "disk MB", "memory MB", "mapped MB"),
        [
            (
                each.engine,
                f"{each.seconds:.1f}",
                *(f"{size / 1e6:,.0f}" for size in (each.disk, each.anonymous, each.mapped)),
            )
            for each in built
        ],
    )
    print_table(
        f"Searches, {options.queries:,} queries at once, medians of {options.turns}",
        ("engine", "effort", "recall@10", "queries/s"),
        [
            (
                each.engine,
                f"{each.effort} {each.value}",
                f"{each.recall:.4f}",
                f"{median(each.rates):,.0f}",
            )
            for each in searched
        ],
    )


def _draw(options: argparse.Namespace, searched: list[Searched]) -> None:
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 6), layout="constrained")
    axes = figure.subplots()
    for number, peer in enumerate(PEERS):
        own = [each for each in searched if each.engine == peer.name]
        axes.plot(
            [each.recall for each in own],
            [median(each.rates) for each in own],
            marker="osD^vXP*<>d"[number],
            color=colormaps["viridis"](number / len(PEERS)),
            label=f"{peer.name} ({peer.effort})",
        )
    axes.set_yscale("log")
    axes.set_xlabel("recall@10")
    axes.set_ylabel("queries a second")
    axes.set_title(f"{options.grown:,} embeddings, {options.threads} threads")
    axes.grid(visible=True, alpha=0.3)
    axes.legend()
    figure.savefig(options.plot, dpi=120)


if __name__ == "__main__":
    main()
