"""First use: a folder is chosen on the page, and watched while it is indexed."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Page, Route, expect

from tests.support.pictures import save_pictures
from tests.web.page.doing import choose, faults
from tests.web.page.serving import Server

pytestmark = pytest.mark.few(1)  # a device


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home folder with pictures in it."""
    home = tmp_path / "ana"
    save_pictures(home / "Pictures" / "2024", 40)
    (home / "Documents").mkdir()
    monkeypatch.setenv("HOME", str(home))
    return home


def test_a_folder_is_chosen_and_its_images_appear(
    page: Page, serve: Callable[[Path], Server], empty: Path, home: Path, expected: list[str]
) -> None:
    expected += ["status of 422"]
    page.goto(serve(empty).address)
    page.get_by_role("button", name="Choose a folder").click()
    dialog = page.get_by_role("dialog", name="Choose the folder with your pictures")
    path = dialog.get_by_label("Folder", exact=True)
    begin = dialog.get_by_role("button", name="Index this folder")
    expect(path).to_have_value(str(home))
    expect(begin).to_be_disabled()  # not all of the home folder
    dialog.get_by_role("button", name="Documents").click()
    expect(path).to_have_value(f"{home}/Documents")
    expect(dialog).to_contain_text("No images right in this folder")
    dialog.get_by_role("button", name="One folder up").click()
    expect(path).to_have_value(str(home))
    path.fill("/etc")
    path.press("Enter")
    expect(dialog.get_by_role("alert")).to_contain_text("is not a folder in your home folder")
    path.fill("Pictures/2024")
    path.press("Enter")
    expect(dialog).to_contain_text("40 images right in this folder")
    expect(dialog.get_by_role("alert")).to_be_empty()
    assert faults(page) == []
    begin.click()
    expect(dialog).to_be_hidden()
    expect(page.locator("#count")).to_have_text("40 images")
    expect(page.locator(".tile").first).to_be_visible()
    expect(page.locator("#indexing")).to_be_hidden()
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    choose(page, home / "Pictures" / "2024" / "0006.jpg")


@pytest.mark.whole("test_a_folder_is_chosen_and_its_images_appear")
def test_the_run_is_shown_with_its_count_rate_and_time_left_and_can_be_cancelled(
    page: Page, serve: Callable[[Path], Server], empty: Path, home: Path
) -> None:
    run = {"running": True, "folder": f"{home}/Pictures", "failure": None, "indexed": None}
    steps = iter(
        [
            run | {"done": 0, "total": 0, "seconds": 0.5},
            run | {"done": 300, "total": 1200, "seconds": 30.0},
        ]
    )
    state = run | {"done": 1200, "total": 1200, "seconds": 60.0}
    sent: list[str] = []

    def answer(route: Route) -> None:
        sent.append(route.request.method)
        if route.request.method == "DELETE":
            state.update(running=False)
        route.fulfill(json=next(steps, state), status=200)

    page.route(re.compile("/api/v1/index"), answer)
    page.goto(serve(empty).address)
    page.get_by_role("button", name="Choose a folder").click()
    page.get_by_role("dialog").get_by_role("button", name="Pictures").click()
    expect(page.get_by_role("textbox", name="Folder")).to_have_value(f"{home}/Pictures")
    page.get_by_role("button", name="Index this folder").click()
    shown = page.locator("#indexing")
    expect(shown).to_contain_text("300 of 1,200 files, 10 per second, about 2 minutes left")
    expect(shown.get_by_role("progressbar")).to_be_visible()
    assert faults(page) == []
    expect(shown).to_contain_text("1,200 files, getting ready to search")
    shown.get_by_role("button", name="Cancel").click()
    expect(shown).to_be_hidden()
    assert sent[0] == "PUT"
    assert sent.count("DELETE") == 1


@pytest.mark.whole("test_a_folder_is_chosen_and_its_images_appear")
@pytest.mark.usefixtures("home")
def test_why_a_run_fails_is_said_and_that_a_folder_has_no_images(
    page: Page, serve: Callable[[Path], Server], empty: Path, home: Path
) -> None:
    page.goto(serve(empty).address)
    page.get_by_role("button", name="Choose a folder").click()
    page.get_by_role("dialog").get_by_role("button", name="Documents").click()
    expect(page.get_by_role("textbox", name="Folder")).to_have_value(f"{home}/Documents")
    page.get_by_role("button", name="Index this folder").click()
    expect(page.locator("#notice")).to_have_text(f"There are no images in {home}/Documents.")
    expect(page.get_by_role("button", name="Choose a folder")).to_be_visible()


@pytest.mark.whole("test_a_folder_is_chosen_and_its_images_appear")
@pytest.mark.usefixtures("home")
def test_where_it_is_not_allowed_only_the_command_is_shown(page: Page, empty: Path) -> None:
    server = Server(empty, "--read-only")
    try:
        page.goto(server.address)
        expect(page.get_by_text(re.compile("Run this command in a terminal"))).to_be_visible()
        expect(page.get_by_role("button", name="Choose a folder")).to_be_hidden()
    finally:
        server.stop()
