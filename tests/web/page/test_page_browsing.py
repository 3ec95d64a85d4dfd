"""Looking at the collection: the grid, the large view, the way back."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import ExifTags, Image, TiffImagePlugin
from playwright.sync_api import BrowserContext, Page, Route, expect

from imgsearch.collection import Collection
from tests.support.pictures import picture, save_pictures
from tests.web.page.doing import choose, faults, hits, names, open_large, reveal, tile, unfold
from tests.web.page.serving import Server

pytestmark = pytest.mark.few(1)  # a device

HITS = """tiles => tiles.map((tile) =>
  [tile.querySelector(".picture").title, tile.querySelector(".similarity").textContent])"""
TO_THE_END = """() => new Promise((resolve) => {
  scrollTo(0, document.body.scrollHeight);
  requestAnimationFrame(() => requestAnimationFrame(resolve)); // the page has seen that
})"""
SWIPE = """view => {
  const touch = (kind, clientX) => view.dispatchEvent(new PointerEvent(kind, {
    pointerType: "touch", pointerId: 2, clientX, clientY: 200, bubbles: true, isPrimary: true }));
  touch("pointerdown", 250);
  touch("pointermove", 150);
  touch("pointerup", 120);
}"""
ROWS = """tiles => tiles.map(tile => {
  const { left, right, top, height } = tile.getBoundingClientRect();
  return [Math.round(left), Math.round(right), Math.round(top), Math.round(height)];
})"""


@pytest.mark.whole("test_few_of_many_images_are_elements_wherever_one_scrolls")
def test_hits_go_on_while_one_scrolls_without_a_repetition(album_page: Page, album: Path) -> None:
    choose(album_page, album / "chelsea.jpg")
    found: dict[str, float] = {}
    before = -1
    while len(found) > before:
        before = len(found)
        for name, text in album_page.locator(".tile").evaluate_all(HITS):
            found.setdefault(name, float(text))
        album_page.evaluate(TO_THE_END)
        expect(album_page.locator("#main")).not_to_have_attribute("aria-busy", "true")
    similarities = list(found.values())
    assert len(found) > 60  # of a page
    assert similarities == sorted(similarities, reverse=True)


@pytest.mark.few(1)
def test_filters_limit_what_is_shown_and_can_be_taken_away(album_page: Page, album: Path) -> None:
    album_page.get_by_text("Filter", exact=True).click()
    album_page.get_by_label("Name").fill("*-grey.jpg")
    album_page.get_by_label("Folder", exact=True).fill(str(album))
    album_page.get_by_role("button", name="Apply").click()
    expect(album_page.get_by_role("heading", level=1)).to_have_text("Images")
    grey = sorted(path.name for path in album.glob("*-grey.jpg"))
    expect(album_page.locator("#count")).to_have_text(f"{len(grey)} images")
    assert len(names(album_page)) > 9
    assert {*names(album_page)} <= {*grey}
    choose(album_page, album / "chelsea.jpg")
    assert {*names(album_page)} <= {*grey}
    album_page.go_back()
    remove = album_page.get_by_role("button", name=f"Remove the filter Folder: {album}")
    remove.click()
    expect(remove).to_be_hidden()
    assert "#name=*-grey.jpg" in album_page.url
    album_page.get_by_text("Filter", exact=True).click()
    album_page.get_by_label("From", exact=True).fill("2199-01-01")
    album_page.get_by_role("button", name="Apply").click()
    expect(album_page.get_by_role("heading", name="No images match the filters")).to_be_visible()
    assert faults(album_page) == []
    album_page.get_by_role("button", name="Remove all filters").click()
    expect(album_page.get_by_role("heading", level=1)).to_have_text("All images")


@pytest.mark.whole("test_filters_limit_what_is_shown_and_can_be_taken_away")
def test_one_tile_stands_for_all_versions_of_a_picture(album_page: Page, album: Path) -> None:
    choose(album_page, album / "rocket.jpg")
    expect(tile(album_page, "rocket.jpg")).to_contain_text("3 versions")
    assert "rocket-bright.jpg" not in names(album_page)[:10]
    dialog = open_large(album_page, "rocket.jpg")
    expect(dialog).to_contain_text("Other versions of this picture")
    expect(dialog).to_contain_text("rocket-bright.jpg")
    dialog.get_by_role("button", name="Close").click()
    unfold(album_page)
    album_page.get_by_label("One tile for all versions").uncheck()
    expect(tile(album_page, "rocket-bright.jpg")).to_be_visible()
    assert "versions=all" in album_page.url


@pytest.mark.whole("test_the_large_view_goes_from_image_to_image_and_gives_the_focus_back")
def test_the_large_view_of_a_hit_shows_why_it_is_similar(album_page: Page, album: Path) -> None:
    choose(album_page, album / "chelsea.jpg")
    dialog = open_large(album_page, "chelsea-left.jpg")
    why = dialog.get_by_role("button", name="Why similar?")
    for name in ("What you searched with, its parts marked", "chelsea-left.jpg, its parts marked"):
        expect(dialog.get_by_role("img", name=name)).to_be_hidden()
    why.click()
    for name in ("What you searched with, its parts marked", "chelsea-left.jpg, its parts marked"):
        expect(dialog.get_by_role("img", name=name)).to_be_visible()
    assert faults(album_page) == []
    why.click()
    expect(dialog.get_by_alt_text("chelsea-left.jpg")).to_be_visible()
    dialog.get_by_role("button", name="Close").click()
    tile(album_page, "chelsea-left.jpg").locator(".picture").press("+")
    hits(album_page)
    dialog = open_large(album_page, names(album_page)[2])
    dialog.get_by_role("button", name="Why similar?").click()
    expect(album_page.locator("#toast")).to_contain_text("a single picture")


@pytest.mark.few(1)
def test_the_query_is_seen_beside_one_hit_after_the_other_by_keys(
    album_page: Page, album: Path
) -> None:
    open_large(album_page, names(album_page)[0]).press("c")  # nothing was searched for
    expect(album_page.locator(".explained")).to_have_count(0)
    album_page.keyboard.press("Escape")
    choose(album_page, album / "chelsea.jpg")
    first, second = names(album_page)[1:3]
    dialog = open_large(album_page, first)
    query = dialog.get_by_role("img", name="What you searched with", exact=True)
    dialog.press("c")
    expect(query).to_be_visible()
    expect(dialog.get_by_role("img", name=first)).to_be_visible()
    compare = dialog.get_by_role("button", name="Side by side")
    expect(compare).to_have_attribute("aria-pressed", "true")
    assert faults(album_page) == []
    dialog.press("ArrowRight")
    expect(dialog.get_by_role("img", name=second)).to_be_visible()
    expect(query).to_be_visible()
    dialog.press("w")
    expect(dialog.get_by_role("img", name=f"{second}, its parts marked")).to_be_visible()
    dialog.press("ArrowLeft")
    expect(dialog.get_by_role("heading")).to_have_text(first)
    expect(
        dialog.get_by_role("img", name="What you searched with, its parts marked")
    ).to_be_visible()
    dialog.press("w")
    expect(query).to_be_visible()
    dialog.press("c")
    expect(dialog.get_by_alt_text(first)).to_be_visible()
    expect(compare).to_have_attribute("aria-pressed", "false")
    assert album_page.evaluate("document.documentElement.scrollWidth <= innerWidth")


@pytest.mark.whole("test_the_large_view_goes_from_image_to_image_and_gives_the_focus_back")
def test_the_large_view_tells_what_is_known_of_an_image(
    page: Page, serve: Callable[[Path], Server], empty: Path, tmp_path: Path
) -> None:
    (tmp_path / "trip").mkdir()
    path = tmp_path / "trip" / "shore.jpg"
    exif = Image.Exif()
    exif[0x010F], exif[0x0110] = "Canon", "EOS R5"  # make and model
    exif.get_ifd(0x8769)[0x9003] = "2021:06:05 14:30:00"  # taken
    picture(3, width=1200, height=900).save(path, exif=exif)
    with Collection.open(empty, device="cpu") as collection:
        collection.index([tmp_path / "trip"])
    page.goto(serve(empty).address)
    dialog = open_large(page, "shore.jpg")
    size = path.stat().st_size / (1e6 if path.stat().st_size >= 1e5 else 1e3)
    unit = "MB" if path.stat().st_size >= 1e5 else "kB"
    for term, value in (
        ("Date", "June 5, 2021 at 2:30 PM"),
        ("Camera", "Canon EOS R5"),
        ("Size", f"1200 × 900 (1.1 MP), {size:,.1f} {unit}"),
        ("Folder", str(path.parent)),
        ("Path", str(path)),
    ):
        row = dialog.locator(".information > div", has=page.get_by_text(term, exact=True))
        expect(row.locator("dd")).to_have_text(re.compile(re.escape(value).replace("\\ ", r"\s")))


@pytest.mark.whole("test_the_large_view_goes_from_image_to_image_and_gives_the_focus_back")
def test_an_explanation_is_shown_although_the_original_comes_in_meanwhile(
    album_page: Page, album: Path
) -> None:
    originals: list[Route] = []
    explanations: list[Route] = []
    album_page.route("**/original", lambda route: originals.append(route))
    album_page.route("**/explain", lambda route: explanations.append(route))
    choose(album_page, album / "chelsea.jpg")
    dialog = open_large(album_page, "chelsea-left.jpg")
    with album_page.expect_request("**/explain"):
        dialog.get_by_role("button", name="Why similar?").click()
    originals[-1].continue_()
    expect(dialog.locator('img[src$="/original"]')).to_be_visible()
    explanations[-1].continue_()
    expect(
        dialog.get_by_role("img", name="What you searched with, its parts marked")
    ).to_be_visible()


@pytest.mark.whole("test_a_box_that_is_dragged_selects_what_it_touches")
def test_selected_images_are_saved_and_searched_by(album_page: Page, album: Path) -> None:
    shown = names(album_page)
    tile(album_page, shown[0]).locator(".picture").press("x")
    open_large(album_page, shown[2]).get_by_role("button", name="Select").click()
    bar = album_page.get_by_role("region", name="Selection")
    expect(bar).to_contain_text("2 images selected")
    tile(album_page, shown[2]).locator(".picture").click()  # this selects now, and does not search
    tile(album_page, shown[2]).locator(".picture").click()
    tile(album_page, shown[4]).locator(".picture").click(modifiers=["Shift"])
    expect(bar).to_contain_text("4 images selected")
    expect(album_page.locator(".tile.selected")).to_have_count(4)
    assert faults(album_page) == []
    bar.get_by_text("Save a list").click()
    with album_page.expect_download() as download:
        bar.get_by_role("button", name="Save as CSV").click()
    with open(download.value.path(), newline="") as file:
        saved = [row["path"] for row in csv.DictReader(file)]
    assert sorted(saved) == sorted(str(album / name) for name in (shown[0], *shown[2:5]))
    bar.get_by_text("Save a list").click()
    with album_page.expect_download() as download:
        bar.get_by_role("button", name="Save as JSON").click()
    listed = json.loads(Path(download.value.path()).read_text())
    assert [item["path"] for item in listed] == saved
    choose(album_page, album / "chelsea.jpg")
    expect(bar).to_contain_text("4 images selected")  # from search to search
    bar.get_by_role("button", name="Search with these").click()
    expect(bar).to_be_hidden()
    expect(album_page.get_by_role("heading", level=1)).to_contain_text("and 3 more")
    hits(album_page)
    tile(album_page, names(album_page)[0]).locator(".picture").press("x")
    expect(bar).to_be_visible()
    album_page.keyboard.press("Escape")
    expect(bar).to_be_hidden()


@pytest.mark.whole("test_filters_limit_what_is_shown_and_can_be_taken_away")
def test_the_folder_of_an_image_is_shown(album_page: Page, album: Path) -> None:
    name = names(album_page)[0]
    open_large(album_page, name).get_by_role("button", name="Show this folder").click()
    expect(album_page.get_by_role("listitem").filter(has_text=f"Folder: {album}")).to_be_visible()
    assert name in names(album_page)


@pytest.mark.whole("test_few_of_many_images_are_elements_wherever_one_scrolls")
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
    assert names(album_page)[:9] == first[:9]
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
    album_page.evaluate(TO_THE_END)
    expect(album_page.locator(".blank")).to_have_count(0)
    number = album_page.locator(".tile").last.get_attribute("aria-posinset")
    far = album_page.locator(f'[aria-posinset="{number}"]')
    far.scroll_into_view_if_needed()
    expect(far.locator("img")).to_be_in_viewport()
    before = album_page.evaluate("scrollY")
    assert before > 300
    far.locator(".picture").click()
    hits(album_page)
    assert album_page.evaluate("scrollY") == 0
    album_page.go_back()
    expect(far.locator(".picture")).to_be_focused()
    album_page.wait_for_function("before => Math.abs(scrollY - before) < 200", arg=before)


@pytest.mark.whole("test_back_forward_and_reload_keep_the_question")
def test_a_bookmark_opens_the_same_hits(
    album_page: Page, context: BrowserContext, album: Path
) -> None:
    choose(album_page, album / "chelsea.jpg")
    there = context.new_page()
    there.goto(album_page.url)
    hits(there)
    shown, before = names(there), names(album_page)
    near = min(len(shown), len(before))  # how many are near the window depends on what came first
    assert near > 9
    assert shown[:near] == before[:near]
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


@pytest.mark.whole("test_the_large_view_goes_from_image_to_image_and_gives_the_focus_back")
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


@pytest.mark.whole("test_filters_limit_what_is_shown_and_can_be_taken_away")
def test_the_filters_lie_over_the_images_until_one_looks_elsewhere(album_page: Page) -> None:
    form = album_page.locator("#filter")
    first = album_page.locator(".tile").first
    before = first.bounding_box()
    album_page.get_by_text("Filter", exact=True).click()
    expect(form).to_be_visible()
    assert first.bounding_box() == before
    assert faults(album_page) == []
    assert album_page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    form.get_by_label("Name").press("Escape")
    expect(form).to_be_hidden()
    album_page.get_by_text("Filter", exact=True).click()
    album_page.get_by_role("heading", level=1).click()
    expect(form).to_be_hidden()


def test_the_large_view_tells_how_a_picture_was_taken_and_where_only_on_request(
    page: Page, serve: Callable[[Path], Server], empty: Path, tmp_path: Path
) -> None:
    exif = Image.Exif()
    fractions = {ExifTags.Base.FNumber: (14, 5), ExifTags.Base.ExposureTime: (1, 250)}
    shot: dict[int, Any] = {
        tag: TiffImagePlugin.IFDRational(*value) for tag, value in fractions.items()
    }
    exif.get_ifd(ExifTags.IFD.Exif).update({**shot, ExifTags.Base.ISOSpeedRatings: 200})
    place = {1: "N", 2: (41.0, 2.0, 6.0), 3: "W", 4: (83.0, 18.0, 18.0)}
    exif.get_ifd(ExifTags.IFD.GPSInfo).update(place)
    (tmp_path / "taken").mkdir()
    picture(1).save(tmp_path / "taken" / "1.jpg", exif=exif)
    with Collection.open(empty, device="cpu") as collection:
        collection.index([tmp_path / "taken"])
    page.goto(serve(empty).address)
    sent: list[str] = []
    page.on("request", lambda request: sent.append(request.url))
    dialog = open_large(page, "1.jpg")
    expect(dialog.get_by_text("1/250 s, f/2.8, ISO 200")).to_be_visible()
    assert not any("location=true" in url for url in sent)
    expect(dialog).not_to_contain_text("41.03500")
    assert faults(page) == []
    dialog.get_by_role("button", name="Show the location").press("Enter")
    expect(dialog.get_by_text("41.03500° N, 83.30500° W")).to_be_visible()
    expect(dialog.get_by_role("button", name="Close")).to_be_focused()


@pytest.mark.whole("test_back_forward_and_reload_keep_the_question")
def test_the_name_at_the_top_leads_to_all_images(album_page: Page, server: Server) -> None:
    reveal(album_page, "coffee.jpg").locator(".picture").click()
    hits(album_page)
    album_page.get_by_role("link", name="imgsearch, all images").click()
    expect(album_page.get_by_role("heading", level=1)).to_have_text("All images")
    assert album_page.url.rstrip("#") == server.address


def test_folders_and_orders_are_a_click_away(
    page: Page, serve: Callable[[Path], Server], empty: Path, tmp_path: Path, device: str
) -> None:
    top = tmp_path / "pictures"
    for count, folder in ((3, top / "2023" / "spring"), (2, top / "2024")):
        save_pictures(folder, count)
    with Collection.open(empty, device="cpu") as collection:
        collection.index([top])
        newest = [Path(collection.entries.get(id_).path) for id_ in (5, 4, 3, 2, 1)]
    page.goto(serve(empty).address)
    expect(page.locator(".tile")).to_have_count(5)
    page.get_by_label("Sort by").select_option(label="Recently added")
    page.wait_for_url("**#sort=-added")
    expect(page.locator(".tile .picture").first).to_have_attribute("title", str(newest[0]))
    assert names(page) == [path.name for path in newest]
    folders = page.get_by_role("navigation", name="Folders")
    if device == "phone":
        expect(folders).to_be_hidden()
        page.get_by_role("button", name="Folders").click()
    expect(folders.get_by_role("link", name="All folders, 5 images")).to_be_visible()
    assert faults(page) == []
    folders.get_by_role("link", name="spring, 3 images").click()
    expect(page.locator(".tile")).to_have_count(3)
    expect(page.locator("#count")).to_have_text("3 images")
    expect(page.get_by_text(f"Folder: {top}/2023/spring")).to_be_visible()
    assert "#sort=-added&folder=" in page.url
    if device == "phone":
        expect(folders).to_be_hidden()
    else:
        chosen = folders.get_by_role("link", name="spring, 3 images")
        expect(chosen).to_have_attribute("aria-current", "true")
        page.get_by_role("button", name="Folders", exact=True).click()
        expect(folders).to_be_hidden()
    page.get_by_text("Filter", exact=True).click()
    page.get_by_label("Format").fill("png")
    page.get_by_role("button", name="Apply").click()
    expect(page.get_by_text("Format: png")).to_be_visible()
    expect(page.locator('.tile [title$=".jpg"]')).to_have_count(0)


def test_the_large_view_zooms_and_fills_the_screen_by_keys_and_fingers(
    album_page: Page, device: str
) -> None:
    first, second, third = names(album_page)[:3]
    dialog = open_large(album_page, first)
    view = dialog.locator(".view")
    heading = dialog.get_by_role("heading", level=2)
    expect(view.locator("img")).to_have_attribute("src", re.compile("original"))
    size = "() => document.querySelector('.view img').getBoundingClientRect().width"
    fitted = album_page.evaluate(size)
    album_page.keyboard.press("+")
    assert album_page.evaluate(size) == pytest.approx(1.5 * fitted, rel=0.01)
    album_page.keyboard.press("ArrowRight")  # which moves what is seen of it
    expect(heading).to_have_text(first)
    album_page.keyboard.press("0")
    assert album_page.evaluate(size) == pytest.approx(fitted, rel=0.01)
    album_page.keyboard.press("f")
    album_page.wait_for_function("() => document.fullscreenElement?.className === 'view'")
    album_page.keyboard.press("ArrowRight")
    expect(heading).to_have_text(second)
    assert album_page.evaluate("document.fullscreenElement !== null")
    album_page.keyboard.press("f")
    album_page.wait_for_function("() => !document.fullscreenElement")
    if device == "phone":
        view.evaluate(SWIPE)
        expect(heading).to_have_text(third)
    album_page.keyboard.press("?")
    expect(album_page.get_by_role("dialog", name="Keyboard shortcuts")).to_be_visible()
    assert faults(album_page) == []
    album_page.keyboard.press("Escape")
    expect(dialog).to_be_visible()
