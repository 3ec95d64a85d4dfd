"""What programs, browsers and reverse proxies expect of any HTTP server."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from imgsearch.web.app import STATIC
from tests.web.conftest import Served
from tests.web.test_api import assert_problem, browse

READABLE = (
    "/",
    "/static/main.js",
    "/openapi.json",
    "/api/v1/health",
    "/api/v1/info",
    "/api/v1/images",
    "/api/v1/images?limit=3",
    "/api/v1/images/1",
    "/api/v1/images/1/original",
    "/api/v1/images/1/thumbnail",
    "/api/v1/images/1/thumbnail?size=512",
    "/api/v1/images/999999",
    "/api/v1/images/x/original",
    "/nothing",
)


# HEAD


@pytest.mark.parametrize("address", READABLE)
def test_head_answers_as_get_without_a_body(client: TestClient, address: str) -> None:
    got = client.get(address)
    head = client.head(address)
    assert (head.status_code, head.content) == (got.status_code, b"")
    assert dict(head.headers) == dict(got.headers)
    assert int(head.headers["content-length"]) == len(got.content)


def test_head_without_the_token_gives_nothing_away(served: Served, indexed: Path) -> None:
    guarded = served(indexed, token="open-sesame")
    for address in READABLE:
        assert guarded.head(address).status_code == guarded.get(address).status_code == 401
    guarded.headers["Authorization"] = "Bearer open-sesame"
    for address in READABLE[:-3]:
        assert guarded.head(address).status_code == 200


def test_head_is_not_modified_either(client: TestClient) -> None:
    for address in ("/", "/static/main.js", "/api/v1/images/1/original"):
        etag = client.head(address).headers["etag"]
        known = {"If-None-Match": f'W/"other", {etag}'}
        for answered in (client.head(address, headers=known), client.get(address, headers=known)):
            assert (answered.status_code, answered.content) == (304, b"")


# Methods and addresses


@pytest.mark.parametrize(
    ("method", "address", "allowed"),
    [
        ("POST", "/", "GET, HEAD"),
        ("DELETE", "/api/v1/images/1", "GET, HEAD"),
        ("PUT", "/api/v1/images/1/original", "GET, HEAD"),
        ("POST", "/api/v1/info", "GET, HEAD"),
        ("OPTIONS", "/api/v1/images", "DELETE, GET, HEAD"),
        ("GET", "/api/v1/query", "POST"),
        ("HEAD", "/api/v1/query", "POST"),
    ],
)
def test_another_method_is_told_those_that_are_allowed(
    client: TestClient, method: str, address: str, allowed: str
) -> None:
    answered = client.request(method, address)
    assert (answered.status_code, answered.headers["allow"]) == (405, allowed)


@pytest.mark.parametrize(
    ("address", "there"), [("/api/v1/info/", "../info"), ("/api/v1/images/1/", "../1")]
)
def test_a_trailing_slash_leads_to_the_address_without_it_wherever_a_proxy_has_put_that(
    client: TestClient, address: str, there: str
) -> None:
    answered = client.get(address, follow_redirects=False)
    assert (answered.status_code, answered.headers["location"]) == (308, there)
    assert client.get(address).json() == client.get(address.rstrip("/")).json()


@pytest.mark.parametrize("address", ["/static", "/photos/", "/api/v1/info//", "/api/"])
def test_nobody_is_sent_to_an_absolute_address(client: TestClient, address: str) -> None:
    answered = client.get(address, follow_redirects=False)
    assert answered.status_code in (308, 404)
    assert answered.headers.get("location", "../").startswith("../")


def test_whatever_is_forwarded_is_not_believed(client: TestClient) -> None:
    for headers in (
        {"X-Forwarded-Host": "127.0.0.1", "Host": "evil.example"},
        {"Forwarded": "host=127.0.0.1", "Host": "evil.example"},
    ):
        assert_problem(client.get("/api/v1/info", headers=headers), 421, "--allow-host")
    everything = {
        "X-Forwarded-For": "10.0.0.1",
        "X-Forwarded-Host": "evil.example",
        "X-Forwarded-Proto": "https",
        "X-Forwarded-Prefix": "/photos",
    }
    plain, forwarded = client.get("/"), client.get("/", headers=everything)
    assert (forwarded.text, forwarded.headers) == (plain.text, plain.headers)


# Ranges


@pytest.mark.parametrize(
    ("asked", "first", "last"),
    [
        ("bytes=0-0", 0, 0),
        ("bytes=10-19", 10, 19),
        ("bytes=100-", 100, None),
        ("bytes=-7", -7, None),
        ("bytes=0-99999999", 0, None),
        ("bytes=-99999999", 0, None),
    ],
)
def test_a_range_of_an_original_is_delivered(
    client: TestClient, asked: str, first: int, last: int | None
) -> None:
    content = Path(browse(client)[0]["path"]).read_bytes()
    answered = client.get("/api/v1/images/1/original", headers={"Range": asked})
    expected = content[first:] if last is None else content[first : last + 1]
    start = first % len(content)
    assert answered.status_code == 206
    assert answered.content == expected
    stop = start + len(expected) - 1
    assert answered.headers["content-range"] == f"bytes {start}-{stop}/{len(content)}"
    assert answered.headers["content-length"] == str(len(expected))
    assert answered.headers["content-type"] == "image/jpeg"


@pytest.mark.parametrize("asked", ["bytes=99999999-", "bytes=99999999-100000000", "bytes=-0"])
def test_a_range_that_is_not_there_is_refused_with_the_size(client: TestClient, asked: str) -> None:
    size = Path(browse(client)[0]["path"]).stat().st_size
    answered = client.get("/api/v1/images/1/original", headers={"Range": asked})
    assert_problem(answered, 416, "range")
    assert answered.headers["content-range"] == f"bytes */{size}"


@pytest.mark.parametrize(
    "headers",
    [
        {"Range": "bytes=0-1,4-5"},
        {"Range": "bytes=5-1"},
        {"Range": "bytes=-"},
        {"Range": "bytes=+1-2"},
        {"Range": "lines=0-1"},
        {"Range": "bytes=0-1", "If-Range": '"other"'},
        {"Range": "bytes=0-1", "If-Range": "Fri, 27 Nov 2026 10:00:00 GMT"},
    ],
)
def test_another_range_is_answered_with_all(client: TestClient, headers: dict[str, str]) -> None:
    content = Path(browse(client)[0]["path"]).read_bytes()
    answered = client.get("/api/v1/images/1/original", headers=headers)
    assert (answered.status_code, answered.content) == (200, content)
    assert answered.headers["accept-ranges"] == "bytes"


def test_a_range_is_delivered_if_the_file_is_what_it_was(client: TestClient) -> None:
    etag = client.head("/api/v1/images/1/original").headers["etag"]
    headers = {"Range": "bytes=0-1", "If-Range": etag}
    assert client.get("/api/v1/images/1/original", headers=headers).status_code == 206


# Numbers


@pytest.mark.parametrize(
    "number", ["+1", "1_0", "%201", "1%20", "01", "１", "١", "1.0", "0x1", "1e0", "1%00", "--1"]
)
def test_a_number_is_nothing_but_its_digits(client: TestClient, number: str) -> None:
    number = number.replace("+", "%2B")
    for what in ("", "/original", "/thumbnail"):
        assert_problem(client.get(f"/api/v1/images/{number}{what}"), 422, "id: ")
    for name in ("after", "limit"):
        assert_problem(client.get(f"/api/v1/images?{name}={number}"), 422, f"{name}: ")


@pytest.mark.parametrize(
    "query",
    ["images?after=1&after=2", "images?limit=1&limit=1", "images/1/thumbnail?size=256&size=512"],
)
def test_a_parameter_that_is_given_twice_is_refused(client: TestClient, query: str) -> None:
    assert_problem(client.get(f"/api/v1/{query}"), 400, "more than once")


def test_the_page_weighs_less_than_200_kilobytes() -> None:
    """Each view that most visits do without is loaded when it is first shown, and less heavy."""
    page = _loaded_with("index.html")
    for name, most in (("map.js", 30_000), ("review.js", 50_000)):
        assert 0 < _weight(_loaded_with(name) - page) < most
    assert _weight(page) < 200_000
    assert {"main.js", "grid.js", "style.css"} <= page


def _loaded_with(name: str) -> set[str]:
    """Return the names of a file of the page and of all that it loads at once."""
    found, left = set[str](), {name}
    while left:
        found |= left
        texts = [(STATIC / each).read_text() for each in left]
        loads = r'(?:^(?:import|export) .*?from "\./|="static/)([\w.-]+)"'
        left = {each for text in texts for each in re.findall(loads, text, re.M)} - found
    return found


def _weight(names: set[str]) -> int:
    return sum((STATIC / name).stat().st_size for name in names)
