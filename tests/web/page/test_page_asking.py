"""Asking with images: from outside, by a part, from a hit, like this and unlike that."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Page, expect

from tests.support.pictures import picture
from tests.web.page.doing import choose, hand_over, hits, hold, names, open_large, tile, unfold

pytestmark = pytest.mark.few(1)  # a device


@pytest.mark.whole("test_an_image_can_be_dropped_and_pasted")
def test_a_chosen_image_finds_itself_first(album_page: Page, album: Path) -> None:
    choose(album_page, album / "chelsea.jpg")
    assert names(album_page)[0] == "chelsea.jpg"
    expect(hits(album_page).first).to_have_text("1.00")
    assert "#image=" in album_page.url


@pytest.mark.few(1)
@pytest.mark.parametrize("how", ["drop", "paste"])
def test_an_image_can_be_dropped_and_pasted(album_page: Page, album: Path, how: str) -> None:
    hand_over(album_page, how, album / "coffee.jpg")
    hits(album_page)
    assert names(album_page)[0] == "coffee.jpg"
    expect(album_page.get_by_alt_text("Query: coffee.jpg")).to_be_visible()


@pytest.mark.whole("test_an_image_can_be_dropped_and_pasted")
def test_a_photo_can_be_taken_on_a_phone(album_page: Page, album: Path, device: str) -> None:
    button = album_page.get_by_role("button", name="Take a photo")
    if device == "desktop":
        expect(button).to_be_hidden()
        return
    with album_page.expect_file_chooser() as chooser:
        button.click()
    assert chooser.value.element.get_attribute("capture") == "environment"
    chooser.value.set_files(album / "coffee.jpg")
    hits(album_page)
    assert names(album_page)[0] == "coffee.jpg"


@pytest.mark.whole("test_an_image_can_be_dropped_and_pasted")
def test_pasting_a_text_says_that_it_is_no_image(album_page: Page) -> None:
    album_page.evaluate(
        """() => { const clipboardData = new DataTransfer();
             clipboardData.setData("text/plain", "https://example.org/cat.jpg");
             document.body.dispatchEvent(
               new ClipboardEvent("paste", { clipboardData, bubbles: true })); }"""
    )
    expect(album_page.get_by_role("alert")).to_have_text("There is no image on the clipboard.")


@pytest.mark.whole("test_a_part_is_searched_for_by_the_keyboard")
def test_a_part_is_searched_for_by_dragging(album_page: Page, album: Path, device: str) -> None:
    choose(album_page, album / "astronaut.jpg")
    before = hits(album_page).all_text_contents()
    stage = album_page.locator("#stage")
    stage.scroll_into_view_if_needed()
    box = stage.bounding_box()
    assert box
    at = [(box["x"] + box["width"] * x, box["y"] + box["height"] * x) for x in (0.1, 0.3, 0.6)]
    album_page.mouse.move(*at[0])
    album_page.mouse.down()
    album_page.mouse.move(*at[1])
    album_page.mouse.move(*at[2])
    album_page.mouse.up()
    album_page.wait_for_url("**crop=0.1,0.1,0.6,0.6" if device == "desktop" else "**crop=0.*")
    expect(album_page.get_by_role("heading", level=1)).to_contain_text("a part of astronaut")
    assert hits(album_page).all_text_contents() != before
    album_page.get_by_role("button", name="Whole image").click()
    expect(album_page.get_by_role("heading", level=1)).not_to_contain_text("a part of")
    again = hits(album_page).all_text_contents()  # of those in the window
    assert again[:8] == before[:8]


def test_a_part_is_searched_for_by_the_keyboard(album_page: Page, album: Path) -> None:
    choose(album_page, album / "astronaut.jpg")
    album_page.get_by_role("button", name="Search a part").press("Enter")
    album_page.wait_for_url("**crop=0.25,0.25,0.75,0.75")
    part = album_page.get_by_role("application")
    expect(part).to_be_focused()
    for key in ("ArrowLeft", "ArrowLeft", "ArrowUp", "Shift+ArrowRight", "Shift+ArrowUp"):
        part.press(key)
    album_page.wait_for_url("**crop=0.21,0.23,0.73,0.71")
    expect(part).to_be_focused()
    part.press("Escape")
    expect(part).to_be_hidden()
    expect(album_page.get_by_role("button", name="Search a part")).to_be_focused()


@pytest.mark.whole("test_a_part_is_searched_for_by_the_keyboard")
def test_a_part_of_an_image_of_the_collection_is_searched_for(album_page: Page) -> None:
    tile(album_page, "astronaut.jpg").locator(".picture").click()
    hits(album_page)
    album_page.get_by_role("button", name="Search a part").click()
    album_page.wait_for_url("**like=*crop=0.25,0.25,0.75,0.75")
    expect(hits(album_page).first).not_to_have_text("1.00")


@pytest.mark.whole("test_an_image_can_be_dropped_and_pasted")
def test_a_click_searches_from_a_hit(album_page: Page, album: Path) -> None:
    choose(album_page, album / "chelsea.jpg")
    tile(album_page, "chelsea-left.jpg").locator(".picture").click()
    heading = album_page.get_by_role("heading", level=1)
    expect(heading).to_have_text("Similar to chelsea-left.jpg")
    expect(heading).to_be_focused()
    assert urlsplit(album_page.url).fragment.startswith("like=")


@pytest.mark.whole("test_an_image_can_be_dropped_and_pasted")
def test_more_and_less_like_this_are_chips_that_can_be_taken_away(
    album_page: Page, album: Path, device: str
) -> None:
    choose(album_page, album / "chelsea.jpg")
    liked, other, unliked = names(album_page)[8:11]
    for name, what in ((liked, "More"), (other, "More"), (unliked, "Less")):
        if device == "desktop":
            tile(album_page, name).hover()
            tile(album_page, name).get_by_role("button", name=f"{what} like").click()
        else:
            open_large(album_page, name).get_by_role("button", name=f"{what} like this").click()
        expect(album_page.get_by_role("img", name=name, exact=True)).to_have_count(1)
        hits(album_page)
    assert album_page.url.count("&like=") == 2
    assert album_page.url.count("&unlike=") == 1
    expect(album_page.get_by_role("heading", level=1)).to_have_text(
        f"Similar to chelsea.jpg and 2 more, less like {unliked}"
    )
    for name in (liked, unliked):
        album_page.get_by_role("button", name=f"Remove {name}").click()
        expect(album_page.get_by_role("img", name=name, exact=True)).to_have_count(0)
    assert album_page.url.count("like=") == 1
    album_page.get_by_role("button", name="Remove", exact=True).click()
    expect(album_page.get_by_role("heading", level=1)).to_have_text(f"Similar to {other}")
    album_page.get_by_role("button", name="Remove", exact=True).click()
    expect(album_page.get_by_role("heading", level=1)).to_have_text("All images")


@pytest.mark.whole("test_an_image_can_be_dropped_and_pasted")
def test_plus_and_minus_are_more_and_less(album_page: Page, album: Path) -> None:
    choose(album_page, album / "chelsea.jpg")
    album_page.locator(".tile >> nth=8").locator(".picture").press("+")
    album_page.wait_for_url("**&like=*")
    hits(album_page)
    album_page.locator(".tile >> nth=9").locator(".picture").press("-")
    album_page.wait_for_url("**&unlike=*")


@pytest.mark.whole("test_the_large_view_goes_from_image_to_image_and_gives_the_focus_back")
def test_holding_opens_all_that_can_be_done(album_page: Page, album: Path) -> None:
    choose(album_page, album / "chelsea.jpg")
    before = album_page.url
    hold(album_page, tile(album_page, "chelsea-left.jpg").locator(".picture"))
    assert album_page.url == before
    dialog = album_page.get_by_role("dialog")
    for name in ("Search from this", "More like this", "Less like this", "Copy the path"):
        expect(dialog.get_by_role("button", name=name)).to_be_visible()
    dialog.get_by_role("button", name="Search from this").click()
    expect(album_page.get_by_role("heading", level=1)).to_have_text("Similar to chelsea-left.jpg")


@pytest.mark.whole("test_filters_limit_what_is_shown_and_can_be_taken_away")
def test_the_slider_leaves_out_what_is_less_similar(album_page: Page, album: Path) -> None:
    choose(album_page, album / "chelsea.jpg")
    count = hits(album_page).count()
    unfold(album_page)
    slider = album_page.get_by_label("Minimum similarity")
    slider.fill("0.8")
    album_page.wait_for_url("**min=0.8")
    expect(album_page.locator("#count")).not_to_contain_text("nearest")
    similarities = [float(text) for text in hits(album_page).all_text_contents()]
    assert 0 < len(similarities) < count
    assert min(similarities) >= 0.795
    expect(slider).to_be_focused()


@pytest.mark.whole("test_filters_limit_what_is_shown_and_can_be_taken_away")
def test_the_recall_can_be_chosen(album_page: Page, album: Path) -> None:
    choose(album_page, album / "chelsea.jpg")
    unfold(album_page)
    with album_page.expect_request("**/query") as exact:
        album_page.get_by_label("Exact").check(force=True)
    assert 'name="exact"' in (exact.value.post_data or "")
    album_page.wait_for_url("**recall=exact")
    expect(album_page.locator("#count")).to_contain_text("compared with every image")
    with album_page.expect_request("**/query") as fast:
        album_page.get_by_label("Fast").check(force=True)
    assert 'name="recall"' in (fast.value.post_data or "")
    album_page.wait_for_url("**recall=fast")


@pytest.mark.whole("test_filters_limit_what_is_shown_and_can_be_taken_away")
def test_nothing_found_says_so_and_offers_the_way_out(album_page: Page, tmp_path: Path) -> None:
    picture(7).save(tmp_path / "blobs.jpg")
    choose(album_page, tmp_path / "blobs.jpg")
    unfold(album_page)
    album_page.get_by_label("Minimum similarity").fill("1")
    expect(album_page.get_by_role("heading", name="Nothing found")).to_be_visible()
    album_page.get_by_role("button", name="Show less similar images").click()
    hits(album_page)
