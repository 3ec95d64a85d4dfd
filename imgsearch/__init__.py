"""Search your own images by similarity.

>>> from imgsearch import Collection
>>> with Collection.create("photos.imgsearch") as photos:  # doctest: +SKIP
...     photos.index(["~/Pictures"])
...     photos.query("cat.jpg", k=3)
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from imgsearch.collection import Collection
    from imgsearch.damage import Damage, Verification
    from imgsearch.errors import (
        BusyError,
        DamagedError,
        ImageError,
        ImgsearchError,
        InputError,
        ModelError,
        NoCollectionError,
        SettingError,
        StorageError,
    )
    from imgsearch.hits import Answer, Hit, HitArrays, Search
    from imgsearch.reports import Failure, IndexReport, Info, Progress
    from imgsearch.storage.records import IvfRecord, ModelRecord
    from imgsearch.sweeping import apply, tune
    from imgsearch.trials import Sweep
    from imgsearch.verifying import verify

__all__ = [
    "Answer",
    "BusyError",
    "Collection",
    "Damage",
    "DamagedError",
    "Failure",
    "Hit",
    "HitArrays",
    "ImageError",
    "ImgsearchError",
    "IndexReport",
    "Info",
    "InputError",
    "IvfRecord",
    "ModelError",
    "ModelRecord",
    "NoCollectionError",
    "Progress",
    "Search",
    "SettingError",
    "StorageError",
    "Sweep",
    "Verification",
    "apply",
    "tune",
    "verify",
]

_HOME = {
    "Answer": "hits",
    "Collection": "collection",
    "Damage": "damage",
    "Failure": "reports",
    "Hit": "hits",
    "HitArrays": "hits",
    "IndexReport": "reports",
    "Info": "reports",
    "IvfRecord": "storage.records",
    "ModelRecord": "storage.records",
    "Progress": "reports",
    "Search": "hits",
    "Sweep": "trials",
    "Verification": "damage",
    "apply": "sweeping",
    "tune": "sweeping",
    "verify": "verifying",
}


def __getattr__(name: str) -> object:
    # Lazily, because `imgsearch --help` and the worker processes must not pay for Faiss.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME.get(name, 'errors')}"), name)
