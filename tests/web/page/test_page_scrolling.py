"""Scrolling through any number of images, of which few are elements of the page."""

from __future__ import annotations

import io
import json
import re
import time
from urllib.parse import parse_qs, urlsplit

import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, Response, Route, ViewportSize, expect

from tests.web.page.doing import names
from tests.web.page.serving import Server

pytestmark = pytest.mark.few(1)  # a device

MANY = 30_000
MOST = 150  # tiles at a time
SCROLL = """share => new Promise((resolve) => {
  scrollTo(0, share * document.documentElement.scrollHeight);
  requestAnimationFrame(() => requestAnimationFrame(resolve)); // the page has seen that
})"""
FILLED = """id => document.querySelector(`.tile[data-id="${id}"] img`)?.naturalWidth > 0"""


@pytest.fixture
def many(page: Page, server: Server) -> Page:
    """The page, as if the collection had that many images, all but every tenth of a known size."""
    buffer = io.BytesIO()
    Image.new("RGB", (3, 2), "teal").save(buffer, "PNG")

    def layout(route: Route) -> None:
        asked = parse_qs(urlsplit(route.request.url).query)
        first, limit = int(asked["after"][0]) + 1, int(asked["limit"][0])
        ids = range(first, min(MANY, first + limit - 1) + 1)
        sizes = [[value if id_ % 10 else None for id_ in ids] for value in (3, 2)]
        found = {"total": MANY, "ids": [*ids], "widths": sizes[0], "heights": sizes[1]}
        route.fulfill(body=json.dumps(found), content_type="application/json")

    def images(route: Route) -> None:
        asked = parse_qs(urlsplit(route.request.url).query)
        ids = asked["ids"][0].split(",") if "ids" in asked else range(1, 61)
        found = [{"id": int(id_), "path": f"/many/{int(id_):05}.jpg"} for id_ in ids]
        route.fulfill(body=json.dumps({"images": found}), content_type="application/json")

    page.route("**/api/v1/layout?*", layout)
    page.route("**/api/v1/images?*", images)
    page.route(
        "**/thumbnail?*",
        lambda route: route.fulfill(body=buffer.getvalue(), content_type="image/png"),
    )
    page.goto(server.address)
    expect(page.locator("#main")).not_to_have_attribute("aria-busy", "true")
    expect(page.locator("#count")).to_have_text(f"{MANY:,} images")
    return page


def test_few_of_many_images_are_elements_wherever_one_scrolls(many: Page) -> None:
    many.wait_for_function(FILLED, arg=1)
    seen = set(names(many))
    for share in (0.3, 0.7, 0.701, 1, 0.999, 0.1):
        many.evaluate(SCROLL, share)
        expect(many.locator(".blank")).to_have_count(0)
        shown = names(many)
        assert 0 < len(shown) <= MOST
        assert shown == sorted(shown)
        seen |= set(shown)
    assert len(seen) > 3 * MOST / 2
    assert {"00001.jpg", f"{MANY:05}.jpg"} <= seen


@pytest.mark.whole("test_few_of_many_images_are_elements_wherever_one_scrolls")
def test_keys_lead_beyond_the_window_and_the_focus_stays_where_it_is(many: Page) -> None:
    many.wait_for_function(FILLED, arg=1)
    many.get_by_role("button", name="Skip to the images").press("Enter")
    many.keyboard.press("End")
    last = many.locator(f'.tile[data-id="{MANY}"] a')
    expect(last).to_be_focused()
    many.keyboard.press("ArrowUp")
    expect(many.locator(".tile a:focus")).to_be_in_viewport()
    many.evaluate("scrollTo(0, 0)")  # by the scroll bar
    many.wait_for_function(FILLED, arg=1)
    expect(many.locator(".tile a:focus")).to_have_count(1)
    many.keyboard.press("Home")
    expect(many.locator('.tile[data-id="1"] a')).to_be_focused()


@pytest.mark.whole("test_few_of_many_images_are_elements_wherever_one_scrolls")
def test_going_back_to_the_middle_of_a_long_list_asks_for_nothing(
    many: Page, expected: list[str]
) -> None:
    expected += ["status of 404"]  # the images are not there
    many.evaluate(SCROLL, 0.5)
    expect(many.locator(".blank")).to_have_count(0)
    there = many.locator(".tile .picture").nth(20)
    title = there.get_attribute("title")
    place = many.evaluate("scrollY")
    there.evaluate("link => link.click()")
    many.wait_for_url("**#like=*")
    asked: list[str] = []
    many.on("request", lambda request: asked.append(request.url))
    many.go_back()
    expect(many.locator(f'.tile [title="{title}"]')).to_be_focused()
    assert abs(many.evaluate("scrollY") - place) < 10
    assert [url for url in asked if "layout" in url] == []


@pytest.mark.few(1)
@pytest.mark.parametrize(
    ("width", "density", "edge"), [(1280, 1, 512), (1280, 2, 768), (360, 1, 256), (360, 3, 768)]
)
def test_thumbnails_come_in_one_size_that_fits_the_screen_and_those_ahead_while_idle(
    browser: Browser, server: Server, width: int, density: int, edge: int
) -> None:
    size: ViewportSize = {"width": width, "height": 300}
    with browser.new_context(viewport=size, device_scale_factor=density) as context:
        page = context.new_page()
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))

        def thumbnails() -> dict[str, str]:
            found = [re.search(r"/images/(\d+)/thumbnail\?size=(\d+)", url) for url in asked]
            return {match[1]: match[2] for match in found if match}

        page.goto(server.address)
        expect(page.locator(".tile").first).to_be_visible()
        expect(page.locator(".waiting")).to_have_count(0)
        tiles = page.locator(".tile").evaluate_all("tiles => tiles.map((tile) => tile.dataset.id)")
        until = time.monotonic() + 30
        while not set(thumbnails()) - set(tiles):
            assert time.monotonic() < until, "no thumbnail was requested ahead"
            page.wait_for_timeout(100)
        assert set(thumbnails().values()) == {str(edge)}
        assert set(tiles) <= set(thumbnails())


def test_the_page_weighs_at_most_200_kb_without_its_thumbnails(page: Page, server: Server) -> None:
    weights: dict[str, int] = {}

    def weigh(answer: Response) -> None:
        if "/api/" not in answer.url:
            length = int(answer.headers["content-length"])
            weights[answer.url.removeprefix(server.address)] = length

    page.on("response", weigh)
    page.goto(server.address)
    page.wait_for_load_state("networkidle")
    assert {"", "static/main.js", "static/style.css"} <= set(weights)
    assert 50_000 < sum(weights.values()) <= 200_000, weights
    assert "static/review.js" not in weights  # which comes with the duplicates
