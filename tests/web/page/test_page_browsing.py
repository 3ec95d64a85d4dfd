"""Looking at the collection: the grid, the large view, the way back."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import BrowserContext, Page, expect

from tests.web.page.doing import choose, hits, names, open_large, tile
from tests.web.page.serving import Server

pytestmark = pytest.mark.few(1)  # a device

ROWS = """tiles => tiles.map(tile => {
  const { left, right, top, height } = tile.getBoundingClientRect();
  return [Math.round(left), Math.round(right), Math.round(top), Math.round(height)];
})"""


@pytest.mark.whole("test_scrolling_to_the_end_again_and_again_shows_all_images")
def test_more_images_come_while_one_scrolls(album_page: Page, album: Path) -> None:
    count = len(list(album.iterdir()))
    assert album_page.locator(".tile").count() < count
    while album_page.locator(".tile").count() < count:
        shown = album_page.locator(".tile").count()
        album_page.mouse.move(150, 500)
        album_page.evaluate("scrollTo(0, document.body.scrollHeight)")
        expect(album_page.locator(f".tile >> nth={shown}")).to_be_attached()
    assert sorted(names(album_page)) == sorted(path.name for path in album.iterdir())
    expect(album_page.get_by_role("button", name="Show more")).to_be_hidden()


@pytest.mark.whole("test_scrolling_to_the_end_again_and_again_shows_all_images")
def test_hits_go_on_while_one_scrolls_without_a_repetition(album_page: Page, album: Path) -> None:
    choose(album_page, album / "chelsea.jpg")
    shown = hits(album_page).count()
    album_page.evaluate("scrollTo(0, document.body.scrollHeight)")
    expect(album_page.locator(f".tile >> nth={shown}")).to_be_attached()
    similarities = [float(text) for text in hits(album_page).all_text_contents()]
    assert similarities == sorted(similarities, reverse=True)
    assert len(set(names(album_page))) == len(names(album_page))


@pytest.mark.few(2)
def test_rows_are_justified_and_nothing_juts_out(album_page: Page) -> None:
    album_page.wait_for_load_state("networkidle")
    left, right = album_page.locator("#grid").evaluate(
        "grid => { const box = grid.getBoundingClientRect(); return [box.left, box.right]; }"
    )
    rows: dict[int, list[list[int]]] = {}
    for box in album_page.locator(".tile").evaluate_all(ROWS):
        rows.setdefault(box[2], []).append(box)
    *full, _ = rows.values()
    assert len(full) > 3
    for row in full:
        assert abs(row[0][0] - left) <= 1
        assert abs(row[-1][1] - right) <= 1
        assert len({height for *_, height in row}) == 1
    assert album_page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_back_forward_and_reload_keep_the_question(album_page: Page, album: Path) -> None:
    choose(album_page, album / "chelsea.jpg")
    first = names(album_page)
    tile(album_page, first[5]).locator(".picture").click()
    heading = album_page.get_by_role("heading", level=1)
    expect(heading).to_have_text(f"Similar to {first[5]}")
    album_page.go_back()
    expect(heading).to_have_text("Similar to chelsea.jpg")
    nearest = album_page.locator(".tile .picture").first
    expect(nearest).to_have_attribute("title", f"{album}/{first[0]}")
    assert names(album_page) == first
    expect(tile(album_page, first[5]).locator(".picture")).to_be_focused()
    album_page.go_forward()
    expect(heading).to_have_text(f"Similar to {first[5]}")
    album_page.go_back()
    expect(heading).to_have_text("Similar to chelsea.jpg")
    album_page.reload()
    expect(heading).to_have_text("Similar to chelsea.jpg")
    expect(album_page.get_by_alt_text("Query: chelsea.jpg")).to_be_visible()
    album_page.go_back()
    expect(heading).to_have_text("All images")


@pytest.mark.whole("test_back_forward_and_reload_keep_the_question")
def test_going_back_returns_to_the_same_place(album_page: Page) -> None:
    album_page.evaluate("scrollTo(0, document.body.scrollHeight)")
    expect(album_page.locator(".tile >> nth=60")).to_be_attached()
    album_page.wait_for_load_state("networkidle")
    far = album_page.locator(".tile >> nth=70")
    far.scroll_into_view_if_needed()
    before = album_page.evaluate("scrollY")
    assert before > 300
    far.locator(".picture").click()
    hits(album_page)
    assert album_page.evaluate("scrollY") == 0
    album_page.go_back()
    expect(album_page.locator(".tile >> nth=70").locator(".picture")).to_be_focused()
    album_page.wait_for_function("before => Math.abs(scrollY - before) < 200", arg=before)


@pytest.mark.whole("test_back_forward_and_reload_keep_the_question")
def test_a_bookmark_opens_the_same_hits(
    album_page: Page, context: BrowserContext, album: Path
) -> None:
    choose(album_page, album / "chelsea.jpg")
    there = context.new_page()
    there.goto(album_page.url)
    hits(there)
    assert names(there) == names(album_page)
    there.close()


@pytest.mark.whole("test_the_large_view_goes_from_image_to_image_and_gives_the_focus_back")
def test_the_large_view_opens_the_original_and_copies_its_path(
    album_page: Page, context: BrowserContext, album: Path
) -> None:
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    dialog = open_large(album_page, "coffee.jpg")
    expect(dialog.get_by_role("heading")).to_have_text("coffee.jpg")
    dialog.get_by_role("button", name="Copy the path").click()
    expect(album_page.locator("#toast")).to_contain_text("clipboard")
    assert album_page.evaluate("navigator.clipboard.readText()") == str(album / "coffee.jpg")
    with context.expect_page() as opened:
        dialog.get_by_role("link", name="Open the original").click()
    assert opened.value.url.endswith("/original")
    opened.value.close()


def test_the_large_view_goes_from_image_to_image_and_gives_the_focus_back(
    album_page: Page,
) -> None:
    first, second = names(album_page)[:2]
    dialog = open_large(album_page, first)
    expect(dialog.get_by_role("button", name="Previous image")).to_be_hidden()
    dialog.press("ArrowRight")
    expect(dialog.get_by_role("heading")).to_have_text(second)
    dialog.get_by_role("button", name="Previous image").click()
    expect(dialog.get_by_role("heading")).to_have_text(first)
    dialog.get_by_role("button", name="Next image").click()
    album_page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    expect(tile(album_page, second).locator(".picture")).to_be_focused()


def test_the_keyboard_is_enough(album_page: Page) -> None:
    album_page.keyboard.press("Tab")
    expect(album_page.get_by_role("button", name="Skip to the images")).to_be_focused()
    album_page.keyboard.press("Enter")
    pictures = album_page.locator(".tile .picture")
    expect(pictures.first).to_be_focused()
    album_page.keyboard.press("ArrowRight")
    expect(pictures.nth(1)).to_be_focused()
    album_page.keyboard.press("ArrowDown")
    album_page.keyboard.press("ArrowUp")
    album_page.keyboard.press("Home")
    expect(pictures.first).to_be_focused()
    outline = pictures.first.evaluate("link => getComputedStyle(link).outlineStyle")
    assert outline == "solid"
    album_page.keyboard.press("Enter")
    hits(album_page)
    expect(album_page.get_by_role("heading", level=1)).to_be_focused()


@pytest.mark.whole("test_back_forward_and_reload_keep_the_question")
def test_the_name_at_the_top_leads_to_all_images(album_page: Page, server: Server) -> None:
    tile(album_page, "coffee.jpg").locator(".picture").click()
    hits(album_page)
    album_page.get_by_role("link", name="imgsearch, all images").click()
    expect(album_page.get_by_role("heading", level=1)).to_have_text("All images")
    assert album_page.url.rstrip("#") == server.address
