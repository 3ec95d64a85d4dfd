"""Camera raws: told from other files, and shown by their largest preview."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from imgsearch.errors import ImageError
from imgsearch.images.decode import ImageFile, decode, read
from imgsearch.images.limits import Limits
from imgsearch.images.raw import is_raw, previews
from imgsearch.images.render import glance, thumbnail
from tests.support.depth import examples
from tests.support.image_files import encode, photo
from tests.support.tiffs import ASCII, BYTE, LONG, SHORT, UNDEFINED, Page, Tag, grey, tiff

SIZE = 32
PICTURE = photo(480, 320)
JPEG = encode(PICTURE, "JPEG")
THUMBNAIL = photo(160, 107, seed=9)

_SENSOR = grey(np.full((320, 480), 1000, np.uint16), t262=(SHORT, [32803]), t254=(LONG, [0]))


def _rgb(image: Image.Image, kind: int, **tags: Tag) -> Page:
    known: dict[int, Tag] = {
        254: (LONG, [kind]),
        256: (LONG, [image.width]),
        257: (LONG, [image.height]),
        258: (SHORT, [8, 8, 8]),
        259: (SHORT, [1]),
        262: (SHORT, [2]),
        277: (SHORT, [3]),
        278: (LONG, [image.height]),
    }
    known.update({int(name[1:]): tag for name, tag in tags.items()})
    return Page(known, [image.tobytes()])


def _jpeg_page(jpeg: bytes) -> Page:
    return Page({254: (LONG, [1]), 259: (SHORT, [6])}, outside={513: jpeg})


def _nef(*more: Page, order: str = "<", magic: int = 42, **tags: Tag) -> bytes:
    """Return a raw as Nikon's are: a thumbnail first, the sensor's values and previews below."""
    first = _rgb(THUMBNAIL, 1, **tags)
    return tiff(Page(first.tags, first.strips, [_SENSOR, *more]), order=order, magic=magic)


def _cr2() -> bytes:
    """Return a raw as Canon's are: a JPEG in a strip first, lossless JPEG of the sensor last."""
    first = Page({259: (SHORT, [6]), 274: (SHORT, [1])}, [JPEG])
    lossless = JPEG.replace(b"\xff\xc0", b"\xff\xc3", 1)
    sensor = Page({259: (SHORT, [6])}, [lossless.ljust(len(JPEG) + 500)])
    return tiff(first, sensor, marked=b"CR\2\0\0\0\0\0")


def _rw2() -> bytes:
    page = Page({274: (SHORT, [1]), 46: (UNDEFINED, JPEG)})
    return b"IIU\0" + tiff(page)[4:]


def _orf() -> bytes:
    return b"IIRO" + tiff(_rgb(THUMBNAIL, 0))[4:] + b"maker's note" + JPEG + b"sensor"


def _raf() -> bytes:
    head = b"FUJIFILMCCD-RAW 0201".ljust(84, b"\0") + struct.pack(">II", 200, len(JPEG))
    return head.ljust(200, b"\0") + JPEG + bytes(1000)


