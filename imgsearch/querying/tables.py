"""The images of a collection as a table of another library, and hits as HTML for a notebook."""

from __future__ import annotations

import base64
import csv
import html
import io
import os
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from imgsearch.errors import ImageError, PackageError
from imgsearch.querying.entries import entry_fields
from imgsearch.storage.records import Entry

if TYPE_CHECKING:
    import pandas as pd

    from imgsearch.querying.hits import Hit

__all__ = ["csv_row", "data_frame", "html_of", "table"]

EDGE = 160  # pixels of a thumbnail
SHOWN = 30  # hits shown
#: First characters of a cell that a spreadsheet may take for a formula; some use full-width ones.
_FORMULA = frozenset("=+-@\t\r\n＝＋－＠")


def data_frame(entries: Iterable[Entry]) -> pd.DataFrame:
    """Return a pandas data frame with a row per image, indexed by id, or raise `PackageError`."""
    try:
        import pandas as pd
    except ImportError as error:
        raise _missing("pandas") from error
    columns = _columns(entries)
    frame = pd.DataFrame(columns).set_index("id")
    frame["mtime"] = pd.to_datetime(frame["mtime"], unit="s", utc=True)
    frame["taken"] = pd.to_datetime(frame["taken"], errors="coerce")
    return frame.astype({"width": "Int64", "height": "Int64"})


def table(entries: Iterable[Entry]) -> Any:
    """Return a `pyarrow.Table` with a row per image, or raise `PackageError`."""
    try:
        import pyarrow as pa
    except ImportError as error:
        raise _missing("pyarrow") from error
    return pa.table(_columns(entries))


def html_of(hits: Iterable[Hit]) -> str:
    """Return hits as HTML with thumbnails, for a notebook; files that are gone have none."""
    from imgsearch.images.render import thumbnail

    figures = []
    for hit in list(hits)[:SHOWN]:
        name = html.escape(os.path.basename(hit.path).encode("utf-8", "replace").decode())
        try:
            data = base64.b64encode(thumbnail(hit.path, EDGE)).decode("ascii")
            picture = f'<img src="data:image/jpeg;base64,{data}" alt="{name}">'
        except (ImageError, OSError):
            picture = "<em>no picture</em>"
        facts: list[str] = [hit.band] if hit.band else []
        if hit.score is None:  # otherwise, the order is not that of the similarity
            facts.insert(0, f"{hit.similarity:.4f}")
        caption = f"{hit.rank}. {name}<br>{html.escape(' · '.join(facts))}"
        style = f"display:inline-block;width:{EDGE}px;margin:4px;vertical-align:top"
        figures.append(f'<div style="{style}">{picture}<br><small>{caption}</small></div>')
    return "".join(figures) or "<em>no hits</em>"


def csv_row(*values: str | float | None) -> bytes:
    """Return a row of CSV (RFC 4180, UTF-8), guarded against formulas."""
    row = io.StringIO(newline="")
    csv.writer(row).writerow([_guarded(v) if isinstance(v, str) else v for v in values])
    return row.getvalue().encode()


def _guarded(text: str) -> str:
    """Return a cell, prefixed with an apostrophe if a spreadsheet might take it for a formula.

    Source: OWASP, "CSV Injection". A single `-`, the name of stdin, is not a formula.
    """
    return f"'{text}" if len(text) > 1 and text.lstrip(" ")[:1] in _FORMULA else text


def _columns(entries: Iterable[Entry]) -> dict[str, list[Any]]:
    names = [name for name in entry_fields(_NOBODY) if name != "path_bytes"]
    columns: dict[str, list[Any]] = {name: [] for name in names}
    for entry in entries:
        fields = entry_fields(entry)
        for name, values in columns.items():
            values.append(fields[name])
    return columns


def _missing(package: str) -> PackageError:
    return PackageError(
        f"{package} is not installed; install it with `pip install {package}`", None
    )


_NOBODY = Entry(0, "", 0, None, b"")
