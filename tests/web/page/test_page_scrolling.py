"""Scrolling on: further images come until there are no more."""

from __future__ import annotations

import io
import json
from urllib.parse import parse_qs, urlsplit

import pytest
from PIL import Image
from playwright.sync_api import Page, Route, expect

from tests.support.depth import Harm
from tests.web.page.serving import Server

pytestmark = pytest.mark.few(1)  # a device

MANY, FAST = 2_000, 320  # the last page is not full
OBSERVER = """window.IntersectionObserver = class {
  constructor(callback) { window.report = (...seen) =>
    callback(seen.map((isIntersecting) => ({ isIntersecting }))); }
  observe() {} unobserve() {} disconnect() {}
}"""


@pytest.fixture
def count(harm: Harm) -> int:
    """How many images there are."""
    return harm.times(MANY, MANY, fast=FAST)


@pytest.fixture
def many(page: Page, server: Server, count: int) -> Page:
    """The page, as if the collection had that many images."""
    buffer = io.BytesIO()
    Image.new("RGB", (3, 2), "teal").save(buffer, "PNG")

    def images(route: Route) -> None:
        asked = parse_qs(urlsplit(route.request.url).query)
        first, limit = int(asked["after"][0]) + 1, int(asked["limit"][0])
        found = [
            {"id": id_, "path": f"/many/{id_:04}.jpg", "width": 3, "height": 2}
            for id_ in range(first, min(count, first + limit - 1) + 1)
        ]
        route.fulfill(body=json.dumps({"images": found}), content_type="application/json")

    page.route("**/api/v1/images?*", images)
    page.route(
        "**/thumbnail?*",
        lambda route: route.fulfill(body=buffer.getvalue(), content_type="image/png"),
    )
    page.goto(server.address)
    expect(page.locator(".tile").first).to_be_attached()
    return page


def test_scrolling_to_the_end_again_and_again_shows_all_images(many: Page, count: int) -> None:
    shown = 0
    while shown < count:
        many.evaluate("scrollTo(0, document.documentElement.scrollHeight)")
        many.wait_for_function(
            "shown => document.querySelectorAll('.tile').length > shown", arg=shown
        )
        shown = many.locator(".tile").count()
    assert many.locator(".tile").count() == count
    expect(many.get_by_role("button", name="Show more")).to_be_hidden()
    ids = many.locator(".tile").evaluate_all("tiles => tiles.map(tile => Number(tile.dataset.id))")
    assert ids == list(range(1, count + 1))


@pytest.mark.few(2)
@pytest.mark.parametrize(
    ("seen", "more"),
    [
        ([True], True),
        ([False, True], True),
        ([True, False, True], True),
        ([False, False, False, True], True),
        ([False], False),
        ([True, False], False),
        ([False, True, False], False),
    ],
)
def test_of_several_reports_at_once_the_last_one_counts(
    page: Page, server: Server, seen: list[bool], more: bool
) -> None:
    page.add_init_script(OBSERVER)
    page.goto(server.address)
    expect(page.locator(".tile >> nth=59")).to_be_attached()
    expect(page.locator("#main")).not_to_have_attribute("aria-busy", "true")
    page.evaluate("seen => report(...seen)", seen)
    busy = page.locator("#main").get_attribute("aria-busy") == "true"
    assert busy == more or page.locator(".tile").count() > 60
    if more:
        expect(page.locator(".tile >> nth=60")).to_be_attached()
    else:
        assert page.locator(".tile").count() == 60
