"""Copy a collection from a directory into Milvus, and compare the two."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace

import numpy as np

from imgsearch.ann.vectors import Vectors
from imgsearch.backends.milvus.model import write_model
from imgsearch.backends.milvus.rows import Address, Row
from imgsearch.backends.milvus.sink import New, RowSink
from imgsearch.backends.milvus.state import State, read_state, write_state
from imgsearch.backends.milvus.store import Store
from imgsearch.backends.milvus.train import finish
from imgsearch.errors import SettingError
from imgsearch.files.paths import is_at
from imgsearch.querying.options import PathLike
from imgsearch.querying.view import View, open_view
from imgsearch.storage.catalog import Catalog, open_catalog
from imgsearch.storage.layout import Layout, Location
from imgsearch.storage.records import Entry, ModelRecord

__all__ = ["Transfer", "export"]

BLOCK = 1_000
COMPARED = 1_000  # embeddings to compare
SAME = 1e-6
_SEED = 1234


@dataclass(frozen=True, slots=True)
class Transfer:
    """The result of copying a collection or comparing it with its copy.

    Attributes:
        images: The number of images in the copied collection.
        there: The number of those that the copy already had.
        sent: The number of images added to the copy.
        removed: The number of images removed from the copy, as the collection no longer has them.
        others: The number of images in the copy that are not the collection's.
        compared: The number of embeddings compared, value by value, with those of the copy.
        different: The number of those that differ.
    """

    images: int
    there: int
    sent: int
    removed: int
    others: int
    compared: int
    different: int


def export(
    directory: PathLike,
    location: Location,
    *,
    verify: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Transfer:
    """Copy the collection in a directory to Milvus.

    The copy can be resumed: images already in Milvus are not sent again. Images in Milvus that lie
    in the collection's folders but are not in the collection are deleted; other images stay.

    Args:
        directory: The collection to copy.
        location: The destination, as `milvus://HOST:PORT/NAME` or `milvus:FILE.db`.
        verify: Whether to compare the two instead of copying.
        progress: Function called with the number of images done, and the total.

    Raises:
        SettingError: If `location` is not in Milvus, or holds a collection made with another model.
    """
    layout = Layout.at(directory)
    with (
        closing(Store(Address.of(location))) as store,
        closing(open_catalog(layout)) as catalog,
    ):
        view = open_view(layout, catalog)
        model = replace(view.snapshot.model, words_sha256=None)  # Milvus keeps no text tower
        if not verify:
            _begin(store, layout, model)
        state = read_state(store)
        if _makes(state.model) != _makes(model):
            raise SettingError(
                f"{store.address.location} was made with other weights of {state.model.name}; "
                f"choose another name for --to"
            )
        return _Transfer(store, catalog, view, progress).run(state, verify=verify)


def _makes(model: ModelRecord) -> tuple[str, int, int, str]:
    """Return what decides on a model's embeddings: another export of it makes the same ones."""
    return model.name, model.input_size, model.dim, model.weights_sha256


def _begin(store: Store, layout: Layout, model: ModelRecord) -> None:
    """Create the collection if it does not exist; the state that declares it is written last."""
    store.create(model.dim)
    if store.get("collection") is None:
        layout.check_model(model.onnx_sha256)
        write_model(store, layout.model.read_bytes())
        write_state(store, State(model))


class _Transfer:
    def __init__(
        self,
        store: Store,
        catalog: Catalog,
        view: View,
        progress: Callable[[int, int], None] | None,
    ) -> None:
        self._store = store
        self._catalog = catalog
        self._view = view
        self._progress = progress

    def run(self, state: State, *, verify: bool) -> Transfer:
        """Send or compare all images, block by block."""
        sink = RowSink(self._store)
        share = COMPARED / max(self._view.count, 1)
        random = np.random.default_rng(_SEED)
        own: set[int] = set()
        there = sent = compared = different = 0
        for rows, vectors in self._blocks():
            ids = [row.id for row in rows]
            own.update(ids)
            known = self._store.there(ids)
            there += len(known)
            drawn = [id_ for id_ in ids if id_ in known and random.random() < share]
            stored = self._store.vectors(drawn) if verify else {}
            for row, vector in zip(rows, vectors, strict=True):
                if row.id in stored:
                    compared += 1
                    different += not np.allclose(stored[row.id], vector, rtol=0, atol=SAME)
                if row.id not in known and not verify:
                    sink.add(New(row, vector))
                    sent += 1
            if self._progress:
                self._progress(len(own), self._view.count)
        roots = self._catalog.roots()
        gone, others = [], 0
        for row in self._store.rows():
            if row.id not in own:
                if any(is_at(row.path, root.path) for root in roots):
                    gone.append(row.id)
                else:
                    others += 1
        if verify:
            return Transfer(len(own), there, 0, 0, others + len(gone), compared, different)
        self._store.delete(gone)
        finish(self._store, self._merged(state), sink)
        return Transfer(len(own), there, sent, len(gone), others, 0, 0)

    def _merged(self, state: State) -> State:
        """Return the state with the settings, roots and exclusions of the collection added."""
        settings = self._view.snapshot.settings
        catalog = self._catalog
        folders = [root.path for root in catalog.roots() if root.recursive]
        files = [
            file
            for root in catalog.roots()
            if not root.recursive
            for file in catalog.files_of(root.id)
        ]
        out = [*catalog.excluded_folders(), *catalog.excluded_files()]
        return replace(
            state,
            settings=replace(state.settings, nlist=settings.nlist, recall=settings.recall),
            folders=tuple(dict.fromkeys([*state.folders, *folders])),
            files=tuple(dict.fromkeys([*state.files, *files])),
            excluded=tuple(dict.fromkeys([*state.excluded, *out])),
        )

    def _blocks(self) -> Iterator[tuple[list[Row], Vectors]]:
        """Yield rows and embeddings of the collection."""
        for ids, vectors in self._view.live_blocks():
            for start in range(0, len(ids), BLOCK):
                part = ids[start : start + BLOCK]
                known = {entry.id: entry for entry in self._catalog.entries_of(part.tolist())}
                kept = [row for row, id_ in enumerate(part.tolist()) if id_ in known]
                rows = [_row(known[int(part[row])]) for row in kept]
                yield rows, vectors[start : start + BLOCK][kept]


def _row(entry: Entry) -> Row:
    return Row.of(os.fsencode(entry.path), entry.digest, entry.size, entry.mtime_ns)
