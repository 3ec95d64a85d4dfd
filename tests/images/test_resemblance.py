"""Small pictures tell what may be a part of another picture, or turned by any angle."""

from __future__ import annotations

import numpy as np
from PIL import Image

from imgsearch.images.compare import LUMINANCE
from imgsearch.images.resemblance import Small, Table, resemblances, turnless
from tests.images.test_compare import scene, squashed


def small(image: Image.Image) -> Small:
    return Small((squashed(image) @ LUMINANCE).astype(np.uint8), *image.size)


def test_parts_and_turned_pictures_are_found_among_others() -> None:
    whole = scene(0)
    part = whole.crop((0, 0, 288, 216))
    turned = whole.rotate(33, Image.Resampling.BICUBIC)
    pictures = [part, turned, *map(scene, range(1, 20))]
    table = Table.empty(len(pictures))
    for row, picture in enumerate(pictures):
        table.put(row, small(picture))
    found = resemblances(small(whole), table, np.arange(len(pictures))[::-1])
    assert [len(pictures) - 1 - number for number in found.turns] == [1]
    assert [len(pictures) - 1 - number for number in found.places] == [0]
    (place,) = found.places.values()
    assert np.abs(np.array(place) - (0, 0, 0.6, 0.6)).max() < 0.1


def test_a_whole_is_found_from_its_part_only_the_other_way_round() -> None:
    whole, part = small(scene(3)), small(scene(3).crop((48, 36, 336, 252)))
    table = Table.empty(2)
    table.put(0, whole)
    table.put(1, part)
    assert list(resemblances(whole, table, np.array([1])).places) == [0]
    assert not resemblances(part, table, np.array([0])).places


def test_turning_and_mirroring_a_picture_leaves_its_rings_alike() -> None:
    turned = scene(5).rotate(33, Image.Resampling.BICUBIC)
    mirrored = scene(5).transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    pictures = [scene(5), turned, mirrored, *map(scene, range(20, 40))]
    rings = turnless(np.stack([small(picture).disc for picture in pictures]))
    similarities = rings @ rings[0]
    assert similarities[1:3].min() > 0.98
    assert similarities[1:3].min() > similarities[3:].max()


def test_the_largest_disc_is_the_first_of_all() -> None:
    picture = small(scene(6).crop((0, 0, 480, 200)))
    assert np.array_equal(picture.disc, picture.discs[0])
