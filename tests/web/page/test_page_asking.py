"""Asking with images: from outside, by a part, from a hit, like this and unlike that."""

from __future__ import annotations

import base64
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Page, Route, expect

from imgsearch.collection import Collection
from tests.support.pictures import picture, save_pictures
from tests.support.textures import texture
from tests.web.page.doing import (
    choose,
    drop,
    faults,
    hand_over,
    hits,
    hold,
    names,
    open_large,
    tile,
    unfold,
)
from tests.web.page.serving import Server

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


def test_several_images_are_one_search_from_which_each_can_be_taken_away(
    album_page: Page, album: Path
) -> None:
    chosen = [album / f"{name}.jpg" for name in ("coffee", "chelsea", "rocket")]
    album_page.locator("#file").set_input_files(chosen)
    heading = album_page.get_by_role("heading", level=1)
    expect(heading).to_have_text("Similar to coffee.jpg and 2 more")
    hits(album_page)
    assert album_page.url.count("image=") == 3
    for name in ("chelsea.jpg", "rocket.jpg"):
        chip = album_page.locator(".chip").get_by_role("img", name=name, exact=True)
        album_page.wait_for_function("image => image.naturalWidth > 0", arg=chip.element_handle())
    assert faults(album_page) == []
    together = names(album_page)[:9]
    album_page.reload()
    expect(heading).to_have_text("Similar to coffee.jpg and 2 more")
    hits(album_page)
    assert names(album_page)[:9] == together
    album_page.get_by_role("button", name="Remove rocket.jpg").click()
    expect(heading).to_have_text("Similar to coffee.jpg and 1 more")
    album_page.get_by_role("button", name="Remove", exact=True).click()
    expect(heading).to_have_text("Similar to chelsea.jpg")
    expect(album_page.get_by_alt_text("Query: chelsea.jpg")).to_be_visible()
    hits(album_page)
    assert names(album_page)[0] == "chelsea.jpg"


@pytest.mark.whole("test_several_images_are_one_search_from_which_each_can_be_taken_away")
def test_several_images_that_the_server_has_forgotten_are_sent_again(
    page: Page, serve: Callable[[Path], Server], empty: Path, tmp_path: Path, expected: list[str]
) -> None:
    expected += ["ERR_CONNECTION_REFUSED", "status of 404"]
    chosen = save_pictures(tmp_path / "few", 5)
    with Collection.open(empty, device="cpu") as collection:
        collection.index([tmp_path / "few"])
    server = serve(empty)
    page.goto(server.address)
    page.locator("#file").set_input_files(chosen[1:3])
    heading = page.get_by_role("heading", level=1)
    expect(heading).to_have_text(f"Similar to {chosen[1].name} and 1 more")
    before = [name for _ in [hits(page)] for name in names(page)]
    server.stop()
    server.start()
    page.reload()
    expect(heading).to_have_text(f"Similar to {chosen[1].name} and 1 more")
    hits(page)
    assert names(page) == before


@pytest.mark.whole("test_an_image_can_be_dropped_and_pasted")
def test_an_image_of_another_page_is_searched_for_by_the_bytes_the_browser_gives(
    album_page: Page, album: Path
) -> None:
    data = base64.b64encode((album / "coffee.jpg").read_bytes()).decode()
    drop(album_page, {"text/html": f'<img alt="a cup" src="data:image/jpeg;base64,{data}">'})
    expect(album_page.get_by_role("heading", level=1)).to_have_text("Similar to a cup")
    hits(album_page)
    assert names(album_page)[0] == "coffee.jpg"
    asked: list[str] = []
    album_page.on("request", lambda request: asked.append(request.url))
    address = "http://192.0.2.1/cat.jpg"
    drop(album_page, {"text/html": f'<img src="{address}">', "text/uri-list": address})
    expect(album_page.get_by_role("alert")).to_contain_text("paste it here")
    drop(album_page, {"text/html": '<img src="data:image/png;base64,!">'})
    expect(album_page.get_by_role("alert")).to_contain_text("not an image file")
    assert [url for url in asked if "192.0.2.1" in url] == []


