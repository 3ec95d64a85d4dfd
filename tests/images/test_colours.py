"""Colours are those that the ICC profile of a file means, in sRGB."""

from __future__ import annotations

import io
import struct
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms

from imgsearch.images.colours import MOST_PROFILE, to_srgb
from imgsearch.images.decode import decode
from imgsearch.images.render import glance, thumbnail
from tests.support.depth import examples
from tests.support.image_files import encode, photo
from tests.support.tiffs import UNDEFINED, colour, tiff

SIZE = 64
PICTURE = photo(64, 64)

# Primaries, adapted to D50, in columns.
_SRGB = np.array(
    [[0.43607, 0.38506, 0.14308], [0.2225, 0.71688, 0.06062], [0.01393, 0.0971, 0.71417]]
)
_SPACES: dict[str, tuple[npt.NDArray[np.float64], float]] = {
    "Adobe RGB": (
        np.array(
            [[0.60976, 0.20524, 0.14922], [0.31112, 0.62566, 0.06322], [0.01948, 0.06089, 0.74484]]
        ),
        2.2,
    ),
    "Display P3": (
        np.array(
            [[0.51512, 0.29198, 0.1571], [0.24119, 0.69224, 0.06657], [-0.00105, 0.04188, 0.78407]]
        ),
        2.2,
    ),
    "ProPhoto": (
        np.array([[0.79767, 0.13519, 0.03135], [0.28804, 0.71187, 0.00009], [0, 0, 0.82521]]),
        1.8,
    ),
    "linear": (_SRGB, 1.0),
    "an old Macintosh": (_SRGB, 1.8),
}


def _s15(values: Sequence[float] | npt.NDArray[np.float64]) -> bytes:
    return b"".join(struct.pack(">i", round(value * 65536)) for value in values)


def profile(primaries: npt.NDArray[np.float64] | None, gamma: float) -> bytes:
    """Return an ICC profile (version 2.4) of a display, or a grey one without primaries."""
    curve = b"curv" + bytes(4) + struct.pack(">IH", 1, round(gamma * 256)) + bytes(2)
    named = b"desc" + bytes(4) + struct.pack(">I", 5) + b"test\0" + bytes(78)
    tags = [(b"desc", named), (b"wtpt", b"XYZ " + bytes(4) + _s15((0.9642, 1, 0.8249)))]
    if primaries is None:
        tags += [(b"kTRC", curve)]
    else:
        for at, letter in enumerate(b"rgb"):
            tags += [(bytes([letter]) + b"XYZ", b"XYZ " + bytes(4) + _s15(primaries[:, at]))]
            tags += [(bytes([letter]) + b"TRC", curve)]
    table, body = struct.pack(">I", len(tags)), b""
    for name, content in tags:
        table += name + struct.pack(">II", 132 + 12 * len(tags) + len(body), len(content))
        body += content + bytes(-len(content) % 4)
    space = b"GRAY" if primaries is None else b"RGB "
    head = struct.pack(
        ">I4sI4s4s4s", 128 + len(table + body), b"none", 0x02400000, b"mntr", space, b"XYZ "
    )
    head += (
        struct.pack(">6H", 2024, 1, 1, 0, 0, 0) + b"acsp" + bytes(28) + _s15((0.9642, 1, 0.8249))
    )
    return head.ljust(128, b"\0") + table + body


def _stored(image: Image.Image, space: str) -> Image.Image:
    """Return a picture as it is stored for a colour space; colours stay inside of all of them."""
    primaries, gamma = _SPACES[space]
    tones = np.asarray(image) / 255.0
    light = np.where(tones <= 0.04045, tones / 12.92, ((tones + 0.055) / 1.055) ** 2.4)
    moved = np.clip(light @ _SRGB.T @ np.linalg.inv(primaries).T, 0, 1) ** (1 / gamma)
    return Image.fromarray((moved * 255 + 0.5).astype(np.uint8))


def _off(data: bytes, image: Image.Image = PICTURE) -> float:
    expected = np.asarray(image.convert("RGB").resize((SIZE, SIZE), Image.Resampling.BILINEAR))
    return float(np.abs(decode(io.BytesIO(data), SIZE).astype(int) - expected).mean())


@pytest.mark.parametrize("space", _SPACES)
@pytest.mark.parametrize("format_", ["PNG", "TIFF", "JPEG", "WEBP", "AVIF", "MPO"])
def test_colours_are_those_that_a_viewer_shows(format_: str, space: str) -> None:
    icc = profile(*_SPACES[space])
    data = encode(_stored(PICTURE, space), format_, icc_profile=icc)
    assert _off(data) < 5
    np.testing.assert_array_equal(glance(data, SIZE).pixels, decode(io.BytesIO(data), SIZE))
    shown = Image.open(io.BytesIO(thumbnail(data, SIZE)))
    assert np.abs(np.asarray(shown).astype(int) - np.asarray(PICTURE)).mean() < 6
    assert "icc_profile" not in shown.info


def test_a_profile_of_heic_is_followed_too() -> None:
    import pillow_heif

    file = pillow_heif.from_pillow(_stored(PICTURE, "Adobe RGB"))
    file.info["icc_profile"] = profile(*_SPACES["Adobe RGB"])
    data = io.BytesIO()
    file.save(data, quality=95)
    assert _off(data.getvalue()) < 6


def test_transparency_is_put_on_white_once_the_colours_are_right() -> None:
    stored = _stored(PICTURE, "ProPhoto")
    stored.putalpha(128)
    data = encode(stored, "PNG", icc_profile=profile(*_SPACES["ProPhoto"]))
    half = Image.blend(Image.new("RGB", PICTURE.size, "white"), PICTURE, 128 / 255)
    assert _off(data, half) < 2


