"""Examine a file closely: its picture at the size for comparing, and its other contents.

This decodes the file, so a worker does it for untrusted files (`imgsearch.embedding.looking`).
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import zip_longest
from typing import TypeAlias

import numpy as np
from PIL import Image

from imgsearch.images.agreement import CloseUp, agreement
from imgsearch.images.crop import TURNED
from imgsearch.images.decode import Pixels, open_image, orientation_of, picture_of
from imgsearch.images.holdings import Holdings, holdings_of, lacks
from imgsearch.images.keypoints import Keypoints, affinity, keypoints_of
from imgsearch.images.kinds import kind_of
from imgsearch.images.limits import LIMITS, Limits
from imgsearch.images.raw import is_raw
from imgsearch.images.relation import (
    CROPPED,
    FEATURES,
    FEATURES_EDGE,
    OWN,
    Relation,
    is_part,
    related,
)

__all__ = [
    "Frames",
    "Inspection",
    "Judgement",
    "Sequences",
    "all_frames",
    "frames",
    "inspect",
    "judged",
    "own_of",
    "part_judged",
    "why_not",
]

EDGE = 1_024  # Pixels of the longer edge of compared pictures.
MOST_FRAMES = 64  # Maximum frames that are compared; files with more are left alone.
FEW = 8  # Pixels of which one is looked at first.
AT_ONCE = 8  # Frames, of up to 4 MB each.
UPRIGHT = 1
_LACKS = "it holds {} that the other lacks"


@dataclass(frozen=True, slots=True, eq=False)
class Inspection:
    """The first picture of a file, and the contents of the file."""

    close: CloseUp
    held: Holdings


@dataclass(frozen=True, slots=True, eq=False)
class Frames:
    """Some frames or pages of a file that has `count` of them."""

    close: tuple[CloseUp, ...]
    count: int


#: All frames of two files, each followed by None if the file has more than are compared.
Sequences: TypeAlias = tuple[Iterable[CloseUp | None], Iterable[CloseUp | None]]


def inspect(content: bytes, path: str, limits: Limits = LIMITS) -> Inspection:
    """Decode a file and return its picture and its contents.

    Args:
        content: Content of the file.
        path: Path of the file, of which only the extension matters.
        limits: Maximum pixels of the image.

    Raises:
        ImageError: As for `pixels_from`.
    """
    raw = is_raw(io.BytesIO(content), path)
    with open_image(content, limits) as image:
        close = _close_up(image)
        turned = orientation_of(image) in TURNED
        size = image.size[::-1] if turned else image.size
        is_clear = close.alpha is not None
        grey = _is_grey(image, close)
        held = holdings_of(image, content, size, raw=raw, grey=grey, alpha=is_clear)
        if is_clear and orientation_of(image) != UPRIGHT:
            held = replace(held, extras=held.extras + 1)  # Its alpha is not turned with it.
    return Inspection(close, held)


@dataclass(frozen=True, slots=True)
class Judgement:
    """Whether a copy may be removed in favour of a file.

    Attributes:
        reason: Why it may not; empty if it may.
        kind: One of `imgsearch.images.kinds.KINDS`; empty if it may not.
        share: Share of the kept picture that the copy shows, 0 to 1.
    """

    reason: str
    kind: str = ""
    share: float = 1.0


def judged(
    keep: Inspection, copy: Inspection, sequences: Sequences | None = None, orientation: int = 0
) -> Judgement:
    """Tell whether a copy may be removed in favour of a file, and what kind of copy it is.

    Args:
        keep: The file to keep.
        copy: The copy to remove.
        sequences: All frames of both, as from `all_frames`; used only if the copy has several.
            Without them, such a copy may not be removed.
        orientation: How to turn the copy before it is compared; see
            `imgsearch.images.fingerprint.oriented`.
    """
    if lacking := lacks(keep.held, copy.held):
        return Judgement(_LACKS.format(lacking))
    found = agreement(keep.close, copy.close.turned(orientation))
    if not found:
        return Judgement(f"the two {found.reason}")
    left, top, right, bottom = found.box
    area = (right - left) * (bottom - top)
    if lacking := lacks(keep.held, copy.held, area**0.5):
        return Judgement(_LACKS.format(lacking))
    if copy.held.frames > 1 and not (sequences and _frames_agree(*sequences, orientation)):
        return Judgement(_LACKS.format("frames"))
    if not is_part(keep.close, found.box):
        return Judgement("it is what the other was made from")
    return Judgement("", kind_of(keep, copy, found, orientation), round(area, 2))


def part_judged(keep: Inspection, copy: Inspection) -> Judgement:
    """Tell whether a copy that is a small part of a picture may be removed in favour of it."""
    sides = [_features(each.close) for each in (keep, copy)]
    start = affinity(sides[1], sides[0])
    found = None if start is None else related(keep.close, copy.close, start)
    if found is None:
        return Judgement("the two show different things")
    if own := own_of(keep.held, copy.held, found):
        return Judgement(_LACKS.format(own))
    return Judgement("", found.kind, round(found.share, 2))


def own_of(keep: Holdings, copy: Holdings, found: Relation) -> str:
    """Return what a picture has that the one it was made from lacks; empty if nothing.

    Args:
        keep: Contents of the file to keep.
        copy: Contents of the other.
        found: How the other was made from it.
    """
    if found.kind == CROPPED and found.certain and not found.swapped:
        return "frames" if copy.frames > 1 else lacks(keep, copy, found.share**0.5)
    return "more than a part" if found.swapped else OWN[found.kind]


def _features(close: CloseUp) -> Keypoints:
    grey = close.sheet.grey
    scale = min(1.0, FEATURES_EDGE / max(grey.size))
    size = max(1, round(grey.width * scale)), max(1, round(grey.height * scale))
    reduced = grey.resize(size, Image.Resampling.BILINEAR)
    return keypoints_of(np.asarray(reduced, np.uint8), FEATURES)


def why_not(
    keep: Inspection, copy: Inspection, sequences: Sequences | None = None, orientation: int = 0
) -> str:
    """Return why a copy may not be removed in favour of a file; empty if it may: see `judged`."""
    return judged(keep, copy, sequences, orientation).reason


def frames(content: bytes, first: int = 0, limits: Limits = LIMITS) -> Frames:
    """Decode some frames of a file, starting with the frame `first`.

    Raises:
        ImageError: As for `pixels_from`.
    """
    with open_image(content, limits) as image:
        count = int(getattr(image, "n_frames", 1))
        found = []
        for number in range(first, min(count, MOST_FRAMES, first + AT_ONCE)):
            image.seek(number)
            found.append(_close_up(image))
        return Frames(tuple(found), count)


def all_frames(some: Callable[[int], Frames]) -> Iterator[CloseUp | None]:
    """Yield all frames of a file, or the maximum that is compared followed by None.

    Args:
        some: Function that returns a few frames from a given number on; see `frames`.
    """
    number = 0
    while True:
        found = some(number)
        yield from found.close
        number += len(found.close)
        if number >= found.count:
            return
        if number >= MOST_FRAMES or not found.close:
            yield None
            return


def _frames_agree(
    keep: Iterable[CloseUp | None], copy: Iterable[CloseUp | None], orientation: int
) -> bool:
    """Tell whether two files have the same frames or pages in the same order and orientation."""
    missing = object()
    pairs = zip_longest(keep, copy, fillvalue=missing)
    return all(
        isinstance(one, CloseUp)
        and isinstance(other, CloseUp)
        and agreement(one, other.turned(orientation))
        for one, other in pairs
    )


def _close_up(image: Image.Image) -> CloseUp:
    """Return the current picture of an image with its transparency."""
    image.load()
    width, height = image.size[::-1] if orientation_of(image) in TURNED else image.size
    scale = min(1.0, EDGE / max(width, height))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    pixels = np.asarray(picture_of(image, size), np.uint8)
    if not image.has_transparency_data:
        return CloseUp(pixels, None)
    alpha = image.convert("RGBA").getchannel("A").resize(size, Image.Resampling.BILINEAR)
    values = np.asarray(alpha, np.uint8)
    return CloseUp(pixels, None if values.min() == 255 else values)


def _is_grey(image: Image.Image, close: CloseUp) -> bool:
    if image.mode in ("1", "L", "LA", "I", "F") or image.mode.startswith("I;16"):
        return True
    few = close.pixels[::FEW, ::FEW]  # most pictures have a colour there
    return all(_has_no_colour(some) for some in (few, close.pixels))


def _has_no_colour(pixels: Pixels) -> bool:
    colours = pixels.astype(np.int16)
    return bool(np.abs(colours - colours[..., 1:2]).max(initial=0) <= 8)
