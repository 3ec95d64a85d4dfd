"""Small pictures are laid over the parts of others that they show, many pairs at once."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image, ImageEnhance

from imgsearch.images.compare import EDGE, LUMINANCE
from imgsearch.images.overlay import TRIALS, Trial, fitting
from tests.images.test_compare import scene, squashed

WHOLE = (0.0, 0.0, 1.0, 1.0)


def light(image: Image.Image) -> npt.NDArray[np.uint8]:
    return (squashed(image) @ LUMINANCE).astype(np.uint8)


@pytest.mark.parametrize("share", [0.95, 0.8, 0.65])
def test_parts_fit_from_roughly_where_they_are(share: float) -> None:
    trials, shown = [], []
    for seed in range(TRIALS + 6):
        whole = scene(seed)
        left, top = (1 - share) * (seed % 3) / 2, (1 - share) * (seed % 5) / 4
        box = (480 * left, 360 * top, 480 * (left + share), 360 * (top + share))
        part = ImageEnhance.Brightness(whole.crop(tuple(map(round, box)))).enhance(0.8)  # type: ignore[arg-type]  # four numbers
        place = max(0.0, left - 0.02), top, min(1.0, left + share + 0.01), top + share
        trials.append(Trial(light(whole), light(part), place))
        shown.append((left, top, left + share, top + share))
    found = fitting(trials, 0.4)
    there = [row for row, place in enumerate(found) if place is not None]
    assert len(there) > 0.97 * len(trials)
    errors = np.abs(np.array([found[row] for row in there]) - [shown[row] for row in there])
    assert np.median(errors) < 0.005


def test_other_pictures_and_parts_that_are_too_small_do_not_fit() -> None:
    pictures = [light(scene(seed)) for seed in range(12)]
    others = [Trial(one, other, WHOLE) for one, other in permutations(pictures, 2)]
    assert fitting(others) == [None] * len(others)
    part = light(scene(1).crop((0, 0, 216, 162)))
    trial = Trial(light(scene(1)), part, (0.0, 0.0, 0.45, 0.45))
    assert fitting([trial], 0.4) != [None]
    assert fitting([trial], 0.5) == [None]


def test_pictures_of_one_colour_fit_nowhere_and_no_pairs_need_nothing() -> None:
    grey, one = np.full((EDGE, EDGE), 128, np.uint8), light(scene(1))
    assert fitting([Trial(grey, one, WHOLE), Trial(one, grey, WHOLE)]) == [None, None]
    assert fitting([]) == []
