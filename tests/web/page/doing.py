"""What people do with the page, and what they see."""

from __future__ import annotations

import base64
from pathlib import Path

from playwright.sync_api import Locator, Page, expect

__all__ = ["choose", "hand_over", "hits", "hold", "names", "open_large", "tile", "unfold"]

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
    tile(page, name).locator(".picture").press(" ")
    dialog = page.get_by_role("dialog")
    expect(dialog).to_be_visible()
    return dialog


def unfold(page: Page) -> None:
    """Show how to search: on a phone that is folded away."""
    if not page.locator("#least").is_visible():
        page.get_by_text("Refine", exact=True).click()
