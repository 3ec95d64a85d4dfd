"""A browser, and a collection of photographs that is served."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from PIL import Image
from playwright.sync_api import Browser, BrowserContext, Error, Page, expect, sync_playwright

from demo.photographs import find_photographs, variants
from imgsearch.collection import Collection
from tests.support.small_network import make_small_collection
from tests.web.page.serving import Server

BROWSERS = ("chromium", "google-chrome", "google-chrome-stable", "chromium-browser")
VARIANTS = ("mirrored", "grey", "left", "bright")
SIZES = {"desktop": (1280, 800), "phone": (360, 740)}
PATIENCE = 60_000  # milliseconds: the machine may have much else to do


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    """The Chromium or Chrome that is there, else that which playwright has installed."""
    there = next((path for path in map(shutil.which, BROWSERS) if path), None)
    expect.set_options(timeout=PATIENCE)
    with sync_playwright() as playwright:
        try:
            opened = playwright.chromium.launch(executable_path=there, args=["--no-sandbox"])
        except Error:
            pytest.skip("there is no Chromium or Chrome: `playwright install chromium`")
        yield opened
        opened.close()


@pytest.fixture(scope="package")
def album(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of photographs, each in several variants, for reading only."""
    folder = tmp_path_factory.mktemp("album")
    for path in find_photographs():
        with Image.open(path) as image:
            small = image.convert("RGB")
        small.thumbnail((400, 400))
        small.save(folder / f"{path.stem}.jpg")
        for word, variant in variants(small):
            if word in VARIANTS:
                variant.save(folder / f"{path.stem}-{word}.jpg")
    return folder


@pytest.fixture(scope="package")
def server(album: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server of the album, for asking only."""
    directory = make_small_collection(tmp_path_factory.mktemp("served") / "collection")
    with Collection.open(directory, device="cpu") as collection:
        collection.index([album])
    server = Server(directory)
    yield server
    server.stop()


@pytest.fixture
def serve() -> Iterator[Callable[[Path], Server]]:
    """Serve another collection: `serve(directory)`."""
    started: list[Server] = []

    def serve(directory: Path) -> Server:
        started.append(Server(directory))
        return started[-1]

    yield serve
    for server in started:
        server.stop()


@pytest.fixture
def expected() -> list[str]:
    """What the console may say in this test, such as that a file is not found."""
    return []


@pytest.fixture(params=list(SIZES))
def device(request: pytest.FixtureRequest) -> str:
    """What the page is seen on, "desktop" or "phone"."""
    return str(request.param)


@pytest.fixture(scope="package")
def window(browser: Browser) -> Iterator[Callable[[str], BrowserContext]]:
    """Windows, one for each device: to open one costs more than most tests do."""
    opened: dict[str, BrowserContext] = {}

    def window(device: str) -> BrowserContext:
        if device not in opened:
            width, height = SIZES[device]
            phone = device == "phone"
            context = browser.new_context(
                viewport={"width": width, "height": height}, has_touch=phone, is_mobile=phone
            )
            context.set_default_timeout(PATIENCE)
            context.new_page()  # which stays, as the window would close with its last one
            opened[device] = context
        return opened[device]

    yield window
    for context in opened.values():
        context.close()


@pytest.fixture
def context(window: Callable[[str], BrowserContext], device: str) -> Iterator[BrowserContext]:
    """A browser window that has forgotten its past."""
    context = window(device)
    blank, *_ = context.pages
    yield context
    _, *used = context.pages
    session = context.new_cdp_session(blank)
    for page in used:
        origin = urlsplit(page.url)._replace(path="", query="", fragment="").geturl()
        page.close()
        session.send("Storage.clearDataForOrigin", {"origin": origin, "storageTypes": "all"})
    session.send("Network.clearBrowserCache")
    session.detach()
    context.clear_cookies()
    context.clear_permissions()


@pytest.fixture
def page(context: BrowserContext, expected: list[str]) -> Iterator[Page]:
    """A page in which no error and no breach of the security policy may happen."""
    faults: list[str] = []
    page = context.new_page()
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on(
        "console",
        lambda said: faults.append(said.text) if said.type in ("error", "warning") else None,
    )
    yield page
    assert [fault for fault in faults if not any(part in fault for part in expected)] == []


@pytest.fixture
def album_page(page: Page, server: Server) -> Page:
    """The page of the album, its first images shown."""
    page.goto(server.address)
    page.wait_for_selector(".tile")
    return page
