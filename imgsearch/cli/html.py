"""Write a self-contained HTML page of pictures, which needs no network."""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Callable, Iterable
from html import escape
from itertools import chain
from pathlib import Path
from typing import TypeAlias
from urllib.parse import quote

from imgsearch.cli.interrupt import waiting_for
from imgsearch.cli.output import shown
from imgsearch.errors import ImageError, PicklableError
from imgsearch.files.paths import is_url
from imgsearch.storage.files import Sink, write_result

__all__ = [
    "EDGE",
    "Thumbnailer",
    "figure",
    "image_element",
    "link",
    "text",
    "write_document",
]

EDGE = 256  # pixels of the longer edge of a thumbnail

STYLE = """
:root { color-scheme: light dark; --ink: #1b1b1f; --dim: #5c5c66; --ground: #fff; --box: #f1f1f4;
  --mark: #2f5bd0; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #ececf1; --dim: #a3a3af; --ground: #17171a; --box: #232328; --mark: #8fb0ff; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 100rem; padding: 1rem 1.5rem 3rem; color: var(--ink);
  background: var(--ground); font: 1rem/1.45 system-ui, sans-serif; }
h1 { font-size: 1.1rem; color: var(--dim); }
h2 { margin: 2rem 0 0.5rem; font-size: 1.25rem; overflow-wrap: anywhere; }
p { margin: 0.2rem 0 0.8rem; color: var(--dim); }
ol { display: grid; grid-template-columns: repeat(auto-fill, minmax(11rem, 1fr)); gap: 1rem;
  margin: 0; padding: 0; list-style: none; }
ol.sides { display: inline-grid; width: min(32rem, 100%); grid-template-columns: 1fr 1fr;
  margin: 0 1.5rem 1rem 0; vertical-align: top; }
ol.pair { grid-template-columns: repeat(auto-fit, minmax(18rem, 1fr)); }
figure { margin: 0; height: 100%; padding: 0.6rem; border-radius: 0.5rem; background: var(--box);
  border: 2px solid transparent; }
.query figure { border-color: var(--mark); }
img, .none { display: block; width: 100%; height: 11rem; object-fit: contain; }
.pair img { height: auto; max-height: 80vh; }
.none { padding: 0.6rem; overflow: auto; border: 1px dashed var(--dim); color: var(--dim);
  font-size: 0.85rem; }
figcaption { margin-top: 0.5rem; font-size: 0.85rem; overflow-wrap: anywhere; }
small { display: block; color: var(--dim); font-variant-numeric: tabular-nums; }
a { color: var(--mark); }
"""


def _hash_of(text: str) -> str:
    """Return what a content security policy allows a style or a script by."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


_POLICY = f"default-src 'none'; img-src data:; style-src {_hash_of(STYLE)}"

_HEAD = f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}; base-uri 'none'; form-action 'none'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="referrer" content="no-referrer">
<title>imgsearch</title>
<style>{STYLE}</style>
</head>
<body>
<h1>imgsearch</h1>
<main>
"""
_FOOT = "</main>\n</body>\n</html>\n"

#: A function that returns a JPEG of an image file, given its path or its content.
Thumbnailer: TypeAlias = Callable[[str | bytes], bytes]


class _NothingToShowError(PicklableError):
    """A document without sections; the existing page is kept."""


def write_document(path: Path, sections: Iterable[str], *, script: str = "") -> bool:
    """Write a page atomically, computing its sections along the way.

    Args:
        path: Path of the page, which is replaced if it exists.
        sections: The HTML of the sections, in pieces.
        script: A script to run once the page is there, the only one that can; empty for none.

    Returns:
        Whether there was anything to show; if not, nothing was written.

    Raises:
        StorageError: If the page cannot be written. Where this can be known beforehand, nothing
            is computed.
    """

    def fill(sink: Sink) -> None:
        pieces = iter(sections)
        first = next(pieces, None)
        if first is None:
            raise _NothingToShowError
        head, foot = _HEAD, _FOOT
        if script:
            head = head.replace(_POLICY, f"{_POLICY}; script-src {_hash_of(script)}")
            foot = f"<script>{script}</script>\n{_FOOT}"
        for piece in chain([head, first], pieces, [foot]):
            sink.write(piece.encode())

    try:
        write_result(path, fill, "page")
    except _NothingToShowError:
        return False
    return True


def figure(kind: str, image: str, caption: str, facts: str) -> str:
    """Return a list item; all arguments except `kind` are HTML."""
    return (
        f'<li class="{kind}"><figure>{image}<figcaption>{caption}<small>{facts}</small>'
        "</figcaption></figure></li>\n"
    )


def image_element(source: str | bytes, name: str, of: Thumbnailer) -> str:
    """Return a thumbnail element, or an element that says why there is none."""
    try:
        jpeg = waiting_for(of, source)
    except ImageError as error:  # the file is missing or has changed since it was indexed
        return f'<div class="none">no picture: {text(error.reason)}</div>'
    data = base64.b64encode(jpeg).decode("ascii")
    return f'<img alt="{text(name)}" src="data:image/jpeg;base64,{data}">'


def link(path: str) -> str:
    """Return a link to a file, labelled with its name."""
    address = quote(path, safe=":/?&=%") if is_url(path) else "file://" + quote(os.fsencode(path))
    return f'<a href="{address}" title="{text(path)}">{text(os.path.basename(path))}</a>'


def text(value: str) -> str:
    """Return text escaped for HTML."""
    return escape(shown(value))
