"""Find copies among UKBench's images, and none among pictures that are no copies; and time it.

Of each image four copies are made: encoded again, resized, slightly cropped, brightened or
darkened, by parameters that are drawn. All five are copies of one another; other views of the same
thing, of which UKBench has four, are none. Found are the pairs within the groups of
`find_duplicates`.

Beside that, pictures are drawn that share most of what they show and are no copies: forms,
receipts, tables, cards, chats, screenshots, plots, retouched photos (`benchmarks.lookalikes`), each
as it is and encoded as a JPEG. Cross-fades of one photo into another are series in which only
neighbours may be in one group.

Required: a recall of 0.98 at a precision of 0.998, and no group with pictures that are no copies.
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
from benchmarks.lookalikes import FAMILIES, cross_fade
from imgsearch import Collection, find_duplicates

LEAST_PRECISION = 0.998
LEAST_RECALL = 0.98
STEPS = 40  # of a cross-fade
OF_PHOTOS = {"retouched", "cross-fade"}
APART = 0.1  # of a cross-fade: what is as far apart shows different things


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


@dataclass(frozen=True, slots=True)
class Lookalikes:
    """Pictures of a family, and the pairs of them that were called copies and are none."""

    family: str
    images: int
    wrong: int


def main() -> None:
    """Run the benchmark."""
    options = _parse()
    photos = find_photos(options.data, ("ukbench500",))[0]
    photos = photos.first(20 if options.quick else options.images)
    with tempfile.TemporaryDirectory() as name:
        note(f"making copies of {len(photos.paths)} images")
        for path in photos.paths:
            _make(path, Path(name, "images"), random.Random(f"{options.seed} {path.name}"))  # noqa: S311 - seeded, nothing secret
        note("indexing, and comparing")
        result = in_fresh_process(_find, Path(name), options.min_similarity)[0]
        note("drawing pictures that are no copies, indexing, and comparing")
        for seed in range(options.seed, options.seed + (2 if options.quick else options.families)):
            _draw(Path(name, "drawn"), seed)
        drawn = in_fresh_process(_find_lookalikes, Path(name, "drawn"), options.min_similarity)[0]
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
    rows = [(each.family, f"{each.images:,}", f"{each.wrong:,}") for each in drawn]
    print_table("no copies", ("family", "images", "pairs called copies"), rows)
    write_json(options.json, "duplicates", options, [result, *drawn])
    missed = result.precision < LEAST_PRECISION or result.recall < LEAST_RECALL
    if missed or any(each.wrong for each in drawn):
        raise SystemExit("what is required was missed")


def _parse() -> argparse.Namespace:
    parser = make_parser("benchmarks.bench_duplicates", __doc__)
    parser.add_argument("--seed", type=int, default=1, help="of the copies' parameters")
    parser.add_argument("--images", type=int, help="of UKBench that are taken; all by default")
    parser.add_argument("--families", type=int, default=6, help="drawn of each kind")
    parser.add_argument("--min-similarity", type=float, default=0.75)
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
    image.crop(tuple(map(round, box))).save(to / "cropped.jpg")  # type: ignore[arg-type]  # four numbers
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


def _draw(folder: Path, seed: int) -> None:
    """Save pictures of each family as PNG, and again as JPEG in a folder of their own."""
    for name, family in FAMILIES.items():
        draw = random.Random(f"{name} {seed}")  # noqa: S311 - seeded, nothing secret
        for number, image in enumerate(family(draw)):
            to = folder / name / str(seed) / str(number)
            to.mkdir(parents=True)
            image.save(to / "drawn.png")
            image.save(to / "encoded.jpg", quality=draw.randint(60, 90))
    draw = random.Random(f"cross-fade {seed}")  # noqa: S311 - seeded, nothing secret
    for step, image in enumerate(cross_fade(draw, STEPS)):
        to = folder / "cross-fade" / str(seed) / str(step)
        to.mkdir(parents=True)
        image.save(to / "step.jpg", quality=90)


def _find_lookalikes(folder: Path, min_similarity: float) -> list[Lookalikes]:
    with Collection.create(folder.parent / "drawn collection") as collection:
        collection.index(folder)
        entries = collection.entries.after(0, 1_000_000)
    found = find_duplicates(folder.parent / "drawn collection", min_similarity=min_similarity)
    wrong = [
        _family(one.path, folder)
        for group in found.groups
        for one, other in combinations((group.keep, *group.others), 2)
        if not _may_be_copies(Path(one.path).parent, Path(other.path).parent)
    ]
    families = [_family(entry.path, folder) for entry in entries]
    return [
        Lookalikes(name, families.count(name), wrong.count(name))
        for name in (*FAMILIES, "cross-fade")
    ]


def _family(path: str, folder: Path) -> str:
    return Path(path).relative_to(folder).parts[0]


def _may_be_copies(one: Path, other: Path) -> bool:
    """Tell whether two pictures are one, or steps of a cross-fade that are as good as one.

    One photo may be drawn twice, retouched and not, and it is where a cross-fade begins.
    """
    kinds = one.parent.parent.name, other.parent.parent.name
    if one.parent != other.parent:
        return OF_PHOTOS.issuperset(kinds)
    fade = kinds[0] == "cross-fade"
    return one == other or (fade and abs(int(one.name) - int(other.name)) < APART * STEPS)


if __name__ == "__main__":
    main()
