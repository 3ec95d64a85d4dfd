"""Measure the map: how long it takes, and whether like images are near each other.

    python -m benchmarks.bench_map              # real photographs, and 100,000 grown embeddings
    python -m benchmarks.bench_map --images 0   # without the latter

Maps are made of all sets of --data; of half of these, to which a seventh of all is added; and of
all and four overlapping parts of each photograph, which are some 8,900 images.

The agreement is the share of the ten nearest images that have the label of an image, averaged over
the labelled images; of a label with fewer images, as many are compared as there are others of it.
It is given for the map, and for the embeddings by exact search. Required: 0.85 times the latter.

The map of the grown embeddings is also drawn in Chromium, in a window of 1280 x 800 pixels, while
it is zoomed and moved with every frame: the times between frames, and the CPU time of all
processes.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
from PIL import Image
from playwright.sync_api import sync_playwright

from benchmarks.bench_answers import WEIGHTS, sets_of
from benchmarks.common import make_parser, note, print_table, write_json
from benchmarks.subjects import ROWS, GrownEmbeddings, commit_vectors
from imgsearch import Collection
from imgsearch.ann.neighbourhood import nearest
from imgsearch.ann.vectors import Block, Ids, Vectors
from imgsearch.storage.files import exclusive
from imgsearch.storage.layout import Layout
from imgsearch.storage.writer import CatalogWriter
from tests.web.page.serving import Server

NEAREST = 10
REQUIRED = 0.85
PARTS = ((0.0, 0.0), (0.4, 0.0), (0.0, 0.4), (0.4, 0.4))  # left and top
EDGE = 0.6  # width and height of a part


FRAMES = """async ([seconds, event]) => {
  const canvas = document.querySelector(".map canvas");
  const times = [];
  let [begun, last, way] = [null, null, 0];
  await new Promise((resolve) => {
    const frame = (now) => {
      begun ??= now;
      if (last !== null) times.push(now - last);
      last = now;
      const back = (way += 1) % 120 >= 60;
      const box = canvas.getBoundingClientRect();
      const at = { clientX: box.left + 450, clientY: box.top + 300 };
      canvas.dispatchEvent(event === "wheel"
        ? new WheelEvent("wheel", { deltaY: back ? 60 : -60, ...at })
        : new KeyboardEvent("keydown", { key: back ? "ArrowLeft" : "ArrowRight" }));
      if (now - begun < seconds * 1000) requestAnimationFrame(frame);
      else resolve();
    };
    requestAnimationFrame(frame);
  });
  return times;
}"""
SECONDS = 8


@dataclass(frozen=True, slots=True)
class Frames:
    """What a movement of the map takes: milliseconds."""

    what: str
    p50: float
    p95: float
    cpu: float


@dataclass(frozen=True, slots=True)
class Result:
    """What was measured of a map: seconds, and shares, which are 0 without labels."""

    what: str
    images: int
    placed: int
    wall: float
    cpu: float
    embeddings: float = 0.0
    map: float = 0.0


def main() -> None:
    """Measure, print, and write JSON if asked to."""
    parser = make_parser("benchmarks.bench_map", __doc__)
    parser.add_argument("--images", type=int, default=100_000, help="how many to grow; 0 for none")
    args = parser.parse_args()
    if args.data is None:
        raise SystemExit("this needs --data: labelled images")
    *_, mixture = sets_of(args.data)
    labels = dict(zip(map(str, mixture.paths), mixture.labels, strict=True))
    results = []
    frames: list[Frames] = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        os.environ["XDG_CACHE_HOME"] = str(folder / "cache")
        every = mixture.paths
        directory, real = _indexed(folder / "all", every)
        results.append(_measured("all sets", directory, labels))
        directory, _ = _indexed(folder / "half", every[::2])
        _measured("", directory, labels)
        _indexed(directory, every[1::2][: len(every) // 7])
        results.append(_measured("a quarter added", directory, labels))
        if not args.quick:
            labels |= _parts(every, folder / "parts", labels)
            directory, _ = _indexed(folder / "many", (*every, folder / "parts"))
            results.append(_measured("and parts of them", directory, labels))
        if args.images:
            directory = folder / "grown"
            _grow(directory, real, 2_000 if args.quick else args.images)
            results.append(_measured("grown", directory, {}))
            frames += _drawn(directory)
    print_table(
        "The map",
        ("images of", "number", "placed", "seconds", "CPU", "embeddings", "map", "ratio"),
        [
            (
                *(each.what, f"{each.images:,}", f"{each.placed:,}", f"{each.wall:.1f}"),
                f"{each.cpu:.1f}",
                *((f"{each.embeddings:.3f}", f"{each.map:.3f}") if each.embeddings else ("", "")),
                f"{each.map / each.embeddings:.3f}" if each.embeddings else "",
            )
            for each in results
        ],
    )
    for each in results:
        if each.embeddings and each.map < REQUIRED * each.embeddings:
            note(f"{each.what}: LESS THAN {REQUIRED} of the agreement of the embeddings")
    if frames:
        print_table(
            "Drawing the grown one",
            ("while", "frame p50 ms", "p95 ms", "CPU ms a frame"),
            [(each.what, *(f"{n:.1f}" for n in (each.p50, each.p95, each.cpu))) for each in frames],
        )
    write_json(args.json, "map", args, [*results, *frames])


def _drawn(directory: Path) -> Iterator[Frames]:
    """Yield what it takes to draw the map of a collection while it moves."""
    server = Server(directory)
    try:
        with sync_playwright() as playwright:
            there = shutil.which("chromium") or shutil.which("google-chrome")
            browser = playwright.chromium.launch(executable_path=there, args=["--no-sandbox"])
            page = browser.new_page(viewport={"width": 1280, "height": 800})
            page.goto(f"{server.address}#view=map")
            page.wait_for_selector(".map canvas[aria-busy]", timeout=120_000)
            for what, event in (("zooming", "wheel"), ("moving", "key")):
                before = _cpu_of_children()
                times = np.array(page.evaluate(FRAMES, [SECONDS, event]))
                cpu = 1000 * (_cpu_of_children() - before) / len(times)
                p50, p95 = np.quantile(times, (0.5, 0.95)).tolist()
                yield Frames(what, p50, p95, cpu)
            browser.close()
    finally:
        server.stop()


def _cpu_of_children() -> float:
    """Return the CPU seconds that the browser and the server have used."""
    times = [child.cpu_times() for child in psutil.Process().children(recursive=True)]
    return sum(each.user + each.system for each in times)


def _indexed(directory: Path, paths: Sequence[Path]) -> tuple[Path, Vectors]:
    note(f"indexing {directory.name}")
    if not directory.exists():
        Collection.create(directory, weights=WEIGHTS, device="cpu").close()
    with Collection.open(directory, device="cpu") as collection:
        collection.index(paths)
        return directory, collection.embeddings()


def _measured(what: str, directory: Path, labels: dict[str, str | None]) -> Result:
    note(f"mapping {directory.name}")
    with Collection.open(directory, device="cpu") as collection:
        wall, cpu = time.perf_counter(), time.process_time()
        made = collection.map()
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        shares = (0.0, 0.0)
        if labels:
            own = [labels.get(path) for path in collection.paths]
            near = _near_by_embedding(collection.embeddings()), _near_on_map(made.positions)
            shares = _agreement(near[0], own), _agreement(near[1], own)
    return Result(what, len(made.ids), made.placed, wall, cpu, *shares)


def _near_by_embedding(vectors: Vectors) -> Ids:
    """Return the nearest of each image, as rows, int64 `[n, NEAREST]`."""
    ids = np.arange(len(vectors))
    return nearest(ids, vectors, [Block(ids, vectors)], NEAREST).ids


def _near_on_map(positions: Vectors) -> Ids:
    """Return the nearest of each image on the map; see `_near_by_embedding`."""
    rows = []
    for row, position in enumerate(positions.astype(np.float64)):
        away = ((positions - position) ** 2).sum(axis=1)
        away[row] = np.inf
        near = np.argpartition(away, NEAREST)[:NEAREST]
        rows.append(near[np.argsort(away[near])])
    return np.stack(rows)


def _agreement(near: Ids, labels: Sequence[str | None]) -> float:
    """Return the mean share of the nearest images that have the label of an image."""
    counts = Counter(labels)
    shares = []
    for row, label in enumerate(labels):
        if label is not None and counts[label] > 1:
            most = min(NEAREST, counts[label] - 1)
            shares.append(sum(labels[other] == label for other in near[row].tolist()) / most)
    return float(np.mean(shares))


def _parts(
    paths: Sequence[Path], folder: Path, labels: dict[str, str | None]
) -> dict[str, str | None]:
    """Save parts of photographs, and return their labels."""
    folder.mkdir()
    found = {}
    for number, path in enumerate(paths):
        with Image.open(path) as image:
            width, height = image.size
            for part, (left, top) in enumerate(PARTS):
                box = (left * width, top * height, (left + EDGE) * width, (top + EDGE) * height)
                to = folder / f"{number:05}-{part}.jpg"
                image.convert("RGB").crop(box).resize((224, 224)).save(to, quality=85)
                found[str(to.resolve())] = labels[str(path)]
    return found


def _grow(directory: Path, real: Vectors, images: int) -> None:
    note(f"growing {images:,} embeddings")
    source = GrownEmbeddings(real)
    Collection.create(directory, weights=WEIGHTS, device="cpu").close()
    layout = Layout(directory)
    catalog = CatalogWriter(layout.catalog)
    with exclusive(directory):
        for start in range(0, images, ROWS):
            commit_vectors(layout, catalog, source.draw(min(ROWS, images - start)))
    catalog.close()


if __name__ == "__main__":
    main()
