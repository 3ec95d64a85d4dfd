"""Measure the memory of `imgsearch index`, its workers included, for few images and for many.

The proportional set size (a page shared by n processes counts 1/n in each; resident set size where
the system does not tell it) of all processes together, sampled while the command runs. "Embedding"
is while there are workers; "training" comes after, when the index is made of all vectors. Steady is
the median of the second half of the embedding.

The collections are made beforehand, except in the one line that includes it, in which torch exports
the network once. The many are copies of the few under other names, each with bytes of its own at
the end.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import psutil

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
from imgsearch import Collection

SETS = ("web250",)
MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Sample:
    """All processes together at one moment: bytes, and how many processes there were."""

    seconds: float
    pss: int
    rss: int
    processes: int


@dataclass(frozen=True, slots=True)
class Result:
    """One run, in bytes; of PSS where the system tells it."""

    label: str
    images: int
    seconds: float
    steady: float
    peak_embedding: int
    peak: int
    peak_rss: int
    samples: tuple[Sample, ...]


def main() -> None:
    """Run the benchmark."""
    options = _parse()
    photos = find_photos(options.data, SETS)[0]
    results = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for number, count in enumerate(options.images):
            images = _copies(photos, folder / f"images-{number}", count)
            made = folder / f"collection-{number}"
            in_fresh_process(_create, made)
            results.append(_measure(f"{count} images", made, images, count, options))
        images = folder / "images-0"
        count = options.images[0]
        new = folder / "collection-new"
        results.append(_measure(f"{count} images, creation included", new, images, count, options))
    _print(results)
    write_json(options.json, "memory", options, results)


def _parse() -> argparse.Namespace:
    parser = make_parser("benchmarks.bench_memory", __doc__)
    parser.add_argument("--images", type=int, nargs="+", help="  [default: 250 5000]")
    parser.add_argument("--workers", type=int, default=cores())
    parser.add_argument("--interval", type=float, default=0.05, help="seconds between samples")
    options = parser.parse_args()
    options.images = options.images or ([32, 128] if options.quick else [250, 5_000])
    return options


def _create(directory: Path) -> None:
    Collection.create(directory).close()


def _copies(photos: Photos, folder: Path, count: int) -> Path:
    """Fill a folder with `count` images, all of different content."""
    folder.mkdir()
    for number in range(count):
        path = photos.paths[number % len(photos.paths)]
        content = path.read_bytes() + number.to_bytes(8, "little")  # decoders stop before it
        (folder / f"{number:06d}{path.suffix}").write_bytes(content)
    return folder


def _measure(
    label: str, collection: Path, images: Path, count: int, options: argparse.Namespace
) -> Result:
    note(f"indexing {label}")
    arguments = ["-c", str(collection), "index", str(images), "--json"]
    command = [sys.executable, "-m", "imgsearch", *arguments, "--workers", str(options.workers)]
    started = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        samples = tuple(_samples(process, options.interval))
        output, errors = process.communicate()
    seconds = time.perf_counter() - started
    if process.returncode:
        raise SystemExit(f"imgsearch index failed: {errors.decode(errors='replace')}")
    report: dict[str, Any] = json.loads(output)
    if report["indexed"] != count:
        raise SystemExit(f"{report['indexed']} of {count} images were indexed")
    embedding = [sample for sample in samples if sample.processes > options.workers]
    return Result(
        label=label,
        images=count,
        seconds=seconds,
        steady=median(sample.pss for sample in embedding[len(embedding) // 2 :]),
        peak_embedding=max(sample.pss for sample in embedding),
        peak=max(sample.pss for sample in samples),
        peak_rss=max(sample.rss for sample in samples),
        samples=samples,
    )


def _samples(process: subprocess.Popen[bytes], interval: float) -> Iterator[Sample]:
    """Sample a process and its children until it ends."""
    parent = psutil.Process(process.pid)
    started = time.perf_counter()
    while process.poll() is None:
        pss = rss = processes = 0
        try:
            family = [parent, *parent.children(recursive=True)]
        except psutil.NoSuchProcess:
            return
        for member in family:
            try:
                memory = member.memory_full_info()
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                continue  # it has just ended
            pss += getattr(memory, "pss", memory.rss)
            rss += memory.rss
            processes += 1
        yield Sample(time.perf_counter() - started, pss, rss, processes)
        time.sleep(interval)


def _print(results: list[Result]) -> None:
    header = ("imgsearch index", "steady", "peak embedding", "peak", "peak RSS", "seconds")
    rows = [
        (
            result.label,
            *(
                f"{value / MIB:.0f}"
                for value in (result.steady, result.peak_embedding, result.peak, result.peak_rss)
            ),
            f"{result.seconds:.1f}",
        )
        for result in results
    ]
    few, many = results[0], results[-2]
    ratio = (
        f"{many.images} : {few.images} images",
        f"{many.steady / few.steady:.3f}",
        f"{many.peak_embedding / few.peak_embedding:.3f}",
        f"{many.peak / few.peak:.3f}",
        f"{many.peak_rss / few.peak_rss:.3f}",
        "",
    )
    print_table("Memory, MiB, all processes together", header, [*rows, ratio])


if __name__ == "__main__":
    main()
