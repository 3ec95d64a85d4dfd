"""The page of `imgsearch duplicates --html`: pairs side by side, and a list of those to discard."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

from imgsearch.cli.html import EDGE, Thumbnailer, figure, image_element, link, text, write_document

if TYPE_CHECKING:
    from imgsearch.embedding.lanes import Lane
    from imgsearch.maintenance.copies import Copy, Duplicates

__all__ = ["SAVED", "write_page"]

SAVED = "copies.txt"  # the name under which the page saves the list

_HOW = f"""<p>Tick the images to discard, save the list, and run
<code>imgsearch duplicates --apply {SAVED}</code>, which moves them to the trash once you confirm.
With <code>--delete-forever</code> or <code>--link</code> they are deleted or replaced by links.</p>
<noscript><p>The list needs JavaScript, which is switched off.</p></noscript>
<p><button type="button" id="save">Save the list</button>
<button type="button" id="none">Untick all</button> <output id="count"></output></p>
"""

_SCRIPT = f"""
"use strict";
const boxes = [...document.querySelectorAll("input[type=checkbox]")];
const ticked = () => boxes.filter((box) => box.checked);
const count = () => {{
  document.getElementById("count").textContent = `${{ticked().length}} of ${{boxes.length}} ticked`;
}};
document.addEventListener("change", count);
document.getElementById("none").addEventListener("click", () => {{
  for (const box of boxes) box.checked = false;
  count();
}});
document.getElementById("save").addEventListener("click", () => {{
  const lines = ticked().map((box) => box.dataset.path + "\\n");
  const saved = document.createElement("a");
  saved.href = URL.createObjectURL(new Blob(lines, {{ type: "text/plain" }}));
  saved.download = "{SAVED}";
  saved.click();
  URL.revokeObjectURL(saved.href);
}});
count();
"""

#: A function that returns the facts to show of an image.
Facts = Callable[["Copy"], list[str]]


def write_page(path: Path, found: Duplicates, facts: Facts) -> bool:
    """Write a page of all copies, each beside the image to keep; see `write_document`.

    Args:
        path: Path of the page.
        found: The copies.
        facts: Function that returns the facts to show of an image.
    """
    from imgsearch.embedding.lanes import decoders

    with decoders(1) as lane:
        of = lru_cache(1)(partial(_thumbnail, lane))  # of the image to keep, which comes first
        sections = _sections(found, partial(_thumbnail, lane), of, facts)
        return write_document(path, sections, script=_SCRIPT)


def _thumbnail(lane: Lane, source: str | bytes) -> bytes:
    """Return a JPEG thumbnail of a file, which a worker process decodes."""
    from imgsearch.embedding.decoder import Stored

    with lane.decoder() as decoder:
        return decoder.thumbnail(Stored(os.fsdecode(source)), EDGE).jpeg


def _sections(
    found: Duplicates, of: Thumbnailer, of_kept: Thumbnailer, facts: Facts
) -> Iterator[str]:
    for number, group in enumerate(found.groups, 1):
        how = _HOW if number == 1 else ""
        reason = f" ({text(group.reason)})" if group.reason else ""
        yield f"{how}<section>\n<h2>Group {number:,}</h2>\n"
        for copy in group.others:
            yield '<ol class="sides">\n'
            kept = image_element(group.keep.path, os.path.basename(group.keep.path), of_kept)
            told = "<br>".join(facts(group.keep))
            yield figure("query", kept, f"keep {link(group.keep.path)}{reason}", told)
            image = image_element(copy.path, os.path.basename(copy.path), partial(_lit, of, copy))
            yield figure("hit", image, _box(copy) + link(copy.path), "<br>".join(facts(copy)))
            yield "</ol>\n"
        yield "</section>\n"


def _lit(of: Thumbnailer, copy: Copy, source: str | bytes) -> bytes:
    """Return a thumbnail of a copy, with a line around the region that was changed or added."""
    jpeg = of(source)
    if copy.region is None:
        return jpeg
    from imgsearch.images.heat import outlined

    return outlined(jpeg, copy.region)


def _box(copy: Copy) -> str:
    """Return a checkbox for a copy, ticked if the command would discard it unasked."""
    if copy.protected or copy.own:
        return "keep "
    ticked = " checked" if copy.discardable else ""
    line = text(json.dumps(copy.path))
    name = text(f"discard {os.path.basename(copy.path)}")
    return f'<input type="checkbox" aria-label="{name}" data-path="{line}"{ticked}> '
