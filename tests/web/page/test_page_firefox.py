"""The page in Firefox: what most people do with it, and no error."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.web.page.marionette import ENTER, ESCAPE, Firefox
from tests.web.page.serving import Server

SEEN = """return [...document.querySelectorAll(".tile img")]
  .filter((image) => image.complete && image.naturalWidth).length >= 6"""
FITS = "return document.documentElement.scrollWidth <= innerWidth"
HEADING = "return document.querySelector('h1').textContent === arguments[0]"
TEXT = "return document.querySelector(arguments[0])?.textContent.includes(arguments[1])"


@pytest.fixture(params=[1280, 480], ids=["wide", "narrow"])
def firefox(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Firefox]:
    program = shutil.which("firefox-esr") or shutil.which("firefox")
    if program is None:
        pytest.skip("there is no Firefox")
    with Firefox(program, tmp_path / "firefox", width=request.param) as opened:
        yield opened


@pytest.mark.few(1)
def test_firefox_shows_searches_selects_and_filters(
    firefox: Firefox, server: Server, album: Path
) -> None:
    firefox.go(server.address)
    firefox.until(SEEN)
    assert firefox.run(FITS)
    firefox.click(".tile .picture")
    firefox.until("return document.querySelectorAll('.tile .similarity').length > 0")
    assert "#like=" in firefox.run("return location.href")
    firefox.back()
    firefox.until(HEADING, "All images")
    firefox.give("#file", album / "coffee.jpg")
    firefox.until(HEADING, "Similar to coffee.jpg")
    firefox.until(SEEN)
    firefox.type(".tile .picture", "x")
    firefox.until(TEXT, "#selected", "1 image selected")
    firefox.press(ESCAPE)
    firefox.click("#filtering summary")
    firefox.type("#filter [name=name]", f"grey{ENTER}")
    firefox.until(TEXT, "#active", "Name: grey")
    firefox.click("#home")
    firefox.until(HEADING, "All images")
    firefox.until(SEEN)
    assert firefox.faults(server.address) == []


@pytest.mark.few(1)
@pytest.mark.whole("test_firefox_shows_searches_selects_and_filters")
def test_firefox_opens_zooms_and_compares(firefox: Firefox, server: Server) -> None:
    firefox.go(server.address + "#like=1")
    firefox.until(SEEN)
    firefox.type(".tile .picture", " ")
    firefox.until("return document.querySelector('#large .view img')?.src.endsWith('original')")
    width = "return document.querySelector('#large .view img').getBoundingClientRect().width"
    fitted = firefox.run(width)
    firefox.press("+")
    assert firefox.run(width) == pytest.approx(1.5 * fitted, rel=0.01)
    firefox.press("0")
    firefox.press("w")
    firefox.until("return document.querySelectorAll('#large canvas').length === 2")
    firefox.press(ESCAPE)
    firefox.until("return !document.querySelector('#large').open")
    firefox.press("?")
    firefox.until("return document.querySelector('#keys').open")
    firefox.press(ESCAPE)
    firefox.click("#duplicates")
    firefox.until(HEADING, "Duplicates")
    assert firefox.run(FITS)
    assert firefox.faults(server.address) == []
