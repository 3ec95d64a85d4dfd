"""Look up the images of a collection: their paths, digests and embeddings."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from imgsearch.ann.vectors import Vectors
from imgsearch.errors import BusyError, NoImageError
from imgsearch.querying.options import LEAST_ID, items, whole
from imgsearch.querying.view import View, with_present
from imgsearch.storage.catalog import Catalog
from imgsearch.storage.files import undisturbed
from imgsearch.storage.layout import Layout
from imgsearch.storage.records import Entry

__all__ = ["Entries"]


class Entries:
    """The images of a collection, by id. Its methods may be called from any thread."""

    def __init__(self, layout: Layout, catalog: Catalog, view: Callable[[], View]) -> None:
        """Read entries from a catalog, and embeddings from the current view."""
        self._layout = layout
        self._catalog = catalog
        self._view = view

    def get(self, id_: int) -> Entry:
        """Return the entry of an image.

        Raises:
            NoImageError: If the image is not, or no longer, in the collection.
        """
        for entry in self._catalog.entries_of([whole("an id", id_, LEAST_ID)]):
            return entry
        raise NoImageError(id_)

    def find(self, ids: Sequence[int]) -> dict[int, Entry]:
        """Return the entries of those images that are in the collection."""
        return {entry.id: entry for entry in self._catalog.entries_of(_ids(ids))}

    def after(self, id_: int, limit: int) -> list[Entry]:
        """Return up to `limit` images after an id, in the order in which they were added."""
        after, most = whole("an id", id_, LEAST_ID), whole("limit", limit, 0)
        return self._catalog.entries_of(self._catalog.ids_after(after, most))

    def embeddings(self, ids: Sequence[int]) -> Vectors:
        """Return the embeddings of images, float32 `[n, dim]`, in the order of `ids`.

        Raises:
            NoImageError: If an image is not, or no longer, in the collection.
            DamagedError: If a file of the collection is missing or damaged.
        """
        ids = _ids(ids)
        return with_present(self._view, lambda view: view.embeddings(ids))

    def are_changing(self) -> bool:
        """Tell whether a writer is at work on the collection."""
        try:
            with undisturbed(self._layout.directory):
                return False
        except BusyError:
            return True


def _ids(ids: Sequence[int]) -> list[int]:
    return [whole("an id", id_, LEAST_ID) for id_ in items("ids", ids)]
