"""Find copies of photos and documents, and none among pictures that are no copies; and time it.

Of some of UKBench's images and of drawn pages, copies are made, one of each kind of change: encoded
again, resized, slightly cropped, brightened or darkened, grey, mirrored, turned by a quarter and by
a half; cropped to 30 to 60 % of the picture, turned by any angle, framed, captioned; by parameters
that are drawn. All show the same; other views of the same thing, of which UKBench has four, do
not. Pairs within a group of `find_duplicates` count as found; the recall of a kind is the share of
its copies that are in one group with their original, its precision the share of its copies that
are shown with an image of which they are copies. The last column of the first table is the time of
a second run, when nothing is new.

Beside that, pictures are drawn that share most of what they show and are no copies: forms,
receipts, tables, cards, chats, screenshots, plots, retouched photos (`benchmarks.lookalikes`), each
as it is and encoded as a JPEG. Cross-fades of one photo into another are series in which only
neighbours may be in one group. Retouched photos may be called edited, but not copies.

Required: a recall of 0.98 of each kind, but 0.9 of the last four, a precision of 0.998 over all,
and no group with pictures that are no copies. By default, a sample is taken that needs about two
minutes on two idle cores; `--images 500 --families 6` takes all. `--speed 10000` times a first and
a second run over as many images instead, a tenth of them copies (`benchmarks.duplicates_speed`).
`--peers` compares imgsearch with other programs instead (`benchmarks.duplicates_peers`).
"""

from __future__ import annotations

import argparse
import os
import random
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

from PIL import Image, ImageDraw, ImageEnhance, ImageOps

from benchmarks.common import (
    Photos,
    find_photos,
    in_fresh_process,
    make_parser,
    note,
    print_table,
    write_json,
)
from benchmarks.duplicates_peers import peer_results
from benchmarks.duplicates_speed import measure, print_speed
from benchmarks.lookalikes import FAMILIES, cross_fade
from imgsearch import Collection, Copy, Duplicates, Group, find_duplicates

LEAST_PRECISION = 0.998
LEAST_RECALL = 0.98
LEAST_HEAVY = 0.9
HEAVY = ("heavily cropped", "any angle", "framed", "captioned")
STEPS = 40  # of a cross-fade
WRITTEN = 1_700_000_000  # when the copies were written, seconds since 1970
OF_PHOTOS = {"retouched", "cross-fade"}
PLAIN = (
    *("re-encoded", "resized", "cropped", "lit", "grey"),
    *("mirrored", "turned", "upside down"),
)
APART = 0.1  # of a cross-fade: what is as far apart shows different things


@dataclass(frozen=True, slots=True)
class Kind:
    """The copies of one kind of change, those found with their original, and those named so.

    `wrong` are those that are shown with an image of which they are no copies.
    """

    change: str
    copies: int
    found: int
    named: int
    wrong: int

    @property
    def recall(self) -> float:
        """Return the share of the copies that was found."""
        return self.found / self.copies

    @property
    def precision(self) -> float:
        """Return the share of those shown in a group that belong there."""
        return 1 - self.wrong / max(self.found + self.wrong, 1)


@dataclass(frozen=True, slots=True)
class Result:
    """Pairs of copies, those found, and those of them that are none."""

    images: int
    pairs: int
    found: int
    wrong: int
    indexing: float
    seconds: float
    again: float
    kinds: tuple[Kind, ...]

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
    if options.speed:
        _time(options)
        return
    photos = find_photos(options.data, ("ukbench500",))[0]
    photos = photos.first(8 if options.quick else options.images)
    with tempfile.TemporaryDirectory() as name:
        note(f"making copies of {len(photos.paths)} images")
        for path in photos.paths:
            draw = random.Random(f"{options.seed} {path.name}")  # noqa: S311 - seeded, nothing secret
            with Image.open(path) as opened:
                _make(path.stem, opened.convert("RGB"), Path(name, "images"), draw)
        for number in range(options.documents):
            for family in FAMILIES.keys() - OF_PHOTOS:
                draw = random.Random(f"{family} {options.seed} {number} document")  # noqa: S311 - see above
                page = next(FAMILIES[family](draw)).convert("RGB")
                _make(f"{family}{number}", page, Path(name, "images"), draw)
        if options.peers:
            _compare(options, Path(name, "images"))
            return
        note("indexing, and comparing")
        result = in_fresh_process(_find, Path(name), options.min_similarity)[0]
        note("drawing pictures that are no copies, indexing, and comparing")
        for seed in range(options.seed, options.seed + (1 if options.quick else options.families)):
            _draw(Path(name, "drawn"), seed)
        drawn = in_fresh_process(_find_lookalikes, Path(name, "drawn"), options.min_similarity)[0]
    print_table(
        f"copies, min_similarity {options.min_similarity:g}",
        ("images", "pairs", "found", "wrong", "recall", "precision", "indexed s", "s", "again s"),
        [
            (
                *(f"{result.images:,}", f"{result.pairs:,}", f"{result.found:,}"),
                *(f"{result.wrong:,}", f"{result.recall:.4f}", f"{result.precision:.4f}"),
                *(f"{result.indexing:.1f}", f"{result.seconds:.1f}", f"{result.again:.1f}"),
            )
        ],
    )
    print_table(
        "by kind of change",
        ("change", "copies", "found", "recall", "precision", "named so"),
        [
            (
                *(each.change, f"{each.copies:,}", f"{each.found:,}", f"{each.recall:.3f}"),
                *(f"{each.precision:.3f}", f"{each.named / max(each.found, 1):.3f}"),
            )
            for each in result.kinds
        ],
    )
    rows = [(each.family, f"{each.images:,}", f"{each.wrong:,}") for each in drawn]
    print_table("no copies", ("family", "images", "pairs called copies"), rows)
    write_json(options.json, "duplicates", options, [result, *drawn])
    missed = result.precision < LEAST_PRECISION or any(
        each.recall < (LEAST_HEAVY if each.change in HEAVY else LEAST_RECALL)
        for each in result.kinds
    )
    if missed or any(each.wrong for each in drawn):
        raise SystemExit("what is required was missed")


