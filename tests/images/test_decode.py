"""Recognising and decoding one image file."""

from __future__ import annotations

import hashlib
import io
import os
import struct
import subprocess
import sys
import textwrap
import time
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps, PngImagePlugin
from PIL.JpegImagePlugin import JpegImageFile

from imgsearch.errors import ImageError
from imgsearch.images.decode import ImageFile, Pixels, decode, pixels_of, read
from imgsearch.images.formats import FORMATS
from tests.support.depth import examples
from tests.support.image_files import ALL, LOSSLESS, LOSSY, encode, photo, write
from tests.support.privileges import ordinary_folder, ordinary_user

SIZE = 32


def _decode(data: bytes, name: str = "image.jpg") -> Pixels:
    return decode(io.BytesIO(data), SIZE, name)


def _refusal(data: bytes, name: str = "image.jpg") -> ImageError:
    with pytest.raises(ImageError) as caught:
        _decode(data, name)
    return caught.value


def _squashed(image: Image.Image) -> Pixels:
    """Return what `image` (RGB) should come out as."""
    return np.asarray(image.resize((SIZE, SIZE), Image.Resampling.BILINEAR))


def _difference(one: Pixels, other: Pixels) -> Any:
    return np.abs(one.astype(int) - other.astype(int))


# Formats


@pytest.mark.parametrize("format_", LOSSLESS)
def test_a_lossless_format_comes_back_pixel_by_pixel(format_: str) -> None:
    image = photo(80, 60)
    assert np.array_equal(_decode(encode(image, format_)), _squashed(image))


@pytest.mark.parametrize("format_", LOSSY)
def test_a_lossy_format_comes_back_nearly(format_: str) -> None:
    image = photo(60, 40)
    pixels = _decode(encode(image, format_))
    assert pixels.shape == (SIZE, SIZE, 3)
    assert pixels.dtype == np.uint8
    assert _difference(pixels, _squashed(image)).mean() < (9 if format_ == "GIF" else 4)


def test_every_format_of_the_allow_list_is_tested() -> None:
    assert set(ALL) == set(FORMATS)


@pytest.mark.parametrize("format_", ["GIF", "PNG", "WEBP", "AVIF", "TIFF", "MPO"])
def test_the_first_frame_is_taken(format_: str) -> None:
    first, second = Image.new("RGB", (40, 40), "red"), Image.new("RGB", (40, 40), "blue")
    data = encode(first, format_, save_all=True, append_images=[second])
    assert Image.open(io.BytesIO(data)).n_frames == 2  # type: ignore[attr-defined]  # of some formats only
    assert _difference(_decode(data), _squashed(first)).max() <= 3


@pytest.mark.parametrize("format_", ALL)
def test_content_counts_and_not_the_extension(format_: str, tmp_path: Path) -> None:
    data = encode(photo(40, 30), format_)
    for name in ("a.txt", "a.png", "a.jpg", "a"):
        (tmp_path / name).write_bytes(data)
        assert read(str(tmp_path / name), SIZE).pixels.shape == (SIZE, SIZE, 3)


_FOREIGN = {
    "BLP": "P",
    "DDS": "RGB",
    "DIB": "RGB",
    "EPS": "RGB",
    "ICNS": "RGBA",
    "JPEG2000": "RGB",
    "MSP": "1",
    "PCX": "RGB",
    "PDF": "RGB",
    "QOI": "RGB",
    "SGI": "RGB",
    "SPIDER": "F",
    "TGA": "RGB",
    "XBM": "1",
}


@pytest.mark.parametrize("format_", _FOREIGN)
def test_a_format_beyond_the_allow_list_is_never_opened(format_: str) -> None:
    Image.init()  # all of Pillow's plug-ins are there, and still not used
    if format_ not in Image.SAVE:
        pytest.skip("this Pillow cannot write it")
    buffer = io.BytesIO()
    photo(64, 64).convert(_FOREIGN[format_]).save(buffer, format_)
    named = _refusal(buffer.getvalue(), "photo.jpg")
    assert named.recognised
    assert named.reason == "is named like an image but holds no image of a supported format"
    other = _refusal(buffer.getvalue(), "photo.dat")
    assert not other.recognised
    assert other.reason == "is not an image of a supported format"


