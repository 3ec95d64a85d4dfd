"""Look at the images of hits: verify what they show, and find versions of the same picture.

Embeddings rank; looking confirms. Local features tell whether a hit shows the same object as
the query, or part of the same picture (`imgsearch.images.keypoints`). A comparison of pixels tells
versions of the same picture from other shots (`imgsearch.images.agreement`). Worker processes
decode the images of the collection, with limits on time and memory.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import Protocol, Self, TypeVar

import numpy as np
from PIL import Image

from imgsearch.ann.vectors import Vectors
from imgsearch.embedding.decoder import Decoder, Stored
from imgsearch.embedding.lanes import FullError, Lane, decoders
from imgsearch.embedding.pipeline import cores
from imgsearch.errors import ImageError, InputError, PackageError
from imgsearch.images.agreement import CloseUp, agreement
from imgsearch.images.compare import ALIKE, EDGE, Overlay, flattened
from imgsearch.images.crop import Box
from imgsearch.images.decode import Pixels, picture_of, pixels_of
from imgsearch.images.keypoints import FEATURES, Keypoints, Match, keypoints_of, match, mirrored
from imgsearch.images.limits import LIMITS, Limits
from imgsearch.images.render import grey, grey_of, part_of, upright_size
from imgsearch.querying.embedder import opened_query
from imgsearch.querying.hits import Answer, Hit
from imgsearch.querying.options import Query, SearchOptions, Shown
from imgsearch.querying.ranking import BANDS, NEAR_COPY, SAME_PICTURE, Band, Rank
from imgsearch.storage.fingerprints import Light
from imgsearch.storage.records import Entry

__all__ = [
    "FOLDED",
    "HIT_EDGE",
    "QUERY_EDGE",
    "QUERY_SCALE",
    "VERIFIED",
    "Looker",
    "Sides",
    "before_looking",
    "best_match",
    "match_with",
    "order_verified",
    "sides_of",
]

VERIFIED = 50  # hits whose local features are compared with those of the query
FOLDED = 40  # hits that are searched for beyond those that are shown, as some are folded
NEAR = 0.90  # cosine from which the pixels of two images are compared
HIT_EDGE = 320  # pixels of the longer edge of a hit whose features are found
QUERY_EDGE = 640  # the same of a query
QUERY_FEATURES = 1_000  # features of a query, of which a small part may be what the hit shows
QUERY_SCALE = 3.0  # scale to which a small query is enlarged at most
_CLOSE = 1_024  # pixels of the longer edge of pictures that are compared
_REMEMBERED = 2_000  # images whose features are in memory, some 300 KB each
_DECIDED = 200_000  # pairs of images that are known to be versions of one picture, or not
_KEPT = 64  # close pictures in memory, 3 MB each

_Found = TypeVar("_Found")


class Entries(Protocol):
    """The facts about each image that is looked at."""

    def find(self, ids: Sequence[int]) -> dict[int, Entry]:
        """Return the entries of those images that exist."""
        ...

    def embeddings(self, ids: Sequence[int]) -> Vectors:
        """Return the embeddings of images, float32 `[n, dim]`, in the order of `ids`."""
        ...

    def lights(self, ids: Sequence[int]) -> dict[int, Light]:
        """Return the small pictures of those images whose fingerprint has one."""
        ...


@dataclass(frozen=True, slots=True)
class Sides:
    """The local features of a query, and those of its mirror image."""

    plain: Keypoints
    mirrored: Keypoints


@dataclass(frozen=True, slots=True, eq=False)
class _Glimpse:
    """A picture to compare: a small one first, and a close one only if needed.

    The small one is uint8 `[EDGE, EDGE, 3]`, or its luminance, `[EDGE, EDGE]`.
    """

    small: Pixels
    close: Callable[[], CloseUp]


def before_looking(options: SearchOptions) -> SearchOptions:
    """Return the options of the search whose hits are looked at.

    Hits to verify are the nearest by cosine: of the images that a query is a part or a distorted
    picture of, the ranking by the collection leaves fewer among the first 50.
    """
    k = max(options.k, VERIFIED) if options.verify else options.k
    k = max(k, options.k + FOLDED) if options.fold else k
    rank: Rank = "cosine" if options.verify else options.rank
    return replace(options, k=k, rank=rank, min_band=None, verify=False, fold=False)


class Looker:
    """Looks at images, in workers and threads that start on first use. Safe for concurrent use."""

    def __init__(self, entries: Entries, lane: Lane | None = None) -> None:
        """Take the facts about the images, and decoders to share; nothing is started."""
        self._entries = entries
        self._lane = lane
        self._lock = threading.Lock()
        self._started: tuple[Lane, ThreadPoolExecutor] | None = None
        self._open = ExitStack()
        self._known: dict[tuple[int, int], Keypoints | None] = {}
        self._versions: dict[tuple[int, int], bool] = {}  # whether two images are, by their ids

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the workers, whatever they are doing."""
        with self._lock:
            self._started = None
            self._open.close()

    def refined(self, query: Query, answer: Answer, options: SearchOptions) -> Answer:
        """Return an answer after looking at its hits as the options ask.

        Args:
            query: The query; an image if its hits are to be verified.
            answer: The answer to it, by `before_looking`.
            options: Options of the search.

        Raises:
            ImageError: If the query cannot be read.
            InputError: If the query is not an image, and its hits are to be verified.
            PackageError: If OpenCV is not installed, and the hits are to be verified.
        """
        hits = list(answer.hits)
        entries = self._entries.find([hit.id for hit in hits]) if hits else {}
        if options.verify and hits:
            hits = self._verified(sides_of(query), hits, entries)
        hits = self._same_pictures(query, hits, entries)
        if options.fold and hits:
            hits = self._folded(hits, entries)
        return Answer(_ranked(_at_least(options.min_band, hits), options.k), answer.search)

    def verified(self, answer: Answer, query: Pixels, k: int, min_band: Band | None) -> Answer:
        """Return an answer with verified hits first, `k` at most, none below a band.

        Args:
            answer: The nearest hits by cosine; the first `VERIFIED` are verified.
            query: The query in grey, uint8 `[height, width]`, its longer edge of `QUERY_EDGE`
                pixels unless it had to be enlarged by more than `QUERY_SCALE`.
            k: Number of hits.
            min_band: The weakest band of a hit; None for all.

        Raises:
            PackageError: If OpenCV is not installed.
        """
        hits = list(answer.hits)
        if hits:
            entries = self._entries.find([hit.id for hit in hits])
            hits = self._verified(_sides_in(query), hits, entries)
        return Answer(_ranked(_at_least(min_band, hits), k), answer.search)

    def folded(self, answer: Answer, k: int) -> Answer:
        """Return an answer with one hit for each picture, `k` at most, and its copies.

        The answer should have `FOLDED` hits more, as some are versions of others.
        """
        hits = list(answer.hits)
        entries = self._entries.find([hit.id for hit in hits]) if hits else {}
        return Answer(_ranked(self._folded(hits, entries), k), answer.search)

    def order(self, query: Entry, hits: Sequence[Entry | None]) -> list[int]:
        """Return the places of hits of an image, nearest first, in the order of `order_verified`.

        Features are kept for the next call. An image that cannot be read is not verified.
        """
        own = self._features(query, QUERY_EDGE, QUERY_FEATURES)
        if own is None:
            return list(range(len(hits)))
        sides = Sides(own, mirrored(own))

        def count(hit: Entry | None) -> int:
            features = None if hit is None else self._features(hit, HIT_EDGE, FEATURES)
            found = None if features is None else best_match(sides, features)
            return 0 if found is None else found.inliers

        inliers = list(self._threads().map(count, hits))
        embeddings = self._entries.embeddings([(hit or query).id for hit in (query, *hits)])
        return order_verified(inliers, (embeddings[1:] @ embeddings[0]).tolist())

    def _features(self, entry: Entry, edge: int, most: int) -> Keypoints | None:
        key = entry.id, edge
        try:
            return self._known[key]
        except KeyError:
            pass
        picture = self._look(
            lambda decoder, entry: decoder.grey(Stored(entry.path, entry.digest), edge), entry
        )
        found = None if picture is None else keypoints_of(picture, most)
        if len(self._known) >= _REMEMBERED:
            self._known.clear()
        self._known[key] = found
        return found

    def _verified(self, sides: Sides, hits: Sequence[Hit], entries: dict[int, Entry]) -> list[Hit]:
        """Return the hits, verified ones first."""

        def look(decoder: Decoder, entry: Entry) -> Pixels:
            return decoder.grey(Stored(entry.path, entry.digest), HIT_EDGE)

        def inliers(hit: Hit) -> int:
            picture = self._look(look, entries.get(hit.id))
            found = None if picture is None else best_match(sides, keypoints_of(picture))
            return 0 if found is None else found.inliers

        examined, rest = hits[:VERIFIED], hits[VERIFIED:]
        counts = list(self._threads().map(inliers, examined))
        seen = [
            replace(hit, inliers=count, band="same thing" if count else hit.band)
            for hit, count in zip(examined, counts, strict=True)
        ]
        order = order_verified(counts, [hit.similarity for hit in seen])
        return [*(seen[place] for place in order), *rest]

    def _same_pictures(
        self, query: Query, hits: Sequence[Hit], entries: dict[int, Entry]
    ) -> list[Hit]:
        """Return the hits, with the band "same picture" where they are versions of the query."""
        near = [hit for hit in hits if hit.similarity >= NEAR]
        own = _glimpse_of(query) if near else None
        if own is None:
            return list(hits)
        glimpses = self._glimpses(near, entries)
        same = self._compared(own, glimpses)
        return [replace(hit, band=SAME_PICTURE) if same.get(hit.id) else hit for hit in hits]

    def _folded(self, hits: Sequence[Hit], entries: dict[int, Entry]) -> list[Hit]:
        """Return one hit for each picture: its first version, with the others as `copies`."""
        embeddings = self._entries.embeddings([hit.id for hit in hits])
        near = embeddings @ embeddings.T >= NEAR
        compared = [hit for hit, row in zip(hits, near, strict=True) if row.sum() > 1]
        glimpses = self._glimpses(compared, entries)
        places = {hit.id: place for place, hit in enumerate(hits)}
        left = dict.fromkeys(places)
        found: list[Hit] = []
        for hit in hits:
            if hit.id not in left:
                continue
            del left[hit.id]
            others = [id_ for id_ in left if near[places[hit.id], places[id_]]]
            same = set(_with_digest_of(hit.id, others, entries))
            unsure = {id_: glimpses[id_] for id_ in others if id_ not in same and id_ in glimpses}
            if hit.id in glimpses and unsure:
                same |= self._versions_of(hit.id, glimpses[hit.id], unsure)
            for id_ in same:
                del left[id_]
            copies = tuple(hits[places[id_]] for id_ in others if id_ in same)
            found.append(replace(hit, copies=copies))
        return found

    def _versions_of(self, id_: int, own: _Glimpse, others: dict[int, _Glimpse]) -> set[int]:
        """Return the ids of the pictures that are versions of an image; they are remembered."""
        known = {other: self._versions.get((id_, other)) for other in others}
        unknown = {other: others[other] for other, same in known.items() if same is None}
        compared = self._compared(own, unknown)
        if len(self._versions) >= _DECIDED:
            self._versions.clear()
        self._versions.update({(id_, other): same for other, same in compared.items()})
        return {other for other, same in (known | compared).items() if same}

    def _compared(self, one: _Glimpse, others: dict[int, _Glimpse]) -> dict[int, bool]:
        """Tell of each picture whether it is a version of one.

        A picture is left out if it would have to be looked at closely, but cannot be read now.
        """
        if not others:
            return {}
        rows = np.stack([flattened(other.small) for other in others.values()])
        overlays = Overlay(one.small).likeness(rows)
        alike = [id_ for id_, row in zip(others, overlays.tolist(), strict=True) if row >= ALIKE]
        back = [id_ for id_ in others if id_ not in alike]  # one may be a part of the other
        own = flattened(one.small)[None]
        alike += [id_ for id_ in back if Overlay(others[id_].small).likeness(own)[0] >= ALIKE]
        found = {id_: False for id_ in others if id_ not in alike}
        if not alike:
            return found
        try:
            closely = one.close()
        except ImageError:
            return found

        def same(id_: int) -> bool | None:
            try:
                other = others[id_].close()
            except ImageError:
                return None
            return bool(agreement(closely, other)) or bool(agreement(other, closely))

        verdicts = zip(alike, self._threads().map(same, alike), strict=True)
        return found | {id_: verdict for id_, verdict in verdicts if verdict is not None}

    def _glimpses(self, hits: Iterable[Hit], entries: dict[int, Entry]) -> dict[int, _Glimpse]:
        """Return glimpses of those hits that have a fingerprint or whose files can be read."""
        there = [entries[hit.id] for hit in hits if hit.id in entries]
        small = dict(self._entries.lights([entry.id for entry in there]))
        unknown = [entry for entry in there if entry.id not in small]

        def look(decoder: Decoder, entry: Entry) -> Pixels:
            return decoder.glance(Stored(entry.path, entry.digest), EDGE).pixels

        closely = lru_cache(_KEPT)(lambda id_: self._at_once(_seen_closely, entries[id_]))
        if unknown:
            seen = self._threads().map(lambda entry: self._look(look, entry), unknown)
            pictures = zip(unknown, seen, strict=True)
            small |= {entry.id: pixels for entry, pixels in pictures if pixels is not None}
        return {id_: _Glimpse(pixels, partial(closely, id_)) for id_, pixels in small.items()}

    def _look(self, look: Callable[[Decoder, Entry], _Found], entry: Entry | None) -> _Found | None:
        """Return what a look at an image finds, or None if its file cannot be read."""
        try:
            return None if entry is None else self._at_once(look, entry)
        except ImageError:
            return None

    def _at_once(self, look: Callable[[Decoder, Entry], _Found], entry: Entry) -> _Found:
        lane, _ = self._start()
        try:
            with lane.decoder() as decoder:
                return look(decoder, entry)
        except FullError as error:
            raise ImageError(entry.path, "too many images are being decoded") from error

    def _threads(self) -> ThreadPoolExecutor:
        return self._start()[1]

    def _start(self) -> tuple[Lane, ThreadPoolExecutor]:
        with self._lock:
            if self._started is None:
                # One place more than there are cores, as each waits for its worker now and then.
                places = cores() + 1
                lane = self._lane
                if lane is None:
                    lane = self._open.enter_context(decoders(places))
                    lane.warm_up()
                threads = ThreadPoolExecutor(places, "imgsearch-looking")
                self._open.callback(threads.shutdown, wait=False, cancel_futures=True)
                self._started = lane, threads
            return self._started


