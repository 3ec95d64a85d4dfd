"""Find the images of a collection that are copies of one another.

Exact copies are recognised by their digest. Of all other images, those with near embeddings or
near hashes are candidates (`imgsearch.maintenance.candidates`); an image is a copy if its pixels
agree with those of the image that is kept, tile by tile.
"""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from itertools import chain

import numpy as np

from imgsearch.ann.threads import single_threaded_blas
from imgsearch.ann.vectors import Ids
from imgsearch.embedding.lanes import decoders
from imgsearch.embedding.pipeline import cores
from imgsearch.maintenance.candidates import Candidates, Pair
from imgsearch.maintenance.copies import Duplicates
from imgsearch.maintenance.grouping import Grouping
from imgsearch.maintenance.kinship import Kinship
from imgsearch.maintenance.looks import Looks, is_there
from imgsearch.maintenance.preference import Preference
from imgsearch.maintenance.searched import Searched, recall_search, remember_search
from imgsearch.maintenance.turning import may_be_turned
from imgsearch.maintenance.verdicts import Verdicts
from imgsearch.querying.options import number
from imgsearch.querying.view import View, open_view
from imgsearch.storage.catalog import Catalog, open_catalog
from imgsearch.storage.distinct import read_distinct
from imgsearch.storage.fingerprints import Prints
from imgsearch.storage.layout import Layout

__all__ = ["MIN_SIMILARITY", "find_duplicates"]

MIN_SIMILARITY = 0.75  # of embeddings: a small copy can be this far from its image
BLOCK = 8_192  # images

Progress = Callable[[int, int], None]


