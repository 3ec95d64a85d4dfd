"""Fixtures of the tests of a cluster that need none."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from imgsearch.backends.ray.staging import Staging


@pytest.fixture(params=["path", "memory"])
def staging(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Staging]:
    """A staging folder, on a disk and where nothing can be renamed."""
    name = uuid.uuid4().hex
    url = f"memory://{name}/staging" if request.param == "memory" else str(tmp_path / name)
    staging = Staging(url)
    yield staging
    staging.clear()
