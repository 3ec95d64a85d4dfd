"""Make the index anew when the images call for another, and measure what it keeps."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from imgsearch.folding import GROWTH, IVF_FROM
from imgsearch.milvus.measuring import measure
from imgsearch.milvus.sink import HELD, Sink
from imgsearch.milvus.state import State, write_state
from imgsearch.milvus.store import MOST_LISTS, Store
from imgsearch.search.ivf import choose_nlist
from imgsearch.storage.records import IvfRecord

__all__ = ["finish", "is_outgrown"]

FEWEST = 100  # held-out images; with fewer, stored ones are asked with, and left out of the hits
SHARE = 5  # of all images, one in so many is held out at most


def finish(store: Store, state: State, sink: Sink) -> State:
    """Send what is left, and bring index, promise and state up to date; return the state.

    The index is made without the images that are held back: those are its queries, and are added
    once the promise is measured.
    """
    sink.send()
    count = store.count() + sink.held
    wanted = _wanted_nlist(state, count)
    if is_outgrown(state, count):
        held = sink.release(count // SHARE)
        store.flush()
        write_state(store, replace(state, ivf=None))  # until its successor is measured
        store.make_index(wanted)
        ivf = None
        if wanted is not None:
            own = np.full(len(held), -1)
            if len(held) < FEWEST:
                own, held = store.sample(HELD)
            curve = measure(store, own, held, wanted)
            requested = state.settings.nlist
            ivf = IvfRecord(wanted, requested, count, len(held), 0, 0, 0, curve)
        state = replace(state, ivf=ivf)
    sink.release()
    write_state(store, state)
    store.flush()
    return state


def is_outgrown(state: State, count: int) -> bool:
    """Tell whether `count` images call for another index than there is."""
    wanted, ivf = _wanted_nlist(state, count), state.ivf
    if wanted is None or ivf is None:
        return (wanted is None) != (ivf is None)
    if state.settings.nlist != ivf.requested_nlist:
        return True
    return count >= GROWTH * ivf.trained or count * GROWTH <= ivf.trained


def _wanted_nlist(state: State, count: int) -> int | None:
    asked = state.settings.nlist
    if count == 0 or (asked is None and count < IVF_FROM):
        return None
    return min(asked or choose_nlist(count), count, MOST_LISTS)
