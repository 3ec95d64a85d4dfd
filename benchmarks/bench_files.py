"""Measure the seconds and memory that many files in many folders cost, without embedding them.

200,000 PNGs of 4 × 4 pixels, 4 to a folder, are indexed by the network of the tests, which costs
nothing; beside them a tenth of them. Each step runs in a process of its own, whose memory at its
highest is the figure (of the process itself: its workers do not grow). Memory should stay flat.

Nothing changed: `Collection.index` in turns with a bare walk of the same tree (os.scandir, and
os.stat of each file), each once to warm up; medians. Required: 50,000 files/s.

Then 1 % of the files get other content; the collection is asked what it holds, in this process and
as `imgsearch info`; the whole tree moves (`index --moved`); a twentieth of it vanishes and is
dropped (`index --prune`); a twentieth is taken out as a folder, then by a pattern, at last all.

At last a drive on which the status of a file takes 1 ms, by a sleep before each: the walk above
beside the listing of imgsearch.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TypeVar

from benchmarks.bench_update import TARGET, walk
from benchmarks.common import in_fresh_process, make_parser, note, print_table, write_json
from benchmarks.tiny_files import TinyFiles
from imgsearch import Collection
from imgsearch.files.listing import Listing, list_files
from imgsearch.indexing.report import IndexReport
from tests.support.small_network import make_small_collection

T = TypeVar("T")

UNCHANGED = "nothing changed"
SHARE = 20  # one file of so many vanishes, or is taken out
CHANGED = 100  # one file of so many
TWENTIETH = "*[02468]5.png"
SLOW = 0.001  # seconds
SLOW_FILES = 4_000
MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Step:
    """What was done to so many files: seconds, and bytes of memory at the most, 0 if unknown."""

    what: str
    files: int
    seconds: float
    peak: int


def main() -> None:
    """Run the benchmark."""
    options = _parse()
    steps: list[Step] = []
    for count in (options.files // 10, options.files):
        with tempfile.TemporaryDirectory(dir=options.folder) as name:
            steps += _measure(Path(name), count, options.repeats)
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        TinyFiles(Path(name) / "images", SLOW_FILES)
        slow = in_fresh_process(_list_slowly, Path(name) / "images")[0]
    _print(steps, slow)
    write_json(options.json, "files", options, [*steps, *slow])


def _parse() -> argparse.Namespace:
    parser = make_parser("benchmarks.bench_files", __doc__)
    parser.add_argument("--files", type=int, help="  [default: 200000]")
    parser.add_argument("--repeats", type=int, help="with nothing changed  [default: 5]")
    parser.add_argument(
        "--folder", type=Path, help="where to make them  [default: that of tempfile]"
    )
    options = parser.parse_args()
    options.files = options.files or (40_000 if options.quick else 200_000)
    options.repeats = options.repeats or (2 if options.quick else 5)
    return options


def _measure(folder: Path, count: int, repeats: int) -> list[Step]:
    note(f"making {count} files")
    tree, made = folder / "images", make_small_collection(folder / "collection")
    files = TinyFiles(tree, count)
    steps: list[Step] = []

    def step(what: str, call: Callable[..., float], *arguments: object) -> None:
        note(what)
        (seconds, peak), _ = in_fresh_process(_with_peak, call, *arguments)
        steps.append(Step(what, count, seconds, peak))

    step("listing", _list, tree, repeats)
    step("first run, small network", _index, made, (tree,), {"indexed": count})
    note(UNCHANGED)
    ((walked, again), peak), _ = in_fresh_process(_with_peak, _index_again, made, tree, repeats)
    steps += [Step("a bare walk", count, walked, peak), Step(UNCHANGED, count, again, peak)]
    files.change(count // CHANGED)
    step("1 % changed", _index, made, (), {"indexed": count // CHANGED})
    step("info", _info, made)
    steps.append(Step("imgsearch info, the whole process", count, _info_command(made), 0))
    moved = tree.rename(folder / "moved")
    step("index --moved", _move, made, tree, moved, count)
    (moved / "00").rename(folder / "away")
    step("1/20 vanished, index --prune", _prune, made, count // SHARE)
    step("remove a folder, 1/20", _remove, made, moved / "01")
    step("remove a pattern, 1/20", _remove, made, moved / TWENTIETH)
    step("remove the root", _remove, made, moved)
    return steps


def _with_peak(call: Callable[..., T], *arguments: object) -> tuple[T, int]:
    result = call(*arguments)
    return result, _peak()


def _peak() -> int:
    """Return the most memory that this process had resident, in bytes."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    except OSError:  # macOS, where this is in bytes; on Linux it would include the parent's
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def _timed(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def _listed(tree: Path) -> int:
    found = list_files([os.fsencode(tree)], set())
    return sum(len(each.files) for each in found if isinstance(each, Listing))


def _list(tree: Path, repeats: int) -> float:
    return median([_timed(lambda: _listed(tree)) for _ in range(repeats + 1)][1:])


def _index(made: Path, paths: tuple[Path, ...], counts: dict[str, int]) -> float:
    with Collection.open(made, device="cpu") as collection:
        return _timed(lambda: _expect(collection.index(paths), **counts))


def _index_again(made: Path, tree: Path, repeats: int) -> tuple[float, float]:
    """Return the seconds of a bare walk, and of indexing with nothing changed, in turns."""
    with Collection.open(made, device="cpu") as collection:
        turns = [
            (_timed(lambda: walk(tree)), _timed(lambda: _expect(collection.index(), indexed=0)))
            for _ in range(repeats + 1)
        ]
    return median(walked for walked, _ in turns[1:]), median(again for _, again in turns[1:])


def _info(made: Path) -> float:
    with Collection.open(made, device="cpu") as collection:
        return _timed(collection.info)


def _info_command(made: Path) -> float:
    command = [sys.executable, "-m", "imgsearch", "-c", str(made), "info"]
    return _timed(lambda: subprocess.run(command, check=True, capture_output=True))


def _move(made: Path, old: Path, new: Path, count: int) -> float:
    with Collection.open(made, device="cpu") as collection:
        return _timed(lambda: _expect(collection.index(moved=(old, new)), unchanged=count))


def _prune(made: Path, count: int) -> float:
    with Collection.open(made, device="cpu") as collection:
        return _timed(lambda: _expect(collection.index(prune=True), removed=count))


def _remove(made: Path, path: Path) -> float:
    with Collection.open(made, device="cpu") as collection:
        return _timed(lambda: collection.remove(path))


def _expect(report: IndexReport, **counts: int) -> None:
    """Check that a report says what was to be done, and that no file failed."""
    for name, count in {**counts, "failed": 0, "skipped": 0}.items():
        if getattr(report, name) != count:
            raise SystemExit(f"{name} is {getattr(report, name)}, not {count}: {report}")


def _list_slowly(tree: Path) -> list[Step]:
    """Walk and list where the status of a file takes 1 ms."""
    stat = os.stat

    def slow_stat(path: bytes) -> os.stat_result:
        time.sleep(SLOW if path.endswith(b".png") else 0)
        return stat(path)

    os.stat = slow_stat  # type: ignore[assignment]  # a stand-in
    return [
        Step("a bare walk, 1 ms a file", SLOW_FILES, _timed(lambda: walk(tree)), 0),
        Step("listing, 1 ms a file", SLOW_FILES, _timed(lambda: _listed(tree)), 0),
    ]


def _peaks(few: int, many: int) -> tuple[str, ...]:
    """Return the peak of many files, that of few, and how much more that is; 0 is not known."""
    if not few:
        return "", "", ""
    return f"{many / MIB:.0f}", f"{few / MIB:.0f}", f"{many / few:.2f}"


def _print(steps: list[Step], slow: list[Step]) -> None:
    half = len(steps) // 2
    pairs = list(zip(steps[:half], steps[half:], strict=True))
    few, many = pairs[0][0].files, pairs[0][1].files
    print_table(
        f"{many:,} files in {many // 4:,} folders, and a tenth of them",
        ("what", f"{few:,}: s", f"{many:,}: s", "peak, MiB", "the tenth's", "ratio"),
        [
            (
                one.what,
                f"{one.seconds:.3f}",
                f"{other.seconds:.3f}",
                *_peaks(one.peak, other.peak),
            )
            for one, other in pairs
        ],
    )
    number = [one.what for one, _ in pairs].index(UNCHANGED)
    walked, again = steps[half + number - 1], steps[half + number]
    rate, times = again.files / again.seconds, again.seconds / walked.seconds
    print(f"\n  Nothing changed: {rate:,.0f} files/s, {times:.2f} times the bare walk's seconds")
    print(f"  Required: {TARGET:,} files/s: {'kept' if rate >= TARGET else 'NOT KEPT'}")
    print_table(
        f"A slow drive, {SLOW_FILES:,} files",
        ("what", "seconds"),
        [(step.what, f"{step.seconds:.2f}") for step in slow],
    )


if __name__ == "__main__":
    main()
