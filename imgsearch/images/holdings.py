"""The contents of a file besides the picture it shows: more frames, finer tones, real detail.

Of two copies, the one that holds more is kept (`worth`), and the other may be removed only if it
holds nothing that the kept file lacks (`lacks`).
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image

__all__ = ["Holdings", "advantage", "bits_of", "holdings_of", "lacks", "true_scale", "worth"]

LARGER = 2.0  # Ratio of edges from which a lossy picture holds all of a lossless one.
BETTER = 1.5  # Ratio of edges from which quality does not matter.
ROUNDING = 0.96  # Ratio of edges that rounding may explain.
MUCH_BETTER = 15  # Difference in JPEG quality, 1 to 100.

SCALES = (0.25, 0.3, 0.4, 0.5, 0.6, 0.7)  # Possible scales of a picture before enlargement.
DETAIL = 0.15  # Share of the next octave's energy; less is not detail but encoder noise.
LEAST_ENERGY = 4.0  # Squared levels; with less, there is no detail to judge by.
REGION = 384  # Edge in pixels of the busiest part, which is examined.
# A smaller part and fewer scales, which tell that a picture was clearly not enlarged, and the
# multiple of `DETAIL` that it has then.
SMALL_REGION, FEW_SCALES, CLEARLY = 160, (0.4, 0.7), 2.0

_LOSSLESS = {"PNG", "BMP", "PPM", "GIF", "ICO"}
_LOSSY_TIFF = {6, 7, 34892, 50001, 50002, 52546}  # JPEG, WebP, JPEG XL
_LOSSY_TIFF_NAMES = {"jpeg", "tiff_jpeg", "webp"}
_WIDE = {"I;16": 16, "I;16L": 16, "I;16B": 16, "I;16N": 16, "I": 16, "F": 32, "1": 1}
_USUAL_LUMINANCE = 57.6  # Mean of JPEG's table at quality 50 (ITU T.81, table K.1).
_ADVANTAGES = (
    *("raw file", "more frames", "more parts", "finer tones", "colour", "transparency"),
    *("resolution", "more pixels", "date or place"),
)  # In the order of `worth`.
_DATE, _GPS = ExifTags.Base.DateTimeOriginal, ExifTags.IFD.GPSInfo


@dataclass(frozen=True, slots=True)
class Holdings:
    """The contents of a file.

    Attributes:
        width: Width of the upright picture, in pixels.
        height: Height of the upright picture, in pixels.
        frames: Number of pictures or pages in the file.
        extras: Number of parts that are not compared, such as layers, depth or other sizes of an
            icon.
        bits: Bits per sample.
        raw: Whether the file is a camera raw.
        lossless: Whether its compression, if any, is lossless.
        colour: Whether the picture has more than shades of grey.
        alpha: Whether part of the picture is transparent.
        quality: Quality of a JPEG, estimated from its tables, 1 to 100; None for other files.
        scale: True resolution as a share of the width: less than 1 for an enlarged picture.
        dated: Whether the file states when or where the picture was taken.
    """

    width: int
    height: int
    frames: int = 1
    extras: int = 0
    bits: int = 8
    raw: bool = False
    lossless: bool = False
    colour: bool = True
    alpha: bool = False
    quality: int | None = None
    scale: float = 1.0
    dated: bool = False

    @property
    def edge(self) -> float:
        """The true resolution: the geometric mean of the edges, in pixels."""
        return self.scale * math.sqrt(self.width * self.height)


def worth(held: Holdings) -> tuple[float, ...]:
    """Return the sort key of a file, by which the file that holds most comes first."""
    edge = held.edge * (LARGER if held.lossless else 1)
    return (
        -held.raw, -held.frames, -held.extras, -held.bits, -held.colour, -held.alpha, -edge,
        -held.width * held.height, -held.dated,
    )  # fmt: skip


def advantage(keep: Holdings, copy: Holdings) -> str:
    """Return the first advantage, in the order of `worth`, of a file over its copy."""
    for name, one, other in zip(_ADVANTAGES, worth(keep), worth(copy), strict=True):
        if one < other:
            lossless = name == "resolution" and keep.lossless and not copy.lossless
            return "lossless" if lossless else name
    return ""


def lacks(keep: Holdings, copy: Holdings, share: float = 1.0) -> str:
    """Return what a file lacks that its copy holds; empty if it lacks nothing.

    Args:
        keep: Contents of the file to keep.
        copy: Contents of the copy, whose pixels agree with those of the file.
        share: Share of the kept picture's edge that the copy shows.
    """
    larger = keep.edge * share / max(copy.edge, 1)
    if keep.scale < copy.scale:  # Estimates: encoder noise may look like detail.
        lower = max((scale for scale in SCALES if scale < copy.scale), default=copy.scale)
        larger *= copy.scale / max(keep.scale, lower)
    reasons = {
        "the raw": copy.raw,
        "frames": copy.frames > 1 and copy.frames != keep.frames,
        "parts that were not compared": copy.extras > 0,
        "depth of tones": copy.bits > keep.bits,
        "colour": copy.colour and not keep.colour,
        "transparency": copy.alpha and not keep.alpha,
        "date or place": copy.dated and not keep.dated,
        "resolution": larger < ROUNDING,
        "lossless pixels": copy.lossless and not keep.lossless and larger < LARGER,
        "quality": larger < BETTER
        and not keep.lossless
        and (keep.quality or 100) < (copy.quality or 0) - MUCH_BETTER,
    }
    return next((reason for reason, is_so in reasons.items() if is_so), "")


def holdings_of(
    image: Image.Image, content: bytes, size: tuple[int, int], *, raw: bool, grey: bool, alpha: bool
) -> Holdings:
    """Return the contents of a file.

    Args:
        image: Picture of the file as opened by `open_image`, and decoded.
        content: Content of the file.
        size: Width and height of the upright picture, in pixels.
        raw: Whether the file is a camera raw.
        grey: Whether all pixels are shades of grey.
        alpha: Whether some pixels are transparent.
    """
    frames, extras = _parts_of(image)
    return Holdings(
        *size,
        frames=frames,
        extras=extras,
        bits=max(bits_of(image, content), 12 if raw else 0),
        raw=raw,
        lossless=not raw and _is_lossless(image, content),
        colour=not grey,
        alpha=alpha,
        quality=_quality_of(image),
        scale=true_scale(image.convert("L")),
        dated=_is_dated(image),
    )


def true_scale(grey: Image.Image) -> float:
    """Return the scale at which a picture had all of its detail; 1 unless it was enlarged."""
    if min(grey.size) < 48:
        return 1.0
    few = _busiest(grey, SMALL_REGION)
    if all(_lost(few, scale) > CLEARLY * DETAIL for scale in FEW_SCALES):
        return 1.0
    part = _busiest(grey, REGION)
    return next((scale for scale in SCALES if _lost(part, scale) < DETAIL), 1.0)


def _busiest(grey: Image.Image, region: int) -> Image.Image:
    """Return the part of a picture with the most detail, in float32, or all of a small picture."""
    if max(grey.size) <= region:
        return grey.convert("F")
    step = 8
    reduced = np.asarray(grey.reduce(step), np.float64)
    energy = np.add(*(np.abs(part) for part in np.gradient(reduced)))
    edge = region // step
    sums = np.pad(energy, ((1, 0), (1, 0))).cumsum(axis=0).cumsum(axis=1)
    starts = [np.arange(0, max(1, length - edge + 1), edge // 2) for length in energy.shape]
    ends = [np.minimum(at + edge, most) for at, most in zip(starts, energy.shape, strict=True)]
    found = sums[np.ix_(*ends)] - sums[np.ix_(starts[0], ends[1])]
    found -= sums[np.ix_(ends[0], starts[1])] - sums[np.ix_(*starts)]
    row, column = np.unravel_index(found.argmax(), found.shape)
    top, left = step * int(starts[0][row]), step * int(starts[1][column])
    box = left, top, min(left + region, grey.width), min(top + region, grey.height)
    return grey.crop(box).convert("F")


def _lost(picture: Image.Image, scale: float) -> float:
    """Return what a picture loses if it is scaled, as a share of the energy of the next octave.

    It is infinite if there is no detail to judge by.
    """
    smaller, lost = _without_detail(picture, scale)
    octave = _strongest(_without_detail(smaller, 0.5)[1])
    return _strongest(lost) / octave if octave > LEAST_ENERGY else math.inf


def _without_detail(
    image: Image.Image, scale: float
) -> tuple[Image.Image, npt.NDArray[np.float32]]:
    """Return an image in float32 at a scale, and the detail that it has lost by scaling."""
    width, height = image.size
    small = max(4, round(width * scale)), max(4, round(height * scale))
    smaller = image.resize(small, Image.Resampling.LANCZOS)
    back = smaller.resize(image.size, Image.Resampling.BICUBIC)
    return smaller, np.asarray(image) - np.asarray(back)


def _strongest(lost: npt.NDArray[np.float32]) -> float:
    """Return the mean energy of the top tenth of all tiles."""
    edge = 8
    height, width = (length // edge * edge for length in lost.shape)
    squares = np.square(lost[:height, :width])
    rows = squares.reshape(height // edge, edge, width).sum(axis=1)  # first along whole rows
    energy = np.sort(rows.reshape(-1, edge).sum(axis=1)) / edge**2
    return float(energy[-max(1, len(energy) // 10) :].mean()) if len(energy) else 0.0


def _parts_of(image: Image.Image) -> tuple[int, int]:
    """Return the number of frames or pages of a file, and that of its other parts."""
    frames, extras = int(getattr(image, "n_frames", 1)), 0
    if image.format == "MPO":
        entries = getattr(image, "mpinfo", {}).get(0xB002, ())
        previews = sum("Thumbnail" in entry["Attribute"]["MPType"] for entry in entries)
        frames -= previews
    if image.format == "TIFF":
        tags = getattr(image, "tag_v2", {})
        extras = sum(tag in tags for tag in (330, 37724, 34377))  # SubIFDs, Photoshop's layers
    if image.format == "ICO":
        extras = len(image.info.get("sizes", ())) - 1
    for name in ("depth_images", "aux"):  # HEIF
        extras += len(image.info.get(name) or ())
    return max(frames, 1), extras


def bits_of(image: Image.Image, content: bytes) -> int:
    """Return the bits per sample of a file, of which `content` is at least the header."""
    if image.format == "PNG":
        return content[24]
    if image.format == "TIFF":
        bits = getattr(image, "tag_v2", {}).get(258, ()) or (8,)
        return max(bits) if isinstance(bits, tuple) else int(bits)
    if image.format == "AVIF":
        found = re.search(rb"av1C..(.)", content, re.DOTALL)
        deep = found[1][0] if found else 0
        return (12 if deep & 0x20 else 10) if deep & 0x40 else 8
    if image.format == "PPM":
        return _bits_of_ppm(content)
    return int(image.info.get("bit_depth") or _WIDE.get(image.mode, 8))


def _bits_of_ppm(content: bytes) -> int:
    found = re.match(rb"P[2356]\s+(?:#.*\s+)*\d+\s+(?:#.*\s+)*\d+\s+(?:#.*\s+)*(\d+)", content)
    if found:
        return max(1, int(found[1]).bit_length())
    return 32 if content[:2] in (b"PF", b"Pf") else 1


def _is_lossless(image: Image.Image, content: bytes) -> bool:
    if image.format == "TIFF":
        name = str(image.info.get("compression"))
        number = getattr(image, "tag_v2", {}).get(259, 1)
        return name not in _LOSSY_TIFF_NAMES and number not in _LOSSY_TIFF
    if image.format == "WEBP":
        return b"VP8L" in content[:64] or (b"VP8L" in content and b"VP8 " not in content)
    return image.format in _LOSSLESS


def _quality_of(image: Image.Image) -> int | None:
    tables = getattr(image, "quantization", None)
    if not tables:
        return None
    mean = float(sum(tables[min(tables)])) / 64
    percent = 100 * mean / _USUAL_LUMINANCE
    return round(min(100.0, max(1.0, 5000 / percent if percent > 100 else 100 - percent / 2)))


def _is_dated(image: Image.Image) -> bool:
    try:
        exif = image.getexif()
        return bool(exif.get_ifd(ExifTags.IFD.Exif).get(_DATE)) or bool(exif.get_ifd(_GPS))
    except Exception:  # Metadata that cannot be parsed says nothing.
        return False
