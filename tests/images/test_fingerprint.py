"""What is kept of an image to find its copies by."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from imgsearch.images.decode import decode, described
from imgsearch.images.fingerprint import (
    FINGERPRINT,
    LEAST_EDGE,
    ORIENTATIONS,
    Fingerprint,
    oriented,
    oriented_hashes,
)
from tests.support.pictures import picture


def saved(image: Image.Image, **options: Any) -> io.BytesIO:
    file = io.BytesIO()
    image.save(file, **{"format": "PNG", **options})
    file.seek(0)
    return file


def fingerprint(image: Image.Image, edge: int = LEAST_EDGE, **options: Any) -> Fingerprint:
    return described(saved(image, **options), edge)[1]


def row(found: Fingerprint) -> Any:
    return np.frombuffer(found.row, FINGERPRINT)[0]


def distance(one: int, other: int) -> int:
    return (one ^ other).bit_count()


@pytest.mark.parametrize("orientation", range(ORIENTATIONS))
def test_the_hashes_of_all_orientations_follow_from_one(orientation: int) -> None:
    image = picture(5, width=200, height=160)
    turned = Image.fromarray(
        np.stack([oriented(np.asarray(band), orientation) for band in image.split()], axis=2)
    )
    one = oriented_hashes(np.array([row(fingerprint(image))["hash"]], np.uint64))[orientation, 0]
    assert distance(int(one), int(row(fingerprint(turned))["hash"])) <= 2


def test_the_hash_of_a_copy_is_near_and_that_of_another_picture_is_far() -> None:
    image = picture(5, width=200, height=160)
    own = int(row(fingerprint(image))["hash"])
    smaller = image.resize((90, 70)).point(lambda value: value * 0.8)
    copy = int(row(fingerprint(smaller, format="JPEG", quality=40))["hash"])
    others = [int(row(fingerprint(picture(seed)))["hash"]) for seed in range(20, 40)]
    assert distance(own, copy) <= 4
    assert min(distance(own, other) for other in others) > 10


def test_a_fingerprint_is_made_for_a_network_with_a_tiny_input_as_well() -> None:
    image = picture(3, width=300, height=200)
    pixels, found = described(saved(image), 4)
    assert np.array_equal(pixels, decode(saved(image), 4))
    assert found == fingerprint(image)


def test_a_fingerprint_holds_what_the_file_states() -> None:
    exif = Image.Exif()
    exif[0x010F], exif[0x0110] = "Canon\0", "Canon EOS 5D\0"
    exif[0x0112] = 6
    exif.get_ifd(0x8769)[0x9003] = "2021:05:04 12:33:10"
    found = fingerprint(picture(1, width=120, height=80), format="JPEG", exif=exif)
    assert found.camera == "Canon EOS 5D"
    assert found.taken == 1_620_131_590
    assert found.size == (80, 120)
    assert row(found)["bits"] == 8
    clear = fingerprint(picture(1).convert("RGBA"))
    assert row(clear)["clear"] == 1
    assert (clear.taken, clear.camera) == (None, None)
    frames = [picture(seed) for seed in (1, 2)]
    moving = fingerprint(frames[0], format="GIF", save_all=True, append_images=frames[1:])
    assert row(moving)["several"] == 1


@pytest.mark.parametrize("time", ["0000:00:00 00:00:00", "yesterday", "", "2021:13:04 12:33:10"])
def test_a_capture_time_that_makes_no_sense_is_none(time: str) -> None:
    exif = Image.Exif()
    exif[0x010F] = "\x07\n"
    exif.get_ifd(0x8769)[0x9003] = time
    found = fingerprint(picture(1), format="JPEG", exif=exif)
    assert (found.taken, found.camera) == (None, None)
