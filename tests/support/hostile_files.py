"""Seeded files that may break a decoder, and names that may break a terminal."""

from __future__ import annotations

import os
import random
import struct
import zlib
from collections.abc import Callable, Iterator
from itertools import cycle, islice
from pathlib import Path

from PIL import Image

from tests.support.image_files import ALL, encode, photo

__all__ = ["NAMES", "make_hostile_files", "png", "scan_bomb", "tiff"]

#: Names that a shell, a terminal, a page or a program may take for something else, but for their
#: extension. Not one of them can be mended: files have such names.
NAMES = (
    b'"><img src=x onerror=alert(1)>',
    b"<title><script>alert(1)",
    b'a, "b" and c\'',
    b"line\nbreak\r",
    b"red\x1b[31m and \x1b]0;title\x07",
    b"\x7f\x08\x08\x0b\t",
    b"\xff\xfe",
    b"\xed\xa0\x80 a lone surrogate",
    b"\xc2\x9b31m in one byte",
    "left\u202egnp".encode(),
    "\u2066isolated\u2069\u200f\ufeff".encode(),
    "line\u2028and paragraph\u2029".encode(),
    b"--exact",
    b"-",
    b" ",
    b"=1+1",
    b"$(touch pwned)",
    b"%s%n &amp; %00",
    b"x" * 251,
    "e\u0301".encode(),
    "\u00e9".encode(),
)

LONG = 100_000  # pixels in a row
HUGE = 2**31 - 1


def make_hostile_files(folder: Path, count: int, *, edge: int, frames: int) -> int:
    """Write so many hostile files; return how many, which is a few more if there are more kinds.

    Args:
        folder: is made; one below it holds the files with hostile names.
        count: of files; what is not made one by one is cut off or changed at random places.
        edge: of square images that are small as files and large in memory.
        frames: of animated images.
    """
    folder.mkdir()
    named = os.path.join(os.fsencode(folder), b"names")
    os.mkdir(named)
    for number, name in enumerate(NAMES):
        with open(os.path.join(named, name + b".png"), "wb") as file:
            file.write(encode(photo(48, 40, seed=number), "PNG"))
    made = [*_claims(), *_bombs(edge), *_long(), *_animated(frames), *_metadata(), *_nested()]
    made += islice(_damaged(), max(0, count - len(made) - len(NAMES)))
    for number, (kind, content) in enumerate(made):
        (folder / f"{number:05}.{kind}").write_bytes(content)
    return len(NAMES) + len(made)


def png(width: int, height: int, rows: bytes, *before: tuple[bytes, bytes], bits: int = 8) -> bytes:
    """Return a grey PNG that claims a size, whatever it holds; `before` are chunks and contents."""
    header = struct.pack(">IIBBBBB", width, height, bits, 0, 0, 0, 0)
    chunks = [(b"IHDR", header), *before, (b"IDAT", rows), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        for name, body in chunks
    )


def tiff(width: int, height: int, *more: tuple[int, int, int, int]) -> bytes:
    """Return a grey TIFF that claims a size; `more` are tags: number, type, count, value."""
    tags = {256: (4, 1, width), 257: (4, 1, height), 258: (3, 1, 8), 259: (3, 1, 1)}
    tags |= {262: (3, 1, 1), 273: (4, 1, 8), 278: (4, 1, height), 279: (4, 1, 64)}
    tags |= {number: entry for number, *entry in more}  # type: ignore[misc]  # unpacked into a list
    rows = [struct.pack("<HHII", number, *entry) for number, entry in sorted(tags.items())]
    directory = struct.pack("<H", len(rows)) + b"".join(rows) + bytes(4)
    return b"II*\0\x08\0\0\0" + directory + bytes(64)


def scan_bomb(edge: int, scans: int) -> bytes:
    """Return a progressive JPEG with one of its scans again and again: each goes over all of it."""
    jpeg = encode(photo(64, 64).resize((edge, edge)), "JPEG", progressive=True, quality=20)
    starts = [at for at in range(len(jpeg) - 1) if jpeg[at : at + 2] == b"\xff\xda"]
    scan = jpeg[jpeg.index(b"\xff\xc4", starts[0]) : jpeg.index(b"\xff\xc4", starts[1])]
    return jpeg[:-2] + scan * scans + jpeg[-2:]


