"""Local features tell whether two pictures show the same, and where."""

from __future__ import annotations

import builtins
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from imgsearch.errors import PackageError
from imgsearch.images.decode import Pixels
from imgsearch.images.keypoints import Match, keypoints_of, match, mirrored
from tests.support.textures import texture


def grey(picture: Image.Image) -> Pixels:
    return np.asarray(picture.convert("L"), np.uint8)


def matched(query: Image.Image, hit: Image.Image) -> Match | None:
    return match(keypoints_of(grey(query)), keypoints_of(grey(hit)))


@pytest.mark.parametrize(
    "changed",
    [
        lambda picture: picture,
        lambda picture: picture.rotate(37, expand=True),
        lambda picture: picture.resize((200, 150)),
        lambda picture: picture.point(lambda value: value // 2 + 20),
    ],
    ids=["the same", "turned", "small", "dark"],
)
def test_a_changed_picture_shows_the_same(changed: Any) -> None:
    found = matched(changed(texture(1)), texture(1))
    assert found is not None
    assert found.inliers >= 30


def test_a_part_lies_where_it_was_cut_out() -> None:
    found = matched(texture(2).crop((160, 60, 300, 180)), texture(2))
    assert found is not None
    corners = np.array(sorted(found.hit_outline)) * (320, 240)
    expected = np.array(sorted([(160, 60), (300, 60), (300, 180), (160, 180)]))
    np.testing.assert_allclose(corners[:, 0], expected[:, 0], atol=4)
    np.testing.assert_allclose(np.sort(corners[:, 1]), np.sort(expected[:, 1]), atol=4)
    assert {(round(x), round(y)) for x, y in found.query_outline} == {
        *((0, 0), (1, 0), (1, 1), (0, 1))
    }


def cropped(seed: int, box: tuple[int, int, int, int]) -> Image.Image:
    """Return a small part of a texture, three times as large."""
    crop = texture(seed).crop(box)
    return crop.resize((3 * crop.width, 3 * crop.height), Image.Resampling.BICUBIC)


@pytest.mark.parametrize(
    ("seed", "box"), [(3, (40, 40, 90, 80)), (5, (160, 60, 216, 102)), (5, (40, 40, 90, 80))]
)
def test_few_features_are_enough_where_the_pixels_agree(
    seed: int, box: tuple[int, int, int, int]
) -> None:
    found = matched(cropped(seed, box), texture(seed))
    assert found is not None
    assert found.inliers < 12
    corners = np.array(found.hit_outline) * (320, 240)
    assert corners.min(axis=0) == pytest.approx(box[:2], abs=3)
    assert corners.max(axis=0) == pytest.approx(box[2:], abs=3)
    hit = texture(seed)  # with the same features, and other pixels around them
    query = keypoints_of(grey(cropped(seed, box)))
    other = np.asarray(cropped(seed + 1, box).convert("L"), np.uint8)
    assert match(replace(query, grey=other), keypoints_of(grey(hit))) is None


def test_a_picture_in_another_one_lies_where_it_was_pasted() -> None:
    query = texture(3)
    query.paste(texture(4).resize((160, 120)), (100, 80))
    found = matched(query, texture(4))
    assert found is not None
    corners = np.array(found.query_outline) * (320, 240)
    assert corners.min(axis=0) == pytest.approx([100, 80], abs=4)
    assert corners.max(axis=0) == pytest.approx([260, 200], abs=4)


def test_a_mirror_image_shows_the_same_by_its_mirrored_features() -> None:
    hit = keypoints_of(grey(texture(5)))
    query = keypoints_of(grey(ImageOps.mirror(texture(5))))
    assert match(query, hit) is None
    found = match(mirrored(query), hit)
    assert found is not None
    assert found.inliers >= 50
    twice = mirrored(mirrored(query))
    np.testing.assert_array_equal(twice.descriptors, query.descriptors)
    np.testing.assert_allclose(twice.points, query.points, atol=1e-3)


def on_plain_ground(picture: Image.Image) -> Image.Image:
    plain = Image.new("RGB", (320, 240), (90, 120, 150))
    plain.paste(picture.resize((80, 60)), (120, 90))
    return plain


def test_a_small_thing_on_a_plain_background_is_the_same_picture() -> None:
    hit = on_plain_ground(texture(6))
    found = matched(hit.rotate(3, fillcolor=(90, 120, 150)), hit)
    assert found is not None


def test_a_small_thing_that_two_pictures_have_in_common_is_not_the_same_picture() -> None:
    pictures = [texture(7), texture(8)]
    for picture in pictures:
        picture.paste(texture(6).resize((80, 60)), (120, 90))
    assert matched(*pictures) is None


@pytest.mark.parametrize("seed", range(6))
def test_other_pictures_do_not_show_the_same(seed: int) -> None:
    assert matched(texture(10 + seed), texture(20 + seed)) is None


def test_a_surface_that_no_camera_sees_is_not_the_same() -> None:
    flat = texture(6).resize((320, 40))
    assert matched(flat, texture(6)) is None


@pytest.mark.parametrize("size", [(1, 1), (3, 200), (320, 240)])
def test_a_picture_of_nothing_matches_nothing(size: tuple[int, int]) -> None:
    blank = Image.new("RGB", size, "grey")
    assert matched(blank, blank) is None
    assert matched(blank, texture(7)) is matched(texture(7), blank) is None


def test_without_opencv_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *arguments: Any, **keywords: Any) -> Any:
        if name == "cv2":
            raise ImportError("No module named 'cv2'", name="cv2")
        return real(name, *arguments, **keywords)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(PackageError, match=r"needs OpenCV.*'\.\[verify\]'"):
        keypoints_of(np.zeros((9, 9), np.uint8))
