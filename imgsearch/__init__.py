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
    from imgsearch.copies import Copy, Discarded, Duplicates, Group
    from imgsearch.damage import Damage, Verification
    from imgsearch.discarding import delete_copies, link_copies
    from imgsearch.duplicates import find_duplicates
    from imgsearch.errors import (
        BusyError,
        DamagedError,
        GoneError,
        ImageError,
        ImgsearchError,
        InputError,
        ModelError,
        NoCollectionError,
        NoImageError,
        PackageError,
        SettingError,
        StorageError,
    )
    from imgsearch.evaluating import evaluate
    from imgsearch.evaluation import (
        Estimate,
        Evaluation,
        Measures,
        Searched,
        WorstHit,
        WorstQuery,
    )
    from imgsearch.hits import Answer, Hit, HitArrays, Search
    from imgsearch.places import opened
    from imgsearch.reports import Failure, IndexReport, Info, Progress
    from imgsearch.storage.records import IvfRecord, ModelRecord
    from imgsearch.sweeping import apply, tune
    from imgsearch.trials import Sweep
    from imgsearch.verifying import verify

__all__ = [
    "Answer",
    "BusyError",
    "Collection",
    "Copy",
    "Damage",
    "DamagedError",
    "Discarded",
    "Duplicates",
    "Estimate",
    "Evaluation",
    "Failure",
    "GoneError",
    "Group",
    "Hit",
    "HitArrays",
    "ImageError",
    "ImgsearchError",
    "IndexReport",
    "Info",
    "InputError",
    "IvfRecord",
    "Measures",
    "ModelError",
    "ModelRecord",
    "NoCollectionError",
    "NoImageError",
    "PackageError",
    "Progress",
    "Search",
    "Searched",
    "SettingError",
    "StorageError",
    "Sweep",
    "Verification",
    "WorstHit",
    "WorstQuery",
    "apply",
    "delete_copies",
    "evaluate",
    "find_duplicates",
    "link_copies",
    "opened",
    "tune",
    "verify",
]

_HOME = {
    "Answer": "hits",
    "Collection": "collection",
    "Copy": "copies",
    "Damage": "damage",
    "Discarded": "copies",
    "Duplicates": "copies",
    "Estimate": "evaluation",
    "Evaluation": "evaluation",
    "Failure": "reports",
    "Group": "copies",
    "Hit": "hits",
    "HitArrays": "hits",
    "IndexReport": "reports",
    "Info": "reports",
    "IvfRecord": "storage.records",
    "Measures": "evaluation",
    "ModelRecord": "storage.records",
    "Progress": "reports",
    "Search": "hits",
    "Searched": "evaluation",
    "Sweep": "trials",
    "Verification": "damage",
    "WorstHit": "evaluation",
    "WorstQuery": "evaluation",
    "apply": "sweeping",
    "delete_copies": "discarding",
    "evaluate": "evaluating",
    "find_duplicates": "duplicates",
    "link_copies": "discarding",
    "opened": "places",
    "tune": "sweeping",
    "verify": "verifying",
}


def __getattr__(name: str) -> object:
    # Lazily, because `imgsearch --help` and the worker processes must not pay for Faiss.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME.get(name, 'errors')}"), name)
