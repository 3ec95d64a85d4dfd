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


@pytest.mark.parametrize(
    "host",
    [
        "evil.com@127.0.0.1",
        "evil.com:80@127.0.0.1",
        "user:password@localhost",
        "127.0.0.1/",
        "127.0.0.1/evil.com",
        "127.0.0.1?evil.com",
        "127.0.0.1#evil.com",
        "127.0.0.1\\evil.com",
        "127.0.0.1 evil.com",
        "127.0.0.1,evil.com",
        "127.0.0.1:80:80",
        "127.0.0.1:99999",
        "127.0.0.1:+80",
        "127.0.0.1:8_0",
        "[::1",
        "::1]",
        "[::1]evil.com",
        "[::1%eth0]",
        "[evil.com]",
        "%6cocalhost",
        "localhost.",
        "-localhost",
        "http://localhost",
        "lоcalhost",  # with a Cyrillic letter
        "１２７.0.0.1",
    ],
)
def test_a_host_that_is_not_plainly_a_host_is_malformed(client: TestClient, host: str) -> None:
    for address in ADDRESSES:
        answered = client.get(address, headers=[(b"Host", host.encode())])
        assert_problem(answered, 400, "Host header is malformed")
    assert_alive(client)


@pytest.mark.parametrize(
    "header",
    [
        "Host: 127.0.0.1:8765",
        "Origin: http://127.0.0.1:8765",
        "Content-Length: 0",
        "Content-Type: text/plain",
        "Authorization: Bearer open-sesame",
        "Range: bytes=0-1",
        "If-Range: x",
        "Sec-Fetch-Site: same-origin",
        "Sec-Fetch-Mode: cors",
        "Sec-Fetch-Dest: empty",
        "Transfer-Encoding: chunked",
    ],
)
def test_a_header_that_is_given_twice_is_refused(client: TestClient, header: str) -> None:
    name, _, value = header.partition(": ")
    for other in (value, "evil.example"):
        twice = [(name.encode(), value.encode()), (name.lower().encode(), other.encode())]
        assert_problem(client.get("/api/v1/info", headers=twice), 400, name, "more than once")


@pytest.mark.parametrize("length", ["+1", "1_0", " 1 0", "0x1", "-1", "1.0", "", "9" * 30])
def test_a_length_that_is_not_a_number_is_refused(client: TestClient, length: str) -> None:
    answered = client.post("/api/v1/query", headers={"Content-Length": length}, content=b"")
    assert_problem(answered, 400, "Content-Length")


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


# The name that a reverse proxy gives it


@pytest.fixture
def public(served: Served, indexed: Path) -> TestClient:
    hosts = ("photos.example", "home.example:8443")
    return served(indexed, allowed_hosts=hosts, insecure=True)


@pytest.mark.parametrize(
    ("host", "origin"),
    [
        ("photos.example", "https://photos.example"),
        ("PHOTOS.example", "https://photos.example"),
        ("photos.example:80", "http://photos.example"),
        ("127.0.0.1:8765", "https://photos.example"),  # where the proxy replaces the Host header
        ("home.example:8443", "https://home.example:8443"),
        ("home.example", None),
    ],
)
def test_a_host_that_is_allowed_is_served(
    public: TestClient, host: str, origin: str | None
) -> None:
    headers = {"Host": host} | ({"Origin": origin} if origin else {})
    assert public.get("/api/v1/info", headers=headers).status_code == 200


@pytest.mark.parametrize(
    ("host", "origin", "status"),
    [
        ("evil.example", None, 421),
        ("photos.example.evil.example", None, 421),
        ("xphotos.example", None, 421),
        ("photos.example", "https://evil.example", 403),
        ("photos.example", "https://photos.example:1234", 403),
        ("127.0.0.1:8765", "https://home.example", 403),
        ("photos.example", "https://evil.example@photos.example", 403),
        ("photos.example", "https://photos.example/", 403),
        ("photos.example", "file://photos.example", 403),
        ("photos.example", "photos.example", 403),
    ],
)
def test_another_host_or_origin_than_those_allowed_is_refused(
    public: TestClient, host: str, origin: str | None, status: int
) -> None:
    headers = {"Host": host} | ({"Origin": origin} if origin else {})
    assert_problem(public.get("/api/v1/info", headers=headers), status)


def test_an_allowed_host_has_to_be_one_and_needs_a_token_as_others_come_by_it() -> None:
    with pytest.raises(SettingError, match="--token"):
        ServerOptions(allowed_hosts=("photos.example",))
    for wrong in ("https://photos.example", "photos.example/photos", "a b", "", "*", "x:y"):
        with pytest.raises(SettingError, match="not a host"):
            ServerOptions(allowed_hosts=(wrong,), insecure=True)
    assert ServerOptions(allowed_hosts=("localhost", "[::1]:80")).token is None


# The token


@pytest.fixture
def guarded(served: Served, indexed: Path) -> TestClient:
    return served(indexed, host="0.0.0.0", token="open-sesame", guesses=100)


def test_without_the_token_nothing_is_given_away(guarded: TestClient) -> None:
    for headers in (
        {},
        {"Authorization": "Bearer "},
        {"Authorization": "Bearer open-sesam"},
        {"Authorization": "Bearer open-sesame and more"},
        {"Authorization": "Basic open-sesame"},
        {"Authorization": "Bearer öpen sesame".encode("latin-1").decode("latin-1")},
        {"Cookie": "imgsearch-8765=open-sesame"},
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
    guarded.headers["Authorization"] = "Bearer open-sesame"
    assert guarded.get("/api/v1/info").json()["images"] == 40
    assert ask(guarded, photos / "0001.png").status_code == 200


def test_a_browser_is_asked_for_the_token_once(guarded: TestClient) -> None:
    asked = guarded.get("/")
    assert asked.status_code == 401
    assert "Token" in asked.text
    wrong = guarded.get("/?token=open-barley")
    assert (wrong.status_code, wrong.cookies.get("imgsearch-8765")) == (401, None)
    let_in = guarded.get("/?token=open-sesame", follow_redirects=False)
    assert (let_in.status_code, let_in.headers["location"]) == (303, "./")
    cookie = let_in.headers["set-cookie"]
    assert "open-sesame" not in cookie
    assert "HttpOnly" in cookie
    assert "SameSite=Strict" in cookie
    assert "<main" in guarded.get("/").text
    assert guarded.get("/api/v1/info").status_code == 200


def test_a_name_under_which_others_may_come_is_served(guarded: TestClient) -> None:
    guarded.headers["Authorization"] = "Bearer open-sesame"
    assert guarded.get("/api/v1/info", headers={"Host": "192.168.1.7:8765"}).status_code == 200
    assert_problem(guarded.get("/api/v1/info", headers={"Host": "evil.example"}), 421)


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.7", "::", "photos.example"])
def test_others_are_let_in_only_with_a_token_or_knowingly(host: str) -> None:
    with pytest.raises(SettingError, match="--token"):
        ServerOptions(host=host)
    for options in ({"token": "open-sesame"}, {"insecure": True}):
        assert ServerOptions(host=host, **options).host == host
    with pytest.raises(SettingError, match="--token"):
        ServerOptions(host=host, token="")


def test_a_token_can_be_sent_in_a_header() -> None:
    with pytest.raises(SettingError, match="ASCII"):
        ServerOptions(token="schlüssel")
