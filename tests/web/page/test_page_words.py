"""Searching by words, on the page of a collection whose network knows words."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from imgsearch.collection import Collection
from imgsearch.querying.options import Words
from tests.support.embedding_here import EngineInProcess
from tests.support.pictures import save_pictures
from tests.support.small_clip import make_worded_collection
from tests.web.page.doing import faults, hits, names, reveal
from tests.web.page.serving import Server

pytestmark = pytest.mark.few(1)  # a device


@pytest.fixture(scope="module")
def worded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a collection of 5 pictures, for reading only."""
    folder = tmp_path_factory.mktemp("worded")
    directory = make_worded_collection(folder / "collection")
    save_pictures(folder / "photos", 5)
    with Collection.open(directory, device="cpu") as collection:
        collection.index([folder / "photos"], engine=EngineInProcess())
    return directory


def test_words_are_searched_for_alone_and_with_an_image(
    page: Page, serve: Callable[[Path], Server], worded: Path
) -> None:
    with Collection.open(worded, device="cpu") as collection:
        expected = [Path(hit.path).name for hit in collection.query(Words("a red bicycle"))]
    page.goto(serve(worded).address)
    words = page.get_by_role("searchbox", name="Words")
    words.fill("a red bicycle")
    words.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_have_text("Similar to “a red bicycle”")
    hits(page)
    assert names(page) == expected
    expect(page.locator("#subject")).to_be_hidden()
    assert faults(page) == []
    page.reload()
    expect(words).to_have_value("a red bicycle")
    hits(page)
    reveal(page, expected[0]).locator(".picture").press("+")
    title = f"Similar to {expected[0]}, and to “a red bicycle”"
    expect(page.get_by_role("heading", level=1)).to_have_text(title)
    expect(page.locator("#subject")).to_be_visible()
    expect(page.get_by_role("button", name="Search a part")).to_be_hidden()
    words.fill("")
    words.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_have_text(f"Similar to {expected[0]}")


def test_there_is_no_field_for_words_where_the_network_knows_none(
    page: Page, server: Server
) -> None:
    page.goto(server.address)
    expect(page.locator(".tile").first).to_be_visible()
    expect(page.get_by_role("searchbox", name="Words")).to_be_hidden()
