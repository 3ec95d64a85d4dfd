"""Who is let in, and what an answer carries."""

from __future__ import annotations

from pathlib import Path

import pytest
from starlette.testclient import TestClient

from imgsearch.errors import SettingError
from imgsearch.web.options import ServerOptions
from tests.web.conftest import Served
from tests.web.test_api import ask, assert_problem

ADDRESSES = ("/", "/api/v1/info", "/api/v1/images/1/original", "/openapi.json", "/static/main.js")


def assert_alive(client: TestClient) -> None:
    assert client.get("/api/v1/health").status_code == 200


@pytest.mark.parametrize("address", ADDRESSES)
@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8765", "127.0.0.1.evil.example", "10.0.0.7:8765", ""]
)
def test_a_host_that_was_rebound_is_refused(client: TestClient, host: str, address: str) -> None:
    assert_problem(client.get(address, headers={"Host": host}), 421, "Host header")
    assert_alive(client)


@pytest.mark.parametrize("host", ["localhost", "localhost:8765", "127.0.0.1", "[::1]:9000"])
def test_this_machine_is_served_whatever_it_calls_itself(client: TestClient, host: str) -> None:
    assert client.get("/api/v1/info", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1234"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "iframe"},
    ],
)
def test_pages_of_other_sites_can_neither_query_nor_read(
    client: TestClient, headers: dict[str, str]
) -> None:
    for address in ADDRESSES:
        assert_problem(client.get(address, headers=headers), 403, "other sites")
    answered = client.post("/api/v1/query", headers=headers, files={"like": (None, "1")})
    assert_problem(answered, 403, "other sites")
    assert client.options("/api/v1/query", headers=headers).status_code == 403
    assert_alive(client)


def test_a_link_of_another_site_opens_the_page_and_nothing_else(client: TestClient) -> None:
    headers = {
        "Sec-Fetch-Site": "cross-site",
        "Sec-Fetch-Mode": "navigate",
        "Sec-Fetch-Dest": "document",
    }
    assert client.get("/", headers=headers).status_code == 200
    assert client.get("/api/v1/images/1/original", headers=headers).status_code == 403


def test_every_answer_carries_safe_headers(client: TestClient) -> None:
    for address in (*ADDRESSES, "/nothing", "/api/v1/images/1/thumbnail"):
        headers = client.get(address).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["x-frame-options"] == "DENY"
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["cross-origin-resource-policy"] == "same-origin"
        assert "default-src 'none'" in headers["content-security-policy"]
        assert "unsafe-inline" not in headers["content-security-policy"].partition("style")[0]
        assert "access-control-allow-origin" not in headers
        assert "cache-control" in headers


@pytest.mark.parametrize(
    "path",
    [
        "/static/../../storage/catalog.py",
        "/static/%2e%2e/%2e%2e/storage/catalog.py",
        "/static/..%2f..%2f..%2fetc/passwd",
        "/static//etc/passwd",
        "/static/%00",
        "/..%2f..%2fetc/passwd",
        "/api/v1/images/..%2f..%2fetc%2fpasswd/original",
        "/api/v1/images/1/original/../../../etc/passwd",
        "/api/v1/images/%2fetc%2fpasswd",
    ],
)
def test_no_path_leads_to_a_file(client: TestClient, path: str) -> None:
    answered = client.get(path)
    assert answered.status_code in (404, 405, 422), answered.text
    assert "root:" not in answered.text
    assert_alive(client)


# The token


@pytest.fixture
def guarded(served: Served, indexed: Path) -> TestClient:
    return served(indexed, host="0.0.0.0", token="open sesame")


def test_without_the_token_nothing_is_given_away(guarded: TestClient) -> None:
    for headers in (
        {},
        {"Authorization": "Bearer "},
        {"Authorization": "Bearer open sesam"},
        {"Authorization": "Bearer open sesame and more"},
        {"Authorization": "Basic open sesame"},
        {"Authorization": "Bearer öpen sesame".encode("latin-1").decode("latin-1")},
        {"Cookie": "imgsearch-8765=open sesame"},
        {"Cookie": "imgsearch-8765=" + "0" * 64},
    ):
        encoded = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
        for address in ("/api/v1/info", "/api/v1/health", "/openapi.json", "/static/main.js"):
            answered = guarded.get(address, headers=encoded)
            assert_problem(answered, 401, "a token is needed")
            assert answered.headers["www-authenticate"] == "Bearer"
        answered = guarded.post("/api/v1/query", headers=encoded, files={"like": (None, "1")})
        assert_problem(answered, 401)
        assert "Token" in guarded.get("/", headers=encoded).text


def test_a_program_sends_the_token(guarded: TestClient, photos: Path) -> None:
    guarded.headers["Authorization"] = "Bearer open sesame"
    assert guarded.get("/api/v1/info").json()["images"] == 40
    assert ask(guarded, photos / "0001.png").status_code == 200


def test_a_browser_is_asked_for_the_token_once(guarded: TestClient) -> None:
    asked = guarded.get("/")
    assert asked.status_code == 401
    assert "Token" in asked.text
    wrong = guarded.get("/?token=open+barley")
    assert (wrong.status_code, wrong.cookies.get("imgsearch-8765")) == (401, None)
    let_in = guarded.get("/?token=open+sesame", follow_redirects=False)
    assert (let_in.status_code, let_in.headers["location"]) == (303, "/")
    cookie = let_in.headers["set-cookie"]
    assert "open sesame" not in cookie
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie
    assert "<main" in guarded.get("/").text
    assert guarded.get("/api/v1/info").status_code == 200


def test_a_name_under_which_others_may_come_is_served(guarded: TestClient) -> None:
    guarded.headers["Authorization"] = "Bearer open sesame"
    assert guarded.get("/api/v1/info", headers={"Host": "192.168.1.7:8765"}).status_code == 200
    assert_problem(guarded.get("/api/v1/info", headers={"Host": "evil.example"}), 421)


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.7", "::", "photos.example"])
def test_others_are_let_in_only_with_a_token_or_knowingly(host: str) -> None:
    with pytest.raises(SettingError, match="--token"):
        ServerOptions(host=host)
    for options in ({"token": "x"}, {"insecure": True}):
        assert ServerOptions(host=host, **options).host == host
    with pytest.raises(SettingError, match="--token"):
        ServerOptions(host=host, token="")


def test_a_token_can_be_sent_in_a_header() -> None:
    with pytest.raises(SettingError, match="ASCII"):
        ServerOptions(token="schlüssel")
