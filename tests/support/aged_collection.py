"""A collection that has lived: several segments and a tail, gaps, replaced and failed files."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import numpy as np

from imgsearch.ann.vectors import Vectors
from imgsearch.collection import Collection
from imgsearch.embedding.export import Exported
from imgsearch.embedding.models import Shapes
from imgsearch.indexing import engine
from imgsearch.indexing.policy import FoldPolicy
from imgsearch.maintenance import repair, sample
from imgsearch.querying.view import open_view
from imgsearch.storage.catalog import Catalog
from imgsearch.storage.layout import Layout
from tests.support.embedding_here import decoders_here, embed_here
from tests.support.injection import indexing_with
from tests.support.outcomes import age
from tests.support.pictures import save_pictures
from tests.support.small_network import (
    DIM,
    INPUT_SIZE,
    make_small_collection,
    random_embeddings,
    small_network,
)

__all__ = ["LivedIn", "holdings", "in_this_process", "live_in", "same"]


@dataclass(frozen=True, slots=True)
class LivedIn:
    """A collection, its images, and what it holds: see `holdings`. For reading only."""

    directory: Path
    photos: Path
    held: dict[str, Vectors]


def live_in(folder: Path) -> LivedIn:
    """Make a collection, and let it live."""
    photos = folder / "photos"
    directory = make_small_collection(folder / "collection")
    with in_this_process(), Collection.open(directory, device="cpu") as collection:

        def come(count: int, first: int) -> list[Path]:
            paths = save_pictures(photos, count, first=first)
            age(photos)
            collection.index(photos, nlist=3)
            return paths

        early = come(30, 0)
        (photos / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 no JPEG")
        (photos / "notes.txt").write_text("no image")
        come(9, 100)  # a segment of their own
        collection.remove(early[3])
        early[5].unlink()
        late = come(3, 200)
        collection.remove(late[1])
        come(2, 210)  # the tail is compacted, with a gap
        save_pictures(photos, 1, first=300)[0].rename(early[7])
        age(photos)
        collection.index()
    return LivedIn(directory, photos, holdings(directory))


@contextmanager
def in_this_process() -> Iterator[None]:
    """Index and repair without workers, without torch, and with segments of a few images."""
    with ExitStack() as patches:

        def patch(module: object, **values: object) -> None:
            for name, value in values.items():
                patches.enter_context(mock.patch.object(module, name, value))

        patch(engine, embed_files=embed_here())
        patch(repair, export=_export)
        patch(sample, decoders=decoders_here)
        policy = FoldPolicy(
            commit_seconds=600.0, tail_least=8, tail_most=8, merge=0, ranked_from=20
        )
        patches.enter_context(indexing_with(policy=policy))
        yield


def _export(model: str, weights: str, *, progress: bool) -> Exported:
    """Stand in for torch: the small network has no weights."""
    del progress
    return Exported(small_network(), model, Shapes(INPUT_SIZE, DIM), weights, "0" * 64)


def holdings(directory: Path) -> dict[str, Vectors]:
    """Return the embedding of each path, after a look whether all ways of asking find the same."""
    with Collection.open(directory, device="cpu") as collection:
        queries = random_embeddings(3, dim=collection.info().model.dim)
        exactly = collection.query_many(queries, k=1_000, exact=True)
        probing = collection.query_many(queries, k=1_000, nprobe=1_000)
        assert collection.info().images == len(exactly[0])
    for exact, probed in zip(exactly, probing, strict=True):
        assert [hit.path for hit in exact] == [hit.path for hit in probed]
        for hit, other in zip(exact, probed, strict=True):
            assert abs(hit.distance - other.distance) < 1e-5
    layout = Layout.at(directory)
    with closing(Catalog(layout.catalog)) as catalog:
        rows = open_view(layout, catalog).live_blocks()
        embeddings = {id_: row for ids, block in rows for id_, row in zip(ids, block, strict=True)}
        paths = catalog.paths([int(id_) for id_ in embeddings])
    assert sorted(paths.values()) == sorted(hit.path for hit in exactly[0])
    return {path: embeddings[id_] for id_, path in paths.items()}


def same(held: dict[str, Vectors], before: dict[str, Vectors]) -> bool:
    """Tell whether there are the same images with the same embeddings."""
    return held.keys() == before.keys() and all(
        np.allclose(held[path], before[path], atol=1e-5) for path in before
    )
