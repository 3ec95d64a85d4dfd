"""Options that tests give to every indexing run of a process, however it is called."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

from imgsearch.collection import Collection
from imgsearch.indexing.options import IndexKeywords
from imgsearch.indexing.policy import FoldPolicy

__all__ = ["begin_with", "index_with", "indexing_with"]

ROOT = Path(__file__).parents[2]


def begin_with(policy: FoldPolicy) -> str:
    """Return the beginning of a script, whose runs then have a policy; it imports `sys`."""
    return f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
from imgsearch.indexing.policy import FoldPolicy
from tests.support.injection import index_with
index_with(policy={policy})
"""


def index_with(**injected: Any) -> None:
    """Give `Collection.index` these options, unless it is given others, for good."""
    plain = Collection.index

    def index(self: Collection, paths: Any = (), **options: Any) -> Any:
        given = {name: value for name, value in options.items() if value is not None}
        return plain(self, paths, **{**options, **injected, **given})

    assert injected.keys() <= IndexKeywords.__annotations__.keys()
    Collection.index = index  # type: ignore[method-assign]  # the one patch that stands for many


@contextmanager
def indexing_with(**injected: Any) -> Iterator[None]:
    """Give `Collection.index` these options, unless it is given others, for a while."""
    with mock.patch.object(Collection, "index", Collection.index):
        index_with(**injected)
        yield