_Made = Iterator[tuple[str, bytes]]


def _claims() -> _Made:
    """Yield headers of sizes that no file can hold, and of none at all."""
    little = zlib.compress(bytes(1000))
    for width, height in ((HUGE, HUGE), (HUGE, 1), (1, HUGE), (50_000, 50_000), (0, 9), (9, 0)):
        yield "png", png(width, height, little)
        yield "tif", tiff(width, height)
        yield "ppm", b"P6 %d %d 255\n" % (width, height) + bytes(99)
        yield "pbm", b"P1 %d %d\n" % (width, height) + b"1 " * 99
        sizes = struct.pack("<IiiHHIIiiII", 40, width, -height, 1, 24, 0, 0, 0, 0, 0, 0)
        yield "bmp", b"BM" + struct.pack("<IHHI", 99, 0, 0, 54) + sizes + bytes(99)
    jpeg, gif = encode(photo(24, 16), "JPEG"), encode(photo(24, 16), "GIF")
    webp, heic = encode(photo(24, 16), "WEBP", lossless=True), encode(photo(24, 16), "HEIF")
    at = jpeg.index(b"\xff\xc0") + 5
    yield "jpg", jpeg[:at] + b"\xff\xff\xff\xff" + jpeg[at + 4 :]
    yield "jpg", jpeg[:at] + bytes(4) + jpeg[at + 4 :]
    yield "gif", gif[:6] + b"\xff\xff\xff\xff" + gif[10:]
    yield "webp", webp[:21] + b"\xff\xff\xff\x0f" + webp[25:]
    extended = struct.pack("<4sI", b"VP8X", 10) + bytes(4) + b"\xff" * 6
    yield "webp", b"RIFF" + struct.pack("<I", 30 + len(webp)) + b"WEBP" + extended + webp[12:]
    for kind, data in (("heic", heic), ("avif", encode(photo(24, 16), "AVIF"))):
        at = data.index(b"ispe") + 8
        yield kind, data[:at] + struct.pack(">II", HUGE, HUGE) + data[at + 8 :]
        yield kind, data[:at] + struct.pack(">II", 30_000, 30_000) + data[at + 8 :]


def _bombs(edge: int) -> _Made:
    """Yield images of one colour, small as files: squares of `edge`, and beyond any limit."""
    row = b"\0" + bytes(2500)
    yield "png", png(20_000, 20_000, zlib.compress(row * 20_000), bits=1)
    yield "png", png(edge, edge, zlib.compress(bytes(edge * (edge + 1))))
    for format_, options in (
        ("PNG", {"transparency": 0}),
        ("TIFF", {"compression": "tiff_deflate"}),
        ("GIF", {}),
        ("JPEG", {"progressive": True}),
    ):
        yield format_.lower(), encode(Image.new("L", (edge, edge)), format_, **options)
    yield "webp", encode(Image.new("RGBA", (edge, edge)), "WEBP", lossless=True, method=0)
    yield "tif", encode(Image.new("F", (edge, edge)), "TIFF", compression="tiff_deflate")
    icon = png(edge, edge, zlib.compress(bytes(edge * (edge + 1))))
    yield "ico", _icon([(len(icon), 22)]) + icon
    yield "jpg", scan_bomb(1000, 500)


def _long() -> _Made:
    for size in ((LONG, 1), (1, LONG)):
        for format_ in ("PNG", "TIFF", "PPM", "BMP"):
            yield format_.lower(), encode(photo(*size), format_)
    for longest, format_ in ((65_500, "JPEG"), (65_535, "GIF"), (16_383, "WEBP")):
        yield format_.lower(), encode(photo(longest, 1), format_)
        yield format_.lower(), encode(photo(1, longest), format_)


def _animated(frames: int) -> _Made:
    pictures = [photo(8, 8, seed=seed) for seed in range(16)]
    more = list(islice(cycle(pictures), frames))
    for format_ in ("GIF", "PNG", "WEBP", "TIFF"):
        few = more if format_ != "TIFF" else more[:200]  # Pillow takes long to write many
        yield format_.lower(), encode(pictures[0], format_, save_all=True, append_images=few)


