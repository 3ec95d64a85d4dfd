"""Acting on what is selected: downloads, and removal from the collection."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from imgsearch.collection import Collection
from tests.support.pictures import save_pictures
from tests.web.page.doing import faults, names, open_large, tile
from tests.web.page.serving import Server

pytestmark = pytest.mark.few(1)  # a device


@pytest.fixture
def few(page: Page, serve: Callable[[Path], Server], empty: Path, tmp_path: Path) -> Page:
    """The page of 5 pictures."""
    save_pictures(tmp_path / "few", 5)
    with Collection.open(empty, device="cpu") as collection:
        collection.index([tmp_path / "few"])
    page.goto(serve(empty).address)
    expect(page.locator(".tile")).to_have_count(5)
    return page


def test_what_is_removed_can_be_brought_back_until_it_is_gone(few: Page, tmp_path: Path) -> None:
    shown = names(few)
    for name in shown[:2]:
        tile(few, name).locator(".picture").press("x")
    bar = few.get_by_role("region", name="Selection")
    with few.expect_download() as download:
        bar.get_by_role("link", name="Download").click()
    with zipfile.ZipFile(download.value.path()) as made:
        assert made.namelist() == shown[:2]
        for name in shown[:2]:
            assert made.read(name) == (tmp_path / "few" / name).read_bytes()
    bar.get_by_role("button", name="Remove").click()
    dialog = few.get_by_role("dialog", name="Remove 2 images from the collection?")
    expect(dialog).to_contain_text("Their files stay on the disk.")
    assert faults(few) == []
    dialog.get_by_role("button", name="Cancel").click()
    assert names(few) == shown
    sent: list[str] = []
    few.on("request", lambda request: sent.append(request.method))
    bar.get_by_role("button", name="Remove").click()
    dialog.get_by_role("button", name="Remove").click()
    expect(few.locator(".tile")).to_have_count(3)
    expect(few.locator("#count")).to_have_text("3 images")
    expect(bar).to_be_hidden()
    assert faults(few) == []
    few.get_by_role("button", name="Undo").click()
    expect(few.locator(".tile")).to_have_count(5)
    assert "DELETE" not in sent
    open_large(few, shown[4]).get_by_role("button", name="Select").click()
    bar.get_by_role("button", name="Remove").click()
    few.get_by_role("dialog").get_by_role("button", name="Remove").click()
    expect(few.locator(".tile")).to_have_count(4)
    few.reload()  # which leaves no time to undo it
    expect(few.locator("#total")).to_have_text("4 images")
    assert names(few) == shown[:4]
    assert (tmp_path / "few" / shown[4]).exists()


def test_a_box_that_is_dragged_selects_what_it_touches(album_page: Page, device: str) -> None:
    if device == "phone":
        return  # dragging scrolls there
    shown = names(album_page)
    boxes = [tile(album_page, name).bounding_box() for name in (shown[0], shown[1])]
    assert boxes[0]
    assert boxes[1]
    before = album_page.url
    album_page.mouse.move(boxes[0]["x"] + 40, boxes[0]["y"] + 60)
    album_page.mouse.down()
    for share in (0.2, 1):
        album_page.mouse.move(
            boxes[0]["x"] + 40 + share * (boxes[1]["x"] - boxes[0]["x"]), boxes[1]["y"] + 90
        )
    expect(album_page.locator(".tile.selected")).to_have_count(2)
    album_page.mouse.up()
    expect(album_page.get_by_role("region", name="Selection")).to_contain_text("2 images selected")
    assert album_page.url == before  # that was no click
    expect(album_page.locator(".lasso")).to_have_count(0)


@pytest.mark.whole("test_nothing_is_removed_where_it_is_not_allowed")
def test_a_server_that_is_read_only_offers_no_removal(album_page: Page) -> None:
    album_page.route(
        "**/api/v1/info",
        lambda route: route.fulfill(json=route.fetch().json() | {"read_only": True}),
    )
    album_page.reload()
    album_page.locator(".tile .picture").first.press("x")
    bar = album_page.get_by_role("region", name="Selection")
    expect(bar.get_by_role("link", name="Download")).to_be_visible()
    expect(bar.get_by_role("button", name="Remove")).to_be_hidden()