def test_a_format_that_is_signed_further_on_is_not_looked_for() -> None:
    photo_cd = b"\x89PNG\r\n\x1a\n".ljust(2048, b"\0") + b"PCD_".ljust(1 << 20, b"\0")
    with Image.open(io.BytesIO(photo_cd)) as image:
        assert image.format == "PCD"  # as Pillow sees it when it may look for every format
    assert _refusal(photo_cd).reason == "cannot be decoded: its header is malformed"


@pytest.mark.parametrize(
    "prefix", [b"8BPS\0\1", b"%!PS-Adobe-3.0 EPSF-3.0\n", b"\xc5\xd0\xd3\xc6", b"\xd7\xcd\xc6\x9a"]
)
def test_a_header_of_photoshop_postscript_or_wmf_is_not_followed(prefix: bytes) -> None:
    assert not _refusal(prefix + bytes(200), "photo.psd").recognised


def test_postscript_starts_no_interpreter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ghostscript = tmp_path / "gs"
    ghostscript.write_text(f"#!/bin/sh\ntouch {tmp_path}/started\n")
    ghostscript.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    write(tmp_path / "photo.jpg", photo(64, 64), "EPS")
    with pytest.raises(ImageError):
        read(str(tmp_path / "photo.jpg"), SIZE)
    assert not (tmp_path / "started").exists()


# What is not an image


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0",
        b"hello, world, this is a text",
        b"Python is what this text is about",
        b"P1 was the first of its kind",
        b"BMW is a maker of cars and motorcycles",
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        b"%PDF-1.7\n" + bytes(100),
        b"RIFF\x24\0\0\0WAVEfmt " + bytes(100),
        b"\0\0\0\x1cftypmp42" + bytes(100),
        b"PK\3\4" + bytes(100),
        bytes(1000),
    ],
)
def test_a_file_that_is_no_image_is_not_recognised(content: bytes) -> None:
    error = _refusal(content, "notes.txt")
    assert not error.recognised
    assert not error.transient


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is named like an image but is empty"),
        (b"garbage" * 99, "is named like an image but holds no image of a supported format"),
        (b"<!DOCTYPE html>", "is named like an image but holds no image of a supported format"),
    ],
)
@pytest.mark.parametrize("name", ["a.jpg", "A.JPEG", "b.PNG", "c.heic", "d.webp"])
def test_a_file_named_like_an_image_fails_with_its_reason(
    name: str, content: bytes, reason: str
) -> None:
    error = _refusal(content, name)
    assert error.recognised
    assert not error.transient
    assert error.reason == reason
    assert str(error) == f"{name}: {reason}"


