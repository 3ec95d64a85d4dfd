"""Measure a collection that grows in small steps: what an update costs, and what queries then cost.

Each step does what an indexing run does once the images are embedded: it takes the lock, commits
the new vectors a few at a time, as a run that embeds some 300 images/s does every half second or
so, and brings the index up to date.

What its new vectors cost alone: the same step with the same vectors into an empty collection, just
before and just after it, for every tenth step and after each that seems too dear; another step is
compared with the median of these. Where the vectors of a step are enough for lists, that includes
their training; "bare" is what writing and committing them takes without any index. The seconds that
embedding them takes are measured with the photographs, all cores at work. Required: at most 3 × the
cost alone, re-training aside.

Queries: one at a time, k = 10, as arrays through `Collection.query_many`, warm, in turns with a
fresh collection that is made of the same vectors in one go; medians of the ratios of each turn.
They are held out, of the same distribution. Checkpoints are some sizes, and each time just before
the centroids are trained again. Required: at most 2 × the fresh collection.

The vectors are grown from real embeddings (see `GrownEmbeddings` in benchmarks/subjects.py).
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from contextlib import closing
from pathlib import Path

from benchmarks.common import (
    cores,
    find_photos,
    in_fresh_process,
    make_parser,
    note,
    write_json,
)
from benchmarks.contestants import TAIL, Job, run_pipeline
from benchmarks.growing import Checkpoint, Update, check, run_update
from benchmarks.growth_report import MOST_UPDATE, Growth, Step, print_growth, usual
from benchmarks.subjects import (
    SEED,
    GrownEmbeddings,
    Vectors,
    copy_collection,
    make_empty,
)
from imgsearch.embedding.models import DEFAULT_MODEL
from imgsearch.indexing.fold import is_outgrown
from imgsearch.storage.catalog import Catalog
from imgsearch.storage.layout import Layout
from imgsearch.storage.writer import CatalogWriter

SETS = ("corel1k/images", "corel1k/queries", "web250", "ukbench500")
SIZES = (2_000, 10_000, 20_000, 50_000, 100_000, 150_000, 200_000)
SUSPECT = 0.8  # of what is allowed: a step that is so dear is measured alone, too


def main() -> None:
    """Run the benchmark."""
    options = _parse()
    photos = [path for found in find_photos(options.data, SETS) for path in found.paths]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        drawn = tuple(photos[:: 8 if options.quick else 1])
        note(f"embedding {len(drawn)} photographs to grow from")
        in_fresh_process(make_empty, folder / "empty")
        job = Job(DEFAULT_MODEL, None, Layout(folder / "empty").model, drawn, cores(), tail=TAIL)
        run, _ = in_fresh_process(run_pipeline, job)
        growth = _grow(folder, run.embeddings, run.seconds / job.clocked, options)
    print_growth(growth)
    write_json(options.json, "growth", options, [growth])


def _parse() -> argparse.Namespace:
    parser = make_parser("benchmarks.bench_growth", __doc__)
    parser.add_argument("--count", type=int, help="vectors to grow to  [default: 200000]")
    parser.add_argument("--step", type=int, help="new vectors an update  [default: 2000]")
    parser.add_argument("--commit", type=int, default=200, help="new vectors a commit")
    parser.add_argument("--every", type=int, default=10, help="steps of which one is run alone")
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--turns", type=int, help="alternations  [default: 5]")
    parser.add_argument("--sizes", type=int, nargs="*", default=SIZES, help="checkpoints")
    options = parser.parse_args()
    options.count = options.count or (6_000 if options.quick else 200_000)
    options.step = options.step or (500 if options.quick else 2_000)
    options.turns = options.turns or (2 if options.quick else 5)
    return options


def _grow(folder: Path, real: Vectors, embedding: float, options: argparse.Namespace) -> Growth:
    source = GrownEmbeddings(real)
    queries = GrownEmbeddings(real, seed=SEED + 1).draw(options.queries)
    empty, scratch = folder / "empty", folder / "scratch"
    layout = copy_collection(empty, folder / "grown")
    steps: list[Step] = []
    checkpoints: list[Checkpoint] = []
    for number in range(-(-options.count // options.step)):
        vectors = source.draw(min(options.step, options.count - number * options.step))
        step = _step(layout, empty, scratch, vectors, steps, options)
        steps.append(step)
        update = step.update
        due = update.images < options.count and _is_due(layout, update.images + len(vectors))
        wanted = {*options.sizes, options.count}
        passed = any(update.images - len(vectors) < size <= update.images for size in wanted)
        if update.nlist and (due or passed):
            checkpoint = check(layout, empty, scratch, queries, turns=options.turns, due=due)
            checkpoints.append(checkpoint)
            note(
                f"{update.images} of {options.count}: {update.seconds:.2f} s, "
                f"queries {checkpoint.p50:.2f} × a fresh index"
            )
    return Growth(tuple(steps), tuple(checkpoints), embedding)


def _step(
    layout: Layout,
    empty: Path,
    scratch: Path,
    vectors: Vectors,
    steps: list[Step],
    options: argparse.Namespace,
) -> Step:
    """Do one step, and the same alone where that is wanted."""
    alone = []
    if len(steps) % options.every == 0:
        alone.append(_alone(empty, scratch, vectors, options.commit))
    with closing(CatalogWriter(layout.catalog)) as catalog:
        update = run_update(layout, catalog, vectors, options.commit)
    dear = not update.retrained and update.seconds > SUSPECT * MOST_UPDATE * usual(steps)
    if alone or dear:
        alone.append(_alone(empty, scratch, vectors, options.commit))
    return Step(update, tuple(alone))


def _alone(empty: Path, scratch: Path, vectors: Vectors, commit: int) -> Update:
    layout = copy_collection(empty, scratch)
    with closing(CatalogWriter(layout.catalog)) as catalog:
        update = run_update(layout, catalog, vectors, commit)
    shutil.rmtree(scratch)
    return update


def _is_due(layout: Layout, images: int) -> bool:
    """Tell whether the centroids will be trained again at so many images."""
    with closing(Catalog(layout.catalog)) as catalog:
        return is_outgrown(catalog.snapshot(), images)


if __name__ == "__main__":
    main()
