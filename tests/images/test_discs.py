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
    assert turned_fitting(trials).mean() > 0.95


def test_other_pictures_and_other_angles_do_not_fit() -> None:
    pictures = [small(scene(seed)) for seed in range(12)]
    others = [Turned(one, two, Turn(0.5, 1.0)) for one in pictures for two in pictures]
    assert not turned_fitting(others).any()
    assert len(turned_fitting([])) == 0