def test_the_decoder_of_heic_is_loaded_for_such_files_only(tmp_path: Path) -> None:
    jpeg = write(tmp_path / "a.jpg", photo(40, 30), "JPEG")
    heic = write(tmp_path / "a.heic", photo(40, 30), "HEIF")
    code = """
        import sys
        from imgsearch.images.decode import read
        read(sys.argv[1], 32)
        assert "pillow_heif" not in sys.modules
        read(sys.argv[2], 32)
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code), jpeg, heic], check=True)


# Orientation


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format_", ["JPEG", "MPO", "PNG", "TIFF", "WEBP", "AVIF", "HEIF"])
def test_an_image_comes_upright(format_: str, orientation: int, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = photo(60, 40)
    path = write(tmp_path / "photo", image, format_, exif=exif)
    image.getexif()[0x0112] = orientation
    expected = _squashed(ImageOps.exif_transpose(image))
    limit = 1 if format_ in LOSSLESS else 8  # 1: resized, then turned, instead of turned first
    assert _difference(read(path, SIZE).pixels, expected).mean() < limit


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_that_of_pillow_for_a_jpeg_decoded_at_reduced_scale(
    orientation: int,
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encode(photo(600, 400), "JPEG", exif=exif)
    expected = _squashed(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))
    assert _difference(_decode(data), expected).mean() < 2


@pytest.mark.filterwarnings("ignore")  # Pillow's, about what is wrong with them
@pytest.mark.parametrize(
    "exif",
    [
        b"Exif\0\0",
        b"Exif\0\0garbage",
        b"Exif\0\0II*\0\xff\xff\xff\xff",
        b"Exif\0\0II*\0\x08\0\0\0\xff\xff" + bytes(20),
        b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x09\0\0\0\0\0\0",
        b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x00\0\0\0\0\0\0",
        b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x02\0\0\0\x02six\0\0\0\0\0",
        b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x05\0\0\0\x01\0\0\0\0\0\0\0\0",
    ],
)
@pytest.mark.parametrize("format_", ["JPEG", "PNG", "WEBP"])
def test_absurd_exif_does_not_keep_an_image_from_being_decoded(format_: str, exif: bytes) -> None:
    image = photo(60, 40)
    pixels = _decode(encode(image, format_, exif=exif))
    assert _difference(pixels, _squashed(image)).mean() < 4


# Modes


_RED, _GREEN = (200, 30, 40), (20, 180, 60)
_MODES: dict[str, tuple[Image.Image, tuple[int, int, int]]] = {
    "RGB": (Image.new("RGB", (9, 9), _RED), _RED),
    "RGBA opaque": (Image.new("RGBA", (9, 9), (*_RED, 255)), _RED),
    "RGBA transparent": (Image.new("RGBA", (9, 9), (*_RED, 0)), (255, 255, 255)),
    "RGBA half": (Image.new("RGBA", (9, 9), (*_RED, 128)), (227, 142, 147)),
    "RGBX": (Image.new("RGBX", (9, 9), (*_RED, 0)), _RED),
    "L": (Image.new("L", (9, 9), 77), (77, 77, 77)),
    "LA half": (Image.new("LA", (9, 9), (55, 128)), (155, 155, 155)),
    "LA transparent": (Image.new("LA", (9, 9), (0, 0)), (255, 255, 255)),
    "1 white": (Image.new("1", (9, 9), 1), (255, 255, 255)),
    "1 black": (Image.new("1", (9, 9), 0), (0, 0, 0)),
    "P": (Image.new("RGB", (9, 9), _GREEN).convert("P", palette=Image.Palette.ADAPTIVE), _GREEN),
    "CMYK": (Image.new("CMYK", (9, 9), (255, 0, 0, 0)), (0, 255, 255)),
    "CMYK black": (Image.new("CMYK", (9, 9), (0, 0, 0, 255)), (0, 0, 0)),
    "YCbCr": (Image.new("RGB", (9, 9), _RED).convert("YCbCr"), _RED),
    "HSV": (Image.new("HSV", (9, 9), (0, 255, 200)), (200, 0, 0)),
    "I;16": (Image.fromarray(np.full((9, 9), 0x8080, np.uint16)), (128, 128, 128)),
    "I;16 white": (Image.fromarray(np.full((9, 9), 0xFFFF, np.uint16)), (255, 255, 255)),
    "I": (Image.new("I", (9, 9), 0xFFFF), (255, 255, 255)),
}


@pytest.mark.parametrize("name", _MODES)
def test_a_colour_is_the_same_in_every_mode(name: str) -> None:
    image, colour = _MODES[name]
    pixels = pixels_of(image, SIZE)
    assert pixels.shape == (SIZE, SIZE, 3)
    assert pixels.dtype == np.uint8
    assert _difference(pixels, np.full((SIZE, SIZE, 3), colour, np.uint8)).max() <= 2


@pytest.mark.parametrize(
    ("format_", "mode"),
    [
        ("JPEG", "CMYK"),
        ("JPEG", "L"),
        ("TIFF", "CMYK"),
        ("TIFF", "YCbCr"),
        ("TIFF", "LAB"),
        ("TIFF", "L"),
        ("TIFF", "P"),
        ("PNG", "P"),
        ("PNG", "L"),
        ("GIF", "P"),
        ("GIF", "L"),
        ("BMP", "P"),
        ("BMP", "L"),
        ("PPM", "L"),
        ("ICO", "RGBA"),
        ("WEBP", "RGBA"),
        ("AVIF", "RGBA"),
        ("HEIF", "RGBA"),
        ("PNG", "RGBA"),
        ("TIFF", "RGBA"),
    ],
)
def test_a_file_of_another_mode_has_the_colours_of_its_image(format_: str, mode: str) -> None:
    image = photo(60, 40)
    if mode == "LAB":
        from PIL import ImageCms

        srgb, lab = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
        stored = ImageCms.applyTransform(
            image, ImageCms.buildTransform(srgb, lab, "RGB", "LAB"), inPlace=False
        )
        assert stored is not None
    else:
        stored = image.convert(mode)
    expected = image.convert("L").convert("RGB") if mode == "L" else image
    assert _difference(_decode(encode(stored, format_)), _squashed(expected)).mean() < 9


def _half_transparent(mode: str) -> Image.Image:
    """Return an image whose left half is transparent."""
    alpha = Image.new("L", (64, 64), 255)
    alpha.paste(0, (0, 0, 32, 64))
    image = Image.new(mode, (64, 64), 0)
    image.putalpha(alpha)
    return image


@pytest.mark.parametrize("format_", ["PNG", "WEBP", "TIFF", "AVIF", "HEIF", "ICO"])
def test_what_is_transparent_is_white(format_: str) -> None:
    pixels = _decode(encode(_half_transparent("RGB"), format_))
    assert pixels[:, :14].min() >= 253
    assert pixels[:, 18:].max() <= 2


def test_a_grey_image_with_alpha_is_on_white() -> None:
    pixels = _decode(encode(_half_transparent("L"), "PNG"))
    assert pixels[:, :14].min() == 255
    assert pixels[:, 18:].max() == 0


def test_the_colour_under_transparent_pixels_does_not_bleed() -> None:
    image = Image.new("RGBA", (64, 64), (0, 0, 0, 0))  # black, as many programs leave it
    image.paste((255, 255, 255, 255), (32, 0, 64, 64))
    assert pixels_of(image, SIZE).min() == 255


@pytest.mark.parametrize(
    ("mode", "transparency"),
    [("P", 0), ("P", b"\0\xff"), ("L", 0), ("RGB", (0, 0, 0)), ("1", 0)],
)
def test_a_transparent_colour_of_a_png_is_white(
    mode: str, transparency: int | bytes | tuple[int, ...]
) -> None:
    image = Image.new(mode, (64, 64), 0)
    if mode == "P":
        image.putpalette([0, 0, 0, 10, 200, 30])
    image.paste((10, 200, 30) if mode == "RGB" else 1, (32, 0, 64, 64))
    pixels = _decode(encode(image, "PNG", transparency=transparency))
    assert pixels[:, :14].min() == 255
    assert pixels[:, 18:, 0].max() < 255 or mode == "1"


@pytest.mark.parametrize(("mode", "white"), [("L", 255), ("RGB", (255, 255, 255))])
def test_a_transparent_colour_does_not_bleed_into_its_neighbours(
    mode: str, white: int | tuple[int, int, int]
) -> None:
    black = (0, 0, 0) if mode == "RGB" else 0
    image = Image.new(mode, (65, 65), black)
    image.paste(white, (33, 0, 65, 65))
    assert _decode(encode(image, "PNG", transparency=black)).min() == 255


def test_a_transparent_gif_is_on_white() -> None:
    image = Image.new("P", (64, 64), 0)
    image.putpalette([0, 0, 0, 10, 200, 30])
    assert _decode(encode(image, "GIF", transparency=0)).min() == 255


@pytest.mark.parametrize("format_", ["PNG", "TIFF", "PPM"])
def test_16_bit_grey_is_scaled_by_its_full_range(format_: str) -> None:
    values = np.linspace(0, 0xFFFF, SIZE * SIZE).astype(np.uint16).reshape(SIZE, SIZE)
    pixels = _decode(encode(Image.fromarray(values), format_))
    assert _difference(pixels[..., 0], (values >> 8).astype(np.uint8)).max() <= 1
    assert np.array_equal(pixels[..., 0], pixels[..., 2])


def test_16_bit_grey_of_either_byte_order_is_the_same() -> None:
    values = np.full((9, 9), 0x40C0, np.uint16)
    little = Image.frombytes("I;16", (9, 9), values.astype("<u2").tobytes())
    big = Image.frombytes("I;16B", (9, 9), values.astype(">u2").tobytes())
    assert np.unique(pixels_of(little, SIZE)).tolist() == [0x40]
    assert np.unique(pixels_of(big, SIZE)).tolist() == [0x40]


def _png(bits: int, colour: int, pixel: bytes, width: int = 8, height: int = 8) -> bytes:
    """Return a PNG of one colour, in a depth that Pillow does not write."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        )

    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    rows = (b"\0" + pixel * width) * min(height, 8)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


