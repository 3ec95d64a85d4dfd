"""List the images of a collection in an order, page by page, at a cost that no page adds to."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from imgsearch.ann.vectors import Ids
from imgsearch.collection import AnyEntries
from imgsearch.querying.filters import FilterKeywords, Order
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


def _place_after(ids: Ids, after: int, listing: Listing) -> int:
    """Return the place in a listing at which the images after one begin."""
    if listing.order == "added":  # even if that image is gone
        keys: Sequence[int] = -ids if listing.reverse else ids  # type: ignore[assignment]
        return bisect_right(keys, -after if listing.reverse else after)
    places = np.flatnonzero(ids == after)
    if not len(places):
        raise ForgottenError(f"the image {after} is no longer in this listing; begin again")
    return int(places[0]) + 1
