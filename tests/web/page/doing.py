"""What people do with the page, and what they see."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import axe_playwright_python
from playwright.sync_api import Locator, Page, expect

__all__ = [
    "choose",
    "drop",
    "faults",
    "hand_over",
    "hits",
    "hold",
    "names",
    "open_large",
    "reveal",
    "tile",
    "unfold",
]

AXE = Path(axe_playwright_python.__file__).with_name("axe.min.js").read_text()
FURTHER = """() => new Promise((resolve) => {
  scrollBy(0, innerHeight);
  requestAnimationFrame(() => requestAnimationFrame(() => resolve(scrollY)));
})"""
DATA_TRANSFER = """([name, type, data]) => {
  const bytes = Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0));
  const transfer = new DataTransfer();
  transfer.items.add(new File([bytes], name, { type }));
  return transfer;
}"""


def choose(page: Page, path: Path) -> None:
    """Choose an image, and wait for its hits."""
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="Choose an image").click()
    chooser.value.set_files(path)
    expect(page.get_by_role("heading", level=1)).to_contain_text(path.name)
    hits(page)


def hand_over(page: Page, how: str, path: Path) -> None:
    """Drop or paste an image file: `how` is "drop" or "paste"."""
    content = base64.b64encode(path.read_bytes()).decode()
    transfer = page.evaluate_handle(DATA_TRANSFER, [path.name, "image/jpeg", content])
    kind, field = (
        ("DragEvent", "dataTransfer") if how == "drop" else ("ClipboardEvent", "clipboardData")
    )
    page.evaluate(
        """([how, kind, field, transfer]) => document.body.dispatchEvent(
             new window[kind](how, { [field]: transfer, bubbles: true, cancelable: true }))""",
        [how, kind, field, transfer],
    )


def drop(page: Page, data: dict[str, str]) -> None:
    """Drop what another page gives, by its types."""
    page.evaluate(
        """data => {
             const dataTransfer = new DataTransfer();
             Object.entries(data).forEach(([type, value]) => dataTransfer.setData(type, value));
             document.body.dispatchEvent(
               new DragEvent("drop", { dataTransfer, bubbles: true, cancelable: true })); }""",
        data,
    )


def hits(page: Page) -> Locator:
    """Wait for hits, and return their similarities."""
    expect(page.locator("#main")).not_to_have_attribute("aria-busy", "true")
    similarities = page.locator(".tile .similarity")
    expect(similarities.first).to_be_visible()
    return similarities


def names(page: Page) -> list[str]:
    """Return the names of the files that are shown, in their order."""
    paths = page.locator(".tile .picture").evaluate_all("links => links.map(link => link.title)")
    return [Path(path).name for path in paths]


def tile(page: Page, name: str) -> Locator:
    """Return the tile of a file."""
    return page.locator(".tile", has=page.locator(f'[title$="/{name}"]'))


def hold(page: Page, picture: Locator) -> None:
    """Hold the pointer down on a picture until the large view is there."""
    picture.scroll_into_view_if_needed()
    box = picture.bounding_box()
    assert box
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.down()
    expect(page.get_by_role("dialog")).to_be_visible()
    page.mouse.up()


def open_large(page: Page, name: str) -> Locator:
    """Open the large view of a file by the keyboard, and return it."""
    reveal(page, name).locator(".picture").press(" ")
    dialog = page.get_by_role("dialog")
    expect(dialog).to_be_visible()
    return dialog


def reveal(page: Page, name: str) -> Locator:
    """Scroll until the tile of a file is an element of the page, and return it."""
    found = tile(page, name)
    expect(page.locator(".tile").first).to_be_attached()
    while not found.count():
        expect(page.locator(".blank")).to_have_count(0)
        before = page.evaluate("scrollY")
        after = page.evaluate(FURTHER)
        assert after > before, f"{name} is not there"
    return found


def unfold(page: Page) -> None:
    """Show how to search: on a phone that is folded away."""
    if not page.locator("#folded").is_visible():
        page.get_by_text("Refine", exact=True).click()
    if page.locator("#advanced").get_attribute("open") is None:
        page.get_by_text("Advanced", exact=True).click()


def faults(page: Page) -> list[str]:
    """Return what axe-core finds serious or critical."""
    page.evaluate(AXE)
    page.wait_for_timeout(300)  # milliseconds: fading in has ended
    options = "{ resultTypes: ['violations'], preload: false }"  # style sheets once more
    found: dict[str, Any] = page.evaluate(f"axe.run({options})")
    return [
        f"{fault['id']}: {fault['help']}: {[node['html'] for node in fault['nodes']]}"
        for fault in found["violations"]
        if fault["impact"] in ("serious", "critical")
    ]
