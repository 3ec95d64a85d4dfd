"""The map on the page: looked at, selected from, lit up by a search, and read as a list."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Locator, Page, Route, expect

from imgsearch.collection import Collection
from tests.support.pictures import save_pictures
from tests.web.page.doing import faults
from tests.web.page.serving import Server

pytestmark = pytest.mark.few(1)  # a device

SELECTED = re.compile(r"^[1-9]\d* images? selected$")


@pytest.fixture(scope="module")
def mapped(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server of the album and its map."""
    directory = tmp_path_factory.mktemp("mapped") / "collection"
    shutil.copytree(server.directory, directory)
    make_map(directory)
    mapped = Server(directory)
    yield mapped
    mapped.stop()


def make_map(directory: Path) -> None:
    """Make the map in the cache of the server of a collection."""
    environment = os.environ | {"XDG_CACHE_HOME": str(directory.parent / "cache")}
    command = [sys.executable, "-m", "imgsearch", "-c", str(directory), "map"]
    subprocess.run(command, env=environment, check=True, capture_output=True)


@pytest.fixture
def shown(page: Page, mapped: Server) -> Page:
    """The page with the map, its thumbnails drawn."""
    page.goto(mapped.address)
    page.get_by_role("link", name="Map").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Map")
    settled(page)
    return page


def plane(page: Page) -> Locator:
    return page.get_by_role("application", name=re.compile("^Map of"))


def pixels(page: Page) -> str:
    """Return what the map looks like, once it has been drawn."""
    page.evaluate("() => new Promise((done) => requestAnimationFrame(() => setTimeout(done)))")
    looks: str = plane(page).evaluate("canvas => canvas.toDataURL()")
    return looks


def settled(page: Page) -> str:
    """Return what the map looks like, once it stays so."""
    expect(plane(page)).to_have_attribute("aria-busy", "false")
    before = ""
    while before != (now := pixels(page)) or plane(page).get_attribute("aria-busy") == "true":
        before = now
        page.wait_for_timeout(300)
    return now


def drag(page: Page, *shares: tuple[float, float]) -> None:
    """Drag over the map from point to point, given as shares of its edges."""
    box = plane(page).bounding_box()
    assert box
    for number, (x, y) in enumerate(shares):
        page.mouse.move(box["x"] + x * box["width"], box["y"] + y * box["height"], steps=3)
        if number == 0:
            page.mouse.down()
    page.mouse.up()


def test_the_map_is_in_the_address_and_back_leaves_it(shown: Page, mapped: Server) -> None:
    assert shown.url == f"{mapped.address}#view=map"
    expect(shown.locator("#count")).to_have_text(re.compile(r"^\d+ images$"))
    expect(shown.locator("#grid")).to_be_hidden()
    assert faults(shown) == []
    width = shown.evaluate("[document.documentElement.scrollWidth, innerWidth]")
    assert width[0] <= width[1]
    shown.go_back()
    expect(shown.get_by_role("heading", level=1)).to_have_text("All images")
    expect(shown.locator(".tile").first).to_be_visible()
    expect(plane(shown)).to_be_hidden()
    shown.go_forward()
    expect(plane(shown)).to_be_visible()
    shown.get_by_role("link", name="Images", exact=True).click()
    expect(shown.locator(".tile").first).to_be_visible()


def test_wheel_keys_and_dragging_move_the_map(shown: Page) -> None:
    whole = settled(shown)
    plane(shown).hover()
    shown.mouse.wheel(0, -400)
    near = settled(shown)
    assert near != whole
    drag(shown, (0.5, 0.5), (0.6, 0.6))
    assert settled(shown) != near
    expect(shown.get_by_role("dialog")).to_have_count(0)  # a drag opens nothing
    shown.mouse.move(0, 0)
    for keys in (["0"], ["+", "0"], ["-", "ArrowLeft", "ArrowUp", "0"]):
        for key in keys:
            plane(shown).press(key)
        assert settled(shown) == whole
    for name in ("Zoom in", "Zoom out", "Show the whole map"):
        before = settled(shown)
        shown.get_by_role("button", name=name).click()
        shown.mouse.move(0, 0)
        assert name == "Show the whole map" or settled(shown) != before


