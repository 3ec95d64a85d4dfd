"""The collections that benchmarks ask: of real images, and of embeddings grown from those."""

from __future__ import annotations

import hashlib
import os
import shutil
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from imgsearch import Collection
from imgsearch.ann.exact import search_exactly
from imgsearch.indexing.fold import fold
from imgsearch.storage.catalog import Catalog
from imgsearch.storage.changes import Commit, FileLocation, NewImage
from imgsearch.storage.files import exclusive
from imgsearch.storage.layout import Layout
from imgsearch.storage.shards import open_shard, write_shard
from imgsearch.storage.writer import CatalogWriter

__all__ = [
    "ROWS",
    "GrownEmbeddings",
    "Subject",
    "commit_vectors",
    "copy_collection",
    "embed_photos",
    "grow",
    "index_folder",
    "make_empty",
    "save_crops",
]

ROWS = 4_096  # a shard
NEIGHBOURS = 20
SPREAD = 0.3  # standard deviation of the logarithm of what a value is multiplied by
SEED = 1234
FEW = 256  # images below which the collection has lists only when it is asked to
FEW_LISTS = 8
GROWN_ROOT = b"/grown"

Vectors = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Subject:
    """A collection and embeddings to query it with, float32 `[n, dim]`, which it does not hold."""

    name: str
    directory: Path
    images: int
    queries: Vectors


class GrownEmbeddings:
    """An endless source of embeddings that are grown from real ones.

    Each lies somewhere between a real embedding, drawn at random, and one of its 20 nearest real
    neighbours; then each value is multiplied by exp(N(0, 0.3)), so that none turns negative or
    leaves zero, and the whole is L2-normalised.
    """

    def __init__(self, real: Vectors, *, seed: int = SEED) -> None:
        """Find the neighbours of each of the `real` embeddings, float32 `[n, dim]`."""
        ids = np.arange(len(real), dtype=np.int64)
        self._near = search_exactly(real, [(ids, real)], min(NEIGHBOURS + 1, len(real)))[1]
        self._real = real
        self._random = np.random.default_rng(seed)

    def restart(self, *seed: int) -> GrownEmbeddings:
        """Begin another sequence, and return this source."""
        self._random = np.random.default_rng(seed)
        return self

    def draw(self, count: int) -> Vectors:
        """Return the next `count`, float32 `[count, dim]`."""
        random, real = self._random, self._real
        one = random.integers(len(real), size=count)
        other = self._near[one, random.integers(self._near.shape[1], size=count)]
        share = random.random((count, 1), dtype=np.float32)
        return self.changed(real[one] + share * (real[other] - real[one]))

    def changed(self, vectors: Vectors) -> Vectors:
        """Multiply each value by exp(N(0, 0.3)), and L2-normalise; float32 `[n, dim]`."""
        noise = self._random.standard_normal(vectors.shape, dtype=np.float32)
        found = vectors * np.exp(SPREAD * noise)
        return np.asarray(found / np.linalg.norm(found, axis=1, keepdims=True), dtype=np.float32)


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
        collection.index(photos)
    layout = Layout(directory)
    with closing(Catalog(layout.catalog)) as catalog:
        snapshot = catalog.snapshot()
    dim = snapshot.model.dim
    return np.concatenate([open_shard(layout.vectors, shard, dim) for shard in snapshot.shards])


def save_crops(photos: tuple[Path, ...], folder: Path, each: int) -> tuple[Path, ...]:
    """Save crops of each photograph, from a third to two thirds of its edges, and return them."""
    folder.mkdir()
    random = np.random.default_rng(SEED)
    paths = []
    for number, photo in enumerate(photos):
        with Image.open(photo) as image:
            picture = image.convert("RGB")
        for place in range(each):
            size = np.array(picture.size) * random.uniform(1 / 3, 2 / 3)
            left, top = random.random(2) * (np.array(picture.size) - size)
            paths.append(folder / f"{number:06}-{place}.jpg")
            picture.crop((left, top, left + size[0], top + size[1])).save(paths[-1], quality=90)
    return tuple(paths)


def make_empty(directory: Path) -> None:
    """Make an empty collection, with MobileNetV2; that imports torch."""
    Collection.create(directory).close()


def copy_collection(source: Path, target: Path) -> Layout:
    """Copy a collection; what is never changed, all but the catalog, as hard links."""
    layout = Layout(source)
    shutil.copytree(
        source, target, copy_function=os.link, ignore=lambda *_: {layout.catalog.name, "lock"}
    )
    shutil.copy(layout.catalog, target)
    return Layout(target)


def commit_vectors(layout: Layout, catalog: CatalogWriter, vectors: Vectors) -> None:
    """Make a shard of embeddings and commit it, as an indexing run does with new images.

    The caller holds the lock. The files that they are said to be of do not exist.
    """
    if not catalog.roots():
        catalog.add_root(GROWN_ROOT, recursive=True)
    root = catalog.roots()[0].id
    number, first_id = catalog.next_shard()
    ids = np.arange(first_id, first_id + len(vectors), dtype=np.int64)
    shard = write_shard(layout.vectors, number, ids, vectors)
    names = [b"%08d.jpg" % id_ for id_ in ids.tolist()]
    images = [
        NewImage(FileLocation(root, b"", name), 1, 1, hashlib.sha256(name).digest(), None)
        for name in names
    ]
    catalog.commit(Commit(shard, tuple(images)))


def grow(directory: Path, real: Vectors, count: int, queries: int) -> Subject:
    """Make a collection of `count` embeddings grown from `real` ones; the queries are more of them.

    Its index is made in one go.
    """
    source = GrownEmbeddings(real)
    make_empty(directory)
    layout = Layout(directory)
    with closing(CatalogWriter(layout.catalog)) as catalog, exclusive(directory):
        catalog.change_settings(nlist=FEW_LISTS if count < FEW else None, recall=None)
        for start in range(0, count, ROWS):
            commit_vectors(layout, catalog, source.draw(min(ROWS, count - start)))
        fold(layout, catalog, device="cpu")
    return Subject("grown", directory, count, source.draw(queries))
