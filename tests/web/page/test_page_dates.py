"""The dates beside the images, which lead to a month."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from imgsearch.collection import Collection
from tests.support.pictures import save_pictures
from tests.web.page.doing import faults
from tests.web.page.serving import Server

pytestmark = pytest.mark.few(1)  # a device

COUNT = 120
FIRST_SEEN = """() => {
  const under = document.querySelector("#bar").getBoundingClientRect().bottom;
  const seen = [...document.querySelectorAll(".tile")].filter(
    (tile) => tile.getBoundingClientRect().bottom > under + 2);
  return seen[0].querySelector(".picture").title;
}"""


@pytest.fixture
def dated(page: Page, serve: Callable[[Path], Server], empty: Path, tmp_path: Path) -> Page:
    """The page of 120 pictures, ten of each month of 2019, sorted by date."""
    for at, path in enumerate(save_pictures(tmp_path / "dated", COUNT)):
        time = datetime(2019, 1 + at // 10, 1 + at % 10, 12).timestamp()
        os.utime(path, (time, time))
    with Collection.open(empty, device="cpu") as collection:
        collection.index([tmp_path / "dated"])
    page.goto(serve(empty).address)
    expect(page.locator("#count")).to_have_text(f"{COUNT} images")
    return page


def month_seen(page: Page) -> int:
    """Return the month of the first image in view."""
    expect(page.locator(".blank")).to_have_count(0)
    return 1 + int(Path(page.evaluate(FIRST_SEEN)).stem) // 10


def test_dates_lead_to_the_images_of_a_month(dated: Page) -> None:
    dates = dated.get_by_role("slider", name="Date")
    expect(dates).to_be_hidden()  # as the order is another
    dated.get_by_label("Sort by").select_option(label="Date, oldest first")
    expect(dates).to_be_visible()
    expect(dates).to_have_attribute("aria-valuetext", "January 2019")
    expect(dates).to_contain_text("2019")
    assert faults(dated) == []
    dates.press("End")
    expect(dates).to_have_attribute("aria-valuenow", "11")
    assert month_seen(dated) >= 11  # as much of the last as fits
    dates.press("Home")
    expect(dates).to_have_attribute("aria-valuetext", "January 2019")
    for _ in range(4):
        dates.press("ArrowDown")
    expect(dates).to_have_attribute("aria-valuetext", "May 2019")
    assert month_seen(dated) == 5
    dates.press("ArrowUp")
    expect(dates).to_have_attribute("aria-valuetext", "April 2019")
    box = dates.bounding_box()
    assert box
    dated.mouse.move(box["x"] + 10, box["y"] + 5)
    dated.mouse.down()
    dated.mouse.move(box["x"] + 10, box["y"] + box["height"] * 0.5, steps=4)
    dated.mouse.up()
    assert 4 <= month_seen(dated) <= 8  # less half a window
    assert dated.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert (
        dated.evaluate(
            """() => Math.max(...[...document.querySelectorAll(".tile")].map(
             (tile) => tile.getBoundingClientRect().right))"""
        )
        <= box["x"] + 10
    )  # nothing is covered
    dated.get_by_label("Sort by").select_option(label="Date, newest first")
    expect(dates).to_have_attribute("aria-valuetext", "December 2019")
    first = dated.locator(".tile .picture").first
    expect(first).to_have_attribute("title", re.compile("/0119[.]"))


@pytest.mark.whole("test_dates_lead_to_the_images_of_a_month")
def test_dates_follow_the_filters_and_go_where_they_are_of_no_use(dated: Page) -> None:
    dated.get_by_label("Sort by").select_option(label="Date, newest first")
    dates = dated.get_by_role("slider", name="Date")
    expect(dates).to_have_attribute("aria-valuemax", "11")
    dated.get_by_text("Filter", exact=True).click()
    dated.get_by_label("From", exact=True).fill("2019-07-01")
    dated.get_by_role("button", name="Apply").click()
    expect(dated.locator("#count")).to_have_text("60 images")
    expect(dates).to_have_attribute("aria-valuemax", "5")
    dated.get_by_text("Filter", exact=True).click()
    dated.get_by_label("From", exact=True).fill("2019-12-01")
    dated.get_by_role("button", name="Apply").click()
    expect(dated.locator("#count")).to_have_text("10 images")
    expect(dates).to_be_hidden()
