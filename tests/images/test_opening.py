"""Which frame of a file is shown, and how it is turned."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from imgsearch.images.decode import decode
from imgsearch.images.render import glance, thumbnail
from tests.support.image_files import encode, photo

SIZE = 32
PICTURE = photo(60, 40)


def _off(data: bytes, image: Image.Image = PICTURE) -> float:
    expected = np.asarray(image.convert("RGB").resize((SIZE, SIZE), Image.Resampling.BILINEAR))
    return float(np.abs(decode(io.BytesIO(data), SIZE).astype(int) - expected).mean())


# Frames

_ANIMATED = ["GIF", "PNG", "WEBP", "AVIF", "TIFF"]


def _frames(format_: str, *frames: Image.Image) -> bytes:
    options = {"WEBP": {"lossless": True}}.get(format_, {})
    return encode(frames[0], format_, save_all=True, append_images=frames[1:], **options)


@pytest.mark.parametrize("format_", _ANIMATED)
@pytest.mark.parametrize("colour", ["black", "white", "red"])
@pytest.mark.parametrize("count", [1, 5])
def test_a_first_frame_of_one_colour_does_not_stand_for_an_animation(
    format_: str, colour: str, count: int
) -> None:
    # Neighbours differ a little: what is the same is stored as one frame.
    blank = [Image.new("RGB", PICTURE.size, colour) for _ in range(count)]
    for number, frame in enumerate(blank):
        frame.putpixel((number, 0), tuple(abs(value - 2) for value in frame.getpixel((0, 0))))  # type: ignore[union-attr]  # RGB: a tuple
    data = _frames(format_, *blank, PICTURE, photo(60, 40, seed=4))
    assert _off(data) < (12 if format_ == "GIF" else 4)
    assert np.abs(glance(data, SIZE).pixels.astype(int) - decode(io.BytesIO(data), SIZE)).max() == 0
    assert np.asarray(Image.open(io.BytesIO(thumbnail(data, 60)))).std() > 20


@pytest.mark.parametrize("format_", _ANIMATED)
def test_a_first_frame_that_shows_something_stands_for_the_file(format_: str) -> None:
    data = _frames(format_, PICTURE, photo(60, 40, seed=4))
    assert _off(data) < (12 if format_ == "GIF" else 4)


@pytest.mark.parametrize("format_", _ANIMATED)
def test_an_animation_that_shows_nothing_is_its_first_frame(format_: str) -> None:
    red, blue = Image.new("RGB", (40, 40), "red"), Image.new("RGB", (40, 40), "blue")
    assert _off(_frames(format_, red, blue), red) <= 3


def test_a_transparent_first_frame_does_not_stand_for_an_animation() -> None:
    clear = Image.new("RGBA", PICTURE.size, (1, 2, 3, 0))
    for format_ in ("PNG", "WEBP"):
        assert _off(_frames(format_, clear, PICTURE.convert("RGBA"))) < 4


def test_not_every_frame_of_a_long_blank_animation_is_looked_at() -> None:
    blank = [Image.new("L", (20, 20), shade % 2 * 200) for shade in range(60)]
    data = _frames("GIF", *blank, PICTURE.resize((20, 20)))
    assert np.ptp(decode(io.BytesIO(data), SIZE)) == 0


def test_a_damaged_later_frame_does_not_take_the_first_one_away() -> None:
    black = Image.new("RGB", (40, 40))
    for format_ in ("GIF", "PNG", "TIFF"):
        data = _frames(format_, black, PICTURE.resize((40, 40)))
        assert _off(data[: len(data) * 2 // 3], black) <= 3


# Orientation


def _turned(value: int = 6) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = value
    return exif.tobytes()


_XMP = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF><rdf:Description tiff:Orientation="6"/>'
    b"</rdf:RDF></x:xmpmeta>"
)


def _png_with(name: bytes, content: bytes) -> bytes:
    data = encode(PICTURE, "PNG")
    chunk = struct.pack(">I", len(content)) + name + content
    return data[:33] + chunk + struct.pack(">I", zlib.crc32(name + content)) + data[33:]


@pytest.mark.parametrize("format_", ["JPEG", "WEBP", "PNG", "TIFF", "AVIF", "MPO"])
@pytest.mark.parametrize("value", range(1, 9))
def test_an_image_is_turned_as_viewers_turn_it(format_: str, value: int) -> None:
    turns = [None, 0, 3, 1, 5, 4, 6, 2]
    turn = turns[value - 1]
    upright = PICTURE if turn is None else PICTURE.transpose(Image.Transpose(turn))
    data = encode(PICTURE, format_, exif=_turned(value))
    assert _off(data, upright) < 5
    assert (glance(data, SIZE).width, glance(data, SIZE).height) == upright.size


def test_metadata_that_viewers_do_not_look_at_turns_nothing() -> None:
    profile = b"\nexif\n%8d\n%s\n" % (len(_turned()), _turned().hex().encode())
    gif = encode(PICTURE, "GIF")
    # Behind the header: an application extension with XMP, and a comment that is EXIF.
    header = 13 + 3 * (2 << (gif[10] & 7)) * (gif[10] >> 7)
    xmp = b"\x21\xff\x0bXMP DataXMP" + _XMP + b"\1" + bytes(range(255, -1, -1)) + b"\0"
    comment = b"\x21\xfe" + bytes([len(_turned())]) + _turned() + b"\0"
    unturned = {
        "XMP in a JPEG": encode(PICTURE, "JPEG", xmp=_XMP),
        "XMP in a WebP": encode(PICTURE, "WEBP", xmp=_XMP, lossless=True),
        "XMP in a PNG": _png_with(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + _XMP),
        "text in a PNG": _png_with(b"tEXt", b"Raw profile type exif\0" + profile),
        "a comment in a JPEG": encode(PICTURE, "JPEG", comment=_turned()),
        "XMP in a GIF": gif[:header] + xmp + gif[header:],
        "a comment in a GIF": gif[:header] + comment + gif[header:],
    }
    for name, data in unturned.items():
        assert _off(data) < 12, name
        assert glance(data, SIZE).width == 60, name


@pytest.mark.filterwarnings("ignore")  # Pillow's, about what is wrong with it
def test_exif_that_cannot_be_parsed_turns_nothing() -> None:
    for exif in (b"Exif\0\0" + bytes(40), b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0MM"):
        assert _off(encode(PICTURE, "JPEG", exif=exif)) < 5
