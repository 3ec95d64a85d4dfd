"""The map of the collection that is served, as the page draws it."""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from typing import Any

import numpy as np

from imgsearch.collection import Collection
from imgsearch.files.paths import path_fields
from imgsearch.querying.map.clusters import Clusters, clusters_of
from imgsearch.querying.map.make import Map
from imgsearch.web.remembering import Remembered

__all__ = ["STEPS", "Maps"]

STEPS = 65_535  # along each edge of the square
LOOKED_AT = 200  # images of a cluster whose folders are looked up
KEPT = 2  # versions of the map


class Maps:
    """The map of a collection. Its methods may be called from any thread, and may block."""

    def __init__(self, collection: Collection) -> None:
        self._collection = collection
        self._bodies: Remembered[str, bytes] = Remembered(KEPT)

    def get(self) -> tuple[str, bytes]:
        """Return the map as it was made last: a name that another map does not have, and JSON.

        Raises:
            NoMapError: If none was made.
            SettingError: If the collection is not in a directory.
        """
        found = self._collection.map(update=False)
        columns = found.ids, found.positions, np.array(found.missing)
        name = hashlib.sha256(b"".join(column.tobytes() for column in columns)).hexdigest()[:32]
        body = self._bodies.get(name)
        if body is None:
            fields = self._fields(found, clusters_of(found.positions))
            body = json.dumps(fields, separators=(",", ":")).encode("ascii")
            self._bodies.put(name, body)
        return name, body

    def _fields(self, found: Map, clusters: Clusters) -> dict[str, Any]:
        places = np.rint(found.positions * STEPS).astype(np.int64)
        return {
            "ids": found.ids.tolist(),
            "x": places[:, 0].tolist(),
            "y": places[:, 1].tolist(),
            "of": clusters.of.tolist(),
            "clusters": [
                {
                    "id": int(found.ids[clusters.central[number]]),
                    "images": int(clusters.sizes[number]),
                    "folder": self._folder(found.ids[clusters.of == number]),
                }
                for number in range(len(clusters.sizes))
            ],
            "missing": found.missing,
        }

    def _folder(self, ids: Any) -> str | None:
        """Return the folder of most of some images; None if no folder has half of them."""
        some = ids[:: max(1, len(ids) // LOOKED_AT)].tolist()
        entries = self._collection.entries.find(some).values()
        folders = Counter(os.path.dirname(entry.path) for entry in entries)
        for folder, count in folders.most_common(1):
            if 2 * count >= len(some):
                return str(path_fields(folder)["path"])
        return None
