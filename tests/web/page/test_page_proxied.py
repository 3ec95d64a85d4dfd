"""The page below a path of a reverse proxy, and with a token."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Iterator
from contextlib import closing, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import BrowserContext, Page, expect

from tests.web.page.doing import choose, hits, names, open_large, tile
from tests.web.page.serving import Server

pytestmark = pytest.mark.few(1)  # a device

PREFIX = "/photos"
TOKEN = "open-sesame"
HOP_BY_HOP = ("connection", "keep-alive", "transfer-encoding")


class Proxy(BaseHTTPRequestHandler):
    """Passes what is below a path on without it, as nginx does; anything else is its own."""

    upstream: str
    strayed: list[str]

    def do_GET(self) -> None:
        path = self.path.removeprefix(PREFIX)
        if path == self.path or not path.startswith("/"):
            self.strayed.append(self.path)
            self.send_error(404)
            return
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        headers = {
            name: value for name, value in self.headers.items() if name.lower() != "connection"
        }
        with (
            suppress(BrokenPipeError, ConnectionResetError),  # the browser has gone on
            closing(http.client.HTTPConnection(self.upstream, timeout=60)) as there,
        ):
            there.request(self.command, path, body or None, headers)
            answer = there.getresponse()
            self.send_response(answer.status)
            for name, value in answer.getheaders():
                if name.lower() not in (*HOP_BY_HOP, "date"):
                    self.send_header(name, value)
            self.end_headers()
            self.wfile.write(answer.read())

    do_POST = do_HEAD = do_GET  # noqa: N815 - as they are called

    def log_message(self, *_: object) -> None:
        """Keep quiet."""


@pytest.fixture(scope="package")
def guarded(server: Server) -> Iterator[Server]:
    guarded = Server(server.directory, "--token", TOKEN)
    yield guarded
    guarded.stop()


@pytest.fixture
def strayed() -> list[str]:
    """The addresses that were asked for outside of the path."""
    return []


@pytest.fixture
def below(guarded: Server, strayed: list[str]) -> Iterator[str]:
    """The address of the page of a server with a token, below a path."""
    upstream = urlsplit(guarded.address).netloc
    handler = type("Here", (Proxy,), {"upstream": upstream, "strayed": strayed})
    proxy = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    proxy.daemon_threads = True
    thread = threading.Thread(target=proxy.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{proxy.server_port}{PREFIX}/"
    proxy.shutdown()
    thread.join()
    proxy.server_close()
    assert strayed == []


def log_in(page: Page, address: str) -> None:
    page.goto(address)
    page.get_by_label("Token").fill(TOKEN)
    page.get_by_role("button", name="Open").click()
    expect(page.locator(".tile").first).to_be_visible()


@pytest.mark.whole("test_a_wrong_token_is_asked_for_again_and_stays_out_of_the_address")
def test_everything_works_below_a_path(
    page: Page, context: BrowserContext, below: str, album: Path, expected: list[str]
) -> None:
    expected += ["status of 401"]
    log_in(page, below)
    assert page.url == below
    (cookie,) = context.cookies()
    assert cookie.get("path") == PREFIX
    assert cookie.get("httpOnly") is True
    assert cookie.get("sameSite") == "Strict"
    expect(page.locator(".tile img:not(.waiting)").first).to_be_visible()
    choose(page, album / "chelsea.jpg")
    assert names(page)[0] == "chelsea.jpg"
    tile(page, "chelsea.jpg").locator(".picture").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Similar to chelsea.jpg")
    hits(page)
    assert page.url.startswith(below + "#like=")
    page.reload()
    hits(page)
    dialog = open_large(page, names(page)[0])
    with context.expect_page() as opened:
        dialog.get_by_role("link", name="Open the original").click()
    assert opened.value.url.startswith(below + "api/v1/images/")
    opened.value.close()


@pytest.mark.whole("test_logging_out_ends_that_browser_and_no_other")
def test_logging_out_asks_for_the_token_again(
    page: Page, context: BrowserContext, below: str, expected: list[str]
) -> None:
    expected += ["status of 401"]
    log_in(page, below)
    before = context.cookies()
    page.get_by_role("button", name="Log out").click()
    expect(page.get_by_label("Token")).to_be_visible()
    assert context.cookies() == []
    context.add_cookies([{"name": c["name"], "value": c["value"], "url": below} for c in before])
    page.reload()
    expect(page.get_by_label("Token")).to_be_visible()


def test_a_wrong_token_is_asked_for_again_and_stays_out_of_the_address(
    page: Page, guarded: Server, expected: list[str]
) -> None:
    expected += ["status of 401"]
    page.goto(guarded.address)
    page.get_by_label("Token").fill("open-barley")
    page.get_by_role("button", name="Open").click()
    expect(page.get_by_text("That is not the token.")).to_be_visible()
    assert page.url == guarded.address
    log_in(page, guarded.address)
    assert page.url == guarded.address


@pytest.mark.whole("test_a_wrong_token_is_asked_for_again_and_stays_out_of_the_address")
def test_without_a_token_there_is_nothing_to_log_out_of(album_page: Page) -> None:
    expect(album_page.get_by_role("button", name="Log out")).to_be_hidden()


@pytest.mark.whole("test_cookies_of_others_on_this_host_do_not_matter")
def test_a_cookie_of_another_application_does_not_keep_anybody_out(
    page: Page, context: BrowserContext, guarded: Server, expected: list[str]
) -> None:
    expected += ["status of 401"]
    context.add_cookies([{"name": "other", "value": '{"a,b":[1}', "url": guarded.address}])
    log_in(page, guarded.address)
