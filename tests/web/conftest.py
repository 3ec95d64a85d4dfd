"""Fixtures of the tests of the server."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, TypeAlias

import pytest
from starlette.testclient import TestClient

from imgsearch.collection import Collection
from imgsearch.web.app import create_app
from imgsearch.web.options import ServerOptions
from imgsearch.web.service import Service

Served: TypeAlias = Callable[..., TestClient]


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    """Return a function that serves a collection: `served(directory, token="open sesame")`."""
    with ExitStack() as stack:

        def served(directory: Path, **options: Any) -> TestClient:
            wanted = ServerOptions(**{"cache": tmp_path / "cache", **options})
            collection = stack.enter_context(Collection.open(directory, device="cpu", threads=1))
            service = stack.enter_context(closing(Service(collection, wanted)))
            app = create_app(service, wanted)
            address = f"http://127.0.0.1:{wanted.port}"
            return TestClient(app, base_url=address, raise_server_exceptions=False)

        yield served


@pytest.fixture
def client(served: Served, indexed: Path) -> TestClient:
    """A client of a server of the 40 pictures of `photos`."""
    return served(indexed)
