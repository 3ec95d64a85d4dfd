"""The location of a collection: a directory, or a URL whose scheme tells the backend."""

from __future__ import annotations

import os
from typing import TypeAlias

__all__ = ["BACKENDS", "Location", "backend_of", "is_elsewhere"]

#: A directory, or the URL of a collection elsewhere, such as `milvus://HOST:PORT/NAME`.
Location: TypeAlias = "str | os.PathLike[str]"

#: The class of collections elsewhere, by the scheme of their URL: one line registers a backend.
#: The values are names, like the entry points of a package, because backends build on all lower
#: layers and are imported only when a collection is opened.
BACKENDS = {"milvus": "imgsearch.backends.milvus.collection.MilvusCollection"}


def backend_of(location: object) -> str | None:
    """Return the name of the class for the collection at a location, or None for a directory."""
    scheme, colon, _ = location.partition(":") if isinstance(location, str) else ("", "", "")
    return BACKENDS.get(scheme) if colon else None


def is_elsewhere(location: object) -> bool:
    """Tell whether a location is the URL of a collection rather than a directory."""
    return backend_of(location) is not None
