"""Tell how pictures were made from one another that are no plain copies."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageOps

from imgsearch.images.agreement import CloseUp
from imgsearch.images.keypoints import AffineMap, affinity, keypoints_of, mirrored
from imgsearch.images.relation import (
    FEATURES,
    Relation,
    may_be_related,
    mirrored_related,
    related,
)
from tests.support.textures import texture


def photo(shot: int = 0) -> Image.Image:
    """Return a picture as a camera takes it, soft in part and with noise of its own."""
    pixels = np.asarray(texture(1).resize((480, 360), Image.Resampling.BICUBIC), np.float32)
    pixels[:, 330:] = pixels[:, 330:].mean(axis=(0, 1)) + pixels[:, 330:] / 50
    noise = np.random.default_rng(shot).normal(0, 2, pixels.shape)
    return Image.fromarray(np.clip(pixels + noise, 0, 255).astype(np.uint8))


def captioned(image: Image.Image) -> Image.Image:
    found = Image.new("RGB", (image.width, image.height + 50), "white")
    found.paste(image, (0, 0))
    ImageDraw.Draw(found).text((20, image.height + 10), "a caption below", fill="black")
    return found


def edited(image: Image.Image) -> Image.Image:
    found = image.copy()
    ImageDraw.Draw(found).ellipse((200, 120, 270, 180), fill="lime")
    return found


def relation(one: Image.Image, other: Image.Image) -> Relation | None:
    start = affinity(
        *(keypoints_of(np.asarray(each.convert("L")), FEATURES) for each in (other, one))
    )
    if start is None:
        return None
    first, second = (CloseUp(np.asarray(each), None) for each in (one, other))
    return related(first, second, start)


MADE = {
    "cropped": lambda image: image.crop((120, 60, 390, 262)),
    "turned": lambda image: image.rotate(33, Image.Resampling.BICUBIC, expand=True),
    "framed": lambda image: ImageOps.expand(image, 30, fill="white"),
    "captioned": captioned,
    "edited": edited,
}


@pytest.mark.parametrize("kind", MADE)
def test_the_change_is_told_from_either_side(kind: str) -> None:
    image = photo()
    made = MADE[kind](image)
    found, back = relation(image, made), relation(made, image)
    assert found is not None
    assert back is not None
    assert (found.kind, back.kind) == (kind, kind)
    assert found.certain == back.certain == (kind != "edited")
    if kind != "edited":
        assert (found.swapped, back.swapped) == (False, True)


def test_the_share_the_angle_and_the_region_are_told() -> None:
    image = photo()
    part, turned, changed, below = (
        relation(image, MADE[kind](image)) for kind in ("cropped", "turned", "edited", "captioned")
    )
    assert part is not None
    assert part.share == pytest.approx(270 * 202 / (480 * 360), abs=0.02)
    assert turned is not None
    assert turned.angle == pytest.approx(-33, abs=0.2)
    assert changed is not None
    assert changed.region == pytest.approx((200 / 480, 120 / 360, 270 / 480, 180 / 360), abs=0.04)
    assert below is not None
    assert below.region == pytest.approx((0, 360 / 410, 1, 1), abs=0.02)


def test_the_next_shot_and_a_part_with_another_detail_are_not_related() -> None:
    image, second = photo(), photo(shot=1)
    assert relation(image, edited(second)) is None
    part = image.crop((120, 60, 390, 262))
    ImageDraw.Draw(part).ellipse((100, 80, 130, 100), fill="lime")
    assert relation(image, part) is None


@pytest.mark.parametrize("share", [0.5, 0.9])
def test_parts_that_only_overlap_need_no_comparison(share: float) -> None:
    size = (480, 360)

    def at(left: float, top: float, scale: float = 1.0) -> AffineMap:
        return np.array([(scale, 0.0, left), (0.0, scale, top)])

    assert not may_be_related(at(share / 2, 0.0), size, size)
    assert not may_be_related(at(0.2, -0.3, share), size, size)
    assert may_be_related(at(1 - share, 0.0, share), size, size)
    assert may_be_related(at(-0.4, -0.1, 1.5), size, size)
    quarter = np.array([(0.0, -1.0, 1.0), (1.0, 0.0, 0.05)])
    assert may_be_related(quarter, size, size[::-1])
    slanted = np.array([(0.8, -0.4, 0.4), (0.7, 0.8, 0.3)])
    assert may_be_related(slanted, size, size)
    assert not may_be_related(np.array([(1.0, 0.0, 0.0), (1.0, 0.0, 0.0)]), size, size)


def mirrored_relation(one: Image.Image, other: Image.Image) -> Relation | None:
    second, first = (keypoints_of(np.asarray(each.convert("L")), FEATURES) for each in (other, one))
    start = affinity(mirrored(second), first)
    if start is None:
        return None
    pictures = [CloseUp(np.asarray(each), None) for each in (one, other)]
    return mirrored_related(pictures[0], pictures[1], start)


@pytest.mark.parametrize("kind", ["cropped", "turned", "framed"])
def test_mirror_images_of_what_was_made_from_a_picture_are_related_to_it(kind: str) -> None:
    image = photo()
    made = MADE[kind](image).transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    for found in (mirrored_relation(image, made), mirrored_relation(made, image)):
        assert found is not None
        assert found.kind == "mirrored"
        assert not found.certain
    assert relation(image, made) is None


def test_mirror_images_with_another_detail_are_not_related() -> None:
    image = photo()
    part = MADE["cropped"](image).transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    ImageDraw.Draw(part).ellipse((100, 80, 130, 100), fill="lime")
    assert mirrored_relation(image, part) is None
    changed = edited(image).transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    assert mirrored_relation(image, changed) is None
