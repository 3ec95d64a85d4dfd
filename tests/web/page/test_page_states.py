"""What the page says when something is not as usual."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Page, Route, expect

from imgsearch.collection import Collection
from tests.support.pictures import save_pictures
from tests.web.page.doing import choose, hits, names, open_large, reveal, tile
from tests.web.page.serving import Server

pytestmark = pytest.mark.few(1)  # a device

NOT_FOUND = "status of 404"
EVIL = '"><img src=x onerror=alert(1)>.jpg'


@pytest.fixture
def pictures(empty: Path, tmp_path: Path) -> Path:
    """A folder of 5 pictures in the collection `empty`."""
    folder = tmp_path / "pictures"
    save_pictures(folder, 5)
    with Collection.open(empty, device="cpu") as collection:
        collection.index([folder])
    return folder


@pytest.mark.whole("test_a_file_that_is_no_image_is_refused_by_name")
@pytest.mark.usefixtures("here")
def test_an_empty_collection_says_what_to_run_and_fills_by_itself(
    page: Page, serve: Callable[[Path], Server], empty: Path, tmp_path: Path
) -> None:
    page.goto(serve(empty).address)
    expect(page.get_by_role("heading", name="There are no images yet")).to_be_visible()
    expect(page.get_by_text(f"imgsearch -c {empty} index ~/Pictures")).to_be_visible()
    save_pictures(tmp_path / "new", 5)
    with Collection.open(empty, device="cpu") as collection:
        collection.index([tmp_path / "new"])
    expect(page.locator(".tile")).to_have_count(5)
    expect(page.get_by_role("heading", name="There are no images yet")).to_be_hidden()
    expect(page.locator("#total")).to_have_text("5 images")


@pytest.mark.whole("test_a_file_that_is_no_image_is_refused_by_name")
def test_indexing_under_way_is_counted_live(album_page: Page) -> None:
    counts = iter([1200, 1234])

    def indexing(route: Route) -> None:
        facts = route.fetch().json() | {"indexing": True, "images": next(counts, 1234)}
        route.fulfill(body=json.dumps(facts), content_type="application/json")

    album_page.route("**/api/v1/info", indexing)
    album_page.reload()
    for count in ("1,200", "1,234"):
        expect(album_page.get_by_text(f"Indexing: {count} images so far")).to_be_visible()
    album_page.unroute("**/api/v1/info")
    expect(album_page.get_by_text("so far")).to_be_hidden()


@pytest.mark.whole("test_a_file_that_is_no_image_is_refused_by_name")
def test_a_file_that_is_gone_leaves_its_name_and_the_reason(
    page: Page, serve: Callable[[Path], Server], empty: Path, pictures: Path, expected: list[str]
) -> None:
    expected += [NOT_FOUND, "status of 410"]
    (pictures / "0002.jpg").unlink()
    page.goto(serve(empty).address)
    gone = tile(page, "0002.jpg")
    expect(gone.get_by_text("0002.jpg")).to_be_visible()
    expect(gone).to_contain_text("gone")
    dialog = open_large(page, "0002.jpg")
    expect(dialog.locator(".lost")).to_contain_text("gone")


def test_a_file_that_is_no_image_is_refused_by_name(
    album_page: Page, tmp_path: Path, expected: list[str]
) -> None:
    expected += ["status of 4"]
    (tmp_path / "letter.jpg").write_text("Dear Ana")
    album_page.locator("#file").set_input_files(tmp_path / "letter.jpg")
    expect(album_page.get_by_role("alert")).to_contain_text("letter.jpg: ")
    expect(album_page.get_by_role("alert")).not_to_contain_text("letter.jpg: letter.jpg")
    expect(album_page.locator(".tile").first).to_be_visible()


@pytest.mark.whole("test_an_upload_can_be_asked_about_again_by_its_name")
def test_an_upload_that_nobody_remembers_is_asked_for_again(
    page: Page, server: Server, album: Path, expected: list[str]
) -> None:
    expected += [NOT_FOUND, "status of 410"]
    page.goto(server.address + "#image=" + "0" * 32)
    expect(page.get_by_role("heading", name="That image is no longer here")).to_be_visible()
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="Choose the image again").click()
    chooser.value.set_files(album / "coffee.jpg")
    hits(page)


@pytest.mark.whole("test_a_file_that_is_no_image_is_refused_by_name")
def test_an_image_that_was_removed_from_the_collection_is_named(
    page: Page, server: Server, expected: list[str]
) -> None:
    expected += [NOT_FOUND]
    page.goto(server.address + "#like=999999")
    expect(
        page.get_by_role("heading", name="That image is no longer in the collection")
    ).to_be_visible()
    page.get_by_role("button", name="Show all images").click()
    expect(page.locator(".tile").first).to_be_visible()


@pytest.mark.whole("test_a_file_that_is_no_image_is_refused_by_name")
def test_the_page_goes_on_when_the_server_is_back(
    page: Page,
    serve: Callable[[Path], Server],
    empty: Path,
    pictures: Path,
    expected: list[str],
) -> None:
    expected += ["ERR_CONNECTION_REFUSED", "ERR_CONNECTION_RESET", "ERR_EMPTY_RESPONSE"]
    expected += [NOT_FOUND, "status of 410"]  # what was uploaded was held in memory
    server = serve(empty)
    page.goto(server.address)
    choose(page, pictures / "0003.png")
    server.stop()
    tile(page, "0001.png").locator(".picture").click()
    expect(page.get_by_role("alert")).to_contain_text("The server does not answer")
    server.start()
    expect(page.get_by_role("alert")).to_be_hidden()
    expect(page.get_by_role("heading", level=1)).to_have_text("Similar to 0001.png")
    hits(page)
    page.go_back()
    expect(page.get_by_alt_text("Query: 0003.png")).to_be_visible()
    expect(hits(page).first).to_have_text("1.00")


@pytest.mark.whole("test_the_name_of_an_upload_is_nothing_but_text")
def test_a_file_name_is_only_ever_text(
    page: Page, serve: Callable[[Path], Server], empty: Path, pictures: Path
) -> None:
    evil = pictures / EVIL
    shutil.copy(pictures / "0004.jpg", evil)
    with Collection.open(empty, device="cpu") as collection:
        collection.index([pictures])
    page.on("dialog", lambda dialog: pytest.fail(dialog.message))
    page.goto(serve(empty).address)
    picture = page.locator(".tile >> nth=5").locator(".picture")
    expect(picture).to_have_attribute("title", str(evil))
    picture.press(" ")
    expect(page.get_by_role("dialog").get_by_role("heading")).to_have_text(EVIL)
    page.keyboard.press("Escape")
    picture.click()
    expect(page.get_by_role("heading", level=1)).to_have_text(f"Similar to {EVIL}")
    page.locator("#file").set_input_files(evil)
    expect(page.locator("#caption")).to_have_text(EVIL)
    assert page.locator("[onerror]").count() == 0


@pytest.mark.whole("test_an_image_of_the_collection_is_no_hit_of_its_own_unless_that_is_asked_for")
def test_an_image_that_is_alone_finds_no_other(
    page: Page, serve: Callable[[Path], Server], empty: Path, tmp_path: Path
) -> None:
    save_pictures(tmp_path / "one", 1)
    with Collection.open(empty, device="cpu") as collection:
        collection.index([tmp_path / "one"])
    page.goto(serve(empty).address)
    page.locator(".tile .picture").click()
    expect(page.get_by_role("heading", name="Nothing found")).to_be_visible()
    expect(page.get_by_text("There are no other images in the collection.")).to_be_visible()
    expect(page.locator(".tile")).to_have_count(0)


@pytest.mark.whole("test_an_image_of_the_collection_is_no_hit_of_its_own_unless_that_is_asked_for")
@pytest.mark.usefixtures("here")
def test_a_search_in_an_empty_collection_says_that_it_is_empty(
    page: Page, serve: Callable[[Path], Server], empty: Path, tmp_path: Path
) -> None:
    (path,) = save_pictures(tmp_path / "one", 1)
    page.goto(serve(empty).address)
    page.locator("#file").set_input_files(path)
    expect(page.get_by_role("heading", name="Nothing found")).to_be_visible()
    expect(page.get_by_text("There are no images in the collection.")).to_be_visible()
    expect(page.get_by_text("other images")).to_have_count(0)


@pytest.mark.whole("test_an_image_of_the_collection_is_no_hit_of_its_own_unless_that_is_asked_for")
def test_an_image_of_the_collection_is_not_among_its_own_hits(album_page: Page) -> None:
    reveal(album_page, "coffee.jpg").locator(".picture").click()
    expect(album_page.get_by_role("heading", level=1)).to_have_text("Similar to coffee.jpg")
    hits(album_page)
    assert "coffee.jpg" not in names(album_page)


def test_numbers_do_not_claim_more_than_is_true(page: Page, server: Server) -> None:
    page.goto(server.address)
    rounded = """async () => {
      const { rounded, limit, percent } = await import("./static/numbers.js");
      return [
        ...[1, 0.99999999, 0.9996, 0.999, 0.996, 0.994, 0.5, 0, -0.25].map((x) => rounded(x)),
        rounded(0.99999, 4), ...[1, 0.999, 0.8, 0.85, -0.5].map(limit),
        ...[1, 0.999, 0.985, 0.95, 0.5].map(percent),
      ];
    }"""
    said = ["1.00", "1.00", "0.9996", "0.999", "0.996", "0.99", "0.50", "0.00", "-0.25", "0.99999"]
    said += ["1.00", "0.999", "0.80", "0.85", "-0.50", "100 %", "99.9 %", "98.5 %", "95 %", "50 %"]
    assert page.evaluate(rounded) == said


@pytest.mark.whole("test_numbers_do_not_claim_more_than_is_true")
@pytest.mark.parametrize("least", ["0.999", "-0.5", "0.8"])
def test_a_minimum_from_the_address_is_shown_as_it_is(
    page: Page, server: Server, least: str
) -> None:
    page.goto(server.address + f"#like=1&min={least}")
    shown = {"0.999": "0.999 or more", "-0.5": "-0.50 or more", "0.8": "0.80 or more"}[least]
    expect(page.locator("#least-shown")).to_have_text(shown)
    if least == "0.999":
        expect(
            page.get_by_text("No other image has a similarity of 0.999 or more.")
        ).to_be_visible()
