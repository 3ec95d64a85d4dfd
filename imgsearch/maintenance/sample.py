"""Check that a sample of images gives the stored embeddings again and finds itself."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field

import numpy as np

from imgsearch.ann.vectors import Ids, Vectors
from imgsearch.embedding.decoder import CHANGED, Stored
from imgsearch.embedding.lanes import Lane, decoders
from imgsearch.embedding.models import Shapes
from imgsearch.embedding.runtime import Runtime, open_model
from imgsearch.errors import ImageError
from imgsearch.images import DECODER
from imgsearch.images.decode import Pixels
from imgsearch.maintenance.damage import Damage, Part
from imgsearch.querying.view import View
from imgsearch.storage.catalog import Catalog
from imgsearch.storage.layout import Layout

__all__ = ["Sample"]

K = 10
SAME = 1e-3  # distance between a vector and itself, in float32
CLOSE = 0.3  # distance between vectors that a compact index may confuse
ALIKE = 0.99  # cosine: other releases of a decoder or runtime, or half precision, stay above
_SEED = 1234


@dataclass(slots=True)
class Sample:
    """A check of `count` images, drawn at random.

    `embedded` counts those whose files are unchanged; `changed` holds the paths of the others.
    """

    layout: Layout
    catalog: Catalog
    view: View
    count: int
    trust_model: bool = False
    sampled: int = 0
    embedded: int = 0
    changed: list[str] = field(default_factory=list)
    _wrong: list[str] = field(default_factory=list)

    def check(self) -> Iterator[Damage]:
        """Yield the damage of the index and of the embeddings."""
        ids, vectors = self._draw()
        self.sampled = len(ids)
        if not self.sampled:
            return
        lost = self._not_found(ids, vectors)
        if lost:
            reason = f"{lost:,} of {len(ids):,} images are not found by their own embeddings"
            yield Damage(Part.INDEX, self.layout.segments.name, reason)
        self._embed(ids, vectors)
        if self._wrong:
            reason = (
                f"{len(self._wrong):,} of {self.embedded:,} are not what their images give now, "
                f"such as that of {self._wrong[0]}"
            )
            yield Damage(Part.EMBEDDINGS, self.layout.vectors.name, reason)

    def _draw(self) -> tuple[Ids, Vectors]:
        everything = np.array(self.catalog.image_ids(), np.int64)
        count = min(self.count, len(everything))
        random = np.random.default_rng(_SEED)
        drawn = np.sort(random.choice(everything, count, replace=False))
        ids: list[Ids] = [np.empty(0, np.int64)]
        vectors: list[Vectors] = [np.empty((0, self.view.snapshot.model.dim), np.float32)]
        for block_ids, block in self.view.live_blocks():
            rows = np.flatnonzero(np.isin(block_ids, drawn))
            ids.append(block_ids[rows])
            vectors.append(block[rows])
        return np.concatenate(ids), np.concatenate(vectors)

    def _not_found(self, ids: Ids, vectors: Vectors) -> int:
        """Return how many are not found; one of very many copies may be crowded out by others."""
        squared, found, _ = self.view.search(vectors, K, recall=None, nprobe=None, exact=False)
        squared = np.where(found >= 0, squared, np.inf)
        itself = ((squared < SAME**2) & (found == ids[:, None])).any(axis=1)
        lossy = any(index.lossy for index in self.view.segments)
        crowded = (squared < (CLOSE if lossy else SAME) ** 2).all(axis=1)
        return int((~(itself | crowded)).sum())

    def _embed(self, ids: Ids, vectors: Vectors) -> None:
        model = self.view.snapshot.model
        shapes = Shapes(model.input_size, model.dim)
        with closing(open_model(self.layout.model, shapes, trust=self.trust_model)) as runtime:
            self._compare(runtime, ids, vectors)

    def _compare(self, runtime: Runtime, ids: Ids, vectors: Vectors) -> None:
        paths = self.catalog.paths(ids.tolist())
        with decoders(1) as lane:
            for id_, vector in zip(ids.tolist(), vectors, strict=True):
                pixels = self._pixels(lane, id_, paths[id_])
                if pixels is not None:
                    self.embedded += 1
                    alike = float(runtime.embed(pixels[None])[0] @ vector) >= ALIKE
                    if not alike and self.view.snapshot.model.decoder == DECODER:
                        self._wrong.append(paths[id_])  # another decoder may give other pixels

    def _pixels(self, lane: Lane, id_: int, path: str) -> Pixels | None:
        """Return the pixels of an image, None if its file has changed or is missing."""
        digest = self.catalog.digest_of(id_)
        try:
            with lane.decoder() as decoder:
                return decoder.pixels(Stored(path, digest), self.view.snapshot.model.input_size)
        except ImageError as error:  # else it is out of reach, or has no decoder installed
            if error.reason == CHANGED:
                self.changed.append(path)
            return None
