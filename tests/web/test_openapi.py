"""The server does what its OpenAPI document says, whatever it is asked."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import pytest
from starlette.testclient import TestClient

from imgsearch.web.options import ServerOptions
from tests.support.commands import run_python
from tests.web.conftest import Served
from tests.web.serving import listening

EXAMPLES = 40  # for each operation
STATUSES = {200, 202, 206, 304}
STATUSES |= {400, 401, 403, 404, 408, 409, 410, 413, 415, 416, 421, 422, 429, 500, 503}


def document(client: TestClient) -> dict[str, Any]:
    described: dict[str, Any] = client.get("/openapi.json").json()
    return described


def test_the_document_has_all_that_is_there(client: TestClient) -> None:
    paths = document(client)["paths"]
    assert set(paths) == {
        "/api/v1/query",
        "/api/v1/explain",
        "/api/v1/images",
        "/api/v1/layout",
        "/api/v1/timeline",
        "/api/v1/map",
        "/api/v1/map/job",
        "/api/v1/facets",
        "/api/v1/archive",
        "/api/v1/folders",
        "/api/v1/index",
        "/api/v1/duplicates",
        "/api/v1/duplicates/groups",
        "/api/v1/duplicates/copies",
        "/api/v1/duplicates/judgements",
        "/api/v1/images/{id}",
        "/api/v1/images/{id}/exif",
        "/api/v1/images/{id}/original",
        "/api/v1/images/{id}/thumbnail",
        "/api/v1/info",
        "/api/v1/health",
    }
    for operations in paths.values():
        for operation in operations.values():
            assert set(map(int, operation["responses"])) <= STATUSES
            assert operation["description"]


@pytest.mark.parametrize("below", ["", "/photos", "/a/b"])
def test_the_document_leads_to_the_server_below_whatever_path_a_proxy_has_put_it(
    client: TestClient, below: str
) -> None:
    described = document(client)
    (server,) = described["servers"]
    # OpenAPI 3.1, 4.8.5: relative to the document; clients drop the slash at the end.
    base = urljoin(f"https://photos.example{below}/openapi.json", server["url"]).rstrip("/")
    assert base == f"https://photos.example{below}"
    for path in described["paths"]:
        assert (base + path).startswith(f"https://photos.example{below}/api/v1/")


def test_the_document_says_whether_a_token_is_needed(served: Served, indexed: Path) -> None:
    assert "security" not in document(served(indexed))
    guarded = served(indexed, token="open-sesame")
    guarded.headers["Authorization"] = "Bearer open-sesame"
    described = document(guarded)
    assert described["security"] == [{"token": []}]
    assert "401" in described["paths"]["/api/v1/info"]["get"]["responses"]


@pytest.mark.whole("test_the_document_has_all_that_is_there")
def test_whatever_is_asked_is_answered_as_it_is_declared(
    indexed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))  # where maps are kept
    with listening(indexed, ServerOptions(cache=tmp_path / "cache")) as port:
        address = f"http://127.0.0.1:{port}/openapi.json"
        command = [sys.executable, "-m", "schemathesis.cli", "run", address, "--no-color"]
        command += ["--url", f"http://127.0.0.1:{port}"]  # it takes "." for a part of a path
        # What is valid by the schema may make no sense yet: the left of a part is to the right.
        command += ["--exclude-checks", "positive_data_acceptance"]
        command += ["--max-examples", str(EXAMPLES), "--generation-deterministic"]
        ended = run_python(command, cwd=tmp_path)
    assert ended.code == 0, ended.out[-5_000:] + ended.err
    assert "Tested: 29" in ended.out
