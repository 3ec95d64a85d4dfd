"""Measure `index` again: with nothing changed, and with 1 % of the files changed in some way.

The files are JPEGs of a few KB in folders of 100: pieces of 96 × 96 pixels, cut from photographs at
random places, each followed by bytes of its own, at which decoders stop, so that no two are the
same. Their times lie an hour back, so that they are trusted. All of them are indexed for real, with
MobileNetV2, once.

Nothing changed: `Collection.index` in this process, and the whole process `imgsearch index`, in
turns with a bare walk of the same tree (os.scandir, and os.stat of each file), each once to warm
up. Required: 50,000 files/s in this process.

Changes: in each turn, each to other files, drawn at random: new content, the same content with
another time, another name in another folder, a copy in another folder, deletion; after each,
`Collection.index`, of which the report must say just that. In the same turn as many new images are
indexed alone, into an empty collection, its making left out. Figures are medians.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TypeVar

from benchmarks.common import (
    cores,
    find_photos,
    in_fresh_process,
    make_parser,
    note,
    print_table,
    write_json,
)
from benchmarks.small_files import SmallFiles
from benchmarks.subjects import copy_collection, make_empty
from imgsearch import Collection
from imgsearch.indexing.report import IndexReport

T = TypeVar("T")

SETS = ("web250",)
SHARE = 100  # one file of so many is changed in a way
TARGET = 50_000  # files/s


@dataclass(frozen=True, slots=True)
class Unchanged:
    """Seconds of each turn with nothing changed."""

    files: int
    walk: tuple[float, ...]
    index: tuple[float, ...]
    command: tuple[float, ...]

    def rate(self, seconds: tuple[float, ...]) -> float:
        """Return the median files/s."""
        return self.files / median(seconds)


@dataclass(frozen=True, slots=True)
class Change:
    """A kind of change: seconds of each turn, and images embedded in each; `files` were changed."""

    kind: str
    files: int
    embedded: int
    seconds: tuple[float, ...]


def main() -> None:
    """Run the benchmark."""
    options = _parse()
    photos = find_photos(options.data, SETS)[0]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        note(f"making {options.files} files of {len(photos.paths)} photographs")
        images = folder / "images"
        files = SmallFiles(photos, images, options.files)
        in_fresh_process(make_empty, folder / "empty")
        copy_collection(folder / "empty", folder / "collection")
        with Collection.open(folder / "collection") as collection:
            note("indexing them")
            first = _timed(lambda: collection.index(images, workers=options.workers))[1]
            note(f"that took {first:.0f} s")
            unchanged = _measure_unchanged(collection, folder, options)
            changes = _measure_changes(collection, files, folder, options)
    _print(unchanged, changes)
    write_json(options.json, "update", options, [unchanged, *changes])


def _parse() -> argparse.Namespace:
    parser = make_parser("benchmarks.bench_update", __doc__)
    parser.add_argument("--files", type=int, help="  [default: 50000]")
    parser.add_argument("--repeats", type=int, help="with nothing changed  [default: 9]")
    parser.add_argument("--turns", type=int, help="with changes  [default: 3]")
    parser.add_argument("--workers", type=int, default=cores())
    options = parser.parse_args()
    options.files = options.files or (1_000 if options.quick else 50_000)
    options.repeats = options.repeats or (2 if options.quick else 9)
    options.turns = options.turns or (1 if options.quick else 3)
    return options


def _measure_unchanged(
    collection: Collection, folder: Path, options: argparse.Namespace
) -> Unchanged:
    note("indexing again with nothing changed")
    command = [sys.executable, "-m", "imgsearch", "-c", str(folder / "collection"), "index"]

    def index() -> None:
        _expect(collection.index(workers=options.workers), unchanged=options.files)

    ways: list[Callable[[], object]] = [
        lambda: walk(folder / "images"),
        index,
        lambda: subprocess.run(command, check=True, capture_output=True),
    ]
    turns = [[_timed(way)[1] for way in ways] for _ in range(options.repeats + 1)]
    return Unchanged(options.files, *(tuple(each[1:]) for each in zip(*turns, strict=True)))


def walk(folder: Path) -> int:
    """Ask for the size and time of each file below a folder; return the number of files."""
    folders, count = [os.fsencode(folder)], 0
    while folders:
        with os.scandir(folders.pop()) as entries:
            for entry in entries:
                if entry.is_dir():
                    folders.append(entry.path)
                else:
                    os.stat(entry.path)
                    count += 1
    return count


def _measure_changes(
    collection: Collection, files: SmallFiles, folder: Path, options: argparse.Namespace
) -> list[Change]:
    count = options.files // SHARE
    kinds: list[tuple[str, Callable[[int], None], str, int]] = [
        ("new content", files.change, "indexed", count),
        ("touched", files.touch, "unchanged", 0),
        ("renamed", files.rename, "moved", 0),
        ("copied", files.copy, "copied", 0),
        ("deleted", files.delete, "removed", 0),
    ]
    times: dict[str, list[float]] = {kind: [] for kind, *_ in kinds}
    alone: list[float] = []
    for turn in range(options.turns):
        note(f"changing {count} files in each way: turn {turn + 1} of {options.turns}")
        alone.append(_index_alone(files, folder, count, options.workers))
        for kind, change, counted, embedded in kinds:
            change(count)
            report, seconds = _timed(lambda: collection.index(workers=options.workers))
            if counted != "unchanged":
                _expect(report, **{counted: count})
            _expect(report, indexed=embedded)
            times[kind].append(seconds)
    return [
        Change("alone: new images into an empty collection", count, count, tuple(alone)),
        *(Change(kind, count, embedded, tuple(times[kind])) for kind, *_, embedded in kinds),
    ]


def _index_alone(files: SmallFiles, folder: Path, count: int, workers: int) -> float:
    new, made = folder / "new", folder / "alone"
    files.add(new, count)
    copy_collection(folder / "empty", made)
    with Collection.open(made) as collection:
        report, seconds = _timed(lambda: collection.index(new, workers=workers))
    _expect(report, indexed=count)
    shutil.rmtree(new)
    shutil.rmtree(made)
    return seconds


def _timed(call: Callable[[], T]) -> tuple[T, float]:
    started = time.perf_counter()
    result = call()
    return result, time.perf_counter() - started


def _expect(report: IndexReport, **counts: int) -> None:
    """Check that a report says what was to be done, and that no file failed."""
    for name, count in {**counts, "failed": 0, "skipped": 0}.items():
        if getattr(report, name) != count:
            raise SystemExit(f"{name} is {getattr(report, name)}, not {count}: {report}")


def _print(unchanged: Unchanged, changes: list[Change]) -> None:
    rows = {
        "scandir and stat": unchanged.walk,
        "Collection.index": unchanged.index,
        "imgsearch index, the whole process": unchanged.command,
    }
    print_table(
        f"Nothing changed, {unchanged.files} files, {len(unchanged.walk)} turns",
        ("what", "seconds", "least", "files/s", "of the walk's"),
        [
            (
                what,
                f"{median(seconds):.3f}",
                f"{min(seconds):.3f}",
                f"{unchanged.rate(seconds):,.0f}",
                f"{_ratio(unchanged.walk, seconds):.3f}",
            )
            for what, seconds in rows.items()
        ],
    )
    rate = unchanged.rate(unchanged.index)
    print(f"\n  Required: {TARGET:,} files/s: {'kept' if rate >= TARGET else 'NOT KEPT'}")
    print_table(
        f"Changes, of {len(changes[0].seconds)} turns",
        ("what", "files", "embedded", "seconds", "most", "of new alone", "less unchanged"),
        [
            (
                change.kind,
                str(change.files),
                str(change.embedded),
                f"{median(change.seconds):.2f}",
                f"{max(change.seconds):.2f}",
                f"{_ratio(change.seconds, changes[0].seconds):.2f}",
                f"{median(change.seconds) - median(unchanged.index):.2f}",
            )
            for change in changes
        ],
    )


def _ratio(one: tuple[float, ...], other: tuple[float, ...]) -> float:
    return median(a / b for a, b in zip(one, other, strict=True))


if __name__ == "__main__":
    main()
