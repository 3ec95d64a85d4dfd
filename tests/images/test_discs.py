"""Discs of small pictures are laid over others at another angle, many pairs at once."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from imgsearch.images.discs import Turned, turned_fitting
from imgsearch.images.resemblance import Turn
from tests.images.test_compare import scene
from tests.images.test_resemblance import small


@pytest.mark.parametrize("angle", [20, 133, -75])
@pytest.mark.parametrize("scale", [1.0, 0.8])
def test_turned_pictures_fit_from_roughly_their_angle(angle: int, scale: float) -> None:
    trials = []
    for seed in range(66):
        whole = scene(seed)
        copy = whole.rotate(angle, Image.Resampling.BICUBIC)
        left, top = 240 * (1 - scale), 180 * (1 - scale)
        copy = copy.crop((round(left), round(top), round(480 - left), round(360 - top)))
        trials.append(Turned(small(whole), small(copy), Turn(np.radians(angle + 3), scale * 1.03)))
    found = [each for each in turned_fitting(trials) if each is not None]
    assert len(found) > 0.95 * len(trials)
    across, down = scale * np.cos(np.radians(angle)), scale * np.sin(np.radians(angle))
    # From fractions of the copy to those of the picture, both 480 x 360, around their centres.
    linear = np.array([(across, -down * 360 / 480), (down * 480 / 360, across)])
    expected = np.column_stack([linear, 0.5 - linear.sum(axis=1) / 2])
    assert np.median(np.abs(np.array(found) - expected)) < 0.01


def test_other_pictures_and_other_angles_do_not_fit() -> None:
    pictures = [small(scene(seed)) for seed in range(12)]
    others = [Turned(one, two, Turn(0.5, 1.0)) for one in pictures for two in pictures]
    assert turned_fitting(others) == [None] * len(others)
    assert turned_fitting([]) == []
