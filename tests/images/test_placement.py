"""Small pictures tell where one lies in the other, in any orientation."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from imgsearch.images.fingerprint import MIRRORED, ORIENTATIONS, inverse, orientation_map, oriented
from imgsearch.images.placement import SAME, inverted, map_of, oriented_place, roughly_placed
from imgsearch.images.resemblance import Small
from tests.images.test_compare import scene
from tests.images.test_overlay import WHOLE, light
from tests.images.test_resemblance import small

BOX = (96, 36, 432, 324)  # Of 480 x 360.
PLACE = (0.2, 0.1, 0.9, 0.9)


def at(matrix: npt.NDArray[np.float64], x: float, y: float) -> tuple[float, float]:
    across, down = (matrix @ (x, y, 1)).tolist()
    return across, down


@pytest.mark.parametrize("seed", range(6))
def test_a_part_of_a_small_picture_is_found_from_roughly_where_it_is(seed: int) -> None:
    whole, part = light(scene(seed)), light(scene(seed).crop(BOX))
    rough = map_of((0.17, 0.12, 0.93, 0.89))
    found = roughly_placed(whole, part, rough)
    assert found is not None
    assert found[1] > SAME
    assert np.abs(found[0] - map_of(PLACE)).max() < 0.02
    back = roughly_placed(part, whole, inverted(rough))
    assert back is not None
    assert np.abs(inverted(back[0]) - map_of(PLACE)).max() < 0.02


def test_another_picture_has_no_place_or_other_details() -> None:
    pictures = [light(scene(seed)) for seed in range(8)]
    for row, one in enumerate(pictures):
        for other in pictures[:row]:
            found = roughly_placed(one, other, map_of(WHOLE))
            assert found is None or found[1] < SAME


@pytest.mark.parametrize("way", range(ORIENTATIONS))
def test_the_place_of_a_part_in_any_orientation_is_that_of_its_own_points(way: int) -> None:
    whole, part = small(scene(2)), small(scene(2).crop(BOX))
    copy = Small(np.ascontiguousarray(oriented(part.light, inverse(way))), part.width, part.height)
    is_mirrored = way in MIRRORED
    found = oriented_place(whole, copy, way, mirrored=is_mirrored)
    assert found is not None
    assert np.linalg.det(found[:, :2]) > 0
    x, y = at(orientation_map(way), 0.3, 0.8)
    own = (0.7 if is_mirrored else 0.3), 0.8
    assert at(found, *own) == pytest.approx(at(map_of(PLACE), x, y), abs=0.02)


@pytest.mark.parametrize("way", range(ORIENTATIONS))
def test_the_map_of_an_orientation_tells_where_each_pixel_goes(way: int) -> None:
    picture = np.arange(16).reshape(4, 4)
    turned = oriented(picture, way)
    for row in range(4):
        for column in range(4):
            x, y = at(orientation_map(way), (column + 0.5) / 4, (row + 0.5) / 4)
            assert turned[int(4 * y), int(4 * x)] == picture[row, column]