def test_16_bit_colour_keeps_the_upper_bytes() -> None:
    pixels = _decode(_png(16, 2, struct.pack(">3H", 0xC8FF, 0x1E00, 0x2880)))
    assert np.unique(pixels.reshape(-1, 3), axis=0).tolist() == [[0xC8, 0x1E, 0x28]]


def test_16_bit_colour_with_alpha_is_on_white() -> None:
    pixels = _decode(_png(16, 6, struct.pack(">4H", 0xC8FF, 0x1E00, 0x2880, 0)))
    assert pixels.min() == 255


@pytest.mark.parametrize("dtype", [np.float32, np.int32])
def test_a_tiff_of_floats_or_wide_integers_is_scaled_by_the_range_it_uses(dtype: type) -> None:
    ramp: npt.NDArray[Any] = np.linspace(-100_000, 300_000, SIZE).astype(dtype)
    pixels = _decode(encode(Image.fromarray(np.tile(ramp, (SIZE, 1))), "TIFF"))
    expected = np.linspace(0, 255, SIZE).astype(np.uint8)
    assert _difference(pixels[0, :, 0], expected).max() <= 1


@pytest.mark.parametrize(
    "values",
    [
        [np.nan, 0.0, 1.0],
        [np.inf, 0.0, 1.0],
        [-np.inf, 0.0, 1.0],
        [np.finfo(np.float32).min, 0.0, np.finfo(np.float32).max],
        [0.0, np.finfo(np.float32).smallest_subnormal],
    ],
)
def test_a_tiff_of_extreme_floats_is_an_image(values: list[float]) -> None:
    pixels = _decode(encode(Image.fromarray(np.array([values], np.float32)), "TIFF"))
    assert pixels.min() == 0
    assert pixels.max() == 255


