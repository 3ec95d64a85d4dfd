"""List the images of a collection in an order, page by page, at a cost that no page adds to."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import pairwise

import numpy as np

from imgsearch.ann.vectors import Ids
from imgsearch.collection import AnyEntries
from imgsearch.errors import SettingError
from imgsearch.querying.filters import FilterKeywords, Order
from imgsearch.storage.records import Entry
from imgsearch.web.problems import ForgottenError
from imgsearch.web.remembering import Remembered

__all__ = ["Listing", "Listings"]

LISTINGS = 8  # orders to remember: 8 bytes for each image


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """The images that pass a filter, in an order."""

    wanted: FilterKeywords = field(default_factory=FilterKeywords)
    order: Order = "added"
    reverse: bool = False


class Listings:
    """The ids of listings. Its methods may be called from any thread."""

    def __init__(self, entries: AnyEntries) -> None:
        self._entries = entries
        self._remembered: Remembered[object, Ids] = Remembered(LISTINGS)

    def page(self, listing: Listing, after: int, limit: int) -> list[int]:
        """Return the ids of up to `limit` images that come after one; 0 stands for the beginning.

        Raises:
            ForgottenError: If the image after which to go on is not in the listing, and its place
                is not known.
        """
        if listing.order == "added" and not listing.wanted and not listing.reverse:
            return self._entries.ids_after(after, limit)
        ids = self._ids(listing)
        first = _place_after(ids, after, listing) if after else 0
        page: list[int] = ids[first : first + limit].tolist()
        return page

    def count(self, listing: Listing) -> int:
        """Return how many images a listing has."""
        return len(self._ids(listing)) if listing.wanted else self._entries.count()

    def months(self, listing: Listing) -> list[tuple[str, int]]:
        """Return the months of a listing by date, such as "2024-05", with their numbers of images.

        They are in the order of the listing; "" stands for images without a date. Only the images
        at which a month may begin are looked up.

        Raises:
            SettingError: If the listing is not by date.
        """
        if listing.order != "date":
            raise SettingError("months are those of a listing by date; give sort=date")
        ids = self._ids(listing)
        if not len(ids):
            return []
        last = len(ids) - 1
        known = self._months_at(ids, {0, last})
        spans = [(0, last)]
        while spans := [(a, b) for a, b in spans if b - a > 1 and known[a] != known[b]]:
            known |= self._months_at(ids, {(a + b) // 2 for a, b in spans})
            spans = [span for a, b in spans for span in ((a, (a + b) // 2), ((a + b) // 2, b))]
        places = sorted(known)
        starts = [b for a, b in pairwise(places) if known[a] != known[b]]
        ends = [*starts, len(ids)]
        return [(known[a], b - a) for a, b in zip([0, *starts], ends, strict=True)]

    def _months_at(self, ids: Ids, places: set[int]) -> dict[int, str]:
        """Return the months of the images at some places; "" for one that is gone meanwhile."""
        found = self._entries.find([int(ids[place]) for place in places])
        return {
            place: _month_of(found[id_]) if (id_ := int(ids[place])) in found else ""
            for place in places
        }

    def _ids(self, listing: Listing) -> Ids:
        wanted = tuple(sorted((name, str(value)) for name, value in listing.wanted.items()))
        # Read first: of a commit meanwhile, the listing is made again, not missed.
        key = (self._entries.version(), wanted, listing.order, listing.reverse)
        ids = self._remembered.get(key)
        if ids is None:
            found = self._entries.ids(
                order=listing.order, reverse=listing.reverse, **listing.wanted
            )
            ids = np.array(found, np.int64)
            self._remembered.put(key, ids)
        return ids


def _month_of(entry: Entry) -> str:
    """Return the month in which an image was taken, or else in which its file was changed."""
    with suppress(OverflowError, ValueError, OSError):  # a foreign catalog may have any number
        if entry.facts.taken is not None:
            return f"{datetime(1970, 1, 1) + timedelta(seconds=entry.facts.taken):%Y-%m}"
        if entry.mtime_ns is not None:
            return f"{datetime.fromtimestamp(entry.mtime_ns // 10**9):%Y-%m}"
    return ""


def _place_after(ids: Ids, after: int, listing: Listing) -> int:
    """Return the place in a listing at which the images after one begin."""
    if listing.order == "added":  # even if that image is gone
        keys: Sequence[int] = -ids if listing.reverse else ids  # type: ignore[assignment]
        return bisect_right(keys, -after if listing.reverse else after)
    places = np.flatnonzero(ids == after)
    if not len(places):
        raise ForgottenError(f"the image {after} is no longer in this listing; begin again")
    return int(places[0]) + 1