def _compare(options: argparse.Namespace, folder: Path) -> None:
    results = list(peer_results(folder))
    rows = [
        (change, *(f"{each.recall[change]:.3f}" for each in results)) for change in (*PLAIN, *HEAVY)
    ]
    rows.append(("precision", *(f"{each.precision:.4f}" for each in results)))
    rows.append(("seconds", *(f"{each.seconds:.1f}" for each in results)))
    print_table("recall by kind of change", ("change", *(each.name for each in results)), rows)
    write_json(options.json, "duplicates", options, results)


def _time(options: argparse.Namespace) -> None:
    sets = find_photos(options.data, ("corel1k", "ukbench500", "web250"))
    photos = Photos("all", tuple(path for each in sets for path in each.paths))
    with tempfile.TemporaryDirectory() as name:
        speed = measure(Path(name), photos, options.speed, options.seed, _changed)
    print_speed(speed)
    write_json(options.json, "duplicates", options, [speed])


def _parse() -> argparse.Namespace:
    parser = make_parser("benchmarks.bench_duplicates", __doc__)
    parser.add_argument("--seed", type=int, default=1, help="of the copies' parameters")
    parser.add_argument("--images", type=int, default=24, help="of UKBench that are taken")
    parser.add_argument("--documents", type=int, default=1, help="drawn of each kind to copy")
    parser.add_argument("--families", type=int, default=1, help="of lookalikes drawn of each kind")
    parser.add_argument("--speed", type=int, default=0, help="images to time two runs over")
    parser.add_argument("--peers", action="store_true", help="compare with other programs")
    parser.add_argument("--min-similarity", type=float, default=0.75)
    return parser.parse_args()


def _make(name: str, image: Image.Image, folder: Path, draw: random.Random) -> None:
    """Save an image and its copies in a folder of their own."""
    to = folder / name
    to.mkdir(parents=True)
    image.save(to / "original.jpg", quality=95)
    for change, copy in _changed(image, draw).items():
        quality = draw.randint(40, 80) if change == "re-encoded" else 75
        copy.save(to / f"{change}.jpg", quality=quality)


def _changed(image: Image.Image, draw: random.Random) -> dict[str, Image.Image]:
    """Return copies of an image, by the kind of their change."""
    width, height = image.size
    scale = draw.uniform(0.35, 0.8)
    cut = draw.uniform(0.04, 0.1)
    left, top = draw.uniform(0, cut) * width, draw.uniform(0, cut) * height
    box = (left, top, left + (1 - cut) * width, top + (1 - cut) * height)
    quarter = draw.choice((Image.Transpose.ROTATE_90, Image.Transpose.ROTATE_270))
    return {
        "re-encoded": image,
        "resized": image.resize((round(width * scale), round(height * scale))),
        "cropped": image.crop(tuple(map(round, box))),  # type: ignore[arg-type]  # four numbers
        "lit": ImageEnhance.Brightness(image).enhance(draw.choice((0.8, 0.9, 1.1, 1.2, 1.3))),
        "grey": image.convert("L"),
        "mirrored": image.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
        "turned": image.transpose(quarter),
        "upside down": image.transpose(Image.Transpose.ROTATE_180),
        **_heavily_changed(image, draw),
    }


