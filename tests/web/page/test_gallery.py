"""A gallery opens from a file, searches by a click, and can be used by everybody."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Literal
from urllib.parse import unquote, urlsplit

import pytest
from click.testing import CliRunner
from playwright.sync_api import Browser, Page, expect

from imgsearch.cli import main
from imgsearch.collection import Collection
from tests.support.pictures import picture, save_pictures
from tests.support.small_network import make_small_collection
from tests.web.page.conftest import SIZES
from tests.web.page.doing import faults

HOSTILE = "<img src=x onerror=alert(1)>'\"&#%3F?.png"


@pytest.fixture(scope="module")
def gallery(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The address of a gallery of 24 images in a folder with an odd name."""
    del browser  # without one, the tests are skipped
    folder = tmp_path_factory.mktemp("gallery")
    save_pictures(folder / "photos", 22)
    picture(7, width=90, height=30).save(folder / "photos" / HOSTILE)
    picture(500).save(folder / "photos" / "lost.png")
    directory = make_small_collection(folder / "collection")
    with Collection.open(directory, device="cpu") as collection:
        collection.index([folder / "photos"])
    (folder / "photos" / "lost.png").unlink()
    to = folder / "my #1 gallery?"
    ended = CliRunner().invoke(
        main, ["gallery", str(to), "-c", str(directory)], catch_exceptions=False
    )
    assert ended.exit_code == 0
    return (to / "index.html").as_uri()


@pytest.fixture
def opened(browser: Browser, gallery: str, device: str) -> Iterator[Page]:
    """The gallery, opened, in which no error may happen."""
    width, height = SIZES[device]
    page = browser.new_page(
        viewport={"width": 320 if device == "phone" else width, "height": height}
    )
    said: list[str] = []
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("console", lambda message: said.append(message.text))
    page.on("dialog", lambda dialog: said.append(dialog.message))
    page.goto(gallery)
    yield page
    page.close()
    assert said == []


@pytest.mark.few(1)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_click_shows_the_most_similar_images(
    opened: Page, scheme: Literal["light", "dark"]
) -> None:
    page = opened
    page.emulate_media(color_scheme=scheme)
    expect(page.locator("#total")).to_have_text("24 images")
    expect(page.get_by_role("img", name="0000.jpg")).to_be_visible()
    assert page.get_by_role("img", name="0000.jpg").evaluate("image => image.naturalWidth") == 48
    assert faults(page) == []
    page.get_by_label("Find by name").fill("ONERROR")
    expect(page.locator("#count")).to_have_text("1 image found")
    page.get_by_role("link", name=HOSTILE).click()
    expect(page.get_by_role("heading")).to_have_text(f"Most similar to {HOSTILE}")
    expect(page).to_have_title(f"{HOSTILE} – Images")
    expect(page.locator(".tile")).to_have_count(20)
    expect(page.locator(".tile").first).to_contain_text("similarity")
    assert page.locator(".tile img").first.get_attribute("alt") == "0007.png"
    assert faults(page) == []
    page.keyboard.press("Tab")
    page.keyboard.press("ArrowRight")
    second = page.locator(".tile img").nth(1).get_attribute("alt")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading")).to_have_text(f"Most similar to {second}")
    page.go_back()
    expect(page.get_by_role("heading")).to_have_text(f"Most similar to {HOSTILE}")
    page.keyboard.press("Escape")
    expect(page.get_by_role("heading")).to_have_text("Images")
    page.get_by_label("Find by name").fill("lost")
    expect(page.locator(".tile .lost")).to_contain_text("lost.png")
    assert faults(page) == []


@pytest.mark.whole("test_a_click_shows_the_most_similar_images")
def test_all_images_are_shown_as_the_page_is_scrolled(opened: Page, tmp_path: Path) -> None:
    folder = Path(unquote(urlsplit(opened.url).path)).parent
    many = Path(shutil.copytree(folder, tmp_path / "many"))
    head, _, rows = (many / "images.js").read_text("ascii").partition("\n")
    (many / "images.js").write_text(f"{head}\n{rows.removesuffix('] };' + chr(10)) * 10}] }};\n")
    for number in range(24, 240):
        shutil.copy(many / "images" / "0.jpg", many / "images" / f"{number}.jpg")
    opened.goto((many / "index.html").as_uri())
    assert opened.locator(".tile").count() == 200
    opened.locator(".tile").last.scroll_into_view_if_needed()
    expect(opened.locator(".tile")).to_have_count(240)
    expect(opened.get_by_role("button", name="Show more")).to_be_hidden()
    assert opened.evaluate("document.documentElement.scrollWidth <= innerWidth")
