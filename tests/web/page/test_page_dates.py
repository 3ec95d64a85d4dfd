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
IS_SEEN = """([least, most]) => {
  const under = document.querySelector("#bar").getBoundingClientRect().bottom;
  const places = [...document.querySelectorAll(".tile")].map((tile) => [
    tile.getBoundingClientRect(), tile.querySelector(".picture").title]);
  const seen = places.filter(([{ top, bottom }]) => bottom > under + 2 && top < innerHeight);
  if (seen.length === 0 || document.querySelector(".blank")) return false;
  const month = 1 + Math.floor(seen[0][1].match(/([0-9]+)[.]/)[1] / 10);
  return month >= least && month <= most;
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


def expect_month(page: Page, least: int, most: int) -> None:
    """Wait until the first image in view is of a month from `least` to `most`."""
    page.wait_for_function(IS_SEEN, arg=[least, most])


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
    expect_month(dated, 11, 12)  # as much of the last as fits
    dates.press("Home")
    expect(dates).to_have_attribute("aria-valuetext", "January 2019")
    for _ in range(4):
        dates.press("ArrowDown")
    expect(dates).to_have_attribute("aria-valuetext", "May 2019")
    expect_month(dated, 5, 5)
    dates.press("ArrowUp")
    expect(dates).to_have_attribute("aria-valuetext", "April 2019")
    box = dates.bounding_box()
    assert box
    dated.mouse.move(box["x"] + 10, box["y"] + 5)
    dated.mouse.down()
    dated.mouse.move(box["x"] + 10, box["y"] + box["height"] * 0.5, steps=4)
    dated.mouse.up()
    expect_month(dated, 4, 8)  # less half a window
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
