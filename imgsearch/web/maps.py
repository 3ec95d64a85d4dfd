"""The map of the collection that is served: as the page draws it, and made on request."""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from typing import Any

import numpy as np

from imgsearch.collection import Collection
from imgsearch.errors import InputError, SettingError
from imgsearch.files.paths import path_fields
from imgsearch.querying.map.clusters import Clusters, clusters_of
from imgsearch.querying.map.make import Map
from imgsearch.storage.layout import backend_of
from imgsearch.web.job import Jobs
from imgsearch.web.job_process import LayOut
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
        self._jobs = Jobs("the map is being made already")

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

    def start(self) -> None:
        """Begin to make the map, or to bring it up to date.

        Raises:
            InputError: If the collection has no images.
            SettingError: If it is not in a directory.
            HTTPException: 409 if that is in progress.
        """
        directory = self._collection.info().directory
        if backend_of(directory) is not None:
            raise SettingError("only a collection in a directory has a map")
        if not self._collection.entries.count():
            raise InputError("the collection has no images to make a map of")
        wanted = LayOut(directory=os.path.abspath(directory))
        self._jobs.start("lay out", wanted.message(), lambda told: "laid_out" in told)

    def cancel(self) -> None:
        """End the making of the map, if there is any; the map stays as it was."""
        self._jobs.cancel()

    def status(self) -> dict[str, Any]:
        """Tell how far the making of the map is, and why the latest failed."""
        told = self._jobs.status()
        return {**told, "running": told["running"] is not None}

    def close(self) -> None:
        """End the making of the map, and begin no other."""
        self._jobs.close()

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
