"""From stored samples to tones: what the file says, else what its samples tell."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from imgsearch.errors import ImageError
from imgsearch.images.crop import Box
from imgsearch.images.decode import Pixels, decode, pixels_of
from imgsearch.images.render import glance, pixels_from, thumbnail
from tests.support.image_files import encode, photo
from tests.support.tiffs import ASCII, LONG, SHORT, Page, Tag, colour, grey, tiff

SIZE = 32
PHOTO = np.asarray(photo(64, 48).convert("L").point(lambda value: value * 255 // 250))
COLOUR = np.asarray(photo(64, 48))

#: A photograph of all tones, black and white in it.
FULL = np.clip((PHOTO.astype(int) - PHOTO.min()) * 255 // (PHOTO.max() - PHOTO.min()), 0, 255)


def _expected(tones: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    image = Image.fromarray(tones.astype(np.uint8)).convert("RGB")
    return np.asarray(image.resize((SIZE, SIZE), Image.Resampling.BILINEAR)).astype(np.int64)


def _decode(data: bytes, name: str = "a.tif") -> Pixels:
    return decode(io.BytesIO(data), SIZE, name)


def _off(data: bytes, tones: npt.NDArray[Any] = FULL) -> float:
    """Return by how much a decoded file differs from tones, on average."""
    return float(np.abs(_decode(data) - _expected(tones)).mean())


def _png(values: npt.NDArray[np.uint16], *chunks: bytes) -> bytes:
    """Return a PNG of 16 bits a sample, grey or RGB, with more chunks in front of the pixels."""
    kind = 0 if values.ndim == 2 else 2
    rows = values.astype(">u2").reshape(len(values), -1)
    raw = b"".join(b"\0" + row.tobytes() for row in rows)
    header = struct.pack(">IIBBBBB", values.shape[1], values.shape[0], 16, kind, 0, 0, 0)
    parts = [_chunk(b"IHDR", header), *chunks, _chunk(b"IDAT", zlib.compress(raw))]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts) + _chunk(b"IEND", b"")


def _chunk(name: bytes, content: bytes) -> bytes:
    checksum = struct.pack(">I", zlib.crc32(name + content))
    return struct.pack(">I", len(content)) + name + content + checksum


def _of(bits: int) -> npt.NDArray[np.uint16]:
    """Return the photograph in as many bits as given, stored as they are."""
    return np.asarray(FULL * ((1 << bits) - 1) // 255, np.uint16)


# Sixteen bits of which fewer are used


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("bits", [8, 10, 11, 12, 13, 14, 16])
def test_samples_of_fewer_bits_in_sixteen_have_all_their_tones(bits: int, order: str) -> None:
    assert _off(tiff(grey(_of(bits).astype(order + "u2")), order=order)) < 1
    assert _off(_png(_of(bits))) < 1


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("bits", [10, 12, 14, 16])
def test_white_is_zero_at_every_depth_and_in_every_order(bits: int, order: str) -> None:
    values = (((1 << bits) - 1) - _of(bits)).astype(order + "u2")
    assert _off(tiff(grey(values, t262=(SHORT, [0])), order=order)) < 1.5
    assert _off(tiff(grey((255 - FULL).astype(np.uint8), t262=(SHORT, [0])))) < 1
    floats = (1 - FULL / 255).astype(order + "f4")
    assert _off(tiff(grey(floats, t262=(SHORT, [0])), order=order)) < 1.5


def _strips(page: Page, rows: int, stride: int) -> Page:
    (data,) = page.strips
    strips = [data[at : at + rows * stride] for at in range(0, len(data), rows * stride)]
    return Page({**page.tags, 278: (LONG, [rows])}, strips)


def _tiles(page: Page, values: npt.NDArray[Any], edge: int = 16) -> Page:
    rows, columns = values.shape[0] // edge, values.shape[1] // edge
    tiles = [
        values[y * edge : y * edge + edge, x * edge : x * edge + edge].tobytes()
        for y in range(rows)
        for x in range(columns)
    ]
    tags: dict[int, Tag] = {322: (SHORT, [edge]), 323: (SHORT, [edge])}
    kept = {tag: value for tag, value in page.tags.items() if tag != 278}
    return Page({**kept, **tags}, tiles, where=(324, 325))


def _deflated(page: Page) -> Page:
    strips = [zlib.compress(strip) for strip in page.strips]
    return Page({**page.tags, 259: (SHORT, [8])}, strips, where=page.where)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("pack", [_deflated, lambda page: page], ids=["deflated", "plain"])
def test_strips_tiles_and_compression_change_no_tone(
    pack: Callable[[Page], Page], order: str
) -> None:
    values = _of(12).astype(order + "u2")
    white = (4095 - values).astype(order + "u2")
    for kept, photometric in ((values, 1), (white, 0)):
        page = grey(kept, t262=(SHORT, [photometric]))
        for shaped in (page, _strips(page, 7, 128), _tiles(page, kept)):
            assert _off(tiff(pack(shaped), order=order)) < 1.5
    wide = (COLOUR.astype(np.uint16) << 4).astype(order + "u2")
    plane = colour(wide)
    for shaped in (plane, _strips(plane, 7, 384), _tiles(plane, wide)):
        decoded = _decode(tiff(pack(shaped), order=order)).astype(int)
        reference = np.asarray(Image.fromarray(COLOUR).resize((SIZE, SIZE), 2)).astype(int)
        assert np.abs(decoded - reference).mean() < 1


@pytest.mark.parametrize("bits", [10, 12, 14, 16])
def test_colours_of_sixteen_bits_have_all_their_tones(bits: int) -> None:
    values = (COLOUR.astype(int) * ((1 << bits) - 1) // 255).astype(np.uint16)
    alpha = np.full((*values.shape[:2], 1), 0xFFFF, np.uint16)
    reference = np.asarray(Image.fromarray(COLOUR).resize((SIZE, SIZE), 2)).astype(int)
    rgba = tiff(colour(np.concatenate([values, alpha], 2), t338=(SHORT, [2])))
    for data in (tiff(colour(values)), rgba, _png(values)):
        assert np.abs(_decode(data) - reference).mean() < 1.5


# Dark is dark


@pytest.mark.parametrize("white", [600, 1500, 3000, 5100, 6553, 9000, 13000, 20_000, 40_000])
def test_a_dark_photograph_of_sixteen_bits_stays_dark(white: int) -> None:
    dark = (FULL * white // 255).astype(np.uint16)
    assert _off(tiff(grey(dark)), dark >> 8) < 1
    assert _off(_png(dark), dark >> 8) < 1
    colours = np.dstack([dark, dark, dark // 2]).astype(np.uint16)
    assert _decode(tiff(colour(colours))).max() <= white >> 8
    assert _decode(_png(colours)).max() <= white >> 8


def test_what_the_file_says_of_white_comes_first() -> None:
    dark = (_of(12) // 4).astype(np.uint16)
    said = tiff(grey(dark, t281=(SHORT, [4095])))
    assert _off(said, FULL // 4) < 1
    assert _off(_png(dark, _chunk(b"sBIT", b"\x0c")), FULL // 4) < 1
    full = tiff(grey(_of(12), t281=(SHORT, [65535])))
    assert _off(full, FULL // 16) < 1
    wrong = tiff(grey(_of(14), t281=(SHORT, [255])))  # less than there is
    assert _off(wrong) < 1
    black = tiff(
        grey((_of(12) + 1000).astype(np.uint16), t280=(SHORT, [1000]), t281=(SHORT, [5095]))
    )
    assert _off(black) < 1.5


def test_a_dark_colour_photograph_whose_file_says_so_stays_dark() -> None:
    dark = (COLOUR.astype(np.uint16) << 4).astype(np.uint16)
    assert _decode(tiff(colour(dark, t281=(SHORT, [65535] * 3)))).max() <= 16
    assert _decode(_png(dark, _chunk(b"sBIT", b"\x10\x10\x10"))).max() <= 16


def test_a_defect_or_a_margin_at_the_very_end_hides_no_depth() -> None:
    values = _of(12)
    values[:2] = 0xFFFF
    tones = FULL.copy()
    tones[:2] = 255
    assert _off(tiff(grey(values)), tones) < 1


def test_a_photograph_in_memory_has_the_same_tones_whatever_its_mode() -> None:
    for values in (_of(12), _of(16), (_of(16) // 10).astype(np.uint16)):
        narrow = pixels_of(Image.fromarray(values), SIZE)
        wide = pixels_of(Image.fromarray(values.astype(np.int32)), SIZE)
        np.testing.assert_array_equal(narrow, wide)
        for kind in (np.int32, np.uint32):
            np.testing.assert_array_equal(_decode(tiff(grey(values.astype(kind)))), wide)


def test_a_part_has_the_tones_of_the_whole() -> None:
    dark_half = np.hstack([_of(12) // 8, _of(12)]).astype(np.uint16)
    part = pixels_from(tiff(grey(dark_half)), SIZE, Box(0, 0, 0.5, 1))
    assert part.max() <= 33


# Measurements


@pytest.mark.parametrize("kind", ["<i2", ">i2", "<f4", ">f4", "<i4", ">i4", "<f8", "<u4"])
def test_elevations_are_scaled_by_the_range_that_they_use(kind: str) -> None:
    low = 3_000_000_000 if kind == "<u4" else -80
    heights = (FULL * 11 + low).astype(kind)
    try:
        assert _off(tiff(grey(heights), order=kind[0])) < 1.5
    except ImageError as error:
        assert "not supported" in error.reason  # noqa: PT017 - Pillow reads no doubles


@pytest.mark.parametrize(
    ("kind", "none"),
    [(kind, none) for kind in ("<i2", "<f4", "<i4") for none in (-9999, -32768, -999)]
    + [("<i2", 32767), ("<f4", 32767)],
)
@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize("share", [3, 30])
def test_what_stands_for_no_data_is_left_out_of_the_range(
    kind: str, none: int, named: bool, share: int
) -> None:
    heights = (FULL * 2.0 + 100).astype(kind)
    heights[:share, :share] = none
    tags: dict[str, Tag] = {"t42113": (ASCII, f"{none}\0".encode())} if named else {}
    pixels = _decode(tiff(grey(heights, **tags)))[:, :, 0].astype(int)
    rest = np.s_[-8:]  # rows that no such value touches
    assert np.abs(pixels[rest] - _expected(FULL)[rest][:, :, 0]).mean() < 6


@pytest.mark.parametrize("none", [np.nan, np.inf, -np.inf, -3.4028234663852886e38, 1e20, -99999])
def test_floats_that_are_no_number_or_beyond_all_others_are_left_out(none: float) -> None:
    heights = (FULL / 255 * 900 + 100).astype(np.float32)
    heights[:3, :3] = none
    assert np.abs(_decode(tiff(grey(heights)))[8:].astype(int) - _expected(FULL)[8:]).mean() < 2


def test_elevations_in_unsigned_samples_are_told_by_their_coordinates() -> None:
    heights = (FULL * 4 + 500).astype(np.uint16)
    scale: dict[str, Tag] = {"t33550": (SHORT, [1, 1, 0])}
    assert _off(tiff(grey(heights, **scale))) < 1.5


def test_floats_from_nought_to_one_are_black_to_white() -> None:
    dark = (FULL / 255 * 0.3).astype(np.float32)
    assert _off(tiff(grey(dark)), FULL * 0.3) < 1.5
    assert _off(tiff(grey((FULL / 255).astype(np.float32)))) < 1.5


# Colour maps, and what is not supported


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("scale", [1, 256, 257])
def test_a_colour_map_may_hold_eight_bits_or_sixteen(scale: int, order: str) -> None:
    colours = [(value * 37 % 256) * scale for value in range(768)]
    indices = np.arange(256, dtype=np.uint8).reshape(16, 16).repeat(4, 0).repeat(4, 1)
    mapped = np.array(colours).reshape(3, 256)[:, indices] // scale
    data = tiff(grey(indices, t262=(SHORT, [3]), t320=(SHORT, colours)), order=order)
    expected = np.asarray(
        Image.fromarray(np.moveaxis(mapped, 0, -1).astype(np.uint8)).resize((SIZE, SIZE), 2)
    )
    assert np.abs(_decode(data).astype(int) - expected).max() <= 1


@pytest.mark.parametrize("bands", [7, 8, 12])
def test_a_file_of_many_bands_is_refused_as_unsupported(
    bands: int, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tiff(colour(np.dstack([FULL.astype(np.uint8)] * bands), t262=(SHORT, [1])))
    with pytest.raises(ImageError) as caught:
        _decode(data)
    assert caught.value.reason == (
        "cannot be decoded: this kind of TIFF is not supported: "
        f"{bands} samples of 8 bits a pixel, photometric interpretation 1, compression 1"
    )
    assert caught.value.recognised
    assert capsys.readouterr() == ("", "")  # nor does a library say so itself


def test_thumbnails_and_facts_have_the_same_tones() -> None:
    data = tiff(grey(_of(12)))
    shown = np.asarray(Image.open(io.BytesIO(thumbnail(data, 64))).convert("RGB"))
    assert np.abs(shown.astype(int).mean() - FULL.mean()) < 3
    np.testing.assert_array_equal(glance(data, SIZE).pixels, _decode(data))


def test_other_images_become_the_pixels_that_they_were() -> None:
    picture = photo(60, 44)
    for format_ in ("PNG", "TIFF", "BMP"):
        expected = np.asarray(picture.resize((SIZE, SIZE), Image.Resampling.BILINEAR))
        np.testing.assert_array_equal(_decode(encode(picture, format_)), expected)
    np.testing.assert_array_equal(_decode(_png(_of(16))), _expected(_of(16) >> 8).astype(np.uint8))
