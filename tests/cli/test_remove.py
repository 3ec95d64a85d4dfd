"""`imgsearch remove`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from click.testing import Result

Invoke = Callable[..., Result]


def test_images_are_taken_out_and_their_files_stay(
    invoke: Invoke, indexed: Path, photos: Path
) -> None:
    one, two = photos / "0003.png", photos / "0004.jpg"
    ended = invoke("-c", indexed, "remove", one, two)
    assert (ended.exit_code, ended.stdout, ended.stderr) == (0, "", "removed 2 images\n")
    assert one.exists()
    found = invoke("-c", indexed, "query", one, "--paths", "-k", "99").stdout.splitlines()
    assert len(found) == 38
    assert {str(one), str(two)}.isdisjoint(found)


def test_a_pattern_may_be_given_and_the_count_be_had_as_json(
    invoke: Invoke, indexed: Path, photos: Path
) -> None:
    ended = invoke("remove", "-c", indexed, "--json", photos.parent / "*/0003.png")
    assert ended.stderr == "removed 1 image\n"
    assert json.loads(ended.stdout) == {"collection": str(indexed), "removed": 1}


def test_what_the_collection_does_not_hold_ends_with_3(invoke: Invoke, indexed: Path) -> None:
    ended = invoke("-c", indexed, "remove", "no\nsuch.jpg")
    assert (ended.exit_code, ended.stdout) == (3, "")
    assert ended.stderr.startswith("imgsearch: no\\nsuch.jpg: ")
    assert len(ended.stderr.splitlines()) == 1
