"""Measure verification by local features: what it finds again, and whether it lowers anything.

    python -m benchmarks.bench_verify                # the figures of docs/answers.md

The collection is UKBench. Each query is made from one of its images: a crop of a tenth, the image
turned by any angle, mirrored, photographed from a screen (perspective, blur, noise), or pasted into
a photograph of Corel-1k. It is right if that image is the first hit. "Another view" asks with whole
images: recall@3 of the other three views of the thing.
"""

from __future__ import annotations

import csv
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

import numpy as np
from PIL import Image, ImageFilter, ImageOps

from benchmarks.common import make_parser, note, print_table, write_json
from imgsearch import Collection
from imgsearch.images.keypoints import Keypoints, keypoints_of
from imgsearch.images.render import grey
from imgsearch.querying.looking import HIT_EDGE, VERIFIED, best_match, order_verified, sides_of

VIEWS = 4  # of each thing


@dataclass(frozen=True, slots=True)
class Found:
    """How often a query is answered rightly: by the cosine, verified, and in the first 50."""

    kind: str
    queries: int
    cosine: float
    verified: float
    in_reach: float


@dataclass(frozen=True, slots=True)
class Cost:
    """Milliseconds of computing per hit: its features, and their match."""

    features: float
    match: float


def main() -> None:
    """Measure, print, and write JSON if asked to."""
    parser = make_parser("benchmarks.bench_verify", __doc__)
    parser.add_argument("--queries", type=int, default=40, help="queries of each kind")
    args = parser.parse_args()
    if args.data is None:
        raise SystemExit("this needs --data: ukbench500 and corel1k")
    things, others = Path(args.data) / "ukbench500", Path(args.data) / "corel1k"
    paths = sorted(things.rglob("*.jpg"))
    backgrounds = sorted(others.rglob("*.jpg"))
    with (things / "labels.csv").open(newline="") as file:
        labels = {things / row["path"]: row["label"] for row in csv.DictReader(file)}
    count = 5 if args.quick else args.queries
    with tempfile.TemporaryDirectory() as folder, Collection.create(folder + "/it") as collection:
        note(f"indexing {len(paths):,} images")
        collection.index(paths)
        bench = _Bench(collection, labels)
        note("finding their local features")
        bench.prepare(paths)
        random = np.random.default_rng(1)
        chosen = [paths[int(place)] for place in random.permutation(len(paths))[:count]]
        results: list[Found | Cost] = []
        for kind, change in _kinds(random, backgrounds).items():
            note(kind)
            results.append(bench.again(kind, chosen, change))
        note("another view")
        views = paths[:: max(1, len(paths) // (6 * count))]
        results += [bench.views(views), bench.cost()]
    found = [each for each in results if isinstance(each, Found)]
    print_table(
        "Verification",
        ("the query is", "queries", "cosine", "verified", f"in the first {VERIFIED}"),
        [
            (each.kind, f"{each.queries:,}", *_shares(each.cosine, each.verified, each.in_reach))
            for each in found
        ],
    )
    cost = bench.cost()
    print_table("CPU per hit, ms", ("features", "match"), [_shares(cost.features, cost.match)])
    write_json(args.json, "verify", args, results)


class _Bench:
    """Queries a collection, and verifies its hits as `Collection.query` does."""

    def __init__(self, collection: Collection, labels: dict[Path, str]) -> None:
        self._collection = collection
        self._labels = {str(path): label for path, label in labels.items()}
        self._features: dict[str, Keypoints] = {}
        self._seconds: dict[str, list[float]] = {"features": [], "match": []}

    def prepare(self, paths: list[Path]) -> None:
        """Find the features of all images once."""
        for path in paths:
            started = time.process_time()
            self._features[str(path)] = keypoints_of(grey(str(path), HIT_EDGE))
            self._seconds["features"].append(time.process_time() - started)

    def cost(self) -> Cost:
        """Return what a hit took."""
        return Cost(*(1000 * mean(each) for each in self._seconds.values()))

    def again(
        self, kind: str, paths: list[Path], change: Callable[[Image.Image], Image.Image]
    ) -> Found:
        """Return how often the image that a query was made of is found first."""
        rows = []
        for path in paths:
            with Image.open(path) as image:
                query = change(image.convert("RGB"))
            plain, verified = self._ask(query)
            rows.append((plain[0] == str(path), verified[0] == str(path), str(path) in plain))
        return Found(kind, len(rows), *np.mean(rows, axis=0).tolist())

    def views(self, paths: list[Path]) -> Found:
        """Return recall@3 of the other views, as a share of the three that there are."""
        rows = []
        for path in paths:
            label = self._labels[str(path)]
            with Image.open(path) as image:
                orders = self._ask(image.convert("RGB"), without=str(path))
            right = [
                sum(self._labels[each] == label for each in order[:n]) / (VIEWS - 1)
                for order, n in zip((*orders, orders[0]), (3, 3, VERIFIED), strict=True)
            ]
            rows.append(right)
        return Found("another view (recall@3)", len(rows), *np.mean(rows, axis=0).tolist())

    def _ask(self, query: Image.Image, without: str | None = None) -> tuple[list[str], list[str]]:
        """Return the first hits by the cosine, and verified."""
        hits = self._collection.query(query, k=VERIFIED + 1, rank="cosine")
        nearest = [hit for hit in hits if hit.path != without][:VERIFIED]
        found = [hit.path for hit in nearest]
        sides = sides_of(query)
        inliers = []
        for path in found:
            started = time.process_time()
            match = best_match(sides, self._features[path])
            self._seconds["match"].append(time.process_time() - started)
            inliers.append(match.inliers if match else 0)
        order = order_verified(inliers, [hit.similarity for hit in nearest])
        return found, [found[place] for place in order]


def _kinds(
    random: np.random.Generator, backgrounds: list[Path]
) -> dict[str, Callable[[Image.Image], Image.Image]]:
    """Return how queries of each kind are made of an image."""

    def crop(image: Image.Image) -> Image.Image:
        width, height = (edge * 0.1**0.5 for edge in image.size)
        left, top = random.random(2) * (image.width - width, image.height - height)
        return image.crop((int(left), int(top), int(left + width), int(top + height)))

    def turn(image: Image.Image) -> Image.Image:
        return image.rotate(random.uniform(20, 340), Image.Resampling.BICUBIC, expand=True)

    def screen(image: Image.Image) -> Image.Image:
        corners = np.array([(0, 0), (1, 0), (1, 1), (0, 1)]) * image.size
        inner = corners + (0.5 - np.array([(0, 0), (1, 0), (1, 1), (0, 1)])) * (
            random.uniform(0, 0.3, (4, 2)) * image.size
        )
        seen = image.transform(
            image.size,
            Image.Transform.PERSPECTIVE,
            _perspective(inner, corners),
            Image.Resampling.BICUBIC,
        )
        pixels = np.asarray(seen.filter(ImageFilter.GaussianBlur(1)), np.float32)
        noisy = 0.85 * pixels + 20 + random.normal(0, 8, pixels.shape)
        return Image.fromarray(np.asarray(np.clip(noisy, 0, 255), np.uint8))

    def paste(image: Image.Image) -> Image.Image:
        with Image.open(backgrounds[int(random.integers(len(backgrounds)))]) as file:
            whole = ImageOps.fit(file.convert("RGB"), image.size)
        small = image.resize((image.width * 2 // 5, image.height * 2 // 5))
        left, top = random.random(2) * (whole.width - small.width, whole.height - small.height)
        whole.paste(small, (int(left), int(top)))
        return whole

    return {
        "a crop of a tenth": crop,
        "turned by any angle": turn,
        "mirrored": ImageOps.mirror,
        "photographed from a screen": screen,
        "pasted into a photograph": paste,
    }


def _perspective(source: np.ndarray, target: np.ndarray) -> list[float]:
    """Return the coefficients that map each point of `source` to that of `target`."""
    rows = []
    for (x, y), (u, v) in zip(source.tolist(), target.tolist(), strict=True):
        rows.append([x, y, 1, 0, 0, 0, -u * x, -u * y])
        rows.append([0, 0, 0, x, y, 1, -v * x, -v * y])
    found: list[float] = np.linalg.solve(np.array(rows), target.reshape(-1)).tolist()
    return found


def _shares(*values: float) -> list[str]:
    return [f"{value:.3f}" for value in values]


if __name__ == "__main__":
    main()
