"""Keep the ranking in step with the images: neighbour lists, and what follows from them.

The rules (docs/answers.md explains them and their cost):

- There is a ranking from 256 images on (`FoldPolicy.ranked_from`). It is rebuilt, with a new
  mean and new references, once the number of images has doubled or halved since, or half of the
  references are gone.
- At the end of every run, new images get lists, and are inserted into the lists of their neighbours
  where they are nearer than the bound; lists that name a removed image are rebuilt. The rows
  whose lists have changed are computed again.
- These rows are a new layer, which absorbs the last layers that are at most four times as large.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from imgsearch.ann.neighbourhood import (
    NEIGHBOURS,
    Centre,
    Small,
    centred,
    centred_sums,
    leaders_of,
    near_lists,
    nearest,
    normalised,
    quantised,
    similarity_from_code,
    similarity_to_code,
    weighted_sums,
    weights,
)
from imgsearch.ann.recall import Assignment
from imgsearch.ann.threads import in_order
from imgsearch.ann.vectors import Block, Ids, Neighbours, Vectors, places_among, rows_of
from imgsearch.errors import REPAIR_IT, DamagedError, StorageError, reason_of
from imgsearch.indexing.policy import POLICY, FoldPolicy
from imgsearch.querying.ranking import References, moments, references_of
from imgsearch.querying.view import View, open_view
from imgsearch.storage.files import check_room, check_sha256
from imgsearch.storage.layers import MOST_ID, Layers, bytes_of_row, layer_name, write_layer
from imgsearch.storage.layout import Layout
from imgsearch.storage.records import RankingRecord, Snapshot
from imgsearch.storage.writer import CatalogWriter

__all__ = ["is_ranking_outgrown", "rank"]

GROWTH = 2  # factor on the number of images that the mean was taken of
REFERENCES = 500
CANDIDATES = 128  # images among which the neighbours of an image are chosen
EXACT_UP_TO = 8_000  # images: comparing each with every other takes a few seconds
PROBED = 16  # lists whose images are compared with those of a list in a larger collection
MOST_OF_LIST = 2_048  # images of a list that are compared; of a longer list, a sample is
MERGE = 4  # how many times the rows of a new layer an absorbed layer may have
IN_MEMORY = 64 << 20  # bytes of intermediate results, beyond which they are on the disk
_SEARCHED = 512  # images searched for together
_COMPARED = 8_192  # images they are compared with at a time
_ROWS = 64  # rows computed together
_SEED = 1234

#: Rows of images, their embeddings, and blocks of images to compare them with.
_Compared: TypeAlias = tuple[Ids, Vectors, Iterator[Block]]


def rank(layout: Layout, catalog: CatalogWriter, policy: FoldPolicy = POLICY) -> None:
    """Bring the ranking up to date by the rules above. Only the writer may call this function.

    Raises:
        StorageError: If there is not enough room on the disk.
    """
    view = open_view(layout, catalog)
    snapshot = view.snapshot
    last = max((shard.last_id for shard in snapshot.shards), default=0)
    if view.count < policy.ranked_from or last > MOST_ID:
        if snapshot.layers or snapshot.ranking:
            catalog.drop_ranking()
        return
    live = view.live_ids()
    record = snapshot.ranking
    if record is None or view.ranking is None or is_ranking_outgrown(view):
        record = _record(view, live)
        base = _Base(view, record)
        table, gone = _all_rows(layout, base, live), len(snapshot.layers)
    else:
        base = _Base(view, record)
        changed = _changed_rows(base, view.ranking.layers, live)
        if changed is None:
            return
        table, gone = changed, _absorbed(snapshot, len(changed.ids))
    _write(layout, catalog, base, table, live, gone)


def is_ranking_outgrown(view: View) -> bool:
    """Tell whether the mean and the references no longer suit the images."""
    record = view.snapshot.ranking
    if record is None:
        return False
    compared = references_of(record)
    left = int(view.has(compared).sum())
    return (
        view.count >= GROWTH * record.trained
        or view.count * GROWTH <= record.trained
        or left < len(compared) // 2
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Table:
    """Rows to write, ordered by id; the columns are those of `LayerRows`."""

    ids: Ids
    leaders: Ids
    along: Vectors
    means: Vectors
    deviations: Vectors
    neighbours: npt.NDArray[np.uint32]
    similarities: npt.NDArray[np.uint16]

    @classmethod
    def empty(cls, ids: Ids, neighbours: Any, similarities: Any) -> _Table:
        """Return a table of ids, with two columns that were made for it."""
        along, means, deviations = np.zeros((3, len(ids)), np.float32)
        return cls(ids, ids.copy(), along, means, deviations, neighbours, similarities)


class _Base:
    """A view with the mean and the references of its ranking."""

    def __init__(self, view: View, record: RankingRecord) -> None:
        self.view = view
        self.record = record
        self.dim = view.snapshot.model.dim
        self.live = view.live_ids()
        self.centre = Centre(np.frombuffer(record.mean, "<f4").astype(np.float32))
        self.references = References(record, view, self.centre)

    def describe(self, ids: Ids, vectors: Vectors) -> tuple[Vectors, Vectors, Vectors]:
        """Return the product with the mean, and mean and deviation of the similarities."""
        similarities = self.references.similarities(vectors)
        similarities[ids[:, None] == self.references.ids] = np.nan  # its own says nothing
        return self.centre.along(vectors), *moments(similarities)

    def candidates(self, ids: Ids) -> Iterator[tuple[Ids, Vectors, Neighbours]]:
        """Yield rows of `ids`, their embeddings, and the nearest other images, `[n, CANDIDATES]`.

        In a large collection, images of one list are compared with those of the lists around it.
        Many images in one list, such as copies of a picture, take no longer than others.
        """
        k = min(CANDIDATES, self.view.count - 1)

        def search(some: _Compared) -> tuple[Ids, Vectors, Neighbours]:
            rows, vectors, blocks = some
            return rows, vectors, nearest(ids[rows], vectors, blocks, k)

        yield from in_order(search, self._compared(ids))

    def _compared(self, ids: Ids) -> Iterator[_Compared]:
        """Yield rows of `ids`, their embeddings, and blocks of images to compare them with."""
        if self.view.count <= EXACT_UP_TO or not self.view.segments:
            for start in range(0, len(ids), _SEARCHED):
                rows = np.arange(start, min(start + _SEARCHED, len(ids)))
                yield rows, self.view.rows(ids[rows]), self._blocks(self.live)
            return
        index = self.view.segments[0]
        order = np.argsort(self.lists, kind="stable")
        ends = np.searchsorted(self.lists[order], np.arange(index.nlist + 1))
        own = self.lists[places_among(ids, self.live)]
        rows_by_list = np.argsort(own, kind="stable")
        numbers, starts = np.unique(own[rows_by_list], return_index=True)
        for number, of_list in zip(
            numbers.tolist(), np.split(rows_by_list, starts[1:]), strict=True
        ):
            for first in range(0, len(of_list), _SEARCHED):
                rows = of_list[first : first + _SEARCHED]
                vectors = self.view.rows(np.sort(ids[rows]))[np.argsort(np.argsort(ids[rows]))]
                middle = np.ascontiguousarray(vectors.mean(axis=0, keepdims=True))
                around = index.assign(middle, min(PROBED, index.nlist)).lists[0]
                members = [
                    _sample(order[ends[each] : ends[each + 1]], MOST_OF_LIST)
                    for each in {number, *around.tolist()}
                ]
                yield rows, vectors, self._blocks(self.live[np.sort(np.concatenate(members))])

    def _blocks(self, ids: Ids) -> Iterator[Block]:
        for start in range(0, len(ids), _COMPARED):
            some = ids[start : start + _COMPARED]
            yield Block(some, self.view.rows(some))

    def by_list(self, ids: Ids) -> Ids:
        """Return ids in the order of their lists, as images of one list share neighbours."""
        if not self.view.segments or len(ids) <= _ROWS:
            return ids
        return ids[np.argsort(self.lists[places_among(ids, self.live)], kind="stable")]

    @cached_property
    def lists(self) -> Ids:
        """The list of each image, int64 `[n]`."""
        assigned = Assignment.of(self.view.segments)
        lists = np.where(rows_of(self.live, assigned.ids), assigned.of_ids(self.live), 0)
        for ids, vectors in self.view.live_tail():
            lists[np.searchsorted(self.live, ids)] = self.view.segments[0].assign_one(vectors)
        return lists

    def similarities(self, found: Neighbours, own: Vectors, theirs: Vectors) -> Vectors:
        """Return the centred similarities of candidates, from the products with the mean."""
        squared: Vectors = np.where(found.there, found.distances, np.float32(4))
        return self.centre.similarities(
            np.float32(1) - squared / np.float32(2), own[:, None], theirs
        )


def _sample(members: Ids, most: int) -> Ids:
    """Return members, or `most` of them at equal distances if there are more."""
    if len(members) <= most:
        return members
    return members[np.linspace(0, len(members) - 1, most, dtype=np.int64)]


def _record(view: View, live: Ids) -> RankingRecord:
    """Take the mean of all embeddings, and draw the references."""
    total = np.zeros(view.snapshot.model.dim)
    for _, vectors in view.live_blocks():
        total += vectors.sum(axis=0, dtype=np.float64)
    if not np.isfinite(total).all():
        raise DamagedError(f"an embedding in {view.folder} is not a number; {REPAIR_IT}")
    mean = np.asarray(total / len(live), "<f4")
    drawn = np.random.default_rng(_SEED).choice(live, min(REFERENCES, len(live)), replace=False)
    return RankingRecord(len(live), mean.tobytes(), np.sort(drawn).astype("<i8").tobytes())


def _blocks(base: _Base, ids: Ids) -> Iterator[tuple[slice, Ids, Vectors]]:
    for start in range(0, len(ids), _SEARCHED):
        rows = slice(start, start + _SEARCHED)
        yield rows, ids[rows], base.view.rows(ids[rows])


def _all_rows(layout: Layout, base: _Base, live: Ids) -> _Table:
    """Return a row for every image, without its augmented embedding."""
    count, width = len(live), min(CANDIDATES, len(live) - 1)
    check_room(layout.layers, count * 2 * (bytes_of_row(base.dim) + 6 * width))
    table = _Table.empty(
        live,
        _scratch(layout.layers, (count, NEIGHBOURS), np.uint32),
        _scratch(layout.layers, (count, NEIGHBOURS + 1), np.uint16),
    )
    for rows, ids, vectors in _blocks(base, live):
        described = base.describe(ids, vectors)
        table.along[rows], table.means[rows], table.deviations[rows] = described
    near = _scratch(layout.layers, (count, width), np.uint32)
    codes = _scratch(layout.layers, (count, width), np.uint16)
    for places, _, found in base.candidates(live):
        theirs = table.along[places_among(found.ids, live)]
        similarities = base.similarities(found, table.along[places], theirs)
        table.leaders[places] = leaders_of(live[places], found.ids, similarities)
        near[places] = np.maximum(found.ids, 0)
        codes[places] = similarity_to_code(similarities)
    for start in range(0, count, _SEARCHED):
        rows = slice(start, start + _SEARCHED)
        candidates = near[rows].astype(np.int64)
        leaders = table.leaders[places_among(candidates, live)]
        similarities = similarity_from_code(codes[rows])
        _set_lists(table, rows, candidates, similarities, leaders)
    return table


def _set_lists(
    table: _Table, rows: slice | Ids, candidates: Ids, similarities: Vectors, leaders: Ids
) -> None:
    """Choose the neighbours of some rows from candidates, whose id is 0 where there is none."""
    lists = near_lists(similarities, leaders, table.leaders[rows], candidates != 0)
    chosen = np.take_along_axis(candidates, np.maximum(lists.places, 0), 1)
    table.neighbours[rows] = np.where(lists.places >= 0, np.maximum(chosen, 0), 0)
    table.similarities[rows] = similarity_to_code(lists.similarities)


def _changed_rows(base: _Base, layers: Layers, live: Ids) -> _Table | None:
    """Return the rows whose lists are new or have changed; None if there are none."""
    known = layers.ids()
    new = np.setdiff1d(live, known, assume_unique=True)
    gone = np.setdiff1d(known, live, assume_unique=True)
    orphaned = _naming(layers, gone, live)
    again = np.union1d(new, orphaned)
    if not again.size:
        return None
    facts = _Facts(base, layers, new)
    found = Neighbours.scattered(
        len(again),
        min(CANDIDATES, base.view.count - 1),
        ((rows, part) for rows, _, part in base.candidates(again)),
    )
    similarities = base.similarities(found, facts.along(again), facts.along(found.ids))
    is_new = rows_of(again, new)
    facts.leaders = leaders_of(new, found.ids[is_new], similarities[is_new])
    inserted = _inserted(layers, found.ids[is_new], similarities[is_new], new, again)
    changed = np.union1d(again, inserted.ids)
    shape = (len(changed), NEIGHBOURS)
    table = _Table.empty(
        changed, np.zeros(shape, np.uint32), np.zeros((len(changed), NEIGHBOURS + 1), np.uint16)
    )
    places = layers.places(changed)
    for name in ("along", "means", "deviations"):
        getattr(table, name)[:] = layers.take(name, places)
    at = np.searchsorted(changed, new)
    table.along[at], table.means[at], table.deviations[at] = facts.described
    table.leaders[:] = facts.leaders_of(changed)
    candidates = np.maximum(found.ids, 0)
    _set_lists(
        table,
        np.searchsorted(changed, again),
        candidates,
        similarities,
        facts.leaders_of(candidates),
    )
    _set_lists(
        table,
        np.searchsorted(changed, inserted.ids),
        inserted.candidates,
        inserted.similarities,
        facts.leaders_of(inserted.candidates),
    )
    return table


class _Facts:
    """What is known of images, new ones and those in layers."""

    def __init__(self, base: _Base, layers: Layers, new: Ids) -> None:
        self._layers = layers
        self._new = new
        parts = [base.describe(ids, vectors) for _, ids, vectors in _blocks(base, new)]
        empty = np.empty(0, np.float32)
        self.described = (
            tuple(map(np.concatenate, zip(*parts, strict=True))) if parts else (empty,) * 3
        )
        self.leaders = new  # of the new images, once they are known

    def along(self, ids: Ids) -> Vectors:
        """Return the products with the mean of ids of any shape."""
        old: Vectors = self._layers.take("along", self._layers.places(ids))
        along: Vectors = self._with_new(ids, old, self.described[0])
        return along

    def leaders_of(self, ids: Ids) -> Ids:
        """Return the leaders of ids of any shape; of -1 and 0, that is they themselves."""
        places = self._layers.places(ids)
        known = self._layers.take("leaders", places).astype(np.int64)
        leaders: Ids = self._with_new(ids, np.where(places.there, known, ids), self.leaders)
        return leaders

    def _with_new(self, ids: Ids, values: Any, new: Any) -> Any:
        if self._new.size:
            rows = np.searchsorted(self._new, ids).clip(max=self._new.size - 1)
            return np.where(self._new[rows] == ids, new[rows], values)
        return values


def _naming(layers: Layers, gone: Ids, live: Ids) -> Ids:
    """Return the ids of the images whose lists name an image that is gone."""
    found = [np.empty(0, np.int64)]
    for number, layer in enumerate(layers.rows if gone.size else ()):
        for start in range(0, len(layer.ids), _SEARCHED):
            rows = slice(start, start + _SEARCHED)
            ids = layer.ids[rows]
            names = rows_of(layer.neighbours[rows].astype(np.int64), gone).any(axis=1)
            found.append(ids[names & (layers.places(ids).files == number)])
    ids = np.unique(np.concatenate(found))
    return ids[rows_of(ids, live)]


@dataclass(frozen=True, slots=True, eq=False)
class _Inserted:
    """Lists of known images into which new ones are inserted: candidates and similarities."""

    ids: Ids
    candidates: Ids
    similarities: Vectors


def _inserted(
    layers: Layers, candidates: Ids, similarities: Vectors, new: Ids, again: Ids
) -> _Inserted:
    """Insert new images into the lists of their candidates, unless these are rebuilt anyway."""
    flat = candidates.reshape(-1)
    places = layers.places(flat)
    bounds = similarity_from_code(layers.take("similarities", places)[:, -1])
    nearer = places.there & (similarities.reshape(-1) > bounds) & ~rows_of(flat, again)
    asked = np.repeat(new, candidates.shape[1])[nearer]
    theirs, how = flat[nearer], similarities.reshape(-1)[nearer]
    order = np.lexsort((-how, theirs))
    asked, theirs, how = asked[order], theirs[order], how[order]
    ids, starts, counts = np.unique(theirs, return_index=True, return_counts=True)
    number = np.arange(len(theirs)) - np.repeat(starts, counts)
    kept = number <= NEIGHBOURS
    row, column = np.repeat(np.arange(len(ids)), counts)[kept], number[kept] + NEIGHBOURS + 1
    there = layers.places(ids)
    old = similarity_from_code(layers.take("similarities", there))
    width = NEIGHBOURS + 1 + min(int(counts.max(initial=0)), NEIGHBOURS + 1)
    listed = np.zeros((len(ids), width), np.int64)
    known = np.full((len(ids), width), np.float32(-1))
    listed[:, :NEIGHBOURS] = layers.take("neighbours", there)
    listed[:, NEIGHBOURS] = -1  # stands for the image that sets the bound: the last of all
    known[:, : NEIGHBOURS + 1] = old
    listed[row, column], known[row, column] = asked[kept], how[kept]
    return _Inserted(ids, listed, known)


def _absorbed(snapshot: Snapshot, rows: int) -> int:
    """Return how many of the last layers a new one of so many rows absorbs."""
    taken = 0
    for layer in reversed(snapshot.layers):
        if layer.count > MERGE * rows:
            break
        rows, taken = rows + layer.count, taken + 1
    return taken


def _write(
    layout: Layout, catalog: CatalogWriter, base: _Base, table: _Table, live: Ids, gone: int
) -> None:
    """Compute the augmented embeddings of rows, write them as a layer, and commit it.

    `gone` is the number of the last layers that it replaces: their other rows are taken over.
    """
    snapshot = base.view.snapshot
    replaced = snapshot.layers[len(snapshot.layers) - gone :]
    ranking = base.view.ranking
    old = Layers([] if ranking is None else ranking.layers.rows, base.dim)
    absorbed = Layers(old.rows[len(old.rows) - gone :] if gone else [], base.dim)
    if len(table.ids) < len(live):
        for layer in replaced:
            check_sha256(layout.layers / layer_name(layer.number), layer.sha256)
    ids = np.union1d(table.ids, np.intersect1d(absorbed.ids(), live, assume_unique=True))
    check_room(layout.layers, 3 * len(ids) * bytes_of_row(base.dim))
    columns = _taken_over(table, absorbed, ids)
    scales = np.zeros(len(ids), np.float32)
    codes = _codes(layout, base, table, old, absorbed, ids, scales)
    number = catalog.next_layer()
    rest = (ids, *columns[:4], scales, *columns[4:])
    layer = write_layer(layout.layers, number, base.dim, len(ids), codes, rest)
    catalog.replace_layers(replaced, layer, base.record)


def _taken_over(table: _Table, absorbed: Layers, ids: Ids) -> list[npt.NDArray[Any]]:
    """Return the columns of a new layer other than the ids, the codes and the scales."""
    names = ("leaders", "along", "means", "deviations", "neighbours", "similarities")
    if len(ids) == len(table.ids):
        return [getattr(table, name) for name in names]
    places, at = absorbed.places(ids), np.searchsorted(ids, table.ids)
    columns = []
    for name in names:
        column = absorbed.take(name, places)
        column[at] = getattr(table, name)
        columns.append(column)
    return columns


def _codes(
    layout: Layout,
    base: _Base,
    table: _Table,
    old: Layers,
    absorbed: Layers,
    ids: Ids,
    scales: Vectors,
) -> Iterator[Small]:
    """Yield the codes of the augmented embeddings of ids, and set their scales."""

    def own(wanted: Ids) -> Vectors:
        return centred(base.view.rows(wanted), base.centre)

    live = base.live
    named = _named(table, old, live)
    if not len(named):  # of copies of one picture, none has neighbours: any image does, unweighted
        named = live[:1]
    once = _scratch(layout.layers, (len(named), base.dim), np.int8)
    once_scales = np.zeros(len(named), np.float32)
    for part in map(np.sort, _parts(base.by_list(named))):
        rows = np.searchsorted(named, part)
        neighbours, weight = _lists(table, old, part, live)
        along = _along(table, old, neighbours)
        sums = centred_sums(base.centre, neighbours, weight, along, base.view.rows)
        vectors = normalised(own(part) + sums)
        once[rows], once_scales[rows] = quantised(vectors)

    def once_augmented(wanted: Ids) -> Vectors:
        return once.take(places_among(wanted, named), axis=0).astype(np.float32)

    twice = _scratch(layout.layers, (len(table.ids), base.dim), np.int8)
    twice_scales = np.zeros(len(table.ids), np.float32)
    for part in map(np.sort, _parts(base.by_list(table.ids))):
        rows = np.searchsorted(table.ids, part)
        neighbours, weight = _lists(table, old, part, named)
        weight *= once_scales.take(places_among(neighbours, named))
        sums = weighted_sums(neighbours, weight, once_augmented)
        vectors = normalised(own(part) + sums)
        twice[rows], twice_scales[rows] = quantised(vectors)
    start = 0
    for part in _parts(ids):
        changed = rows_of(part, table.ids)
        places, rows = absorbed.places(part), np.searchsorted(table.ids, part[changed])
        codes, found = absorbed.take("codes", places), absorbed.take("scales", places)
        if changed.any():
            codes, found = np.array(codes), np.array(found)
            codes[changed], found[changed] = twice[rows], twice_scales[rows]
        scales[start : start + len(part)] = found
        yield codes
        start += len(part)


def _parts(ids: Ids) -> Sequence[Ids]:
    return [ids[start : start + _ROWS] for start in range(0, len(ids), _ROWS)] or [ids]


def _named(table: _Table, old: Layers, live: Ids) -> Ids:
    """Return the neighbours of the images of a table that have a weight, ascending."""
    known = np.zeros(len(live), np.bool_)
    for start in range(0, len(table.ids), _SEARCHED):
        part = table.ids[start : start + _SEARCHED]
        neighbours, weight = _lists(table, old, part, live)
        known[places_among(neighbours[weight > 0], live)] = True
    return live[known]


def _along(table: _Table, old: Layers, ids: Ids) -> Vectors:
    """Return the products with the mean of ids of any shape, float32."""
    known: Vectors = old.take("along", old.places(ids))
    new = table.along[places_among(ids, table.ids)]
    return np.where(rows_of(ids, table.ids), new, known)


def _lists(table: _Table, old: Layers, ids: Ids, among: Ids) -> tuple[Ids, Vectors]:
    """Return the neighbours of ids, int64 `[n, NEIGHBOURS]`, and their weights, float32.

    Only neighbours `among` some ids, ascending, have a weight.
    """
    places = old.places(ids)
    neighbours = np.array(old.take("neighbours", places), np.int64)
    codes = np.array(old.take("similarities", places))
    here = rows_of(ids, table.ids)
    rows = np.searchsorted(table.ids, ids[here])
    neighbours[here], codes[here] = table.neighbours[rows], table.similarities[rows]
    weight = weights(similarity_from_code(codes))
    return neighbours, np.where(rows_of(neighbours, among), weight, np.float32(0))


def _scratch(folder: Path, shape: tuple[int, int], kind: type[np.generic]) -> npt.NDArray[Any]:
    """Return an array of zeros for intermediate results, on the disk if it is large.

    Its file has no name: nothing is left of it when the process ends, however it does.
    """
    size = shape[0] * shape[1] * np.dtype(kind).itemsize
    if size <= IN_MEMORY:
        return np.zeros(shape, kind)
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            if hasattr(os, "posix_fallocate"):  # a full disk is noticed here, not in the array
                os.posix_fallocate(file.fileno(), 0, size)
            else:
                file.truncate(size)
            return np.memmap(file, kind, "r+", 0, shape)
    except OSError as error:
        raise StorageError(f"cannot write in {folder}: {reason_of(error)}") from error
