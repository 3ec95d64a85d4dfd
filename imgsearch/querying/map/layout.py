"""Lay out images in a plane by their embeddings, and place further images among them.

Embeddings are centred, projected on their 64 principal components, and L2-normalised. t-SNE lays
out the images (L. van der Maaten and G. Hinton, "Visualizing data using t-SNE", 2008), as openTSNE
implements it (P. G. Poličar and others, "openTSNE: a modular Python library for t-SNE
dimensionality reduction and embedding", 2019). A further image lies at the mean of its nearest,
with the weights of `imgsearch.ann.neighbourhood`. Random numbers are seeded, so the same embeddings
get the same positions on the same machine.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from imgsearch.ann.neighbourhood import NEIGHBOURS, nearest, weights
from imgsearch.ann.vectors import Block, Ids, Neighbours, Vectors
from imgsearch.embedding.pipeline import cores
from imgsearch.errors import PackageError, reason_of

__all__ = ["STEPS", "Projection", "check_package", "lay_out", "place"]

COMPONENTS = 64
PERPLEXITY = 30.0
EARLY, LATE = 250, 500  # steps of t-SNE with exaggeration, and without
STEPS = EARLY + LATE
EXAGGERATION = 12.0
FEW = 50  # images: fewer may not converge, and the first two components are the layout
ALONE = 2_000  # images up to which threads would mostly wait for one another
BY_INTERPOLATION = 10_000  # images from which on interpolation is quicker than a tree
TOLD = 10  # steps between two calls of `progress`
BLOCK = 1_024  # images whose neighbours are searched for together
SEED = 1234


@dataclass(frozen=True, slots=True, eq=False)
class Projection:
    """The projection of embeddings on their principal components.

    Attributes:
        mean: Mean of the embeddings, float32 `[dim]`.
        components: Principal components, the first one first, float32 `[dim, COMPONENTS]`.
    """

    mean: Vectors
    components: Vectors

    @classmethod
    def of(cls, blocks: Iterable[Vectors], dim: int) -> Projection:
        """Compute the projection from blocks of embeddings, float32 `[n, dim]`."""
        count, total, squares = 0, np.zeros(dim), np.zeros((dim, dim))
        for vectors in blocks:
            count += len(vectors)
            total += vectors.sum(axis=0, dtype=np.float64)
            squares += vectors.T @ vectors
        mean = total / max(count, 1)
        _, found = np.linalg.eigh(squares / max(count, 1) - np.outer(mean, mean))
        found = found[:, ::-1][:, : min(COMPONENTS, dim)]
        largest = np.abs(found).argmax(axis=0)  # whose sign is arbitrary otherwise
        found = found * np.sign(found[largest, np.arange(found.shape[1])])
        return cls(mean.astype(np.float32), np.ascontiguousarray(found, np.float32))

    def __call__(self, vectors: Vectors) -> Vectors:
        """Return embeddings as L2-normalised projections, float32 `[n, COMPONENTS]`."""
        found = (vectors - self.mean) @ self.components
        lengths = np.sqrt(np.vecdot(found, found))[:, None]
        return np.asarray(found / np.maximum(lengths, np.float32(1e-6)), np.float32)


def check_package() -> None:
    """Import openTSNE.

    Raises:
        PackageError: If it is not installed.
    """
    try:
        import openTSNE  # noqa: F401 - imported here, as only this needs it
    except ImportError as error:
        what = f"a map needs openTSNE, which cannot be loaded: {reason_of(error)}"
        raise PackageError(what, "map") from error


def lay_out(projected: Vectors, progress: Callable[[int], None]) -> Vectors:
    """Return positions in the unit square, float32 `[n, 2]`.

    Args:
        projected: Projections of the embeddings, float32 `[n, COMPONENTS]`.
        progress: Function that is called with the number of steps done, up to `STEPS`.

    Raises:
        PackageError: If openTSNE is not installed.
    """
    check_package()
    start = np.zeros((len(projected), 2))
    start[:, : projected.shape[1]] = projected[:, :2]
    if len(projected) < FEW or not start.std(axis=0).all():
        return _squared(start)
    from openTSNE import TSNEEmbedding
    from openTSNE.affinity import PerplexityBasedNN
    from openTSNE.initialization import rescale
    from openTSNE.nearest_neighbors import PrecomputedNeighbors

    found = _neighbours(projected, int(min(3 * PERPLEXITY, len(projected) - 1)))
    distances = np.sqrt(np.maximum(found.distances, 0)).astype(np.float64)
    affinities = PerplexityBasedNN(
        knn_index=PrecomputedNeighbors(found.ids, distances),
        perplexity=min(PERPLEXITY, (len(projected) - 1) / 3),
    )
    embedding = TSNEEmbedding(
        rescale(start),
        affinities,
        negative_gradient_method="fft" if len(projected) > BY_INTERPOLATION else "bh",
        n_jobs=cores() if len(projected) > ALONE else 1,
        random_state=SEED,
    )
    for done, steps, options in (
        (0, EARLY, {"exaggeration": EXAGGERATION, "momentum": 0.5}),
        (EARLY, LATE, {"momentum": 0.8}),
    ):
        embedding = embedding.optimize(
            n_iter=steps,
            callbacks=[_telling(progress, done)],
            callbacks_every_iters=TOLD,
            **options,
        )
    return _squared(np.asarray(embedding))


def place(projected: Vectors, anchors: Vectors, positions: Vectors) -> Vectors:
    """Return the positions of further images among those of others, float32 `[n, 2]`.

    Args:
        projected: Projections of the further images, float32 `[n, COMPONENTS]`.
        anchors: Projections of the others, of which there is at least one, float32
            `[m, COMPONENTS]`.
        positions: Positions of the others, float32 `[m, 2]`.
    """
    result = np.empty((len(projected), 2), np.float32)
    wanted = min(NEIGHBOURS + 1, len(anchors))
    for start in range(0, len(projected), BLOCK):
        rows = slice(start, start + BLOCK)
        none = np.full(len(projected[rows]), -1, np.int64)
        found = nearest(none, projected[rows], _blocks(anchors), wanted)
        # Where there are fewer, the bound is repeated; see `near_lists`.
        missing = ((0, 0), (0, NEIGHBOURS + 1 - wanted))
        similarities = np.pad(1 - found.distances / 2, missing, "edge").astype(np.float32)
        weight = weights(similarities)[:, :wanted]
        weight[:, 0] = np.maximum(weight[:, 0], np.float32(1e-6))  # all are equally near
        near = positions[found.ids[:, : weight.shape[1]]]
        result[rows] = (weight[..., None] * near).sum(axis=1) / weight.sum(axis=1)[:, None]
    return result


def _neighbours(projected: Vectors, k: int) -> Neighbours:
    """Return the `k` nearest others of each image, as rows."""

    def parts() -> Iterator[tuple[Ids, Neighbours]]:
        for start in range(0, len(projected), BLOCK):
            rows = np.arange(start, min(start + BLOCK, len(projected)))
            yield rows, nearest(rows, projected[rows], _blocks(projected), k)

    return Neighbours.scattered(len(projected), k, parts())


def _blocks(vectors: Vectors) -> Iterator[Block]:
    for start in range(0, len(vectors), 8 * BLOCK):
        some = vectors[start : start + 8 * BLOCK]
        yield Block(np.arange(start, start + len(some)), some)


def _telling(progress: Callable[[int], None], done: int) -> Callable[[int, float, object], None]:
    def tell(step: int, error: float, embedding: object) -> None:
        del error, embedding
        progress(done + step)

    return tell


def _squared(points: Any) -> Vectors:
    """Return points moved and scaled so that the unit square is their smallest one."""
    least, most = points.min(axis=0), points.max(axis=0)
    extent = max(float((most - least).max()), 1e-12)
    return np.asarray(np.clip((points - (least + most) / 2) / extent + 0.5, 0, 1), np.float32)
