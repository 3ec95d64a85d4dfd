"""Convert the samples that a file stores to 8-bit tones from black to white.

16-bit samples need not use all bits: cameras, microscopes and scanners store 10 to 14 bits
unscaled, and elevation models store metres. The file defines white; otherwise its samples do
(docs/decisions/0015).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias, cast

import numpy as np
import numpy.typing as npt
from PIL import Image

from imgsearch.images.formats import SIGNIFICANT_BITS

__all__ = ["Samples", "samples_of", "table_of", "to_8_bit", "white_of"]

_Values: TypeAlias = npt.NDArray[Any]

# TIFF 6.0, and GeoTIFF.
_BITS, _PHOTOMETRIC, _SAMPLE_FORMAT, _NODATA = 258, 262, 339, 42113
_LOWEST, _HIGHEST = (280, 340), (281, 341)  # Tags for integers, and for any type.
_GEOGRAPHIC = (33550, 33922, 34264, 34735, 42112, _NODATA)
_SIGNED, _FLOAT = 2, 3

#: Depths in bits that 16-bit samples are assumed to have if their maximum is just below the limit.
_DEPTHS = (8, 10, 11, 12, 13, 14)
_JUST_BELOW = 0.875  # Share of the range of the depth.

_BLOCK = 1 << 22  # Samples processed at once.
_ENOUGH = 1 << 21  # Samples that suffice to find the range of all.

# Extremes are outliers if their distance from all other samples is this multiple of the others'
# range.
_FAR = 10
_RARE = 0.001  # Maximum share of outliers, unless their value stands for "none".

# A float picture that comes near 1 uses 0 to 1 for black to white; otherwise it is a measurement.
_NEAR_WHITE = 0.05


@dataclass(frozen=True, slots=True)
class Samples:
    """The description of its samples in a file.

    Attributes:
        low: The value of black; None if it is not stated.
        high: The value of white; None if it is not stated.
        inverted: Whether the lowest value is white.
        measured: Whether the samples are measurements rather than light, so that the range in use
            counts.
        unsigned: Whether negative values are unsigned 32-bit values that Pillow has misread.
        nodata: The value that marks missing samples.
    """

    low: float | None = None
    high: float | None = None
    inverted: bool = False
    measured: bool = False
    unsigned: bool = False
    nodata: float | None = None


def samples_of(image: Image.Image) -> Samples:
    """Return the description of the samples in the file from which an image was opened."""
    bits = image.info.get(SIGNIFICANT_BITS)
    if isinstance(bits, int):
        return Samples(low=0, high=(1 << bits) - 1)
    tags = getattr(image, "tag_v2", None)
    if tags is None:
        return Samples()
    kind, depth = _number(tags.get(_SAMPLE_FORMAT)) or 1, _number(tags.get(_BITS)) or 1
    nodata = tags.get(_NODATA)
    high = next(filter(None, (_number(tags.get(tag)) for tag in _HIGHEST)), None)
    low = next(filter(None, (_number(tags.get(tag)) for tag in _LOWEST)), None)
    if high is None and kind == 1 and 8 < depth < 16:
        high = (1 << int(depth)) - 1
    return Samples(
        low=low,
        high=high,
        inverted=tags.get(_PHOTOMETRIC) == 0,
        measured=(kind == _SIGNED and depth < 32) or any(tag in tags for tag in _GEOGRAPHIC),
        unsigned=kind == 1 and depth == 32,
        nodata=_parsed(nodata) if isinstance(nodata, str) else None,
    )


def to_8_bit(image: Image.Image, samples: Samples) -> Image.Image:
    """Convert a grey image with one of the modes `DEEP` to mode "L", using one scale for all."""
    if _of_16_bits(image) and not samples.measured:
        table = _table(_white(image, samples), samples)
        return _toned(image, samples, lambda values: table[values])
    low, high = _range_in_use(image, samples)
    scale = 255 / (high - low) if high > low else 0.0

    def tone(values: _Values) -> _Values:
        wide = _wide(values)
        grey = np.clip((wide - low) * scale, 0, 255)
        return np.where(np.isfinite(wide), 255 - grey if samples.inverted and scale else grey, 0)

    return _toned(image, samples, tone)


def table_of(blocks: Iterable[npt.NDArray[np.uint16]], samples: Samples) -> npt.NDArray[np.uint8]:
    """Return the table from 16-bit samples to tones, uint8 `[65536]`.

    Args:
        blocks: All samples, in blocks.
        samples: Description of the samples in the file.
    """
    counts = np.zeros(1 << 16, np.int64)
    for block in blocks:
        counts += np.bincount(block.ravel(), minlength=1 << 16)
    return _table(white_of(counts, samples), samples)


def _toned(image: Image.Image, samples: Samples, tone: Callable[[_Values], _Values]) -> Image.Image:
    grey = Image.new("L", image.size)
    for top, values in _blocks(image, samples):
        tones = tone(values).astype(np.uint8)
        if samples.nodata is not None:
            tones[_is(values, samples.nodata)] = 0
        grey.paste(Image.fromarray(tones), (0, top))
    return grey


def _of_16_bits(image: Image.Image) -> bool:
    if image.mode != "I":
        return image.mode != "F"
    least, most = cast("tuple[float, float]", image.getextrema())
    return least >= 0 and most <= 0xFFFF


def _table(white: int, samples: Samples) -> npt.NDArray[np.uint8]:
    """Return the tone of each 16-bit sample: its highest 8 bits, if white is 65535."""
    low = int(samples.low or 0)
    low = low if 0 <= low < white else 0
    values = np.arange(1 << 16) - low
    tones = np.clip(values * 256 // (white - low + 1), 0, 255)
    return (255 - tones if samples.inverted else tones).astype(np.uint8)


def white_of(counts: npt.NDArray[np.int64], samples: Samples) -> int:
    """Return the value of white for unsigned samples of up to 16 bits.

    Args:
        counts: Number of occurrences of each value, int64 `[65536]`.
        samples: Description of the samples in the file.
    """
    used = np.flatnonzero(counts)
    most = int(used[-1]) if len(used) else 0
    if samples.high is not None and most <= samples.high <= 0xFFFF:
        return max(int(samples.high), 1)
    if len(used) > 2 and most == 0xFFFF and used[-2] < 0x4000:
        most = int(used[-2])  # The largest value marks missing samples or defects.
    for depth in _DEPTHS:
        if _JUST_BELOW * (1 << depth) <= most < 1 << depth:
            return (1 << depth) - 1
    return 0xFFFF


def _white(image: Image.Image, samples: Samples) -> int:
    counts = np.zeros(1 << 16, np.int64)
    for _, values in _blocks(image, samples):
        counts += np.bincount(values.ravel().astype(np.int64), minlength=1 << 16)
    if samples.nodata is not None and 0 <= samples.nodata <= 0xFFFF:
        counts[int(samples.nodata)] = 0
    return white_of(counts, samples)


def _range_in_use(image: Image.Image, samples: Samples) -> tuple[float, float]:
    """Return the lowest and the highest sample, ignoring missing ones and outliers."""
    step = max(1, -(-image.width * image.height // _ENOUGH))
    taken = []
    for _, values in _blocks(image, samples):
        some = _wide(values.ravel()[::step])
        some = some[np.isfinite(some)]
        taken.append(some if samples.nodata is None else some[~_is(some, samples.nodata)])
    used = np.sort(np.concatenate(taken))
    if not len(used):
        return 0.0, 0.0
    used = _without_outliers(_without_outliers(used)[::-1] * -1)[::-1] * -1
    used = _without_outliers(used)  # The highest ones may have hidden the lowest.
    low, high = float(used[0]), float(used[-1])
    if samples.high is not None and samples.high >= high and (samples.low or 0) <= low:
        said = samples.low or 0, samples.high
        if said[1] - said[0] <= 16 * (high - low):  # Not merely the range of the type.
            return float(said[0]), float(said[1])
    if (
        image.mode == "F"
        and low >= 0
        and _NEAR_WHITE <= high <= 1
        and high > low
        and not samples.measured
    ):
        return 0.0, 1.0
    return low, high


def _without_outliers(used: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Drop the lowest of sorted samples if they are far from all others."""
    gaps = np.diff(used)
    with np.errstate(over="ignore"):
        rest = used[-1] - used[1:]
    several = rest > 0
    for first in np.flatnonzero(several & (gaps > rest))[::-1]:
        lowest = used[0]
        none = used[first] == lowest and _stands_for_none(float(lowest))
        if none or (first + 1 <= _RARE * len(used) and gaps[first] > _FAR * rest[first]):
            return used[first + 1 :]
    return used


