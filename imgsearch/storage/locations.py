"""Where a collection may be: in a directory, or elsewhere, by the scheme of its URL."""

from __future__ import annotations

import os
from typing import TypeAlias

__all__ = ["BACKENDS", "Location", "backend_of", "is_elsewhere"]

#: A directory, or the URL of a collection elsewhere, such as `milvus://HOST:PORT/NAME`.
Location: TypeAlias = "str | os.PathLike[str]"

#: The class of the collections elsewhere, by the scheme of their URLs: a line registers a backend.
#: Names, like the entry points of a package: backends build on all that is below them, and are
#: imported only when one is opened.
BACKENDS = {"milvus": "imgsearch.backends.milvus.collection.MilvusCollection"}


def backend_of(location: object) -> str | None:
    """Return the name of the class of the collection at a location, None for a directory."""
    scheme, colon, _ = location.partition(":") if isinstance(location, str) else ("", "", "")
    return BACKENDS.get(scheme) if colon else None


def is_elsewhere(location: object) -> bool:
    """Tell whether a location is the URL of a collection, rather than a directory."""
    return backend_of(location) is not None
