"""Whether a copy shows what the kept picture does, wherever one looks."""

from __future__ import annotations

import io
import random

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter

from benchmarks.lookalikes import chats, forms, plots, receipts, screenshots, tables
from imgsearch.images.agreement import CloseUp, agreement
from tests.images.test_compare import scene


def close(image: Image.Image) -> CloseUp:
    alpha = np.asarray(image.getchannel("A")) if image.mode == "RGBA" else None
    return CloseUp(np.asarray(image.convert("RGB")), alpha)


def encoded(image: Image.Image, quality: int) -> Image.Image:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return Image.open(file).convert("RGB")


def agree(keep: Image.Image, copy: Image.Image) -> bool:
    return bool(agreement(close(keep), close(copy)))


@pytest.mark.parametrize("quality", [30, 85])
def test_a_picture_that_was_encoded_again_agrees(quality: int) -> None:
    assert agree(scene(1), encoded(scene(1), quality))


@pytest.mark.parametrize("size", [(168, 126), (240, 180), (960, 720)])
def test_a_picture_of_another_size_agrees(size: tuple[int, int]) -> None:
    assert agree(scene(2), encoded(scene(2).resize(size), 75))


@pytest.mark.parametrize("factor", [0.7, 1.3])
def test_a_brighter_and_a_darker_picture_agree(factor: float) -> None:
    assert agree(scene(3), encoded(ImageEnhance.Brightness(scene(3)).enhance(factor), 80))


@pytest.mark.parametrize("box", [(0, 0, 440, 330), (35, 20, 470, 350), (48, 36, 480, 360)])
def test_a_crop_agrees_with_the_whole_and_not_the_other_way_round(
    box: tuple[int, int, int, int],
) -> None:
    crop = encoded(scene(4).crop(box), 75)
    assert agree(scene(4), crop)
    assert not agree(crop, scene(4))


def test_a_grey_copy_agrees_and_the_coloured_one_does_not_agree_with_it() -> None:
    grey = scene(5).convert("L").convert("RGB")
    assert agree(scene(5), encoded(grey, 80))
    assert not agree(grey, scene(5))


@pytest.mark.few(2)
@pytest.mark.parametrize("family", [forms, receipts, tables, chats, screenshots, plots])
@pytest.mark.parametrize("quality", [95, 50])
def test_documents_that_differ_in_a_small_part_do_not_agree(family: object, quality: int) -> None:
    images = list(family(random.Random(7)))  # type: ignore[operator]  # one of several functions
    assert agree(images[0], encoded(images[0], quality))
    for number, image in enumerate(images[1:], 1):
        assert not agree(images[number - 1], encoded(image, quality))


def test_a_retouched_photo_does_not_agree() -> None:
    for change in ("blurred", "recoloured", "covered", "captioned"):
        other = scene(6).copy()
        box = (200, 120, 270, 190)
        patch = other.crop(box)
        if change == "blurred":
            other.paste(patch.filter(ImageFilter.GaussianBlur(12)), box)
        elif change == "recoloured":
            red, green, blue = patch.split()
            other.paste(Image.merge("RGB", (blue, red, green)), box)
        elif change == "covered":
            other.paste(patch.resize((1, 1)).resize((70, 70)), box)
        else:
            ImageDraw.Draw(other).text((40, 320), "12 May", fill="white", stroke_width=1)
        assert not agree(scene(6), other), change
        assert not agree(other, scene(6)), change


def test_texture_where_the_other_is_flat_is_a_difference() -> None:
    half = scene(7)
    half.paste((120, 120, 120), (240, 0, 480, 360))
    marked = half.copy()
    ImageDraw.Draw(marked).text((400, 200), "paid", fill=(60, 60, 60))
    assert agree(half, encoded(half, 40))
    assert not agree(half, marked)
    assert not agree(marked, half)


def test_a_flat_part_of_another_colour_is_a_difference() -> None:
    half = scene(8)
    half.paste((120, 120, 120), (240, 0, 480, 360))
    for colour in ((120, 120, 150), (140, 140, 140)):
        other = scene(8)
        other.paste(colour, (240, 0, 480, 360))
        assert not agree(half, other)


def test_what_is_transparent_counts() -> None:
    def drawn(*, ring: bool) -> Image.Image:
        image = Image.new("RGBA", (200, 200), (255, 255, 255, 0))
        draw = ImageDraw.Draw(image)
        draw.rectangle((20, 20, 90, 90), fill=(0, 0, 120, 255))
        if ring:  # white on transparent: only alpha tells
            draw.ellipse((110, 110, 180, 180), fill=(255, 255, 255, 255))
        return image

    assert agree(drawn(ring=True), drawn(ring=True))
    assert not agree(drawn(ring=True), drawn(ring=False))


def test_a_blend_of_two_pictures_agrees_with_neither() -> None:
    blend = Image.blend(scene(9), scene(10), 0.2)
    assert not agree(scene(9), blend)
    assert not agree(blend, scene(9))


def test_tiny_pictures_agree_only_if_they_are_the_same() -> None:
    tiny = scene(1).resize((16, 16))
    other = tiny.copy()
    other.putpixel((3, 3), (255, 0, 0))
    assert agree(tiny, tiny)
    assert not agree(tiny, other)