def _stands_for_none(value: float) -> bool:
    """Tell whether a value is one that is commonly used for missing samples."""
    digits = f"{abs(value):.0f}" if abs(value) < 1e7 else ""
    powers = {2.0**bits - shift for bits in (15, 16, 31, 32) for shift in (0, 1)}
    return abs(value) >= 1e19 or abs(value) in powers or (len(digits) > 2 and set(digits) == {"9"})


def _blocks(image: Image.Image, samples: Samples) -> Iterator[tuple[int, _Values]]:
    """Yield the rows of an image in blocks, each with the number of its first row."""
    rows = max(1, _BLOCK // max(image.width, 1))
    for top in range(0, image.height, rows):
        bottom = min(image.height, top + rows)
        values = np.asarray(image.crop((0, top, image.width, bottom)))
        if samples.unsigned and values.dtype == np.int32:
            values = values.view(np.uint32)
        yield top, values


def _wide(values: _Values) -> npt.NDArray[np.float64]:
    with np.errstate(invalid="ignore"):  # A signalling NaN becomes a quiet one.
        return values.astype(np.float64)


def _is(values: _Values, nodata: float) -> npt.NDArray[np.bool_]:
    near = np.float32(nodata) if abs(nodata) <= np.finfo(np.float32).max else nodata
    found: npt.NDArray[np.bool_] = (values == nodata) | (values == near)
    return found


def _number(value: object) -> float | None:
    first = value[0] if isinstance(value, tuple) and value else value
    return first if isinstance(first, int | float) and math.isfinite(first) else None


def _parsed(text: str) -> float | None:
    try:
        return float(text.strip(" \0"))
    except ValueError:
        return None