@pytest.mark.whole("test_an_image_can_be_dropped_and_pasted")
def test_a_text_can_be_pasted_into_a_field(album_page: Page) -> None:
    album_page.get_by_text("Filter", exact=True).click()
    taken = album_page.get_by_label("Name").evaluate(
        """field => { const clipboardData = new DataTransfer();
             clipboardData.setData("text/plain", "coffee");
             return field.dispatchEvent(new ClipboardEvent("paste", { clipboardData, bubbles: true,
               cancelable: true })); }"""
    )
    assert taken  # the browser pastes it
    expect(album_page.get_by_role("alert")).to_be_hidden()


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
    album_page.get_by_role("button", name="Crop to search").press("Enter")
    album_page.wait_for_url("**crop=0.25,0.25,0.75,0.75")
    part = album_page.get_by_role("application")
    expect(part).to_be_focused()
    for key in ("ArrowLeft", "ArrowLeft", "ArrowUp", "Shift+ArrowRight", "Shift+ArrowUp"):
        part.press(key)
    album_page.wait_for_url("**crop=0.21,0.23,0.73,0.71")
    expect(part).to_be_focused()
    part.press("Escape")
    expect(part).to_be_hidden()
    expect(album_page.get_by_role("button", name="Crop to search")).to_be_focused()


@pytest.mark.whole("test_a_part_is_searched_for_by_the_keyboard")
def test_a_part_of_an_image_of_the_collection_is_searched_for(album_page: Page) -> None:
    tile(album_page, "astronaut.jpg").locator(".picture").click()
    hits(album_page)
    album_page.get_by_role("button", name="Crop to search").click()
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
    slider = album_page.get_by_label("Minimum similarity as a number")
    slider.fill("0.8")
    album_page.wait_for_url("**min=0.8")
    expect(album_page.locator("#count")).not_to_contain_text("nearest")
    similarities = [float(text) for text in hits(album_page).all_text_contents()]
    assert 0 < len(similarities) < count
    assert min(similarities) >= 0.795
    expect(slider).to_be_focused()


@pytest.mark.whole("test_filters_limit_what_is_shown_and_can_be_taken_away")
def test_hits_can_be_limited_to_those_of_a_band(page: Page, server: Server) -> None:
    """The few images of the test have no bands, so the hits are given some here."""
    bands = ["same thing", "similar", "similar", "weak"]

    def answer(route: Route) -> None:
        found = route.fetch().json()
        least = "same thing" in (route.request.post_data or "")
        hits = [hit | {"band": bands[min(at, 3)]} for at, hit in enumerate(found["hits"])]
        route.fulfill(json=found | {"hits": [] if least else hits})

    page.route("**/query", answer)
    page.goto(f"{server.address}#like=1")
    expect(page.locator(".tile .similarity").first).to_have_text("Same thing")
    unfold(page)
    group = page.get_by_role("group", name="Minimum similarity")
    with page.expect_request("**/query") as asked:
        group.get_by_label("Similar").check(force=True)
    assert 'name="min_band"\r\n\r\nsimilar' in (asked.value.post_data or "")
    page.wait_for_url("**band=similar")
    page.reload()
    hits(page)
    unfold(page)
    expect(group.get_by_label("Similar")).to_be_checked()
    group.get_by_label("Same thing").check(force=True)
    expect(page.get_by_text("No other image shows the same thing.")).to_be_visible()
    assert faults(page) == []
    page.get_by_role("button", name="Show less similar images").click()
    hits(page)
    expect(group.get_by_label("Any")).to_be_checked()


def test_the_very_picture_is_found_by_a_part_of_it(
    page: Page, serve: Callable[[Path], Server], empty: Path, tmp_path: Path
) -> None:
    (tmp_path / "textures").mkdir()
    for seed in range(6):
        texture(seed).save(tmp_path / "textures" / f"{seed}.png")
    with Collection.open(empty, device="cpu") as collection:
        collection.index([tmp_path / "textures"])
    part = tmp_path / "part.png"
    texture(3).crop((40, 30, 200, 150)).rotate(90, expand=True).save(part)
    page.goto(serve(empty).address)
    choose(page, part)
    unfold(page)
    page.get_by_label("Find this very picture").check()
    page.wait_for_url("**verify=true")
    hits(page)
    expect(page.locator(".tile .similarity").first).to_have_text("Same thing")
    assert names(page)[0] == "3.png"
    dialog = open_large(page, "3.png")
    dialog.get_by_text("Same thing").click()
    expect(dialog.get_by_text("details agree")).to_be_visible()
    assert faults(page) == []
    dialog.get_by_role("button", name="Search from this").click()
    hits(page)
    assert "verify" not in page.url
    with page.expect_request("**/query") as asked:
        unfold(page)
        page.get_by_label("Find this very picture").check()
    assert 'name="verify"' in (asked.value.post_data or "")


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
    album_page.get_by_label("Minimum similarity as a number").fill("1")
    expect(album_page.get_by_role("heading", name="Nothing found")).to_be_visible()
    album_page.get_by_role("button", name="Show less similar images").click()
    hits(album_page)