def test_a_tiff_of_one_value_is_black() -> None:
    assert _decode(encode(Image.new("F", (9, 9), 0.5), "TIFF")).max() == 0


@settings(derandomize=True, deadline=None)
@given(
    mode=st.sampled_from(
        ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "HSV"]
    )
    | st.sampled_from(["LAB", "I", "F", "I;16", "I;16B", "I;16L"]),
    width=st.integers(1, 70),
    height=st.integers(1, 70),
    seed=st.integers(0, 9),
)
def test_a_pillow_image_of_any_mode_and_shape_becomes_a_square(
    mode: str, width: int, height: int, seed: int
) -> None:
    blank = Image.new(mode, (width, height))
    noise = np.random.default_rng(seed).bytes(len(blank.tobytes()))
    pixels = pixels_of(Image.frombytes(mode, blank.size, noise), SIZE)
    assert pixels.shape == (SIZE, SIZE, 3)
    assert pixels.dtype == np.uint8


def test_an_image_is_not_changed_by_taking_its_pixels() -> None:
    image = photo(50, 40)
    before = image.tobytes()
    pixels_of(image, SIZE)
    assert image.tobytes() == before
    assert image.size == (50, 40)


def test_a_very_long_image_is_squashed() -> None:
    assert pixels_of(Image.new("RGB", (20_000, 1), "red"), SIZE).shape == (SIZE, SIZE, 3)


# Reduced scale


def test_a_jpeg_at_reduced_scale_looks_like_the_whole() -> None:
    data = encode(photo(1600, 1200), "JPEG")
    with Image.open(io.BytesIO(data)) as image:
        expected = _squashed(image.convert("RGB"))
    assert _difference(_decode(data), expected).max() <= 8


