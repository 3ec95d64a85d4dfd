"""What a file holds beside its picture, and which of two holds more."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
from PIL import Image

from imgsearch.images.agreement import CloseUp
from imgsearch.images.holdings import Holdings, lacks, worth
from imgsearch.images.inspection import MOST_FRAMES, all_frames, frames, inspect, why_not
from tests.images.test_compare import scene

PLAIN = Holdings(400, 300)


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


@pytest.mark.parametrize(
    "more",
    [
        {"raw": True},
        {"frames": 3},
        {"extras": 1},
        {"bits": 16},
        {"lossless": True},
        {"alpha": True},
        {"width": 800, "height": 600},
        {"dated": True},
    ],
)
def test_what_holds_more_is_kept_and_may_not_go(more: dict[str, Any]) -> None:
    richer = replace(PLAIN, **more)
    assert worth(richer) < worth(PLAIN)
    assert lacks(PLAIN, richer)
    assert not lacks(richer, PLAIN)


def test_neither_may_go_if_each_holds_what_the_other_lacks() -> None:
    small = replace(PLAIN, bits=16)
    large = replace(PLAIN, width=800, height=600)
    assert lacks(small, large)
    assert lacks(large, small)


def test_a_raw_never_goes_and_frames_go_only_for_as_many() -> None:
    assert lacks(replace(PLAIN, raw=True), replace(PLAIN, raw=True))
    assert lacks(replace(PLAIN, frames=5), replace(PLAIN, frames=3))
    assert not lacks(replace(PLAIN, frames=3), replace(PLAIN, frames=3))


def test_an_enlarged_picture_holds_no_more_than_it_did() -> None:
    photo = Image.effect_noise((320, 240), 60).resize((640, 480)).convert("RGB")
    photo = photo.resize((320, 240), Image.Resampling.LANCZOS)
    small = saved(photo, "PNG")
    large = saved(photo.resize((640, 480), Image.Resampling.BICUBIC), "JPEG", quality=60)
    one, other = inspect(small, "a.png").held, inspect(large, "b.jpg").held
    assert one.scale == 1
    assert other.scale <= 0.5
    assert worth(one) < worth(other)


def test_depth_and_kind_of_compression_are_read_from_the_file() -> None:
    deep = Image.fromarray(np.arange(300 * 200, dtype=np.uint16).reshape(200, 300))
    held = inspect(saved(deep, "PNG"), "a.png").held
    assert (held.bits, held.lossless, held.colour) == (16, True, False)
    for kind, options, lossless in (
        ("JPEG", {"quality": 70}, False),
        ("WEBP", {"lossless": True}, True),
        ("WEBP", {"quality": 80}, False),
        ("TIFF", {"compression": "tiff_lzw"}, True),
        ("TIFF", {"compression": "jpeg"}, False),
    ):
        held = inspect(saved(scene(1), kind, **options), f"a.{kind.lower()}").held
        assert (held.bits, held.lossless, held.colour) == (8, lossless, True), kind
    quality = inspect(saved(scene(1), "JPEG", quality=70), "a.jpg").held.quality
    assert quality == pytest.approx(70, abs=2)


@pytest.mark.few(1)
@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF", "AVIF"])
def test_frames_are_counted_and_compared(kind: str) -> None:
    first, *rest = [scene(seed).resize((160, 120)) for seed in range(4)]
    several = {"save_all": True, "append_images": rest, "lossless": True}
    changed = {"save_all": True, "append_images": [*rest[:2], scene(9).resize((160, 120))]}
    contents = [
        saved(first, kind, **several),
        saved(first, kind, **{**several, "comment": "x"} if kind == "GIF" else several),
        saved(first, kind, **changed, lossless=True),
        saved(first, kind),
    ]
    seen = [inspect(content, f"a.{kind.lower()}") for content in contents]
    assert [each.held.frames for each in seen] == [4, 4, 4, 1]

    def every(number: int) -> Iterator[CloseUp | None]:
        return all_frames(partial(frames, contents[number]))

    assert why_not(seen[0], seen[1], (every(0), every(1))) == ""
    assert "frames" in why_not(seen[0], seen[1])
    assert "frames" in why_not(seen[0], seen[2], (every(0), every(2)))
    assert "frames" in why_not(seen[3], seen[0], (every(3), every(0)))


@pytest.mark.whole("test_frames_are_counted_and_compared")
def test_more_frames_than_are_compared_are_no_copy_of_as_many() -> None:
    several = [Image.new("L", (40, 30), 3 * number) for number in range(MOST_FRAMES + 1)]

    def agree(count: int) -> bool:
        first, *rest = several[:count]
        content = saved(first, "TIFF", save_all=True, append_images=rest)
        seen = inspect(content, "a.tif")
        assert seen.held.frames == count
        every = (all_frames(partial(frames, content)) for _ in range(2))
        return not why_not(seen, seen, (next(every), next(every)))

    assert agree(MOST_FRAMES)
    assert not agree(MOST_FRAMES + 1)