def order_verified(inliers: Sequence[int], similarities: Sequence[float]) -> list[int]:
    """Return the places of hits, nearest first, in the order to show them in.

    Near copies that are verified come first, as other views of a thing may have more features that
    agree; then other verified hits, those with the most inliers first; then the rest.
    """

    def rank(place: int) -> tuple[bool, int]:
        is_copy = inliers[place] > 0 and similarities[place] >= NEAR_COPY
        return not is_copy, 0 if is_copy else -inliers[place]

    return sorted(range(len(inliers)), key=rank)


def sides_of(query: Query, crop: Box | None = None, limits: Limits = LIMITS) -> Sides:
    """Return the local features of a query.

    Raises:
        ImageError: If the image cannot be read, or has no such part.
        InputError: If the query is not an image.
        PackageError: If OpenCV is not installed.
    """
    if isinstance(query, Shown):
        return sides_of(query.source, query.crop, query.limits)
    with opened_query(query, limits) as image:
        part = part_of(image, crop)
        seen = grey_of(image, QUERY_EDGE, part, most_scale=QUERY_SCALE)
    return _sides_in(seen)


def _sides_in(picture: Pixels) -> Sides:
    plain = keypoints_of(picture, QUERY_FEATURES)
    return Sides(plain, mirrored(plain))


