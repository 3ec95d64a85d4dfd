"""Rank candidates by what the collection knows of itself, and tell how much a similarity means.

The nearest candidates of a plain search are ranked again, by band, and within a band by the score
(`imgsearch.ann.neighbourhood`); the nearest by cosine stays the first of its band. `z` compares a
similarity with what is usual for both images (symmetric normalisation: P. Kenny, "Bayesian speaker
verification with heavy-tailed priors", 2010):

    z(q, h) = ½ [ (c − μ_q) / σ_q + (c − μ_h) / σ_h ]

where `c` is the centred similarity, and μ and σ are the mean and deviation of an image's
similarities to the references, up to 500 images of the collection.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple, Protocol, TypeAlias, get_args

import numpy as np
import numpy.typing as npt

from imgsearch.ann.neighbourhood import (
    Centre,
    centred,
    centred_sums,
    code_products,
    dequantised,
    mixed,
    near_lists,
    normalised,
    products,
    weights,
)
from imgsearch.ann.threads import in_parts
from imgsearch.ann.vectors import Ids, Neighbours, Vectors, columns_of
from imgsearch.storage.layers import Layers
from imgsearch.storage.mapping import Places
from imgsearch.storage.records import RankingRecord

__all__ = [
    "BANDS",
    "DEFAULT",
    "LEAST_REFERENCES",
    "NEAR_COPY",
    "RANKS",
    "RERANKED",
    "SAME_PICTURE",
    "Band",
    "Rank",
    "Ranked",
    "Ranking",
    "References",
    "band_numbers",
    "moments",
    "references_of",
]

Rank: TypeAlias = Literal["collection", "cosine"]
Band: TypeAlias = Literal["weak", "similar", "same thing", "same picture"]

RANKS: tuple[Rank, ...] = get_args(Rank)
#: What queries rank by unless told otherwise, wherever the collection knows enough of its images.
DEFAULT: Rank = "collection"
#: The bands that z and the cosine tell, from the weakest to the strongest.
BANDS: tuple[Band, ...] = ("weak", "similar", "same thing")
SAME_PICTURE: Band = "same picture"  # the strongest, which only a comparison of pixels can tell
RERANKED = 200  # nearest candidates that are ranked again
LEAST_REFERENCES = 64  # references below which a deviation means nothing
SIMILAR, SAME = 3.0, 4.0  # z from which two images are similar, or show the same thing
LEAST_SIMILAR, LEAST_SAME = 0.70, 0.75  # cosines below which they are not, whatever z is
NEAR_COPY = 0.95  # cosine from which two images show the same thing, whatever z is
CLEARLY_SIMILAR = 0.80  # cosine from which they are similar, even if the whole collection is
_PAIRS = 12_800  # pairs of a query and a candidate that are ranked together
_COLUMNS = 4_096  # images scored together
_HALF, _LEAST_DEVIATION = np.float32(0.5), np.float32(1e-6)


class Embeddings(Protocol):
    """The embeddings of a collection, by id."""

    def has(self, ids: Ids) -> npt.NDArray[np.bool_]:
        """Tell which of the ids, ascending and distinct, are there, bool `[n]`."""
        ...

    def rows(self, ids: Ids) -> Vectors:
        """Return the embeddings of ids, ascending and distinct, float32 `[n, dim]`."""
        ...


class Ranked(NamedTuple):
    """Candidates in a new order, `[n, k]`; NaN where a number is unknown.

    Attributes:
        neighbours: The candidates, best first.
        scores: What they are ordered by within a band, float32; NaN if it is their distance.
        z: Their normalised similarities, float32.
        bands: Numbers of their bands in `BANDS`, int64; -1 if there is none.
    """

    neighbours: Neighbours
    scores: Vectors
    z: Vectors
    bands: Ids

    @classmethod
    def plain(cls, neighbours: Neighbours) -> Ranked:
        """Return candidates as they are, without bands."""
        unknown = np.full(neighbours.ids.shape, np.nan, np.float32)
        return cls(neighbours, unknown, unknown, np.full(neighbours.ids.shape, -1, np.int64))

    def take(self, columns: Ids) -> Ranked:
        """Return the given columns of each row, int64 `[n, m]`."""
        return Ranked(
            self.neighbours.take(columns),
            columns_of(self.scores, columns),
            columns_of(self.z, columns),
            columns_of(self.bands, columns),
        )

    def first(self, k: int) -> Ranked:
        """Return the first `k` of each row."""
        rest = self.scores[:, :k], self.z[:, :k], self.bands[:, :k]
        return Ranked(self.neighbours.first(k), *rest)

    def only(self, kept: npt.NDArray[np.bool_]) -> Ranked:
        """Return the candidates in a mask, bool `[n, k]`, first; the others are none."""
        ids = np.where(kept, self.neighbours.ids, -1)
        distances = np.where(kept, self.neighbours.distances, np.float32(np.inf))
        left = self._replace(neighbours=Neighbours(distances, ids))
        return left.take(np.argsort(~kept, axis=1, kind="stable"))


@dataclass(frozen=True, slots=True)
class _Asked:
    """Queries and what is known of their candidates.

    Attributes:
        queries: Queries, float32 `[n, dim]`, L2-normalised.
        found: Candidates, nearest first, `[n, k]`.
        cosines: Their cosines, float32 `[n, k]`.
        places: Where their rows are.
        along: Their products with the mean, float32 `[n, k]`.
        similarities: Centred similarities, float32 `[n, k]`.
    """

    queries: Vectors
    found: Neighbours
    cosines: Vectors
    places: Places
    along: Vectors
    similarities: Vectors

    def first(self, k: int) -> _Asked:
        """Return the first `k` candidates of each query."""
        if self.found.ids.shape[1] <= k:
            return self
        return _Asked(
            self.queries,
            self.found.first(k),
            self.cosines[:, :k],
            self.places.first(k),
            self.along[:, :k],
            self.similarities[:, :k],
        )


class References:
    """The references of a ranking that are still there, `ids`, int64 `[m]`, ascending."""

    def __init__(self, record: RankingRecord, embeddings: Embeddings, centre: Centre) -> None:
        """Read their embeddings."""
        drawn = references_of(record)
        self.ids: Ids = drawn[embeddings.has(drawn)]
        self._centre = centre
        self._vectors = centred(embeddings.rows(self.ids), centre)
        self._along = centre.along(self._vectors)

    def similarities(self, vectors: Vectors) -> Vectors:
        """Return the centred similarity of each vector to each reference, float32 `[n, m]`."""
        found = products(vectors, self._vectors)
        found -= self._along
        found /= self._centre.lengths(self._centre.along(vectors))[:, None]
        return found


class Ranking:
    """The ranking of a collection as of a view. Safe for concurrent use."""

    def __init__(self, record: RankingRecord, layers: Layers, embeddings: Embeddings) -> None:
        """Initialise the ranking.

        Args:
            record: Record of the ranking.
            layers: Layers of the collection.
            embeddings: Embeddings of the images.
        """
        self.centre = Centre(np.frombuffer(record.mean, "<f4").astype(np.float32))
        self.layers = layers
        self._record = record
        self._embeddings = embeddings

    @cached_property
    def references(self) -> References:
        """The references that are left."""
        return References(self._record, self._embeddings, self.centre)

    def order(
        self, queries: Vectors, found: Neighbours, *, rank: Rank, k: int | None = None
    ) -> Ranked:
        """Rank candidates, or only tell their bands if `rank` is "cosine".

        Args:
            queries: Queries, float32 `[n, dim]`, L2-normalised.
            found: Candidates, nearest first; those beyond `RERANKED` keep their order.
            rank: What to rank by.
            k: Number of candidates to return; None for all.
        """
        k = found.ids.shape[1] if k is None else k

        def order(rows: slice) -> Ranked:
            some = queries[rows], Neighbours(found.distances[rows], found.ids[rows])
            return self._order_part(*some, rank=rank, k=k)

        return _joined(in_parts(len(queries), order)).first(k)

    def _order_part(self, queries: Vectors, found: Neighbours, *, rank: Rank, k: int) -> Ranked:
        """Rank the candidates of some of the queries."""
        parts, size = [], max(_PAIRS // found.ids.shape[1], 1)
        with np.errstate(all="ignore"):  # a layer may come from somebody else
            means, deviations = self._usual(queries)
            for start in range(0, max(len(queries), 1), size):
                block = slice(start, start + size)
                some = Neighbours(found.distances[block], found.ids[block])
                asked = self._asked(queries[block], some)
                told = self._told(asked, means[block], deviations[block])
                parts.append(self._order(asked, told, k) if rank == "collection" else told)
        return _joined(parts)

    def _told(self, asked: _Asked, means: Vectors, deviations: Vectors) -> Ranked:
        """Return the candidates as they are, with their bands."""
        z = self._z(asked, means, deviations)
        z[~asked.found.there] = np.nan
        scores = np.full(z.shape, np.nan, np.float32)
        return Ranked(asked.found, scores, z, band_numbers(z, asked.cosines))

    def _order(self, asked: _Asked, told: Ranked, k: int) -> Ranked:
        """Return at least the first `k` candidates in their new order."""
        near = asked.first(RERANKED)
        there, bands = near.found.there, told.bands[:, :RERANKED]
        # Those in a weaker band than the k-th hit come after it, whatever their scores.
        last = there.shape[1] - min(k, there.shape[1])
        weakest = np.partition(bands, last, axis=1)[:, last, None]
        scores = self._scores(near, there & (bands >= weakest))
        order = order_of(scores, bands, there)
        beyond = np.arange(there.shape[1], told.bands.shape[1])
        rest = np.broadcast_to(beyond, (len(order), len(beyond)))
        told.scores[:, :RERANKED] = np.where(there, scores, np.float32(np.nan))
        return told.take(np.concatenate([order, rest], axis=1)[:, :k])

    def order_all(
        self, queries: Vectors, near: Neighbours, ids: Ids, distances: npt.NDArray[np.float64]
    ) -> Ids:
        """Return all images in the order of each query, as columns, int64 `[n, m]`.

        Args:
            queries: Queries, float32 `[n, dim]`, L2-normalised.
            near: The nearest images of each query, towards which it is moved.
            ids: Ids of the images to order, int64 `[m]`.
            distances: Squared distances of queries and images, infinite if an image is left out.
        """
        moved = self._moved(self._asked(queries, near))
        everything = np.broadcast_to(ids, distances.shape)
        there = np.isfinite(distances)
        found = Neighbours(distances.astype(np.float32), np.where(there, everything, -1))
        asked = self._asked(queries, found)
        scores = asked.similarities.copy()
        for start in range(0, len(ids), _COLUMNS):
            columns = slice(start, start + _COLUMNS)
            places = self.layers.places(ids[columns])
            codes = self.layers.take("codes", places)
            d2 = dequantised(codes, self.layers.take("scales", places))
            mix = mixed(scores[:, columns], moved @ d2.T)
            scores[:, columns] = np.where(places.there, mix, scores[:, columns])
        bands = band_numbers(self._z(asked, *self._usual(queries)), asked.cosines)
        return order_of(scores, bands, there, distances)

    def _asked(self, queries: Vectors, found: Neighbours) -> _Asked:
        places, cosines = self.layers.places(found.ids), _cosines(found)
        along = self.layers.take("along", places)
        if not places.there.all():
            new = found.there & ~places.there  # added since the layers were written
            ids = np.unique(found.ids[new])
            own_products = self.centre.along(self._embeddings.rows(ids))
            along[new] = own_products[np.searchsorted(ids, found.ids[new])]
        own = self.centre.along(queries)[:, None]
        similarities = self.centre.similarities(cosines, own, along)
        return _Asked(queries, found, cosines, places, along, similarities)

    def _usual(self, queries: Vectors) -> tuple[Vectors, Vectors]:
        """Return mean and deviation of each query's similarities to the references, `[n]`.

        They are NaN if the references are too few.
        """
        if len(self.references.ids) < LEAST_REFERENCES:
            unknown = np.full(len(queries), np.nan, np.float32)
            return unknown, unknown
        return moments(self.references.similarities(queries))

    def _z(self, asked: _Asked, means: Vectors, deviations: Vectors) -> Vectors:
        """Return z of each candidate; from the side of the query alone if it has no row yet.

        `means` and `deviations` are what `_usual` returns for the queries.
        """
        z: Vectors = (asked.similarities - means[:, None]) / deviations[:, None]
        theirs = asked.similarities - self.layers.take("means", asked.places)
        theirs /= np.maximum(self.layers.take("deviations", asked.places), _LEAST_DEVIATION)
        np.copyto(z, (z + theirs) * _HALF, where=asked.places.there)
        return z

    def _scores(self, asked: _Asked, wanted: npt.NDArray[np.bool_]) -> Vectors:
        """Return the scores of the wanted candidates, float32 `[n, k]`; those of others are low."""
        moved = self._moved(asked)
        found = np.zeros(wanted.shape, np.float32)
        for number, layer in enumerate(self.layers.rows):
            here = wanted & (asked.places.files == number)
            if here.any():
                found += code_products(
                    moved, layer.codes, np.where(here, asked.places.rows, 0), here
                )
        found *= self.layers.take("scales", asked.places)
        found = np.where(np.isfinite(found), found, np.float32(-1))
        scores = np.where(asked.places.there, mixed(asked.similarities, found), asked.similarities)
        return np.where(wanted, scores, np.float32(-2))

    def _moved(self, asked: _Asked) -> Vectors:
        """Return the queries, each moved towards its neighbours, float32 `[n, dim]`."""
        asked = asked.first(RERANKED)
        ids, there = asked.found.ids, asked.found.there
        known = self.layers.take("leaders", asked.places).astype(np.int64)
        leaders = np.where(asked.places.there, known, ids)
        lists = near_lists(asked.similarities, leaders, np.full(len(ids), -1), there)
        columns = np.maximum(lists.places, 0)
        weight = np.where(lists.places >= 0, weights(lists.similarities), np.float32(0))
        neighbours, along = columns_of(ids, columns), columns_of(asked.along, columns)
        sums = centred_sums(self.centre, neighbours, weight, along, self._embeddings.rows)
        return normalised(centred(asked.queries, self.centre) + sums)


def _joined(parts: Sequence[Ranked]) -> Ranked:
    """Combine the candidates of parts of a batch."""
    if len(parts) == 1:
        return parts[0]
    neighbours = zip(*(part.neighbours for part in parts), strict=True)
    return Ranked(
        Neighbours(*map(np.concatenate, neighbours)),
        np.concatenate([part.scores for part in parts]),
        np.concatenate([part.z for part in parts]),
        np.concatenate([part.bands for part in parts]),
    )


def order_of(
    scores: Vectors,
    bands: Ids,
    there: npt.NDArray[np.bool_],
    distances: npt.NDArray[np.float64] | None = None,
) -> Ids:
    """Return the columns of candidates, best first, int64 `[n, k]`.

    Args:
        scores: Scores, float32 `[n, k]`.
        bands: Numbers of bands, int64 `[n, k]`.
        there: Which candidates there are, bool `[n, k]`.
        distances: Distances, of which the least comes first; None if the first column is the
            nearest that is there.
    """
    nearest = np.argmax(there, axis=1) if distances is None else np.argmin(distances, axis=1)
    keys = np.fmin(np.fmax(scores, -2), 2).astype(np.float64)  # -2 for NaN
    keys[np.arange(len(keys)), nearest] = 3
    keys += 8 * bands  # more than scores differ by
    keys[~there] = -np.inf
    return np.argsort(-keys, axis=1, kind="stable")


def references_of(record: RankingRecord) -> Ids:
    """Return the ids of the references, ascending, int64; some may be gone."""
    return np.unique(np.frombuffer(record.compared, "<i8").astype(np.int64))


def moments(similarities: Vectors) -> tuple[Vectors, Vectors]:
    """Return mean and deviation of each row of similarities to the references, float32 `[n]`.

    An image that is a reference itself has a similarity of NaN, which does not count.
    """
    mean = np.add.reduce(similarities, axis=1) / np.float32(similarities.shape[1])
    if not np.isnan(mean).any():
        away = similarities - mean[:, None]
        deviation = np.sqrt(np.vecdot(away, away) / np.float32(similarities.shape[1]))
        return mean, np.maximum(deviation, np.float32(1e-6))
    there = ~np.isnan(similarities)
    count = np.maximum(there.sum(axis=1), 1)
    mean = np.sum(similarities, axis=1, where=there, dtype=np.float64) / count
    away = similarities - mean[:, None]
    deviation = np.sqrt(np.sum(away * away, axis=1, where=there) / count)
    return mean.astype(np.float32), np.maximum(deviation, 1e-6).astype(np.float32)


def band_numbers(z: Vectors, cosines: Vectors) -> Ids:
    """Return the number of each hit's band in `BANDS`, int64; -1 if z is NaN.

    A cosine that unrelated images often have is never more than weak: z alone says only how unusual
    it is for the two images.
    """
    same = ((z >= SAME) & (cosines >= LEAST_SAME)) | (cosines >= NEAR_COPY)
    similar = ((z >= SIMILAR) & (cosines >= LEAST_SIMILAR)) | (cosines >= CLEARLY_SIMILAR)
    numbers = np.add(same, similar, dtype=np.int64)  # what is the same thing is similar, too
    numbers[np.isnan(z)] = -1
    return numbers


def _cosines(found: Neighbours) -> Vectors:
    squared = np.minimum(np.maximum(found.distances, 0), 4)  # infinite if there is no image
    return np.asarray(1 - squared / 2, np.float32)