def _heavily_changed(image: Image.Image, draw: random.Random) -> dict[str, Image.Image]:
    width, height = image.size
    across, down = (draw.uniform(0.55, 0.75) for _ in range(2))
    left, top = draw.uniform(0, 1 - across) * width, draw.uniform(0, 1 - down) * height
    box = (left, top, left + across * width, top + down * height)
    angle = 90 * draw.randrange(4) + draw.uniform(4, 86)
    edge = round(draw.uniform(0.03, 0.15) * min(image.size))
    bar = round(draw.uniform(0.1, 0.2) * height)
    ground, ink = draw.choice((("white", "black"), ("black", "white")))
    captioned = Image.new("RGB", (width, height + bar), ground)
    below = draw.random() < 0.5
    captioned.paste(image, (0, 0 if below else bar))
    ImageDraw.Draw(captioned).text(
        (width // 10, (height if below else 0) + bar // 5),
        draw.choice(("When it is Monday again", "Rome, 2024", "Who did this?")),
        fill=ink,
        font_size=bar // 2,
    )
    return {
        "heavily cropped": image.crop(tuple(map(round, box))),  # type: ignore[arg-type]  # four numbers
        "any angle": image.rotate(
            angle,
            Image.Resampling.BICUBIC,
            expand=draw.random() < 0.5,
            fillcolor=draw.choice(("black", "white")),
        ),
        "framed": ImageOps.expand(image, edge, draw.choice(("white", "black", "#7a5230"))),
        "captioned": captioned,
    }


#: What the engine calls the changes that have another name here.
NAMES = {
    "lit": "colour-changed",
    "grey": "colour-changed",
    "upside down": "turned",
    "heavily cropped": "cropped",
    "any angle": "turned",
}


def _find(folder: Path, min_similarity: float) -> Result:
    os.environ["XDG_CACHE_HOME"] = str(folder / "cache")  # where an earlier run left nothing
    for path in (folder / "images").rglob("*.*"):  # of files that are new, nothing is remembered
        os.utime(path, (WRITTEN, WRITTEN))
    started = time.perf_counter()
    with Collection.create(folder / "collection") as collection:
        collection.index(folder / "images")
        entries = collection.entries.after(0, 1_000_000)
    indexed = time.perf_counter()
    found = find_duplicates(folder / "collection", min_similarity=min_similarity)
    done = time.perf_counter()
    find_duplicates(folder / "collection", min_similarity=min_similarity)
    again = time.perf_counter() - done
    pairs = [
        Path(one.path).parent == Path(other.path).parent
        for group in found.groups
        for one, other in combinations((group.keep, *group.others), 2)
    ]
    families = len({Path(entry.path).parent for entry in entries})
    each = len(entries) // families
    return Result(
        *(len(entries), families * each * (each - 1) // 2, len(pairs), pairs.count(False)),
        *(indexed - started, done - indexed, again, tuple(_kinds(found, families))),
    )


def _kinds(found: Duplicates, families: int) -> Iterator[Kind]:
    """Yield how many copies of each kind are in one group with their original."""
    grouped: dict[str, list[str]] = defaultdict(list)
    for group in found.groups:
        originals = {
            Path(copy.path).parent
            for copy in (group.keep, *group.others)
            if Path(copy.path).stem == "original"
        }
        for copy in (group.keep, *group.others):
            if Path(copy.path).parent in originals:
                grouped[Path(copy.path).stem].append(copy.kind)
    wrong: dict[str, int] = defaultdict(int)
    for group in found.groups:
        for copy in group.others:
            wrong[Path(copy.path).stem] += Path(copy.path).parent != Path(group.keep.path).parent
    for change in (*PLAIN, *HEAVY):
        named = grouped[change].count(NAMES.get(change, change))
        yield Kind(change, families, len(grouped[change]), named, wrong[change])


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
        for one, other in _called(group)
        if not _may_be_copies(Path(one.path).parent, Path(other.path).parent)
    ]
    families = [_family(entry.path, folder) for entry in entries]
    return [
        Lookalikes(name, families.count(name), wrong.count(name))
        for name in (*FAMILIES, "cross-fade")
    ]


def _called(group: Group) -> Iterator[tuple[Copy, Copy]]:
    """Yield the pairs of a group that are called copies, or related in another way than edited."""
    yield from combinations((group.keep, *(each for each in group.others if not each.own)), 2)
    yield from ((group.keep, each) for each in group.others if each.own and each.kind != "edited")
    for each in group.others:
        if each.kind == "edited" and not OF_PHOTOS & set(Path(each.path).parts):
            yield group.keep, each


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
