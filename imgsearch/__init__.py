"""Search your own images by similarity.

>>> from imgsearch import Collection
>>> with Collection.create("photos.imgsearch") as photos:  # doctest: +SKIP
...     photos.index(["~/Pictures"])
...     photos.query("cat.jpg", k=3)
"""

from __future__ import annotations

import sys
import warnings
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from imgsearch.backends.ray import RayEngine
    from imgsearch.collection import Collection, opened
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
        NoMapError,
        PackageError,
        SettingError,
        StorageError,
    )
    from imgsearch.evaluation.compare import compare_models
    from imgsearch.evaluation.evaluate import (
        Estimate,
        Evaluation,
        Measures,
        Searched,
        WorstHit,
        WorstQuery,
        evaluate,
    )
    from imgsearch.evaluation.tune import Sweep, apply, tune
    from imgsearch.indexing.report import Failure, IndexReport, Progress
    from imgsearch.indexing.switch import SwitchReport
    from imgsearch.maintenance.against import find_against
    from imgsearch.maintenance.copies import Against, Copy, Discarded, Duplicates, Group, Owned
    from imgsearch.maintenance.damage import Damage, Verification
    from imgsearch.maintenance.discard import delete_copies, link_copies, trash_copies
    from imgsearch.maintenance.duplicates import find_duplicates
    from imgsearch.maintenance.judging import forget_not_duplicates, mark_not_duplicates
    from imgsearch.maintenance.verify import verify
    from imgsearch.querying.explanation import Explanation
    from imgsearch.querying.hits import Answer, Hit, HitArrays, Search
    from imgsearch.querying.info import Info
    from imgsearch.querying.map.make import Map
    from imgsearch.querying.options import Words
    from imgsearch.storage.records import IvfRecord, ModelRecord

__all__ = [
    "Against",
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
    "Explanation",
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
    "Map",
    "Measures",
    "ModelError",
    "ModelRecord",
    "NoCollectionError",
    "NoImageError",
    "NoMapError",
    "Owned",
    "PackageError",
    "Progress",
    "RayEngine",
    "Search",
    "Searched",
    "SettingError",
    "StorageError",
    "Sweep",
    "SwitchReport",
    "Verification",
    "Words",
    "WorstHit",
    "WorstQuery",
    "apply",
    "compare_models",
    "delete_copies",
    "evaluate",
    "find_against",
    "find_duplicates",
    "forget_not_duplicates",
    "link_copies",
    "mark_not_duplicates",
    "opened",
    "trash_copies",
    "tune",
    "verify",
]

_HOME = {
    "Against": "maintenance.copies",
    "Answer": "querying.hits",
    "Collection": "collection",
    "Copy": "maintenance.copies",
    "Damage": "maintenance.damage",
    "Discarded": "maintenance.copies",
    "Duplicates": "maintenance.copies",
    "Estimate": "evaluation.evaluate",
    "Evaluation": "evaluation.evaluate",
    "Explanation": "querying.explanation",
    "Failure": "indexing.report",
    "Group": "maintenance.copies",
    "Hit": "querying.hits",
    "HitArrays": "querying.hits",
    "IndexReport": "indexing.report",
    "Info": "querying.info",
    "IvfRecord": "storage.records",
    "Map": "querying.map.make",
    "Measures": "evaluation.evaluate",
    "ModelRecord": "storage.records",
    "Owned": "maintenance.copies",
    "Progress": "indexing.report",
    "RayEngine": "backends.ray",
    "Search": "querying.hits",
    "Searched": "evaluation.evaluate",
    "Sweep": "evaluation.tune",
    "SwitchReport": "indexing.switch",
    "Verification": "maintenance.damage",
    "Words": "querying.options",
    "WorstHit": "evaluation.evaluate",
    "WorstQuery": "evaluation.evaluate",
    "apply": "evaluation.tune",
    "compare_models": "evaluation.compare",
    "delete_copies": "maintenance.discard",
    "evaluate": "evaluation.evaluate",
    "find_against": "maintenance.against",
    "find_duplicates": "maintenance.duplicates",
    "forget_not_duplicates": "maintenance.judging",
    "link_copies": "maintenance.discard",
    "mark_not_duplicates": "maintenance.judging",
    "opened": "collection",
    "trash_copies": "maintenance.discard",
    "tune": "evaluation.tune",
    "verify": "maintenance.verify",
}


def __getattr__(name: str) -> object:
    # Import lazily: `imgsearch --help` and the worker processes must not pay for Faiss.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME.get(name, 'errors')}"), name)


def __dir__() -> list[str]:
    return sorted([*__all__, *(name for name in globals() if name.startswith("__"))])


class _Cluster(ModuleType):
    """The deprecated module `imgsearch.cluster`, which used to export `RayEngine`."""

    def __getattr__(self, name: str) -> object:
        if name != "RayEngine":
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        told = "imgsearch.cluster is deprecated; write `from imgsearch import RayEngine`"
        warnings.warn(told, DeprecationWarning, stacklevel=2)
        return getattr(import_module("imgsearch.backends.ray"), name)


sys.modules[f"{__name__}.cluster"] = _Cluster(f"{__name__}.cluster")
