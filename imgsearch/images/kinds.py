"""Tell how a copy was made from the picture that it agrees with."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from imgsearch.images.fingerprint import MIRRORED

if TYPE_CHECKING:
    from imgsearch.images.agreement import Agreement
    from imgsearch.images.inspection import Inspection

__all__ = ["EXACT", "KINDS", "TURNED_KINDS", "kind_of"]

EXACT = "exact"
MIRRORED_KIND, TURNED_KIND = "mirrored", "turned"
TURNED_KINDS = (MIRRORED_KIND, TURNED_KIND)

#: The kinds of copies, the first that applies: the same file, the same pixels in another file, seen
#: in a mirror, turned, a part, with other tones or without colours, of another size, and none of
#: these; then those that are more than copies: with a frame, with a caption, and changed in a
#: region.
KINDS = (
    *(EXACT, "same pixels", MIRRORED_KIND, TURNED_KIND),
    *("cropped", "colour-changed", "resized", "re-encoded"),
    *("framed", "captioned", "edited"),
)

_WHOLE = 0.985  # Share of an edge from which on nothing was cropped on purpose.
_GAIN, _OFFSET = 0.05, 5.0  # Contrast and levels that encoders change.
_SIZE = 1.02  # Ratio of edges that rounding explains.


def kind_of(keep: Inspection, copy: Inspection, found: Agreement, orientation: int) -> str:
    """Return the kind of a copy that agrees with the kept picture in an orientation."""
    if orientation:
        return MIRRORED_KIND if orientation in MIRRORED else TURNED_KIND
    one, other = keep.held, copy.held
    size = (one.width, one.height) == (other.width, other.height)
    if size and np.array_equal(keep.close.pixels, copy.close.pixels):
        return "same pixels"
    left, top, right, bottom = found.box
    if min(right - left, bottom - top) < _WHOLE:
        return "cropped"
    if found.changes_colour or abs(found.gain - 1) > _GAIN or abs(found.middle) > _OFFSET:
        return "colour-changed"
    return "re-encoded" if one.width < _SIZE * other.width < _SIZE**2 * one.width else "resized"
