"""A catalog with a model and a root, and another connection to it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from imgsearch.storage.catalog import Catalog
from imgsearch.storage.writer import CatalogWriter
from tests.storage.entries import MODEL, SETTINGS


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[CatalogWriter]:
    """An open catalog without images; its root 1 is /photos."""
    opened = CatalogWriter(tmp_path / "catalog.sqlite", create=True)
    opened.begin(MODEL, SETTINGS)
    opened.add_root(b"/photos", recursive=True)
    yield opened
    opened.close()


@pytest.fixture
def reader(catalog: CatalogWriter, tmp_path: Path) -> Iterator[Catalog]:
    """The same catalog as another process sees it."""
    assert catalog.roots()
    opened = Catalog(tmp_path / "catalog.sqlite")
    yield opened
    opened.close()
