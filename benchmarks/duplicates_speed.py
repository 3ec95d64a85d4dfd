"""What `bench_duplicates --speed` times: a collection of many images, a tenth of them copies.

There are only a few thousand real photographs, so each image is a part of one: 60 % of its width
and of its height, from a grid of places, mirrored at every other one. No two of these are copies
of one another, or one a part of the other, but they are as alike as the shots of a series. Every
ninth has a copy, changed in one of the twelve ways of `bench_duplicates`, in turn.
"""

from __future__ import annotations

import os
import random
import resource
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from math import ceil, sqrt
from pathlib import Path

from PIL import Image

from benchmarks.common import Photos, cores, in_fresh_process, note, print_table
from imgsearch import Collection, find_duplicates

SHARE = 0.6  # of each edge that is taken of a photo
EVERY = 9  # images, of which one has a copy
AT_ONCE = 64  # images that a process makes

#: The copies of an image by the kind of their change, for parameters that are drawn.
Changes = Callable[[Image.Image, random.Random], dict[str, Image.Image]]


@dataclass(frozen=True, slots=True)
class Speed:
    """What a first and a second run took.

    Attributes:
        images: Images, with the copies.
        copies: Copies that were made.
        found: Copies that are in one group with their image.
        wrong: Pairs of other images in one group.
        indexing: Seconds of indexing.
        seconds: Seconds of the first run.
        busy: CPU seconds of it, of all processes.
        again: Seconds of a second run in a new process.
        megabytes: Peak memory of the main process in the first run.
    """

    images: int
    copies: int
    found: int
    wrong: int
    indexing: float
    seconds: float
    busy: float
    again: float
    megabytes: float


def measure(folder: Path, photos: Photos, images: int, seed: int, changed: Changes) -> Speed:
    """Make images, index them, and time two runs over them."""
    count = images * EVERY // (EVERY + 1)
    note(f"making {images:,} images of {len(photos.paths):,}")
    (folder / "images").mkdir()
    make = partial(_make, folder / "images", photos, count, seed, changed)
    with ProcessPoolExecutor(cores()) as processes:
        copies = sum(processes.map(make, range(0, count, AT_ONCE)))
    note("indexing")
    indexing = in_fresh_process(_index, folder)[0]
    note("comparing")
    seconds, busy, megabytes, pairs = in_fresh_process(_find, folder)[0]
    again = in_fresh_process(_find, folder)[0][0]
    right = sum(one == other for one, other in pairs)
    wrong = len(pairs) - right
    return Speed(count + copies, copies, right, wrong, indexing, seconds, busy, again, megabytes)


def print_speed(speed: Speed) -> None:
    """Print what was measured."""
    print_table(
        f"{speed.images:,} images",
        ("copies", "found", "wrong", "indexed s", "first s", "CPU s", "again s", "MB"),
        [
            (
                *(f"{speed.copies:,}", f"{speed.found:,}", f"{speed.wrong:,}"),
                *(f"{speed.indexing:.1f}", f"{speed.seconds:.1f}", f"{speed.busy:.1f}"),
                *(f"{speed.again:.2f}", f"{speed.megabytes:.0f}"),
            )
        ],
    )


def _make(folder: Path, photos: Photos, count: int, seed: int, changed: Changes, start: int) -> int:
    """Save some images and their copies; return the number of copies."""
    copies = 0
    for number in range(start, min(start + AT_ONCE, count)):
        image = _part(photos, number, count)
        image.save(folder / f"{number:06d}.jpg", quality=92)
        if number % EVERY == 0:
            draw = random.Random(f"{seed} {number}")  # noqa: S311 - seeded, nothing secret
            kinds = list(changed(image, draw).items())
            kind, copy = kinds[number // EVERY % len(kinds)]
            copy.save(folder / f"{number:06d} {kind}.jpg", quality=75)
            copies += 1
    return copies


def _part(photos: Photos, number: int, count: int) -> Image.Image:
    """Return one of `count` parts of photos."""
    side = ceil(sqrt(ceil(count / len(photos.paths))))
    place, photo = divmod(number, len(photos.paths))
    down, across = divmod(place, side)
    with Image.open(photos.paths[photo]) as opened:
        image = opened.convert("RGB")
    width, height = image.size
    left, top = (
        (1 - SHARE) * edge * at / max(1, side - 1) for edge, at in ((width, across), (height, down))
    )
    box = left, top, left + SHARE * width, top + SHARE * height
    part = image.crop(tuple(map(round, box)))  # type: ignore[arg-type]  # four numbers
    part = part.resize((width, height), Image.Resampling.BICUBIC)
    return part.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if (down + across) % 2 else part


def _index(folder: Path) -> float:
    started = time.perf_counter()
    with Collection.create(folder / "collection") as collection:
        collection.index(folder / "images")
    return time.perf_counter() - started


def _find(folder: Path) -> tuple[float, float, float, list[tuple[str, str]]]:
    """Return seconds, CPU seconds and megabytes of a run, and the images of each pair it found."""
    os.environ["XDG_CACHE_HOME"] = str(folder / "cache")  # where an earlier run left nothing
    started, before = time.perf_counter(), _busy()
    found = find_duplicates(folder / "collection")
    seconds, busy = time.perf_counter() - started, _busy() - before
    pairs = [
        (Path(one.path).stem.split()[0], Path(other.path).stem.split()[0])
        for group in found.groups
        for one, other in combinations((group.keep, *group.others), 2)
    ]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return seconds, busy, peak / 1_024, pairs


def _busy() -> float:
    """Return the CPU seconds of this process and of those that it started and that ended."""
    return sum(
        used.ru_utime + used.ru_stime
        for used in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    )
