"""What a file says of its size is known before anything is decoded."""

from __future__ import annotations

import io
import struct
import time
import tracemalloc
import zlib

import numpy as np
import pytest

from imgsearch.errors import ImageError
from imgsearch.images.claims import claim_of, decoding_bytes
from imgsearch.images.decode import decode
from imgsearch.images.limits import Limits
from tests.support.image_files import ALL, encode, photo
from tests.support.tiffs import LONG, SHORT, Page, colour, grey, tiff

SIZE = 32


def _png_header(width: int, height: int) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 6, 0, 0, 0)
    chunk = struct.pack(">I", 13) + b"IHDR" + header
    return b"\x89PNG\r\n\x1a\n" + chunk + struct.pack(">I", zlib.crc32(chunk[4:]))


def _ico(inner: bytes, *, told: int = 0) -> bytes:
    entry = struct.pack("<BBBBHHII", told, told, 0, 0, 1, 32, len(inner), 22)
    return struct.pack("<HHH", 0, 1, 1) + entry + inner


def _dib(width: int, height: int) -> bytes:
    return struct.pack("<IiiHHIIiiII", 40, width, height, 1, 32, 0, 0, 0, 0, 0, 0) + bytes(64)


def _tiled(width: int, height: int, *, order: str = "<", magic: int = 42) -> bytes:
    page = grey(np.zeros((16, 16), np.uint8), t322=(LONG, [width]), t323=(LONG, [height]))
    compressed = Page(
        {**page.tags, 259: (SHORT, [8])}, [zlib.compress(bytes(99))], where=(324, 325)
    )
    return tiff(compressed, order=order, magic=magic)


def _webp(width: int, height: int) -> bytes:
    size = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    extended = b"VP8X" + struct.pack("<I", 10) + bytes(4) + size
    body = b"WEBP" + extended + b"VP8L" + struct.pack("<I", 8) + b"\x2f" + bytes(7)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def _with_a_cell(format_: str, width: int, height: int) -> bytes:
    """Return a HEIC or AVIF file, small by itself, one item of which claims to be larger."""
    data = encode(photo(64, 48), format_)
    at = data.index(b"ispe")
    return data[: at + 8] + struct.pack(">II", width, height) + data[at + 16 :]


_BOMBS = {
    "a PNG in an icon": _ico(_png_header(24_950, 20_000)),
    "a bitmap in an icon": _ico(_dib(30_000, 60_000), told=16),
    "a tile of a TIFF": _tiled(46_336, 46_336),
    "a tile of a big-endian TIFF": _tiled(65_536, 30_000, order=">"),
    "a tile of a BigTIFF": _tiled(46_336, 46_336, magic=43),
    "the canvas of a WebP": _webp(16_384, 16_384),
    "an item of a HEIC": _with_a_cell("HEIF", 20_000, 20_000),
    "an item of an AVIF": _with_a_cell("AVIF", 20_000, 20_000),
    "a PNG": _png_header(50_000, 50_000) + bytes(20),
    "a GIF": b"GIF89a" + struct.pack("<HH", 60_000, 60_000) + bytes(20),
    "a bitmap": b"BM" + bytes(12) + _dib(60_000, 60_000),
    "a PPM": b"P6\n60000 60000\n255\n" + bytes(20),
}


@pytest.mark.parametrize("name", _BOMBS)
def test_what_lies_inside_is_measured_before_it_is_decoded(name: str) -> None:
    tracemalloc.start()
    started = time.monotonic()
    with pytest.raises(ImageError, match=r"has [0-9,]+ x [0-9,]+ pixels, and the limit") as caught:
        decode(io.BytesIO(_BOMBS[name]), SIZE, "a.bmp")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert caught.value.limited
    assert caught.value.recognised
    assert peak < 30 << 20
    assert time.monotonic() - started < 5


def test_an_image_of_few_pixels_that_takes_too_much_memory_is_refused() -> None:
    page = colour(np.zeros((4, 4, 6), np.float32))
    tags = {**page.tags, 322: (LONG, [2200]), 323: (LONG, [2200])}
    data = tiff(Page(tags, page.strips, where=(324, 325)))
    with pytest.raises(
        ImageError, match=r"takes 0\.4 GB of memory, more than is allowed"
    ) as caught:
        decode(io.BytesIO(data), SIZE, limits=Limits(5_000_000))
    assert caught.value.limited


@pytest.mark.parametrize("format_", ALL)
def test_the_size_of_every_format_is_read_from_its_header(format_: str) -> None:
    claim = claim_of(io.BytesIO(encode(photo(200, 120), format_)))
    assert claim is not None
    assert claim.width >= 200  # a HEIC is coded in blocks
    assert claim.height >= 120
    assert claim.pixels <= 256 * 128


@pytest.mark.parametrize("format_", ALL)
def test_a_header_cut_anywhere_claims_something_or_nothing(format_: str) -> None:
    data = encode(photo(200, 120), format_)
    for length in [*range(80), *range(80, 600, 13)]:
        claim_of(io.BytesIO(data[:length]))
        assert decoding_bytes(io.BytesIO(data[:length])) >= 0


def test_decoding_takes_less_for_a_small_square_but_not_of_a_jpeg_in_scans() -> None:
    plain = io.BytesIO(encode(photo(1600, 1200), "JPEG"))
    some = decoding_bytes(io.BytesIO())
    assert decoding_bytes(plain) == some + 4 * 1600 * 1200
    assert decoding_bytes(plain, 150) == some + 4 * 400 * 300
    scans = io.BytesIO(encode(photo(1600, 1200), "JPEG", progressive=True))
    assert decoding_bytes(scans, 150) > 6 * 1600 * 1200
    picture = io.BytesIO(encode(photo(160, 120), "PNG"))
    assert decoding_bytes(picture, 10) == decoding_bytes(picture) == some + 8 * 160 * 120


def test_what_is_no_image_claims_no_pixels() -> None:
    for content in (b"", b"P", b"a letter", bytes(100), b"\0\0\0\x18ftypheic" + bytes(30)):
        assert claim_of(io.BytesIO(content)) is None


def test_boxes_without_end_are_not_followed() -> None:
    loop = b"\0\0\0\x18ftypheic" + bytes(12) + struct.pack(">I", 8) * 100_000
    assert claim_of(io.BytesIO(loop)) is None
    assert claim_of(io.BytesIO(b"\0\0\0\x18ftypheic" + bytes(12) + bytes(8))) is None