@pytest.mark.parametrize("device", ["phone"], indirect=True)
def test_two_fingers_zoom(shown: Page) -> None:
    before = settled(shown)
    box = plane(shown).bounding_box()
    assert box
    session = shown.context.new_cdp_session(shown)
    middle = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    for kind, apart in (("touchStart", 20), ("touchMove", 60), ("touchMove", 90), ("touchEnd", 0)):
        points = [
            {"x": middle[0] + side * apart, "y": middle[1], "id": number}
            for number, side in enumerate((-1, 1))
        ]
        touch = {"type": kind, "touchPoints": points if apart else []}
        session.send("Input.dispatchTouchEvent", touch)
    assert settled(shown) != before


def test_a_click_opens_an_image_whose_neighbours_come_next(shown: Page) -> None:
    shown.locator(".clusters .go").first.click()
    shown.evaluate("scrollTo(0, 0)")
    settled(shown)
    box = plane(shown).bounding_box()
    assert box
    for step in range(100):  # until an image is pointed at
        across, down = 0.1 + (step % 10) / 13, 0.2 + (step // 10) / 15
        shown.mouse.move(box["x"] + across * box["width"], box["y"] + down * box["height"])
        if "picking" in str(plane(shown).get_attribute("class")):
            break
    shown.mouse.down()
    shown.mouse.up()
    dialog = shown.get_by_role("dialog")
    expect(dialog).to_be_visible()
    name = dialog.locator("#large-name").text_content()
    dialog.get_by_role("button", name="Next image").click()
    expect(dialog.locator("#large-name")).not_to_have_text(str(name))
    dialog.get_by_role("button", name="Search from this").click()
    expect(shown.get_by_role("heading", level=1)).to_contain_text("Similar to")
    assert "view=map" in shown.url
    expect(plane(shown)).to_be_visible()


def test_a_line_around_images_selects_them(shown: Page) -> None:
    shown.get_by_role("button", name="Select", exact=True).click()
    expect(shown.locator(".lassoing")).to_be_visible()
    drag(shown, (0.05, 0.05), (0.75, 0.05), (0.75, 0.95), (0.05, 0.95))
    expect(shown.locator("#selected")).to_have_text(SELECTED)
    expect(shown.locator(".lassoing")).to_have_count(0)
    count = int(str(shown.locator("#selected").text_content()).split()[0])
    assert count > 1
    assert faults(shown) == []
    shown.get_by_role("button", name="Clear", exact=True).click()
    expect(shown.get_by_role("region", name="Selection")).to_be_hidden()


def test_a_search_lights_up_its_hits_and_a_filter_its_images(shown: Page, mapped: Server) -> None:
    plain = settled(shown)
    shown.goto(f"{mapped.address}#view=map&like=1")
    expect(shown.get_by_role("heading", level=1)).to_contain_text("Similar to")
    expect(shown.locator("#count")).to_contain_text("image")
    assert settled(shown) != plain
    assert faults(shown) == []
    shown.get_by_role("link", name="Images", exact=True).click()
    expect(shown.locator(".tile .similarity").first).to_be_visible()  # the hits, as a list
    shown.goto(f"{mapped.address}#view=map&name=grey")
    expect(shown.locator("#count")).to_have_text(re.compile(r"^\d+ images$"))
    assert settled(shown) != plain


@pytest.mark.whole("test_a_search_lights_up_its_hits_and_a_filter_its_images")
def test_only_hits_that_are_similar_are_lit_up(shown: Page, mapped: Server) -> None:
    """The few images of the test have no bands, so the hits are given some here."""

    def answer(route: Route) -> None:
        found = route.fetch().json()
        hits = [
            hit | {"band": "weak" if at > 2 else "similar"} for at, hit in enumerate(found["hits"])
        ]
        route.fulfill(json=found | {"hits": hits})

    shown.route("**/query", answer)
    shown.goto(f"{mapped.address}#view=map&like=1")
    expect(shown.locator("#count")).to_have_text("3 similar images")
    some = settled(shown)
    shown.unroute("**/query")
    shown.goto(f"{mapped.address}#view=map&like=1&versions=all")
    expect(shown.locator("#count")).to_have_text(re.compile(r"^\d+ images, compared"))
    assert settled(shown) != some


def test_clusters_are_a_list_that_leads_to_them_and_selects_them(shown: Page) -> None:
    items = shown.locator(".clusters li")
    counts = [int(text.split()[0]) for text in items.locator("strong").all_text_contents()]
    assert counts == sorted(counts, reverse=True)
    expect(shown.locator("#count")).to_have_text(f"{sum(counts)} images")
    whole = settled(shown)
    items.first.locator(".go").press("Enter")
    expect(plane(shown)).to_be_focused()
    assert settled(shown) != whole
    items.last.get_by_role("button", name=re.compile("^Select the")).press("Enter")
    noun = "image" if counts[-1] == 1 else "images"
    expect(shown.locator("#selected")).to_have_text(f"{counts[-1]} {noun} selected")


def test_images_that_are_removed_leave_the_map(
    page: Page, serve: Callable[[Path], Server], indexed: Path
) -> None:
    make_map(indexed)
    page.goto(f"{serve(indexed).address}#view=map")
    expect(plane(page)).to_be_visible()
    page.locator(".clusters .all").first.click()
    count = int(str(page.locator("#selected").text_content()).split()[0])
    before = settled(page)
    page.get_by_role("button", name="Remove …").click()
    page.get_by_role("button", name="Remove", exact=True).click()
    expect(page.locator("#count")).to_have_text(re.compile(f"^{40 - count} images?$"))
    assert settled(page) != before
    page.get_by_role("button", name="Undo").click()
    expect(page.locator("#count")).to_have_text("40 images")


def test_the_page_says_what_is_missing_on_the_map_and_how_to_make_one(
    page: Page,
    serve: Callable[[Path], Server],
    indexed: Path,
    tmp_path: Path,
    expected: list[str],
) -> None:
    expected += ["status of 404"]
    page.goto(f"{serve(indexed).address}#view=map")
    expect(page.get_by_role("heading", name="There is no map yet")).to_be_visible()
    expect(page.locator("#state code")).to_have_text(re.compile(r"^imgsearch (-c .* )?map$"))
    assert faults(page) == []
    page.get_by_role("button", name="Make the map").click()
    expect(page.get_by_role("progressbar", name="Making the map")).to_be_visible()
    assert faults(page) == []
    expect(plane(page)).to_be_visible()
    expect(page.get_by_role("progressbar", name="Making the map")).to_be_hidden()
    expect(page.get_by_role("heading", name="There is no map yet")).to_be_hidden()
    save_pictures(tmp_path / "new", 3, first=100)
    with Collection.open(indexed, device="cpu") as collection:
        collection.index([tmp_path / "new"])
    page.reload()
    expect(page.get_by_text("3 images are not on the map yet")).to_be_visible()
    assert faults(page) == []
    page.get_by_role("button", name="Add to the map").press("Enter")
    expect(page.get_by_text("not on the map yet")).to_be_hidden()
    expect(page.locator("#count")).to_have_text("43 images")


@pytest.mark.whole("test_the_page_says_what_is_missing_on_the_map_and_how_to_make_one")
def test_the_map_is_cancelled_made_by_others_and_not_offered_where_that_is_not_allowed(
    page: Page, indexed: Path, expected: list[str]
) -> None:
    expected += ["status of 404", "status of 409"]
    server = Server(indexed, "--read-only")
    try:
        page.goto(f"{server.address}#view=map")
        expect(page.get_by_text("This command makes it")).to_be_visible()
        expect(page.get_by_role("button", name="Make the map")).to_have_count(0)
    finally:
        server.stop()
    server = Server(indexed)
    job: dict[str, Any] = {"running": True, "done": 30, "total": 100, "failure": None}
    sent: list[str] = []

    def answer(route: Route) -> None:
        sent.append(route.request.method)
        if route.request.method == "DELETE":
            job.update(running=False)
        route.fulfill(json=job, status=409 if route.request.method == "PUT" else 200)

    try:
        page.route("**/api/v1/map/job", answer)
        page.goto(f"{server.address}#view=map")
        bar = page.get_by_role("progressbar", name="Making the map")
        expect(bar).to_have_attribute("value", "30")  # somebody else has begun
        page.get_by_role("button", name="Make the map").click()
        page.locator("#making").get_by_role("button", name="Cancel").click()
        expect(bar).to_be_hidden()
        job.update(running=True)
        page.get_by_role("button", name="Make the map").click()
        expect(bar).to_be_visible()
        job.update(running=False, failure="the disk is full")
        expect(page.get_by_role("alert")).to_have_text("The map was not made: the disk is full")
        assert sent.count("DELETE") == 1
    finally:
        server.stop()