def _box(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", 8 + len(content)) + name + content


def _cr3(orientation: int = 1) -> bytes:
    settings_ = tiff(Page({274: (SHORT, [orientation])}))
    canon = _box(b"uuid", bytes(16) + _box(b"CMT1", settings_))
    shown = _box(b"uuid", bytes(24) + _box(b"PRVW", bytes(16) + JPEG))
    return _box(b"ftyp", b"crx \0\0\0\1crx isom") + _box(b"moov", canon) + shown


def _x3f() -> bytes:
    return b"FOVb" + bytes(300) + JPEG + bytes(70)


def _mrw() -> bytes:
    inner = tiff(Page({274: (SHORT, [1])}))
    block = b"\0TTW" + struct.pack(">I", len(inner)) + inner
    return b"\0MRM" + struct.pack(">I", len(block)) + block + JPEG + bytes(100)


_RAWS = {
    "a.NEF": _nef(_jpeg_page(JPEG)),
    "of a big-endian camera.nef": _nef(_jpeg_page(JPEG), order=">"),
    "a.dng": tiff(Page({50706: (BYTE, [1, 4, 0, 0])}, below=[_SENSOR, _jpeg_page(JPEG)])),
    "big.dng": _nef(_jpeg_page(JPEG), magic=43, t50706=(BYTE, [1, 7, 0, 0])),
    "an RGB preview.dng": _nef(_rgb(PICTURE, 1)),
    "a linear.dng": tiff(
        Page({**_SENSOR.tags, 262: (SHORT, [34892])}, _SENSOR.strips), _jpeg_page(JPEG)
    ),
    "a.pef": tiff(_SENSOR, _jpeg_page(JPEG)),
    "only its name tells.srw": tiff(_rgb(THUMBNAIL, 0), _jpeg_page(JPEG)),
    "its preview in a maker's note.kdc": tiff(_rgb(THUMBNAIL, 0)) + JPEG,
    "a.CR2": _cr2(),
    "a.rw2": _rw2(),
    "a.orf": _orf(),
    "a.raf": _raf(),
    "a.cr3": _cr3(),
    "a.x3f": _x3f(),
    "a.mrw": _mrw(),
}


@pytest.mark.parametrize("name", _RAWS)
def test_a_raw_is_shown_by_its_preview(name: str, tmp_path: Path) -> None:
    data = _RAWS[name]
    assert is_raw(io.BytesIO(data), name)
    (tmp_path / name).write_bytes(data)
    expected = decode(io.BytesIO(encode(PICTURE, "PNG")), SIZE).astype(int)
    seen = glance(str(tmp_path / name), SIZE)
    assert (seen.width, seen.height) == PICTURE.size
    for pixels in (read(str(tmp_path / name), SIZE).pixels, seen.pixels):
        assert np.abs(pixels.astype(int) - expected).mean() < 3


@pytest.mark.parametrize(
    "name",
    [
        name
        for name in _RAWS
        if name not in ("only its name tells.srw", "its preview in a maker's note.kdc")
    ],
)
def test_a_raw_is_told_by_its_content_whatever_it_is_named(name: str) -> None:
    assert is_raw(io.BytesIO(_RAWS[name]), "renamed.tif")


@pytest.mark.parametrize(
    "data",
    [
        _nef(),
        _nef(_rgb(photo(200, 133), 1)),
        _nef(_jpeg_page(JPEG[:300])),
        _nef(_jpeg_page(JPEG[: len(JPEG) // 3])),
        b"FUJIFILMCCD-RAW 0201".ljust(3000, b"\0"),
        b"FOVb".ljust(100, b"\0"),
        b"IIRO" + tiff(_rgb(THUMBNAIL, 0))[4:],
        _cr3()[:150],
    ],
)
def test_a_raw_without_a_readable_preview_is_skipped_and_no_failure(
    data: bytes, tmp_path: Path
) -> None:
    (tmp_path / "photo.nef").write_bytes(data)
    with pytest.raises(ImageError, match=r": raw file without a readable preview$") as caught:
        read(str(tmp_path / "photo.nef"), SIZE)
    assert not caught.value.recognised
    assert not caught.value.transient


def test_a_raw_without_a_preview_is_not_hashed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "photo.nef").write_bytes(_nef())
    monkeypatch.delattr("hashlib.file_digest")
    with pytest.raises(ImageError, match="raw file without a readable preview"):
        ImageFile(str(tmp_path / "photo.nef"))


@pytest.mark.parametrize(
    "data",
    [
        encode(PICTURE, "TIFF"),
        tiff(_rgb(PICTURE, 0), _rgb(THUMBNAIL, 1)),
        tiff(Page({**_rgb(PICTURE, 0).tags}, [PICTURE.tobytes()], [_rgb(THUMBNAIL, 1)])),
        encode(PICTURE, "TIFF", save_all=True, append_images=[THUMBNAIL]),
        tiff(_rgb(THUMBNAIL, 1, t271=(ASCII, b"scanner\0"))),
    ],
)
def test_a_scan_with_smaller_versions_of_itself_is_no_raw(data: bytes) -> None:
    assert not is_raw(io.BytesIO(data), "scan.tif")
    assert decode(io.BytesIO(data), SIZE).shape == (SIZE, SIZE, 3)


def test_what_is_named_like_a_raw_but_is_none_is_an_ordinary_image() -> None:
    assert not is_raw(io.BytesIO(JPEG), "photo.nef")
    assert not is_raw(io.BytesIO(b"a letter about my raw.nef"), "letter.nef")


def test_the_largest_preview_that_can_be_decoded_stands_for_the_raw() -> None:
    small, broken = encode(photo(300, 200, seed=3), "JPEG"), encode(photo(900, 600), "JPEG")
    raw = _nef(_jpeg_page(small), _jpeg_page(JPEG), _jpeg_page(broken[: len(broken) // 3]))
    assert (glance(raw, SIZE).width, glance(raw, SIZE).height) == PICTURE.size


def test_a_preview_is_turned_as_the_raw_says() -> None:
    exif = Image.Exif()
    exif[0x0112] = 1  # as cameras write it into a preview, whatever the raw says
    raw = _nef(_jpeg_page(encode(PICTURE, "JPEG", exif=exif)), t274=(SHORT, [6]))
    upright = decode(io.BytesIO(encode(PICTURE.transpose(Image.Transpose.ROTATE_270), "PNG")), SIZE)
    assert np.abs(decode(io.BytesIO(raw), SIZE).astype(int) - upright).mean() < 3
    assert (glance(raw, SIZE).width, glance(raw, SIZE).height) == (320, 480)
    assert Image.open(io.BytesIO(thumbnail(raw, 48))).size == (32, 48)
    assert glance(_cr3(orientation=8), SIZE).width == 320


def test_a_preview_that_knows_how_it_is_turned_is_believed_where_the_raw_says_nothing() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = encode(PICTURE, "JPEG", exif=exif)
    assert glance(b"FOVb" + bytes(100) + turned, SIZE).width == 320


def test_a_preview_of_too_many_pixels_is_refused_before_it_is_decoded() -> None:
    with pytest.raises(ImageError, match="has 480 x 320 pixels, and the limit is 1,000") as caught:
        decode(io.BytesIO(_nef(_jpeg_page(JPEG))), SIZE, limits=Limits(1000))
    assert caught.value.limited


def test_directories_that_lead_in_a_circle_come_to_an_end() -> None:
    data = bytearray(_nef())
    (first,) = struct.unpack_from("<I", data, 4)
    (count,) = struct.unpack_from("<H", data, first)
    struct.pack_into("<I", data, first + 2 + 12 * count, first)
    assert is_raw(io.BytesIO(data), "a.tif")
    assert list(previews(io.BytesIO(data))) == []


@settings(derandomize=True, deadline=None, max_examples=examples(100))
@given(data=st.data(), name=st.sampled_from(sorted(_RAWS)))
def test_a_damaged_raw_is_shown_or_refused(data: st.DataObject, name: str) -> None:
    content = bytearray(_RAWS[name])
    places = st.integers(0, len(content) - 1) | st.integers(0, 300)
    for place, value in data.draw(st.lists(st.tuples(places, st.integers(0, 255)), max_size=6)):
        content[place] = value
    if data.draw(st.booleans()):
        del content[data.draw(places) :]
    try:
        pixels = decode(io.BytesIO(content), SIZE, name)
    except ImageError as error:
        assert error.reason  # noqa: PT017 - it may be raised, it need not
    else:
        assert pixels.shape == (SIZE, SIZE, 3)
