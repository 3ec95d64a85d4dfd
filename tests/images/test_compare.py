"""How alike two pictures are."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from imgsearch.images.compare import (
    ALIKE,
    EDGE,
    LUMINANCE,
    Overlay,
    all_flattened,
    flattened,
    oriented_likeness,
)
from imgsearch.images.decode import Pixels, pixels_of
from tests.support.pictures import picture


def scene(seed: int) -> Image.Image:
    """Return something like a photograph: large and small blobs."""
    fine = picture(seed + 1_000, width=20, height=15).resize((480, 360), Image.Resampling.BICUBIC)
    return Image.blend(picture(seed, width=480, height=360), fine, 0.3)


def squashed(image: Image.Image) -> Pixels:
    return pixels_of(image, EDGE)


def likeness(one: Image.Image, other: Image.Image) -> float:
    return float(Overlay(squashed(one)).likeness(flattened(squashed(other))[None])[0])


def test_a_picture_is_wholly_like_itself() -> None:
    assert likeness(scene(1), scene(1)) == pytest.approx(1, abs=1e-5)
    assert np.linalg.norm(flattened(squashed(scene(1)))) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("factor", [0.7, 1.2])
def test_brightness_and_contrast_do_not_count(factor: float) -> None:
    for change in (ImageEnhance.Brightness, ImageEnhance.Contrast):
        assert likeness(scene(1), change(scene(1)).enhance(factor)) > ALIKE


@pytest.mark.parametrize("size", [(60, 45), (240, 180), (960, 720)])
def test_size_does_not_count(size: tuple[int, int]) -> None:
    assert likeness(scene(2), scene(2).resize(size)) > ALIKE


@pytest.mark.parametrize(
    "box",
    [(0, 0, 460, 345), (20, 15, 480, 360), (12, 9, 468, 351), (0, 30, 450, 360), (43, 7, 475, 331)],
)
def test_a_crop_is_found_in_the_whole(box: tuple[int, int, int, int]) -> None:
    for seed in range(5):
        assert likeness(scene(seed), scene(seed).crop(box)) > ALIKE


def test_other_pictures_and_other_places_are_not_alike() -> None:
    others = np.stack([flattened(squashed(scene(seed))) for seed in range(1, 40)])
    assert Overlay(squashed(scene(0))).likeness(others).max() < 0.8
    half = scene(0).crop((0, 0, 240, 180))
    assert max(likeness(scene(0), half), likeness(half, scene(0))) < ALIKE


def test_mirrored_and_turned_is_not_alike() -> None:
    mirrored = scene(3).transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    assert likeness(scene(3), mirrored) < 0.8
    assert likeness(scene(3), scene(3).rotate(180)) < 0.8


def test_pictures_of_one_colour_are_like_nothing() -> None:
    grey = Image.new("RGB", (64, 64), "grey")
    assert abs(likeness(grey, grey)) < 0.1
    assert abs(likeness(scene(1), grey)) < 0.1


def test_the_orientation_of_nearly_symmetrical_pictures_is_found() -> None:
    half = scene(4).crop((0, 0, 240, 360))
    page = Image.new("RGB", (480, 360))
    page.paste(half, (0, 0))
    page.paste(half.transpose(Image.Transpose.FLIP_LEFT_RIGHT), (240, 0))
    page.paste("white", (20, 20, 36, 30))
    mirrored = page.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    brighter = ImageEnhance.Brightness(page).enhance(1.1)
    lights = np.stack(
        [(squashed(each) @ LUMINANCE).astype(np.uint8) for each in (page, mirrored, brighter)]
    )
    flat = all_flattened(lights)
    assert 0.98 < float(flat[0] @ flat[1]) < 0.995
    assert oriented_likeness(lights[0], flat[0], flat[1:]).ways.tolist() == [1, 0]
