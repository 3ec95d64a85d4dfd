"""The answer to a query: its hits, and how they were found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np

from imgsearch.ann.vectors import Ids, Vectors
from imgsearch.files.paths import path_fields
from imgsearch.querying.ranking import BANDS, Band, Ranked

__all__ = [
    "Answer",
    "Hit",
    "HitArrays",
    "Hits",
    "Search",
    "SearchKind",
    "answer_fields",
    "answers_of",
    "arrays_of",
    "band_name",
    "hit_fields",
]


#: The names of bands, by their numbers in `HitArrays`; the last is that of -1.
_NAMES: tuple[Band | None, ...] = (*BANDS, None)

SearchKind: TypeAlias = Literal["ivf", "wide", "exact"]


@dataclass(frozen=True, slots=True)
class Hit:
    """An image of the collection that is similar to the query.

    Attributes:
        rank: Rank among the hits; 1 is the best.
        id: Id of the image in its collection.
        path: Absolute path, decoded with `os.fsdecode`.
        distance: L2 distance of the embeddings, 0 to 2; lower is nearer.
        similarity: Cosine of the embeddings, -1 to 1; 1 is identical.
        score: What the hits of a band are ordered by; None if it is the cosine.
        z: How unusual the similarity is for the two images, in standard deviations: it means the
            same in every collection. None if the collection has too few images to tell.
        band: What the similarity means: "same thing", "similar" or "weak"; None as `z`. Where
            pixels were compared, "same picture" if the hit is a version of the query; where local
            features were, "same thing" if they agree.
        inliers: Number of local features that agree with those of the query; 0 if the hit could
            not be verified; None if they were not compared.
        copies: Other versions of the same picture, which are not hits of their own; None if they
            were not looked for.
    """

    rank: int
    id: int
    path: str
    distance: float
    similarity: float
    score: float | None = None
    z: float | None = None
    band: Band | None = None
    inliers: int | None = None
    copies: tuple[Hit, ...] | None = None


class Hits(list[Hit]):
    """The hits of a query, best first: a list that a notebook shows as pictures."""

    def _repr_html_(self) -> str:
        from imgsearch.querying.tables import html_of

        return html_of(self)


@dataclass(frozen=True, slots=True)
class Search:
    """How a query was searched.

    Attributes:
        kind: Kind of search: "ivf" probed the inverted lists nearest to the query; "wide" probed
            all lists, because those held fewer than k images, or instead of comparing the query
            with embeddings that exceed the memory; "exact" compared the query with every image, or
            with all that the filter lets pass.
        nprobe: Number of lists probed; 0 if the search was exact.
        recall: Expected recall@10 of the search, as measured; None if unknown.
    """

    kind: SearchKind
    nprobe: int
    recall: float | None


@dataclass(frozen=True, slots=True)
class Answer:
    """The hits of a query, best first, and how it was searched."""

    hits: tuple[Hit, ...]
    search: Search


@dataclass(frozen=True, slots=True, eq=False)
class HitArrays:
    """The hits of n queries as arrays `[n, k]`, best first.

    `ids` is int64, and -1 where there is no hit; `distances` and `similarities` are float32, as in
    `Hit`, and infinite where there is no hit. `scores` and `z` are float32, as in `Hit`, and NaN
    for None; `bands` is int64: 2 for "same thing", 1 for "similar", 0 for "weak", -1 for None.
    """

    ids: Ids
    distances: Vectors
    similarities: Vectors
    scores: Vectors
    z: Vectors
    bands: Ids


def arrays_of(ranked: Ranked) -> HitArrays:
    """Convert squared L2 distances of unit vectors into distances and similarities."""
    found = ranked.neighbours
    squared: Vectors = np.where(found.there, np.maximum(found.distances, 0), np.float32(np.inf))
    similarities = np.float32(1) - squared / np.float32(2)
    return HitArrays(found.ids, np.sqrt(squared), similarities, *ranked[1:])


def band_name(number: int) -> Band | None:
    """Return the name of a band in `HitArrays.bands`; None for -1."""
    return _NAMES[number]


def answers_of(
    arrays: HitArrays, searches: Sequence[Search], paths: Mapping[int, str]
) -> list[Answer]:
    """Convert arrays, with the search of each row, into answers."""
    rows = zip(
        arrays.ids.tolist(),
        arrays.distances.tolist(),
        arrays.similarities.tolist(),
        _numbers(arrays.scores),
        _numbers(arrays.z),
        [[band_name(number) for number in row] for row in arrays.bands.tolist()],
        searches,
        strict=True,
    )
    return [
        Answer(
            tuple(
                Hit(rank, id_, paths[id_], *facts)
                for rank, (id_, *facts) in enumerate(zip(*row, strict=True), 1)
                if id_ >= 0
            ),
            search,
        )
        for *row, search in rows
    ]


def _numbers(values: Vectors) -> list[list[float | None]]:
    """Return the values of an array as lists, with None for NaN."""
    known = ~np.isnan(values)
    if known.all():
        return [list(row) for row in values.tolist()]
    pairs = zip(values.tolist(), known.tolist(), strict=True)
    return [
        [value if there else None for value, there in zip(*pair, strict=True)] for pair in pairs
    ]


def hit_fields(hit: Hit) -> dict[str, Any]:
    """Return the fields of a hit; numbers are rounded to six digits.

    `inliers` and `copies` are there only if they were asked for.
    """
    fields: dict[str, Any] = {
        "rank": hit.rank,
        "id": hit.id,
        **path_fields(hit.path),
        "distance": round(hit.distance, 6),
        "similarity": round(hit.similarity, 6),
        "score": None if hit.score is None else round(hit.score, 6),
        "z": None if hit.z is None else round(hit.z, 6),
        "band": hit.band,
    }
    if hit.inliers is not None:
        fields["inliers"] = hit.inliers
    if hit.copies is not None:
        fields["copies"] = [
            {"id": copy.id, **path_fields(copy.path), "similarity": round(copy.similarity, 6)}
            for copy in hit.copies
        ]
    return fields


def answer_fields(answer: Answer) -> dict[str, Any]:
    """Return the fields of an answer: how the query was searched, and its hits."""
    search = answer.search
    return {
        "search": search.kind,
        "nprobe": search.nprobe,
        "recall": None if search.recall is None else round(search.recall, 6),
        "hits": [hit_fields(hit) for hit in answer.hits],
    }
