"""A collection that grows by embeddings alone, without image files."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from types import TracebackType

import numpy as np
import numpy.typing as npt

from imgsearch.ann.exact import search_exactly
from imgsearch.ann.vectors import Ids, Vectors
from imgsearch.indexing.fold import fold
from imgsearch.indexing.policy import POLICY, FoldPolicy
from imgsearch.querying.view import View, open_view
from imgsearch.storage.changes import Commit, FileLocation, NewImage
from imgsearch.storage.files import exclusive
from imgsearch.storage.layout import Layout
from imgsearch.storage.records import Snapshot
from imgsearch.storage.shards import write_shard
from imgsearch.storage.writer import CatalogWriter
from tests.support.small_network import DIM

__all__ = ["UNRANKED", "Grower", "clustered"]

#: No ranking is kept, which costs more than the rest of a fold: for tests of the rest.
UNRANKED = replace(POLICY, ranked_from=1_000_000)


def clustered(count: int, *, seed: int, centres: int = 12, first: int = 0) -> Vectors:
    """Return unit vectors float32 `[count, DIM]` around a few centres, from number `first` on."""
    middle = np.random.default_rng(7).standard_normal((first + centres, DIM))[first:]
    random = np.random.default_rng(seed)
    vectors = middle[random.integers(centres, size=count)]
    vectors = vectors + 0.5 * random.standard_normal(vectors.shape)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors, np.float32)


class Grower:
    """Writes to a collection as an indexing run does, but for the embedding."""

    def __init__(self, directory: Path, *, policy: FoldPolicy = POLICY) -> None:
        self.layout = Layout(directory)
        self.catalog = CatalogWriter(self.layout.catalog)
        self.catalog.add_root(b"/grown", recursive=True)
        self._root = self.catalog.roots()[0].id
        self.policy = policy

    def __enter__(self) -> Grower:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.catalog.close()

    def add(self, vectors: Vectors) -> Ids:
        """Commit vectors; return their ids."""
        number, first = self.catalog.next_shard()
        ids = np.arange(first, first + len(vectors), dtype=np.int64)
        with exclusive(self.layout.directory):
            shard = write_shard(self.layout.vectors, number, ids, vectors)
            images = tuple(self._image(id_) for id_ in ids.tolist())
            self.catalog.commit(Commit(shard, images))
        return ids

    def remove(self, ids: npt.ArrayLike) -> None:
        """Remove images."""
        self.catalog.forget(np.asarray(ids).tolist())

    def fold(self, *, meanwhile: bool = False) -> Snapshot:
        """Bring the index up to date; return the state after that."""
        with exclusive(self.layout.directory):
            fold(
                *(self.layout, self.catalog),
                device="cpu",
                meanwhile=meanwhile,
                policy=self.policy,
            )
        return self.catalog.snapshot()

    def view(self) -> View:
        """Open the present state."""
        return open_view(self.layout, self.catalog)

    def agrees(self, queries: Vectors, k: int = 10) -> bool:
        """Tell whether probing all lists finds what a search of all live rows finds."""
        view = self.view()
        exact = search_exactly(queries, view.live_blocks(), k)
        probed = view.search(queries, k, recall=None, nprobe=10**6, exact=False)
        return bool((exact[1] == probed[1]).all())

    def _image(self, id_: int) -> NewImage:
        digest = hashlib.sha256(id_.to_bytes(8, "big")).digest()
        return NewImage(FileLocation(self._root, b"", b"%08d.jpg" % id_), 1, 1, digest, None)