def match_with(
    query: Query, path: str, crop: Box | None = None, limits: Limits = LIMITS
) -> Match | None:
    """Return how a query lies in the image at a path; None also if OpenCV is not installed.

    Raises:
        ImageError: If an image cannot be read, or has no such part.
        InputError: If the query is not an image.
    """
    try:
        sides = sides_of(query, crop, limits)
        return best_match(sides, keypoints_of(grey(path, HIT_EDGE, limits=limits)))
    except PackageError:
        return None


def best_match(query: Sides, hit: Keypoints) -> Match | None:
    """Return how a query, or its mirror image, lies in a hit; None if it does not."""
    found, other = match(query.plain, hit), match(query.mirrored, hit)
    if other is None or (found is not None and found.inliers >= other.inliers):
        return found
    outline = tuple((round(1 - x, 4), y) for x, y in other.query_outline)
    return replace(other, query_outline=outline)


def _glimpse_of(query: Query, limits: Limits = LIMITS) -> _Glimpse | None:
    """Return a glimpse of a query; None for an embedding, and for a part of an image."""
    if isinstance(query, Shown):
        return None if query.crop else _glimpse_of(query.source, query.limits)
    try:
        with opened_query(query, limits) as image:
            small, close = pixels_of(image, EDGE), _close_up(image)
    except ImageError:
        raise
    except InputError:
        return None
    return _Glimpse(small, lambda: close)


