"""Acting on what is selected: downloads, and removal from the collection."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Locator, Page, expect

from imgsearch.collection import Collection
from tests.support.pictures import save_pictures
from tests.web.page.doing import faults, names, open_large, tile
from tests.web.page.serving import Server

pytestmark = pytest.mark.few(1)  # a device

DRAGGED = """() => document.addEventListener("dragstart", (event) => {
  const given = (kind) => [kind, event.dataTransfer.getData(kind)];
  const kinds = ["DownloadURL", "text/uri-list", "text/plain"];
  globalThis.dragged = Object.fromEntries(kinds.map(given));
})"""


@pytest.fixture
def few(page: Page, serve: Callable[[Path], Server], empty: Path, tmp_path: Path) -> Page:
    """The page of 5 pictures."""
    save_pictures(tmp_path / "few", 5)
    with Collection.open(empty, device="cpu") as collection:
        collection.index([tmp_path / "few"])
    page.goto(serve(empty).address)
    expect(page.locator(".tile")).to_have_count(5)
    return page


def drag(page: Page, picture: Locator) -> None:
    """Take hold of a picture, and let it go beside it."""
    box = picture.bounding_box()
    assert box
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] / 2 + 30, box["y"] + box["height"] / 2 + 10, steps=5)
    page.mouse.up()


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


@pytest.mark.whole("test_what_is_removed_can_be_brought_back_until_it_is_gone")
def test_selected_images_are_judged_and_their_paths_saved(few: Page, tmp_path: Path) -> None:
    shown = names(few)
    tile(few, shown[0]).locator(".picture").press("x")
    bar = few.get_by_role("region", name="Selection")
    bar.get_by_text("Mark as").click()
    apart = bar.get_by_role("button", name="Not the same picture")
    expect(apart).to_be_disabled()  # as that takes two
    few.keyboard.press("Escape")
    expect(apart).to_be_hidden()
    expect(bar).to_contain_text("1 image selected")  # which only closed the menu
    tile(few, shown[2]).locator(".picture").press("x")
    bar.get_by_text("Save a list").click()
    with few.expect_download() as download:
        bar.get_by_role("button", name="Save the paths").click()
    folder = tmp_path / "few"
    paths = [str(folder / shown[0]), str(folder / shown[2])]
    assert Path(download.value.path()).read_text().splitlines() == paths
    sent: list[tuple[str, str]] = []
    few.on("request", lambda request: sent.append((request.method, request.url)))
    bar.get_by_text("Mark as").click()
    assert faults(few) == []
    apart.click()
    expect(few.locator("#toast")).to_contain_text("not the same picture")
    bar.get_by_text("Mark as").click()
    bar.get_by_role("button", name="The same picture", exact=True).click()
    expect(few.locator("#toast")).to_contain_text("copies again")
    judged = [(method, "judgements" in url) for method, url in sent if method != "GET"]
    assert judged == [("PUT", True), ("DELETE", True)]


@pytest.mark.few(1)
def test_pictures_are_dragged_out_as_files(album_page: Page, album: Path, device: str) -> None:
    if device == "phone":
        return  # dragging scrolls there
    shown = names(album_page)
    album_page.evaluate(DRAGGED)
    tile(album_page, shown[1]).locator(".picture").press("x")
    drag(album_page, tile(album_page, shown[1]))
    given = album_page.evaluate("dragged")
    address = given["text/uri-list"]
    assert given["DownloadURL"] == f"application/octet-stream:{shown[1]}:{address}"
    assert given["text/plain"] == str(album / shown[1])
    assert album_page.request.get(address).body() == (album / shown[1]).read_bytes()
    expect(album_page.locator(".tile.selected")).to_have_count(1)  # that was no box
    expect(album_page.locator("#drop")).to_be_hidden()
    tile(album_page, shown[0]).locator(".picture").press("x")
    drag(album_page, tile(album_page, shown[1]))
    given = album_page.evaluate("dragged")
    assert given["DownloadURL"].startswith("application/zip:images.zip:http")
    assert given["text/plain"].splitlines() == [str(album / shown[1]), str(album / shown[0])]
    archive = album_page.request.get(given["DownloadURL"].split(":", 2)[2]).body()
    with zipfile.ZipFile(io.BytesIO(archive)) as made:
        assert sorted(made.namelist()) == sorted(shown[:2])
    album_page.keyboard.press("Escape")
    dialog = open_large(album_page, shown[2])
    expect(dialog.locator('.view img[src$="/original"]')).to_be_visible()
    drag(album_page, dialog.locator(".view img"))
    assert album_page.evaluate("dragged")["text/plain"] == str(album / shown[2])
    expect(dialog).to_be_visible()


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