def test_a_palette_and_an_animation_have_their_colours_too() -> None:
    icc = profile(*_SPACES["ProPhoto"])
    indexed = _stored(PICTURE, "ProPhoto").quantize(256)
    assert _off(encode(indexed, "PNG", icc_profile=icc)) < 12


@pytest.mark.parametrize("gamma", [1.0, 1.8])
def test_grey_has_the_tones_that_its_profile_means(gamma: float) -> None:
    grey = PICTURE.convert("L")
    tones = np.asarray(grey) / 255.0
    light = np.where(tones <= 0.04045, tones / 12.92, ((tones + 0.055) / 1.055) ** 2.4)
    stored = Image.fromarray((light ** (1 / gamma) * 255 + 0.5).astype(np.uint8))
    for format_ in ("PNG", "JPEG", "TIFF"):
        assert _off(encode(stored, format_, icc_profile=profile(None, gamma)), grey) < 3
    deep = Image.fromarray(np.asarray(stored).astype(np.uint16) * 257)
    assert _off(encode(deep, "PNG", icc_profile=profile(None, gamma)), grey) < 3


def _of_ink() -> bytes:
    """Return a CMYK profile: a table of two steps a channel, whose inks multiply."""
    inks = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 1]], float)
    lab = ImageCms.createProfile("LAB")
    to_lab = ImageCms.buildTransform(ImageCms.createProfile("sRGB"), lab, "RGB", "LAB")
    grid = np.stack(np.meshgrid(*[[0, 1]] * 4, indexing="ij"), -1).reshape(-1, 4)
    rgb = np.prod(1 - grid[:, :, None] * inks[None], axis=1) * 255
    values = np.asarray(to_lab.apply(Image.fromarray(rgb[None].astype(np.uint8))))[0]
    table = (values ^ np.array([0, 128, 128], np.uint8)).tobytes()  # Pillow's are signed
    lut = b"mft1" + bytes(4) + bytes([4, 3, 2, 0]) + _s15((1, 0, 0, 0, 1, 0, 0, 0, 1))
    lut += bytes(range(256)) * 4 + table + bytes(range(256)) * 3
    tags = [(b"A2B0", lut), (b"wtpt", b"XYZ " + bytes(4) + _s15((0.9642, 1, 0.8249)))]
    listed, body = struct.pack(">I", len(tags)), b""
    for name, content in tags:
        listed += name + struct.pack(">II", 132 + 12 * len(tags) + len(body), len(content))
        body += content + bytes(-len(content) % 4)
    head = struct.pack(
        ">I4sI4s4s4s", 128 + len(listed + body), b"none", 0x02400000, b"prtr", b"CMYK", b"Lab "
    )
    head += bytes(12) + b"acsp" + bytes(28) + _s15((0.9642, 1, 0.8249))
    return head.ljust(128, b"\0") + listed + body


def test_ink_has_the_colour_that_its_profile_means() -> None:
    ink = Image.new("CMYK", (60, 60), (0, 0, 0, 0))
    ink.paste((255, 0, 0, 0), (0, 0, 30, 60))
    icc = _of_ink()
    for format_ in ("JPEG", "TIFF"):
        pixels = decode(io.BytesIO(encode(ink, format_, icc_profile=icc)), SIZE).astype(int)
        assert np.abs(pixels[:, -9:] - 255).max() <= 8  # paper
        assert pixels[:, :9, 0].max() < 60  # cyan
        assert pixels[:, :9, 1:].min() > 150


_SRGB_LIKE = {
    "LittleCMS's": ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes(),
}


@pytest.mark.parametrize("name", _SRGB_LIKE)
def test_srgb_by_any_profile_stays_pixel_by_pixel(name: str) -> None:
    plain = decode(io.BytesIO(encode(PICTURE, "PNG")), SIZE)
    data = encode(PICTURE, "PNG", icc_profile=_SRGB_LIKE[name])
    np.testing.assert_array_equal(decode(io.BytesIO(data), SIZE), plain)
    image = Image.new("RGB", (9, 9), "teal")
    assert to_srgb(image, _SRGB_LIKE[name]) is image


_ADOBE = profile(*_SPACES["Adobe RGB"])


@pytest.mark.parametrize(
    "icc",
    [
        b"",
        b"no profile at all",
        bytes(128),
        _ADOBE[:200],
        _ADOBE[:-40],
        _ADOBE.replace(b"XYZ \0\0\0\0", b"ZZZ \0\0\0\0"),
        _ADOBE.replace(b"RGB XYZ ", b"CMYKXYZ "),
        profile(None, 1.8),
        _ADOBE.ljust(MOST_PROFILE + 1, b"\0"),
    ],
)
def test_a_malformed_profile_or_one_of_another_kind_is_ignored(icc: bytes) -> None:
    plain = decode(io.BytesIO(encode(PICTURE, "PNG")), SIZE)
    data = tiff(colour(np.asarray(PICTURE), t34675=(UNDEFINED, icc)))
    np.testing.assert_array_equal(decode(io.BytesIO(data), SIZE), plain)


@settings(derandomize=True, deadline=None, max_examples=examples(200))
@given(data=st.data(), made=st.sampled_from([_ADOBE, profile(None, 2.2), _of_ink()]))
def test_a_damaged_profile_is_followed_or_ignored(data: st.DataObject, made: bytes) -> None:
    content = bytearray(made)
    places = st.integers(0, min(len(content) - 1, 400))
    for place, value in data.draw(st.lists(st.tuples(places, st.integers(0, 255)), max_size=6)):
        content[place] = value
    modes: dict[bytes, Any] = {b"GRAY": "L", b"CMYK": "CMYK"}
    image = Image.new(modes.get(bytes(content[16:20]), "RGB"), (8, 8))
    assert to_srgb(image, bytes(content)).size == (8, 8)