def _metadata() -> _Made:
    """Yield good pictures, whose metadata are absurd or enormous."""
    bomb = zlib.compress(bytes(100_000_000))
    row = zlib.compress(bytes(9 * 10))
    yield "png", png(9, 9, row, (b"zTXt", b"Comment\0\0" + bomb))
    yield "png", png(9, 9, row, (b"iTXt", b"Comment\0\1\0\0\0" + bomb))
    yield "png", png(9, 9, row, (b"iCCP", b"profile\0\0" + bomb))
    yield "png", png(9, 9, row, *[(b"tEXt", b"%d\0x" % number) for number in range(20_000)])
    for type_, count, value in ((3, 1, 9), (2, 9, 8), (5, HUGE, 0), (99, 1, 1), (7, 2**32 - 1, 26)):
        entry = struct.pack("<HHII", 0x0112, type_, count, value)
        for number in (1, 3, 0xFFFF):
            exif = b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<H", number) + entry * number
            yield "jpg", encode(photo(24, 16), "JPEG", exif=(exif + bytes(4))[:65_500])
        yield "tif", tiff(8, 8, (0x0112, type_, count, value))
        yield "tif", tiff(8, 8, (0x8769, type_, count, value))
    garbage = random.Random(0).randbytes(65_000)
    for format_ in ("JPEG", "PNG", "WEBP"):
        yield format_.lower(), encode(photo(24, 16), format_, exif=b"Exif\0\0" + garbage)
    unknown = [(number, 1, 1, 1) for number in range(40_000, 60_000)]  # libtiff talks about each
    yield "tif", tiff(8, 8, *unknown)
    yield "tif", tiff(8, 65_000, (273, 4, 2**31, 8), (278, 3, 1, 1), (279, 4, 2**31, 8))
    jpeg = encode(photo(24, 16), "JPEG")
    yield "jpg", jpeg[:2] + b"\xff\xfe\0\3x" * 100_000 + jpeg[2:]


def _nested() -> _Made:
    """Yield files that hold themselves, one another, or nothing."""
    yield "ico", _icon([(99, 0)] * 65_535)
    yield "ico", _icon([(99, 6)])
    good = encode(photo(16, 16), "PNG")
    yield "ico", _icon([(HUGE, 22)]) + good
    loop = tiff(8, 8)
    yield "tif", loop[:-68] + struct.pack("<I", 8) + loop[-64:]  # its next directory is itself
    mpo = encode(photo(24, 16), "MPO")
    at = mpo.index(b"MPF\0")
    yield "mpo", mpo[: at + 12] + b"\xff" * 40 + mpo[at + 52 :]
    signatures = (
        b"\xff\xd8\xff",
        b"\x89PNG\r\n\x1a\n",
        b"GIF89a",
        b"BM",
        b"II*\0",
        b"P6\n",
        b"RIFF",
    )
    for signature in signatures:
        yield "jpg", signature
        yield "png", signature + good
        yield "gif", signature + encode(photo(24, 16), "GIF") + b"PK\3\4" + good
    yield "jpg", b""


def _damaged() -> _Made:
    """Yield damaged files of each format in turn, without an end."""
    chance = random.Random(0)
    good = {format_: encode(photo(64, 48), format_) for format_ in ALL}
    ways: tuple[Callable[[bytes, random.Random], bytes], ...] = (_cut, _flip, _flip, _overwrite)
    while True:
        for format_, data in good.items():
            yield format_.lower(), chance.choice(ways)(data, chance)


def _cut(data: bytes, chance: random.Random) -> bytes:
    return data[: chance.randrange(len(data))]


def _flip(data: bytes, chance: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(chance.choice((1, 3, 20))):
        at = chance.randrange(chance.choice((64, 512, len(data))) % len(data) or len(data))
        changed[at] ^= 1 << chance.randrange(8)
    return bytes(changed)


def _overwrite(data: bytes, chance: random.Random) -> bytes:
    at = chance.randrange(min(200, len(data)))
    return data[:at] + chance.choice((b"\xff", b"\0", b"\x7f\xff")) * 2 + data[at + 4 :]


def _icon(entries: list[tuple[int, int]]) -> bytes:
    """Return the head of an icon; entries are the length and the offset of an image."""
    rows = [struct.pack("<BBBBHHII", 0, 0, 0, 0, 1, 32, *entry) for entry in entries]
    return struct.pack("<HHH", 0, 1, len(rows)) + b"".join(rows)
