"""Rank the hits of labelled images by their local features, as `query --verify` does."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

import numpy as np

from imgsearch.ann.vectors import Ids
from imgsearch.querying.looking import VERIFIED, Looker
from imgsearch.storage.records import Entry

__all__ = ["Reorder", "verified"]

#: Returns columns by rank, `[n, m]`, in another order, given each query's own column, `[n]`.
Reorder: TypeAlias = Callable[[Ids, Ids], Ids]


def verified(looker: Looker, ids: Sequence[int], entries: Mapping[int, Entry]) -> Reorder:
    """Return a function that puts the images verified for a query first.

    Args:
        looker: Looker of the collection.
        ids: The id of each column.
        entries: The entries of these images.
    """
    columns = [entries.get(id_) for id_ in ids]

    def reorder(own: Ids, order: Ids) -> Ids:
        found = order.copy()
        for row, itself in enumerate(own.tolist()):
            others = order[row][order[row] != itself]
            first = others[:VERIFIED]
            query = columns[itself]
            if query is None:
                continue
            again = first[looker.order(query, [columns[column] for column in first.tolist()])]
            found[row] = np.concatenate([again, others[VERIFIED:], [itself]])
        return found

    return reorder