def test_a_large_jpeg_is_decoded_at_a_fraction_of_its_size(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    decoded: list[tuple[int, int]] = []
    load = JpegImageFile.load

    def listen(self: JpegImageFile) -> Any:
        result = load(self)
        decoded.append(self.size)
        return result

    monkeypatch.setattr(JpegImageFile, "load", listen)
    _decode(encode(photo(3000, 2000), "JPEG"))
    assert decoded[0] in {(3000 // scale, 2000 // scale) for scale in (2, 4, 8)}
    assert min(decoded[0]) >= 2 * SIZE


def test_a_lossless_jpeg_is_decoded_at_its_only_scale(monkeypatch: pytest.MonkeyPatch) -> None:
    reduced: list[object] = []
    monkeypatch.setattr(JpegImageFile, "draft", lambda *asked: reduced.append(asked))
    assert (_decode(_grey_lossless_jpeg(512, 512)) == 128).all()
    assert not reduced  # asked for a smaller one, old releases of libjpeg-turbo corrupt the memory


def _grey_lossless_jpeg(width: int, height: int) -> bytes:
    """Return a JPEG of process 14 (ISO/IEC 10918-1, annex H), whose differences are all zero."""
    edges = height.to_bytes(2, "big") + width.to_bytes(2, "big")
    frame = b"\xff\xc3" + (11).to_bytes(2, "big") + b"\x08" + edges + b"\x01\x01\x11\x00"
    one_code = b"\xff\xc4" + (20).to_bytes(2, "big") + b"\x00\x01" + bytes(15) + b"\x00"
    scan = b"\xff\xda" + (8).to_bytes(2, "big") + b"\x01\x01\x00\x01\x00\x00"
    return b"\xff\xd8" + frame + one_code + scan + bytes(width * height // 8) + b"\xff\xd9"


def test_real_photographs_at_reduced_scale_look_like_the_whole(data: Path) -> None:
    for path in sorted((data / "corel1k" / "queries").glob("*.jpg"))[::20]:
        with Image.open(path) as image:
            expected = np.asarray(
                image.convert("RGB").resize((224, 224), Image.Resampling.BILINEAR)
            )
        assert _difference(read(str(path), 224).pixels, expected).mean() < 3


def test_camera_photos_are_decoded_upright(data: Path) -> None:
    for path in sorted((data / "camera").iterdir())[::6]:
        with Image.open(path) as image:
            upright = ImageOps.exif_transpose(image).convert("RGB")
        expected = np.asarray(upright.resize((64, 64), Image.Resampling.BOX))
        assert _difference(read(str(path), 64).pixels, expected).mean() < 5


@pytest.mark.filterwarnings("ignore")  # Pillow's, about what is wrong with them
def test_odd_files_are_decoded_or_refused_with_a_reason(data: Path) -> None:
    decoded, refused = [], []
    for path in sorted(each for each in (data / "odd").rglob("*") if each.is_file()):
        try:
            decoded.append(read(str(path), SIZE).pixels.shape)
        except ImageError as error:
            refused.append(error)
    assert set(decoded) == {(SIZE, SIZE, 3)}
    assert len(decoded) > 500
    assert all(error.reason and not error.transient for error in refused)


# What cannot be decoded


@pytest.mark.parametrize("format_", [each for each in ALL if each != "HEIF"])
@pytest.mark.filterwarnings("ignore")  # Pillow's, about a truncated TIFF
def test_a_truncated_file_is_refused_with_its_reason(format_: str) -> None:
    data = encode(photo(240, 200), format_)
    error = _refusal(data[: len(data) // 3], "photo.jpg")
    assert error.recognised
    assert not error.transient
    assert error.reason.startswith("cannot be decoded: ")
    assert "\n" not in error.reason


def test_a_truncated_heic_is_refused() -> None:
    data = encode(photo(300, 200), "HEIF")
    assert _refusal(data[: len(data) // 3]).recognised


def test_a_truncated_jpeg_names_what_is_wrong() -> None:
    data = encode(photo(300, 200), "JPEG")
    reason = _refusal(data[: len(data) // 2]).reason
    assert reason.startswith("cannot be decoded: image file is truncated")


def test_a_header_alone_is_refused_as_malformed() -> None:
    error = _refusal(b"\x89PNG\r\n\x1a\n" + bytes(40))
    assert error.recognised
    assert error.reason.startswith("cannot be decoded: ")


def test_a_pixel_bomb_is_refused_before_it_is_decoded() -> None:
    started = time.monotonic()
    error = _refusal(_png(8, 2, b"abc", width=50_000, height=50_000))
    assert error.reason == (
        "has 50,000 x 50,000 pixels, and the limit is 250,000,000: "
        "make it smaller, or raise --max-pixels"
    )
    assert error.recognised
    assert error.limited
    assert time.monotonic() - started < 1


def test_an_offset_that_no_file_can_have_is_the_fault_of_the_file(tmp_path: Path) -> None:
    header = struct.pack("<2sHHHQ", b"II", 43, 8, 0, 2**63 - 1)  # BigTIFF
    (tmp_path / "a.tif").write_bytes(header + bytes(100))
    with pytest.raises(ImageError) as caught:
        read(str(tmp_path / "a.tif"), SIZE)
    assert not caught.value.transient


def test_an_image_of_no_pixels_is_refused() -> None:
    assert _refusal(_png(8, 2, b"abc", width=0, height=0)).recognised


def test_compressed_text_that_is_a_bomb_does_not_fill_the_memory() -> None:
    info = PngImagePlugin.PngInfo()
    info.add_text("comment", "a" * 100_000_000, zip=True)
    error = _refusal(encode(photo(40, 30), "PNG", pnginfo=info))
    assert error.reason.startswith("cannot be decoded: ")


# Reading


def test_read_tells_digest_size_and_time(tmp_path: Path) -> None:
    path = Path(write(tmp_path / "a.png", photo(40, 30), "PNG"))
    os.utime(path, ns=(1, 1_700_000_000_123_456_789))
    source = read(str(path), SIZE)
    assert source.digest == hashlib.sha256(path.read_bytes()).digest()
    assert source.size == path.stat().st_size
    assert source.mtime_ns == path.stat().st_mtime_ns
    assert np.array_equal(source.pixels, _squashed(photo(40, 30)))


@pytest.mark.parametrize("format_", ALL)
def test_the_digest_covers_bytes_after_the_image(format_: str, tmp_path: Path) -> None:
    content = encode(photo(40, 30), format_) + b"and more"
    (tmp_path / "a").write_bytes(content)
    assert read(str(tmp_path / "a"), SIZE).digest == hashlib.sha256(content).digest()


def test_a_name_that_is_not_utf8_can_be_read(tmp_path: Path) -> None:
    path = os.fsdecode(os.path.join(os.fsencode(tmp_path), b"caf\xe9.png"))
    try:
        write(Path(path), photo(40, 30), "PNG")
    except OSError:
        pytest.skip("this file system takes names in UTF-8 only")
    assert read(path, SIZE).pixels.shape == (SIZE, SIZE, 3)


def test_a_file_that_changes_while_it_is_read_is_to_be_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "a.png", photo(40, 30), "PNG")
    digest = hashlib.file_digest

    def slow_digest(file: Any, name: str) -> Any:
        with Path(path).open("ab") as writer:
            writer.write(b"more")
        return digest(file, name)

    monkeypatch.setattr(hashlib, "file_digest", slow_digest)
    with pytest.raises(ImageError) as caught:
        read(path, SIZE)
    assert caught.value.transient
    assert caught.value.reason == "changed while it was read; index again"


def test_a_file_that_changes_before_it_is_decoded_is_to_be_tried_again(tmp_path: Path) -> None:
    path = write(tmp_path / "a.png", photo(40, 30), "PNG")
    with ImageFile(path) as file:
        with Path(path).open("ab") as writer:
            writer.write(b"more")
        with pytest.raises(ImageError) as caught:
            file.decode(SIZE)
    assert caught.value.transient
    assert caught.value.reason == "changed while it was read; index again"


def test_what_is_decoded_is_what_was_hashed_though_its_name_was_given_to_another(
    tmp_path: Path,
) -> None:
    path = write(tmp_path / "a.png", photo(40, 30), "PNG")
    digest = hashlib.sha256(Path(path).read_bytes()).digest()
    with ImageFile(path) as file:
        Path(write(tmp_path / "b.png", photo(40, 30, seed=1), "PNG")).replace(path)
        pixels = file.decode(SIZE)
    assert file.digest == digest
    assert np.array_equal(pixels, _squashed(photo(40, 30)))


def test_a_damaged_image_is_hashed_and_refused_only_when_it_is_decoded(tmp_path: Path) -> None:
    content = encode(photo(40, 30), "PNG")[:100]
    (tmp_path / "half.png").write_bytes(content)
    with ImageFile(str(tmp_path / "half.png")) as file:
        assert file.digest == hashlib.sha256(content).digest()
        assert file.size == 100
        with pytest.raises(ImageError, match="cannot be decoded"):
            file.decode(SIZE)


def test_a_file_that_is_no_image_is_not_hashed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "film.mp4").write_bytes(b"no image of any kind")
    monkeypatch.delattr(hashlib, "file_digest")
    with pytest.raises(ImageError) as caught:
        ImageFile(str(tmp_path / "film.mp4"))
    assert not caught.value.recognised


def test_a_time_that_a_later_change_may_leave_as_it_is_is_not_told(tmp_path: Path) -> None:
    path = write(tmp_path / "a.png", photo(40, 30), "PNG")
    assert read(path, SIZE).mtime_ns is None
    in_an_hour = time.time_ns() + 3600 * 10**9
    os.utime(path, ns=(1, in_an_hour))
    assert read(path, SIZE).mtime_ns == Path(path).stat().st_mtime_ns


def test_a_vanished_file_is_to_be_tried_again(tmp_path: Path) -> None:
    with pytest.raises(ImageError) as caught:
        read(str(tmp_path / "gone.jpg"), SIZE)
    assert caught.value.transient
    assert caught.value.reason == "cannot be read: No such file or directory"


def test_a_folder_is_not_read(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="cannot be read: Is a directory"):
        read(str(tmp_path), SIZE)


def test_a_file_without_permission_is_to_be_tried_again() -> None:
    with ordinary_folder() as folder:
        path = write(folder / "a.png", photo(40, 30), "PNG")
        read(path, SIZE)
        Path(path).chmod(0)
        with ordinary_user(), pytest.raises(ImageError) as caught:
            read(path, SIZE)
    assert caught.value.transient
    assert caught.value.reason == "cannot be read: Permission denied"


def test_a_disk_that_fails_is_to_be_tried_again() -> None:
    class FailingDisk(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            if self.tell() > 1000:
                raise OSError(5, "Input/output error")
            return super().read(size)

    with pytest.raises(OSError, match="Input/output error"):
        decode(FailingDisk(encode(photo(300, 200), "PNG")), SIZE)


def test_a_device_is_refused_without_being_read() -> None:
    with pytest.raises(ImageError) as caught:
        read("/dev/zero", SIZE)
    assert caught.value.reason == "is not a regular file"
    assert not caught.value.recognised


# Whatever a file holds


@pytest.mark.filterwarnings("ignore")  # Pillow's, about what is wrong with them
@settings(derandomize=True, deadline=None, max_examples=examples(200))
@given(
    content=st.binary(max_size=300),
    signature=st.sampled_from(
        [
            b"",
            b"\xff\xd8\xff",
            b"\x89PNG\r\n\x1a\n",
            b"GIF89a",
            b"BM",
            b"P6 ",
            b"P5\n9 9\n255\n",
            b"II*\0",
            b"MM\0*",
            b"\0\0\1\0",
            b"RIFF\0\0\0\0WEBPVP8 ",
            b"\0\0\0 ftypavif\0\0\0\0",
            b"\0\0\0 ftypheic\0\0\0\0",
        ]
    ),
)
def test_random_bytes_are_an_image_or_are_refused(content: bytes, signature: bytes) -> None:
    try:
        pixels = _decode(signature + content)
    except ImageError as error:
        assert error.reason  # noqa: PT017 - it may be raised, it need not
    else:
        assert pixels.shape == (SIZE, SIZE, 3)
        assert pixels.dtype == np.uint8


_VALID = {format_: encode(photo(24, 16), format_) for format_ in ALL}


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("mutations") / "photo.jpg"


@pytest.mark.few(3)
@pytest.mark.filterwarnings("ignore")  # Pillow's, about what is wrong with them
@pytest.mark.parametrize("format_", ALL)
@settings(
    derandomize=True,
    deadline=None,
    max_examples=examples(100),
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
def test_a_damaged_file_is_an_image_or_is_refused_for_good(
    format_: str, data: st.DataObject, scratch: Path
) -> None:
    content = bytearray(_VALID[format_])
    places = st.integers(0, len(content) - 1) | st.integers(0, min(200, len(content) - 1))
    for place, value in data.draw(st.lists(st.tuples(places, st.integers(0, 255)), max_size=6)):
        content[place] = value
    if data.draw(st.booleans()):
        del content[data.draw(places) :]
    scratch.write_bytes(content)
    try:
        source = read(str(scratch), SIZE)
    except ImageError as error:
        assert not error.transient, error  # noqa: PT017 - the disk is well, the file is not
    else:
        assert source.pixels.shape == (SIZE, SIZE, 3)
        assert source.pixels.dtype == np.uint8