def _close_up(image: Image.Image) -> CloseUp:
    width, height = upright_size(image)
    scale = min(1.0, _CLOSE / max(width, height))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return CloseUp(np.asarray(picture_of(image, size), np.uint8), None)


def _seen_closely(decoder: Decoder, entry: Entry) -> CloseUp:
    return decoder.frames(Stored(entry.path, entry.digest), 0).close[0]


def _with_digest_of(id_: int, others: Sequence[int], entries: dict[int, Entry]) -> Iterator[int]:
    """Yield the ids of other images that have the same content as one."""
    for other in others:
        if id_ in entries and other in entries and entries[id_].digest == entries[other].digest:
            yield other


def _at_least(band: Band | None, hits: list[Hit]) -> list[Hit]:
    """Return the hits of a band or a stronger one; a hit of no band is never too weak."""
    least = 0 if band is None else BANDS.index(band)
    return [hit for hit in hits if hit.band is None or _number(hit) >= least]


def _ranked(hits: Sequence[Hit], k: int) -> tuple[Hit, ...]:
    """Return the first k hits, ranked from 1."""
    return tuple(replace(hit, rank=rank) for rank, hit in enumerate(hits[:k], 1))


def _number(hit: Hit) -> int:
    return len(BANDS) if hit.band == SAME_PICTURE else BANDS.index(hit.band or BANDS[0])
