"""The collections that `bench_query` asks: one of real images, and one grown from embeddings."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from imgsearch import Collection
from imgsearch.folding import fold
from imgsearch.search.ivf import search_exactly
from imgsearch.storage.catalog import Catalog
from imgsearch.storage.files import exclusive
from imgsearch.storage.layout import Layout
from imgsearch.storage.records import NewImage
from imgsearch.storage.shards import Shard, write_shard

__all__ = ["Subject", "embed_photos", "grow", "index_folder"]

ROWS = 4_096  # a shard
NEIGHBOURS = 20
SPREAD = 0.3  # standard deviation of the logarithm of what a value is multiplied by
SEED = 1234
FEW = 256  # images below which the collection has lists only when it is asked to
FEW_LISTS = 8

Vectors = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Subject:
    """A collection and embeddings to query it with, float32 `[n, dim]`, which it does not hold."""

    name: str
    directory: Path
    images: int
    queries: Vectors


def index_folder(
    name: str, directory: Path, images: tuple[Path, ...], queries: tuple[Path, ...]
) -> Subject:
    """Make a collection of image files."""
    with Collection.create(directory) as collection:
        report = collection.index(images, nlist=FEW_LISTS if len(images) < FEW else None)
        return Subject(name, directory, report.indexed, collection.embed(queries))


def embed_photos(directory: Path, photos: tuple[Path, ...]) -> Vectors:
    """Return the embeddings of image files, made with a collection of their own."""
    with Collection.create(directory) as collection:
        collection.index(photos, nlist=FEW_LISTS)
        layout = Layout(directory)
        catalog = Catalog(layout.catalog)
        shards = catalog.shards()
        catalog.close()
    paths = (layout.vectors / f"{shard.number:08d}.npy" for shard in shards)
    return np.concatenate([np.load(path) for path in paths])


def grow(directory: Path, real: Vectors, count: int, queries: int) -> Subject:
    """Make a collection of `count` embeddings that are grown from `real` ones.

    Each lies somewhere between a real embedding, drawn at random, and one of its 20 nearest real
    neighbours; then each value is multiplied by exp(N(0, 0.3)), so that none turns negative or
    leaves zero, and the whole is L2-normalised. The queries are more of the same.
    """
    random = np.random.default_rng(SEED)
    ids = np.arange(len(real), dtype=np.int64)
    near = search_exactly(real, [(ids, real)], min(NEIGHBOURS + 1, len(real)))[1]
    Collection.create(directory).close()
    layout = Layout(directory)
    catalog = Catalog(layout.catalog)
    with exclusive(directory):
        catalog.add_root(b"/grown", recursive=True)
        root = catalog.roots()[0].id
        for start in range(0, count, ROWS):
            vectors = _between(real, near, min(ROWS, count - start), random)
            number, first_id = catalog.next_shard()
            sha256 = write_shard(layout.vectors, number, vectors)
            images = [
                NewImage(root, b"", b"%08d.jpg" % id_, 1, 1, hashlib.sha256(b"").digest(), None)
                for id_ in range(first_id, first_id + len(vectors))
            ]
            catalog.commit(Shard(number, first_id, len(vectors), sha256), images, [])
        fold(layout, catalog, nlist=FEW_LISTS if count < FEW else None, device="cpu")
    catalog.close()
    return Subject("grown", directory, count, _between(real, near, queries, random))


def _between(
    real: Vectors, near: npt.NDArray[np.int64], count: int, random: np.random.Generator
) -> Vectors:
    one = random.integers(len(real), size=count)
    other = near[one, random.integers(near.shape[1], size=count)]
    share = random.random((count, 1), dtype=np.float32)
    mixed = real[one] + share * (real[other] - real[one])
    mixed *= np.exp(SPREAD * random.standard_normal(mixed.shape, dtype=np.float32))
    mixed /= np.linalg.norm(mixed, axis=1, keepdims=True)
    return np.asarray(mixed, dtype=np.float32)
