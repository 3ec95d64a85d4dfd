"""The page can be used by everybody: axe-core finds nothing serious in any view."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal

import pytest
from playwright.sync_api import Page, expect

from tests.web.page.doing import choose, faults, hits, names, open_large, reveal, unfold
from tests.web.page.serving import Server

pytestmark = pytest.mark.few(1)  # a device


@pytest.mark.whole("test_a_click_shows_the_most_similar_images")
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_view_has_a_serious_fault(
    album_page: Page, album: Path, scheme: Literal["light", "dark"]
) -> None:
    page = album_page
    page.emulate_media(color_scheme=scheme)
    assert faults(page) == []  # browsing
    open_large(page, "coffee.jpg")
    assert faults(page) == []
    page.keyboard.press("Escape")
    choose(page, album / "chelsea.jpg")
    for key, name in zip("+-", names(page)[8:10], strict=True):
        reveal(page, name).locator(".picture").press(key)
        expect(page.get_by_role("img", name=name, exact=True)).to_have_count(1)
        hits(page)
    page.get_by_role("button", name="Crop to search").click()
    page.wait_for_url("**crop=*")
    unfold(page)
    assert faults(page) == []
    page.locator("#least").fill("1")
    expect(page.get_by_role("heading", name="Nothing found")).to_be_visible()
    assert faults(page) == []


@pytest.mark.whole("test_a_click_shows_the_most_similar_images")
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_an_empty_collection_has_no_serious_fault(
    page: Page,
    serve: Callable[[Path], Server],
    empty: Path,
    scheme: Literal["light", "dark"],
) -> None:
    page.emulate_media(color_scheme=scheme)
    page.goto(serve(empty).address)
    expect(page.get_by_role("heading", name="There are no images yet")).to_be_visible()
    assert faults(page) == []


@pytest.mark.whole("test_an_image_can_be_dropped_and_pasted")
def test_what_is_found_is_announced(album_page: Page, album: Path) -> None:
    choose(album_page, album / "chelsea.jpg")
    expect(album_page.locator("#count[role=status]")).to_contain_text("60 most similar")


@pytest.mark.few(1)
def test_nothing_moves_for_those_who_want_it_so(album_page: Page) -> None:
    album_page.emulate_media(reduced_motion="reduce")
    picture = album_page.locator(".tile img").first
    assert picture.evaluate("image => getComputedStyle(image).transitionDuration") == "0s"


@pytest.mark.few(1)
@pytest.mark.parametrize("device", ["phone"], indirect=True)
@pytest.mark.parametrize("width", [320, 360])
def test_the_header_is_one_row_on_the_smallest_phones_and_stays_in_view(
    album_page: Page, album: Path, width: int
) -> None:
    page = album_page
    page.set_viewport_size({"width": width, "height": 640})
    bar = page.locator("#bar")
    actions = [
        page.get_by_role("button", name=name) for name in ("Choose an image", "Take a photo")
    ]
    actions += [page.get_by_role("link", name=name) for name in ("Map", "Duplicates")]
    for search in (False, True):
        if search:
            choose(page, album / "chelsea.jpg")
            page.evaluate("scrollTo(0, 1000)")
        box = bar.bounding_box()
        assert box
        assert (box["y"], box["width"]) == (0, width)
        assert box["height"] <= 64  # one row
        for action in actions:
            inner = action.bounding_box()
            assert inner
            assert inner["x"] >= 0
            assert inner["x"] + inner["width"] <= width
            expect(action).to_be_in_viewport()
        assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.evaluate("scrollTo(0, 0)")
    row = page.locator("#subject").bounding_box()
    assert row
    assert row["height"] <= 130  # the picture beside what can be done with it
    for name in ("Crop to search", "Remove"):
        expect(page.get_by_role("button", name=name, exact=True)).to_be_in_viewport(ratio=1)
    page.set_viewport_size({"width": 360, "height": 740})
