"""The server does what its OpenAPI document says, whatever it is asked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis.checks import load_all_checks
from starlette.testclient import TestClient

from tests.web.conftest import Served

EXAMPLES = 60  # for each operation
STATUSES = {200, 304, 400, 401, 403, 404, 405, 408, 410, 413, 415, 421, 422, 500, 503}


def document(client: TestClient) -> dict[str, Any]:
    described: dict[str, Any] = client.get("/openapi.json").json()
    return described


def test_the_document_has_all_that_is_there(client: TestClient) -> None:
    paths = document(client)["paths"]
    assert set(paths) == {
        "/api/v1/query",
        "/api/v1/images",
        "/api/v1/images/{id}",
        "/api/v1/images/{id}/original",
        "/api/v1/images/{id}/thumbnail",
        "/api/v1/info",
        "/api/v1/health",
    }
    for operations in paths.values():
        for operation in operations.values():
            assert set(map(int, operation["responses"])) <= STATUSES
            assert operation["description"]


def test_the_document_says_whether_a_token_is_needed(served: Served, indexed: Path) -> None:
    assert "security" not in document(served(indexed))
    guarded = served(indexed, token="x")
    guarded.headers["Authorization"] = "Bearer x"
    described = document(guarded)
    assert described["security"] == [{"token": []}]
    assert "401" in described["paths"]["/api/v1/info"]["get"]["responses"]


def test_whatever_is_asked_is_answered_as_it_is_declared(client: TestClient) -> None:
    load_all_checks()
    schema = schemathesis.openapi.from_dict(document(client))
    checks = [
        schemathesis.checks.CHECKS.get_one(name)
        for name in (
            "not_a_server_error",
            "status_code_conformance",
            "content_type_conformance",
            "response_headers_conformance",
            "response_schema_conformance",
        )
    ]
    asked = []
    for operation in schema.get_all_operations():
        case_of = operation.ok().as_strategy()

        @settings(
            max_examples=EXAMPLES,
            deadline=None,
            database=None,
            derandomize=True,
            phases=[Phase.explicit, Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @pytest.mark.filterwarnings("ignore")
        def ask(case: schemathesis.Case) -> None:
            response = case.call(session=client, base_url=str(client.base_url))
            asked.append(response.status_code)
            case.validate_response(response, checks=checks)

        from hypothesis import given

        given(case=case_of)(ask)()
    assert len(asked) > 5 * EXAMPLES
    assert {200, 422} <= set(asked)
