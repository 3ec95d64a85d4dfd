"""Files that lack their end, and files that would keep a decoder busy for ever."""

from __future__ import annotations

import io
import struct
import time

import numpy as np
import pytest
from PIL import Image

from imgsearch.errors import ImageError
from imgsearch.images.decode import decode
from imgsearch.images.render import glance, thumbnail
from tests.support.image_files import encode, photo

SIZE = 64


def _detailed(width: int, height: int) -> Image.Image:
    """Return a picture that fills every part of a JPEG with data."""
    noise = np.random.default_rng(1).integers(0, 60, (height, width, 3), dtype=np.uint8)
    picture = np.asarray(photo(width, height)) // 2 + noise
    return Image.fromarray(picture.astype(np.uint8))


def _jpeg(**options: object) -> bytes:
    return encode(_detailed(320, 240), "JPEG", **options)


_KINDS = {
    "baseline": _jpeg(),
    "progressive": _jpeg(progressive=True),
    "with restarts": _jpeg(restart_marker_blocks=4),
    "of grey": encode(_detailed(320, 240).convert("L"), "JPEG"),
    "progressive grey": encode(_detailed(320, 240).convert("L"), "JPEG", progressive=True),
    "CMYK": encode(_detailed(320, 240).convert("CMYK"), "JPEG"),
    "not subsampled": _jpeg(subsampling=0),
}


def _lacking(data: bytes, share: float) -> bytes:
    return data[: len(data) - max(2, round(len(data) * share))]


@pytest.mark.parametrize("kind", _KINDS)
@pytest.mark.parametrize("share", [0, 0.001, 0.01, 0.03])
def test_a_jpeg_that_lacks_only_its_last_bytes_is_used(kind: str, share: float) -> None:
    data = _KINDS[kind]
    cut = _lacking(data, share)
    whole = decode(io.BytesIO(data), SIZE).astype(int)
    pixels = decode(io.BytesIO(cut), SIZE).astype(int)
    assert np.abs(pixels[: SIZE * 7 // 8] - whole[: SIZE * 7 // 8]).mean() < 1
    assert glance(cut, SIZE).width == 320
    assert Image.open(io.BytesIO(thumbnail(cut, 100))).size == (100, 75)


@pytest.mark.parametrize("kind", _KINDS)
@pytest.mark.parametrize("share", [0.35, 0.5, 0.7, 0.9])
def test_half_a_jpeg_is_refused_and_it_is_said_what_is_missing(kind: str, share: float) -> None:
    with pytest.raises(ImageError) as caught:
        decode(io.BytesIO(_lacking(_KINDS[kind], share)), SIZE)
    assert caught.value.reason.startswith("cannot be decoded: image file is truncated")
    assert caught.value.recognised
    assert not caught.value.transient


def test_the_share_that_is_missing_is_told() -> None:
    with pytest.raises(ImageError, match=r"truncated: [45]\d % of its rows are missing"):
        decode(io.BytesIO(_lacking(_KINDS["baseline"], 0.5)), SIZE)
    with pytest.raises(ImageError, match="truncated: its last scans are missing"):
        decode(io.BytesIO(_lacking(_KINDS["progressive"], 0.7)), SIZE)


def test_bytes_behind_the_end_of_a_jpeg_do_not_matter() -> None:
    for data in _KINDS.values():
        expected = decode(io.BytesIO(data), SIZE)
        for more in (b"\0", b"\n", bytes(1000), b"trailer of a phone" * 100):
            np.testing.assert_array_equal(decode(io.BytesIO(data + more), SIZE), expected)


def test_a_grey_area_at_the_bottom_is_no_missing_part() -> None:
    picture = _detailed(320, 240)
    picture.paste((128, 128, 128), (0, 100, 320, 240))
    assert decode(io.BytesIO(encode(picture, "JPEG")), SIZE).shape == (SIZE, SIZE, 3)


@pytest.mark.parametrize("format_", ["PNG", "GIF"])
def test_a_file_that_lacks_only_the_mark_of_its_end_is_used(format_: str) -> None:
    data = encode(photo(60, 40), format_)
    cut = data[: -12 if format_ == "PNG" else -1]
    np.testing.assert_array_equal(decode(io.BytesIO(cut), SIZE), decode(io.BytesIO(data), SIZE))


def _of_scans(count: int, *, progressive: bool) -> bytes:
    """Return a JPEG that repeats a scan: its last one, or one of a single component."""
    data = encode(photo(64, 48), "JPEG", progressive=progressive, quality=50)
    if progressive:
        last = data.rfind(b"\xff\xda")
        return data[:-2] + data[last:-2] * count + b"\xff\xd9"
    first = data.index(b"\xff\xda")
    scan = b"\xff\xda\0\x08\1\1\0\0\x3f\0" + bytes(10)
    return data[:first] + scan * count + b"\xff\xd9"


@pytest.mark.parametrize("progressive", [True, False])
@pytest.mark.parametrize("count", [101, 20_000])
def test_a_jpeg_of_endless_scans_is_refused_before_it_is_decoded(
    count: int, progressive: bool
) -> None:
    started = time.monotonic()
    with pytest.raises(ImageError, match="cannot be decoded: it has more than 100 scans"):
        decode(io.BytesIO(_of_scans(count, progressive=progressive)), SIZE)
    assert time.monotonic() - started < 5


def test_a_jpeg_of_many_scans_is_an_image() -> None:
    assert decode(io.BytesIO(_of_scans(60, progressive=True)), SIZE).shape == (SIZE, SIZE, 3)


@pytest.mark.parametrize("kind", [b"P1", b"P2", b"P3", b"P4", b"P5", b"P6", b"Pf"])
def test_a_ppm_of_endless_comments_is_refused_at_once(kind: bytes) -> None:
    comments, size = b"#\n" * 2_000_000, b"4000 3900\n255\n"
    among = [kind + b"\n" + size + comments] if kind in (b"P1", b"P2", b"P3") else []
    for data in (kind + b"\n" + comments + size, *among):
        started = time.monotonic()
        with pytest.raises(ImageError, match="cannot be decoded: "):
            decode(io.BytesIO(data), SIZE, "a.ppm")
        assert time.monotonic() - started < 10


def test_comments_in_a_ppm_are_no_part_of_the_picture() -> None:
    plain = b"P2 # grey\n#\r2 1 # width\n255\n0 # black\n255# white\n"
    expected = np.array([[0, 255]], np.uint8)
    pixels = decode(io.BytesIO(plain), 2, "a.pgm")
    np.testing.assert_array_equal(pixels[0, :, 0], expected[0])
    binary = b"P5\n# a comment\n2 1\n255\n#\xff"  # this one is a pixel
    assert decode(io.BytesIO(binary), 2, "a.pgm")[0, 0, 0] == ord("#")


def test_a_jpeg_whose_comment_looks_like_scans_is_an_image() -> None:
    data = encode(photo(64, 48), "JPEG", progressive=True)
    comment = b"\xff\xda" * 1000
    segment = b"\xff\xfe" + struct.pack(">H", len(comment) + 2) + comment
    expected = decode(io.BytesIO(data), SIZE)
    np.testing.assert_array_equal(decode(io.BytesIO(data[:2] + segment + data[2:]), SIZE), expected)
