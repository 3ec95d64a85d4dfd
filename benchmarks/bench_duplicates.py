"""Find copies among UKBench's images, and time it.

Of each image four copies are made: encoded again, resized, slightly cropped, brightened or
darkened, by parameters that are drawn. All five are copies of one another; other views of the same
thing, of which UKBench has four, are none. Found are the pairs within the groups of
`find_duplicates`.

Required: a precision of 0.98 at a recall of 0.95.
"""

from __future__ import annotations

import argparse
import random
import tempfile
import time
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

from PIL import Image, ImageEnhance

from benchmarks.common import (
    find_photos,
    in_fresh_process,
    make_parser,
    note,
    print_table,
    write_json,
)
from imgsearch import Collection, find_duplicates

LEAST_PRECISION = 0.98
LEAST_RECALL = 0.95


@dataclass(frozen=True, slots=True)
class Result:
    """Pairs of copies, those found, and those of them that are none."""

    images: int
    pairs: int
    found: int
    wrong: int
    seconds: float

    @property
    def precision(self) -> float:
        """Return the share of what was found that is right."""
        return 1 - self.wrong / max(self.found, 1)

    @property
    def recall(self) -> float:
        """Return the share of the copies that was found."""
        return (self.found - self.wrong) / self.pairs


def main() -> None:
    """Run the benchmark."""
    options = _parse()
    photos = find_photos(options.data, ("ukbench500",))[0]
    if options.quick:
        photos = photos.first(20)
    with tempfile.TemporaryDirectory() as name:
        note(f"making copies of {len(photos.paths)} images")
        for path in photos.paths:
            _make(path, Path(name, "images"), random.Random(f"{options.seed} {path.name}"))  # noqa: S311
        note("indexing, and comparing")
        result = in_fresh_process(_find, Path(name), options.min_similarity)[0]
    print_table(
        f"copies, min_similarity {options.min_similarity:g}",
        ("images", "pairs", "found", "wrong", "recall", "precision", "seconds"),
        [
            (
                *(f"{result.images:,}", f"{result.pairs:,}", f"{result.found:,}"),
                *(f"{result.wrong:,}", f"{result.recall:.4f}", f"{result.precision:.4f}"),
                f"{result.seconds:.1f}",
            )
        ],
    )
    write_json(options.json, "duplicates", options, [result])
    if result.precision < LEAST_PRECISION or result.recall < LEAST_RECALL:
        raise SystemExit("what is required was missed")


def _parse() -> argparse.Namespace:
    parser = make_parser("benchmarks.bench_duplicates", __doc__)
    parser.add_argument("--seed", type=int, default=1, help="of the copies' parameters")
    parser.add_argument("--min-similarity", type=float, default=0.8)
    return parser.parse_args()


def _make(path: Path, folder: Path, draw: random.Random) -> None:
    """Save an image and its copies in a folder of their own."""
    to = folder / path.stem
    to.mkdir(parents=True)
    with Image.open(path) as opened:
        image = opened.convert("RGB")
    width, height = image.size
    image.save(to / "original.jpg", quality=95)
    image.save(to / "encoded.jpg", quality=draw.randint(40, 80))
    scale = draw.uniform(0.35, 0.8)
    image.resize((round(width * scale), round(height * scale))).save(to / "resized.jpg")
    cut = draw.uniform(0.02, 0.1)
    left, top = draw.uniform(0, cut) * width, draw.uniform(0, cut) * height
    box = (left, top, left + (1 - cut) * width, top + (1 - cut) * height)
    image.crop(tuple(map(round, box))).save(to / "cropped.jpg")  # type: ignore[arg-type]
    light = ImageEnhance.Brightness(image).enhance(draw.choice((0.8, 0.9, 1.1, 1.2, 1.3)))
    light.save(to / "lit.jpg")


def _find(folder: Path, min_similarity: float) -> Result:
    with Collection.create(folder / "collection") as collection:
        collection.index(folder / "images")
        entries = collection.entries.after(0, 1_000_000)
    started = time.perf_counter()
    found = find_duplicates(folder / "collection", min_similarity=min_similarity)
    seconds = time.perf_counter() - started
    pairs = [
        Path(one.path).parent == Path(other.path).parent
        for group in found.groups
        for one, other in combinations((group.keep, *group.others), 2)
    ]
    families = len({Path(entry.path).parent for entry in entries})
    return Result(len(entries), 10 * families, len(pairs), pairs.count(False), seconds)


if __name__ == "__main__":
    main()
