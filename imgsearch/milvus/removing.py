"""Take images out of a collection in Milvus."""

from __future__ import annotations

import fnmatch
import os
from collections.abc import Sequence
from dataclasses import replace

from imgsearch.errors import InputError
from imgsearch.milvus.state import State, write_state
from imgsearch.milvus.store import Store
from imgsearch.roots import is_at, plain_path, real_path, resolved_path

__all__ = ["remove"]


def remove(store: Store, state: State, paths: Sequence[str | os.PathLike[str]]) -> int:
    """Take out the images at `paths`, and keep them out; see `imgsearch.removing.remove`.

    All rows are looked through: memory is that of what is removed.
    """
    given = {path: {plain_path(path), real_path(path), resolved_path(path)} for path in paths}
    found: dict[str | os.PathLike[str], list[bytes]] = {path: [] for path in given}
    ids = []
    for row in store.rows():
        for path, places in given.items():
            at = [place for place in places if is_at(row.path, place)]
            if not at and fnmatch.fnmatchcase(row.path, plain_path(path)):
                at = [row.path]
            if at:
                found[path] += at
                ids.append(row.id)
    for path, places in given.items():
        found[path] += [place for place in places if place in {*state.folders, *state.files}]
        if not found[path]:
            raise InputError(
                f"{os.fsdecode(path)}: the collection has no image there; nothing was removed"
            )
    out = {place for places in found.values() for place in places}
    state = replace(
        state,
        folders=tuple(path for path in state.folders if not any(is_at(path, o) for o in out)),
        files=tuple(path for path in state.files if not any(is_at(path, o) for o in out)),
        excluded=tuple(sorted({*state.excluded, *out})),
    )
    write_state(store, state)  # first: a crash may leave images there, which the next run drops
    store.delete(dict.fromkeys(ids))
    store.flush()
    return len(set(ids))
