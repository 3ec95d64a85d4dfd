"""The picture of `imgsearch map`: thumbnails where their images lie on the map."""

from __future__ import annotations

import io
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
from PIL import Image, ImageOps

from imgsearch.ann.vectors import Vectors
from imgsearch.embedding.decoder import Stored
from imgsearch.embedding.lanes import Lane, decoders
from imgsearch.embedding.pipeline import cores
from imgsearch.errors import ImageError
from imgsearch.storage.records import Entry

__all__ = ["FORMATS", "chosen", "draw"]

FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}
EDGE = 3_072  # pixels of the picture
LEAST_CELLS, MOST_CELLS = 8, 48  # along an edge
PER_IMAGE = 2.5  # cells, up to the most
GAP = 2  # pixels
GROUND, LOST = (255, 255, 255), (200, 200, 205)


def chosen(positions: Vectors) -> tuple[list[int], list[tuple[int, int]], int]:
    """Choose the images to show: of those in each cell of a grid, the one nearest to its middle.

    Args:
        positions: Positions of the images in the unit square, float32 `[n, 2]`.

    Returns:
        The rows of the images, the column and the line of each, and the cells along an edge.
    """
    count = int(np.clip(round(np.sqrt(PER_IMAGE * len(positions))), LEAST_CELLS, MOST_CELLS))
    cells = np.minimum((positions * count).astype(np.int64), count - 1)
    away = ((positions * count - cells - 0.5) ** 2).sum(axis=1)
    order = np.lexsort((away, cells[:, 0], cells[:, 1]))
    _, first = np.unique(cells[order], axis=0, return_index=True)
    rows = np.sort(order[first])
    return rows.tolist(), [(x, y) for x, y in cells[rows].tolist()], count


def draw(
    entries: list[Entry | None],
    places: list[tuple[int, int]],
    count: int,
    progress: Callable[[int, int], None],
) -> Image.Image:
    """Draw thumbnails in the cells of a grid; an image that cannot be read is a grey square.

    Args:
        entries: Catalog entries of the images; None for one that was removed meanwhile.
        places: Column and line of each.
        count: Cells along an edge.
        progress: Function that is called with the number of thumbnails done, and of all.
    """
    cell = EDGE // count
    sheet = Image.new("RGB", (count * cell, count * cell), GROUND)
    with decoders(cores()) as lane, ThreadPoolExecutor(cores()) as threads:
        tiles = threads.map(partial(_tile, lane, cell - GAP), entries)
        for done, ((x, y), tile) in enumerate(zip(places, tiles, strict=True), 1):
            sheet.paste(tile, (x * cell + GAP // 2, y * cell + GAP // 2))
            progress(done, len(entries))
    return sheet


def _tile(lane: Lane, edge: int, entry: Entry | None) -> Image.Image:
    """Return a square picture of an image, cut to its middle."""
    if entry is not None:
        try:
            with lane.decoder() as decoder:
                made = decoder.thumbnail(Stored(entry.path, entry.digest), 2 * edge)
            with Image.open(io.BytesIO(made.jpeg)) as picture:
                return ImageOps.fit(picture.convert("RGB"), (edge, edge))
        except ImageError:
            pass  # its file is missing, or has changed
    return Image.new("RGB", (edge, edge), LOST)
