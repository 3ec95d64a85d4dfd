"""The duplicates on the page: found, compared, judged and moved to the trash."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageDraw
from playwright.sync_api import Locator, Page, Route, expect

from demo.photographs import find_photographs
from imgsearch.collection import Collection
from tests.images.test_compare import scene
from tests.web.page.doing import faults
from tests.web.page.serving import Server

pytestmark = pytest.mark.few(1)  # a device

STATUS: dict[str, Any] = {"done": 0, "total": 0, "failure": None, "discarded": None, "result": None}


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trash: Path) -> None:
    """Let the trash, the journal and the lock be those of this test, and of its server."""
    assert not trash.exists()
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three pictures: a small copy of the first, the second mirrored, the third retouched."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for seed in range(2):
        scene(seed).save(folder / f"{seed}.png")
    scene(0).resize((240, 180)).save(folder / "0 small.jpg", quality=80)
    scene(1).transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(folder / "1 mirrored.png")
    with Image.open(next(each for each in find_photographs() if each.stem == "astronaut")) as image:
        photograph = image.convert("RGB").resize((360, 360))
    photograph.save(folder / "2.png")
    ImageDraw.Draw(photograph).ellipse((100, 100, 150, 150), fill="white")
    photograph.save(folder / "2 retouched.png")
    return folder


@pytest.fixture
def directory(empty: Path, folder: Path) -> Path:
    with Collection.open(empty, device="cpu") as collection:
        collection.index([folder])
    return empty


@pytest.fixture
def found(page: Page, serve: Callable[[Path], Server], directory: Path) -> Page:
    """The page with the duplicates that were found."""
    page.goto(serve(directory).address)
    find(page)
    return page


def find(page: Page) -> None:
    """Search for duplicates from the header on."""
    page.get_by_role("link", name="Duplicates").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Duplicates")
    page.get_by_role("button", name=re.compile("Find duplicates|Search again")).click()
    expect(page.locator("#count")).to_contain_text("group")
    expect(page.locator("#review-running")).to_be_hidden()


def group(page: Page, name: str) -> Locator:
    """Return the group of a file."""
    return page.locator(".group", has=page.locator(f'[title$="/{name}"]'))


def look(page: Page, name: str) -> Locator:
    """Return the picture of a copy, which opens the comparison."""
    return page.get_by_role("button", name=re.compile(f"^Compare {re.escape(name)}"))


def test_copies_are_compared_and_moved_to_the_trash(
    found: Page, folder: Path, trash: Path, tmp_path: Path
) -> None:
    expect(found.locator("#count")).to_contain_text("3 groups")
    assert found.url.endswith("#view=duplicates")
    expect(group(found, "0.png")).to_contain_text("Kept: lossless")
    expect(group(found, "0 small.jpg")).to_contain_text("resized")
    assert faults(found) == []
    retouched = group(found, "2 retouched.png")
    expect(retouched).to_contain_text("not discarded: it has a changed region")
    expect(retouched.get_by_role("button", name="Discard")).to_have_count(0)

    look(found, "1 mirrored.png").press("Enter")
    dialog = found.get_by_role("dialog")
    expect(dialog.get_by_role("img", name="Kept: 1.png")).to_be_visible()
    expect(dialog.get_by_role("img", name="Copy: 1 mirrored.png")).to_be_visible()
    assert faults(found) == []
    found.keyboard.press("l")
    expect(dialog.get_by_role("img", name=re.compile("^Differences"))).to_be_visible()
    expect(dialog.locator("figcaption")).to_have_text("No difference is visible.")  # once turned
    found.keyboard.press("f")
    for name in ("Copy: 1 mirrored.png", "Kept: 1.png", "Copy: 1 mirrored.png"):
        expect(dialog.get_by_role("img", name=name)).to_be_visible()
    assert faults(found) == []
    found.keyboard.press("d")  # and on to the next one
    expect(dialog).not_to_contain_text("1 mirrored.png")
    found.keyboard.press("ArrowLeft")
    expect(dialog.get_by_role("button", name="Discard")).to_have_attribute("aria-pressed", "true")
    found.keyboard.press("Escape")
    expect(look(found, "1 mirrored.png")).to_be_focused()

    found.get_by_role("button", name="Discard 0 small.jpg").click()
    bar = found.get_by_role("region", name="Marked copies")
    expect(bar).to_contain_text("2 copies marked")
    assert faults(found) == []
    bar.get_by_role("button", name="Move to the trash").click()
    dialog = found.get_by_role("dialog", name="Move 2 copies to the trash?")
    expect(dialog).to_contain_text("from where you can restore them")
    assert faults(found) == []
    dialog.get_by_role("button", name="Cancel").click()
    expect(bar).to_contain_text("2 copies marked")
    assert len(list(folder.iterdir())) == 6
    bar.get_by_role("button", name="Move to the trash").click()
    dialog.get_by_role("button", name="Move to the trash").click()
    expect(found.locator("#count")).to_contain_text("1 group")
    expect(group(found, "0.png")).to_have_count(0)
    expect(found.locator("#toast")).to_contain_text("2 copies")
    assert {each.name for each in trash.iterdir()} == {"0 small.jpg", "1 mirrored.png"}
    assert len(list(folder.iterdir())) == 4
    journal = (tmp_path / "state" / "imgsearch" / "duplicates.jsonl").read_text().splitlines()
    assert [json.loads(line)["state"] for line in journal] == ["intended", "done"] * 2
    found.reload()  # the server knows its result
    expect(found.locator("#count")).to_contain_text("1 group")
    expect(group(found, "2 retouched.png")).to_be_visible()


def test_what_is_not_the_same_stays_away_unless_that_is_undone(
    found: Page, directory: Path
) -> None:
    look(found, "1 mirrored.png").press("n")
    expect(group(found, "1 mirrored.png")).to_have_count(0)
    expect(found.locator("#count")).to_contain_text("2 groups")
    judged = found.get_by_role("region", name="Judged")
    assert faults(found) == []
    judged.get_by_role("button", name="Undo").click()
    expect(look(found, "1 mirrored.png")).to_be_focused()
    expect(judged).to_be_hidden()
    look(found, "1 mirrored.png").click()
    found.get_by_role("dialog").get_by_role("button", name="Not the same").click()
    expect(group(found, "1 mirrored.png")).to_have_count(0)
    found.keyboard.press("Escape")
    find(found)
    expect(found.locator("#count")).to_contain_text("2 groups")
    assert b"not-duplicates" in (directory / "not-duplicates").read_bytes()


def test_a_copy_that_has_changed_stays_and_the_page_says_why(
    found: Page, folder: Path, trash: Path
) -> None:
    found.get_by_role("button", name="Mark all suggested copies").click()
    bar = found.get_by_role("region", name="Marked copies")
    expect(bar).to_contain_text("1 copy marked")  # the mirrored one is none that is suggested
    scene(7).save(folder / "0 small.jpg")
    bar.get_by_role("button", name="Move to the trash").click()
    found.get_by_role("dialog").get_by_role("button", name="Move to the trash").click()
    left = found.get_by_role("alert").filter(has_text="1 copy stayed")
    expect(left).to_contain_text("0 small.jpg has changed since it was indexed")
    assert faults(found) == []
    assert not trash.exists()
    expect(found.locator("#count")).to_contain_text("3 groups")


def test_the_view_is_in_the_address_and_keys_go_from_copy_to_copy(found: Page) -> None:
    looks = found.locator(".look")
    expect(looks).to_have_count(3)
    looks.first.focus()
    for key, at in (("ArrowRight", 1), ("ArrowDown", 2), ("ArrowUp", 1), ("Home", 0), ("End", 2)):
        found.keyboard.press(key)
        expect(looks.nth(at)).to_be_focused()
    for key in ("d", "d"):  # the second changes nothing
        look(found, "0 small.jpg").press(key)
    expect(found.get_by_role("region", name="Marked copies")).to_contain_text("1 copy marked")
    look(found, "0 small.jpg").press("k")
    expect(found.get_by_role("region", name="Marked copies")).to_be_hidden()
    found.locator("#home").click()
    expect(found.locator(".tile").first).to_be_visible()
    expect(looks.first).to_be_hidden()
    found.go_back()
    expect(looks).to_have_count(3)
    expect(found.locator(".tile")).to_have_count(0)


def test_a_server_that_is_read_only_shows_duplicates_and_offers_nothing_else(
    page: Page, directory: Path
) -> None:
    server = Server(directory, "--read-only")
    try:
        page.goto(server.address)
        find(page)
        expect(look(page, "0 small.jpg")).to_be_visible()
        for name in ("Discard", "Mark all suggested copies", "not the same"):
            expect(page.get_by_role("button", name=name)).to_have_count(0)
        look(page, "0 small.jpg").press("d")
        expect(page.get_by_role("region", name="Marked copies")).to_be_hidden()
        look(page, "0 small.jpg").click()
        dialog = page.get_by_role("dialog")
        expect(dialog.get_by_role("img", name="Kept: 0.png")).to_be_visible()
        expect(dialog.get_by_role("button", name="Not the same")).to_have_count(0)
    finally:
        server.stop()


def test_a_search_is_counted_live_and_can_be_cancelled(album_page: Page) -> None:
    states = [STATUS | {"running": "find", "done": done, "total": 5000} for done in (1200, 1300)]
    asked: list[str] = []

    def answer(route: Route) -> None:
        asked.append(route.request.method)
        if route.request.method == "DELETE" or (states == [] and "DELETE" in asked):
            route.fulfill(json=STATUS | {"running": None})
        elif route.request.method == "PUT":
            route.fulfill(status=202, json=states[0])
        elif "PUT" in asked:
            route.fulfill(json=states[0] if len(states) == 1 else states.pop(0))
        else:
            route.fulfill(json=STATUS | {"running": None})

    album_page.route("**/api/v1/duplicates", answer)
    album_page.get_by_role("link", name="Duplicates").click()
    expect(album_page.get_by_text("Nothing is changed.")).to_be_visible()
    assert faults(album_page) == []
    album_page.get_by_role("button", name="Find duplicates").click()
    for done in ("1,200", "1,300"):
        expect(album_page.locator("#review-what")).to_have_text(f"Comparing {done} of 5,000 images")
    expect(album_page.get_by_text("the search goes on")).to_be_visible()
    assert faults(album_page) == []
    album_page.get_by_role("button", name="Cancel").click()
    expect(album_page.get_by_role("button", name="Find duplicates")).to_be_visible()
    expect(album_page.get_by_role("button", name="Cancel")).to_be_hidden()
    assert "DELETE" in asked


@pytest.mark.whole("test_a_search_is_counted_live_and_can_be_cancelled")
def test_a_collection_without_copies_says_so(
    page: Page, serve: Callable[[Path], Server], empty: Path, tmp_path: Path
) -> None:
    (tmp_path / "few").mkdir()
    for seed in range(3):
        scene(seed).save(tmp_path / "few" / f"{seed}.png")
    with Collection.open(empty, device="cpu") as collection:
        collection.index([tmp_path / "few"])
    page.goto(f"{serve(empty).address}#view=duplicates")
    page.get_by_role("button", name="Find duplicates").click()
    expect(page.get_by_role("heading", name="No duplicates")).to_be_visible()
    expect(page.get_by_text("None of 3 images is a copy of another one.")).to_be_visible()
    assert faults(page) == []