def find_duplicates(
    directory: str | os.PathLike[str],
    *,
    min_similarity: float = MIN_SIMILARITY,
    keep_in: Iterable[str | os.PathLike[str]] = (),
    prefer: str | None = None,
    progress: Progress | None = None,
) -> Duplicates:
    """Return groups of copies, each with the image to keep; change nothing.

    Files that were re-encoded, resized, brightened, turned to grey, cropped, mirrored or turned by
    quarters are copies (see `imgsearch.images.agreement`). Each of them agrees with the image that
    is kept, and holds nothing that this image lacks (see `imgsearch.images.holdings`). Images that
    were turned by any angle, framed, captioned or edited are in the group of their original, too
    (see `imgsearch.images.relation`), but have something of their own (`Copy.own`).

    Args:
        directory: The collection itself.
        min_similarity: The minimum similarity of embeddings for their pixels to be compared: a
            lower one finds more and takes longer.
        keep_in: Folders whose images are never discarded. A file below them is the one to keep,
            unless another one holds something that it lacks.
        prefer: Which of several copies to keep, if none of them holds anything that another lacks:
            "largest" (most pixels, then most bytes), "oldest" or "newest" (by modification time),
            or "sharpest" (highest true resolution, then highest quality of JPEG). None for most
            bytes.
        progress: Function called with the number of images compared and the total, from the start.
            Images are compared in several steps, each of which counts for a part of them.

    Raises:
        NoCollectionError: If there is no collection.
        SettingError: If `min_similarity` or `prefer` makes no sense.
        InputError: If something in `keep_in` is not a folder with images of the collection.
        DamagedError: If a file of the collection is missing or damaged.
    """
    min_similarity = number("min_similarity", min_similarity, -1, 1)
    progress = progress or _nothing
    layout = Layout.at(directory)
    with closing(open_catalog(layout)) as catalog:
        preference = Preference.of(keep_in, prefer, catalog)
        view = open_view(layout, catalog)
        progress(0, view.count)
        ids = np.concatenate([np.empty(0, np.int64), *(ids for ids, _ in view.live_blocks())])
        apart = read_distinct(layout).apart()
        contents = _by_content(catalog, ids)
        same = {some[0]: some for some in contents.values()}
        digests = {some[0]: digest for digest, some in contents.items()}
        prints = Prints.open(layout.fingerprints, catalog.prints())
        # The threads end last: they wait for the decoders.
        with (
            single_threaded_blas(),
            ThreadPoolExecutor(cores()) as threads,
            decoders(cores()) as lane,
            ExitStack() as late,
        ):
            verdicts = Verdicts.load()
            late.callback(verdicts.save)  # the findings of an interrupted run are valid, too
            looks = Looks(catalog, prints, threads, lane, verdicts)
            near: dict[int, set[int]] = defaultdict(set)
            settings = f"{min_similarity!r} {catalog.model()}"
            before = recall_search(layout.directory, settings, digests)
            twins = _twins(view, looks, np.array(sorted(same), np.int64))
            searched = frozenset(same) - {other for _, other, _ in twins}
            compared = len(same) - len(searched - before.ids)
            candidates = Candidates(view, looks, searched, before.ids, min_similarity)
            for count, pairs in chain([(0, before.near + twins)], candidates.pairs()):
                for one, other, way in pairs:
                    near[one].add(other)
                    near[other].add(one)
                    looks.note_way(one, other, way)
                compared += count
                progress(compared // 4, len(same))
            # Every step looks at all images; the second takes about as long as the others together.
            kinship = Kinship(looks, near)
            for one, other in before.akin:
                kinship.note_akin(one, other)
            turned = may_be_turned(prints, searched, before.ids)
            for count in kinship.search(candidates.others, turned):
                rest = len(same) - len(candidates.others)
                progress(compared // 4 + (rest + count) // 2, len(same))
            if not searched <= before.ids:
                found = _examined(looks, searched, near, kinship)
                remember_search(layout.directory, settings, digests, found)
            grouping = Grouping(catalog, view, looks, same, apart, preference, kinship)
            alone = len(same) - len({*near, *kinship.akin})
            for count in grouping.group(near):
                alone += count
                progress(3 * len(same) // 4 + min(alone, len(same)) // 4, len(same))
            progress(len(same), len(same))
    return grouping.found(len(ids))


def _nothing(done: int, total: int) -> None:
    """Ignore the progress."""


def _by_content(catalog: Catalog, ids: Ids) -> dict[bytes, tuple[int, ...]]:
    """Return the images of each content, by its digest."""
    found: dict[bytes, list[int]] = defaultdict(list)
    for start in range(0, len(ids), BLOCK):
        block = ids[start : start + BLOCK].tolist()
        live = set(block)
        for id_, digest in catalog.contents(block[0], block[-1]):
            if id_ in live:
                found[digest].append(id_)
    return {digest: tuple(some) for digest, some in found.items()}


def _twins(view: View, looks: Looks, ids: Ids) -> list[Pair]:
    """Return pairs of images whose embeddings and small pictures agree to the last bit.

    The first image of each pair, whose file is there, stands for its twins where candidates are
    searched for; else the pairs of a thousand twins would be half a million.
    """
    prints = looks.prints
    places = prints.places(ids)
    hashes = prints.take("hash", places)
    _, kinds, counts = np.unique(hashes, return_inverse=True, return_counts=True)
    rows = np.flatnonzero(places.there & (counts[kinds] > 1))
    seen: dict[bytes, list[int]] = defaultdict(list)
    for start in range(0, len(rows), BLOCK):
        some = ids[rows[start : start + BLOCK]]
        lights = prints.take("luminance", prints.places(some))
        for id_, vector, light in zip(some.tolist(), view.rows(some), lights, strict=True):
            seen[hashlib.sha256(vector.tobytes() + light.tobytes()).digest()].append(id_)
    pairs = []
    for together in seen.values():
        if len(together) > 1:
            entries = looks.catalog.entries_of(together)
            first = next((each.id for each in entries if is_there(each)), together[0])
            pairs += [(first, other, 0) for other in together if other != first]
    return pairs


def _examined(
    looks: Looks, firsts: Iterable[int], near: Mapping[int, Iterable[int]], kinship: Kinship
) -> Searched:
    """Return what to remember of a search among some images, one of each content.

    Images without a fingerprint will be searched for again.
    """
    ids = np.array(list(firsts), np.int64)
    return Searched(
        frozenset(ids[looks.prints.places(ids).there].tolist()),
        [
            (one, other, looks.way(one, other))
            for one, others in near.items()
            for other in others
            if looks.is_near(one, other)
        ],
        [(one, other) for one, others in kinship.akin.items() for other in others if one < other],
    )
