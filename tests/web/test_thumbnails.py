"""The cache of thumbnails."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from imgsearch.images.render import Thumbnail
from imgsearch.web.thumbnails import Thumbnails

JPEG = b"\xff\xd8" + b"." * 996 + b"\xff\xd9"
MADE = Thumbnail(JPEG, 640, 480)


def digest(number: int) -> bytes:
    return number.to_bytes(32, "big")


def files_in(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def test_what_was_kept_is_found_by_digest_and_size(tmp_path: Path) -> None:
    kept = Thumbnails(tmp_path / "deep" / "cache", 1_000_000)
    assert kept.get(digest(1), 256) is None
    kept.put(digest(1), 256, MADE)
    assert kept.get(digest(1), 256) == MADE
    assert kept.get(digest(1), 512) is kept.get(digest(2), 256) is None
    assert Thumbnails(tmp_path / "deep" / "cache", 1_000_000).get(digest(1), 256) == MADE


def test_those_not_looked_at_the_longest_are_deleted(tmp_path: Path) -> None:
    kept = Thumbnails(tmp_path, 20_000)
    for number in range(15):
        kept.put(digest(number), 256, MADE)
        (path,) = (
            path for path in files_in(tmp_path) if path.name.startswith(digest(number).hex())
        )
        os.utime(path, (number, number))
    assert kept.get(digest(0), 256) == MADE  # looked at just now
    for number in range(15, 30):
        kept.put(digest(number), 256, MADE)
    assert sum(path.stat().st_size for path in files_in(tmp_path)) <= 20_000 * 1.05
    assert kept.get(digest(0), 256) == MADE
    assert kept.get(digest(1), 256) is None
    assert kept.get(digest(29), 256) == MADE


def test_the_limit_holds_for_what_was_there_before(tmp_path: Path) -> None:
    before = Thumbnails(tmp_path, 1_000_000)
    for number in range(50):
        before.put(digest(number), 256, MADE)
    Thumbnails(tmp_path, 5_000).put(digest(50), 256, MADE)
    assert sum(path.stat().st_size for path in files_in(tmp_path)) <= 5_000


@pytest.mark.parametrize("content", [b"", JPEG[:500], JPEG, b"\0" * 1_008])
def test_a_damaged_file_is_as_good_as_none(tmp_path: Path, content: bytes) -> None:
    kept = Thumbnails(tmp_path, 1_000_000)
    kept.put(digest(1), 256, MADE)
    (path,) = files_in(tmp_path)
    path.write_bytes(content)
    assert kept.get(digest(1), 256) is None
    kept.put(digest(1), 256, MADE)
    assert kept.get(digest(1), 256) == MADE


def test_a_folder_that_cannot_be_written_to_costs_nothing_but_time(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    kept = Thumbnails(tmp_path / "file", 1_000_000)
    kept.put(digest(1), 256, MADE)
    assert kept.get(digest(1), 256) is None


def test_many_at_once_leave_nothing_behind(tmp_path: Path) -> None:
    kept = [Thumbnails(tmp_path, 30_000) for _ in range(2)]
    with ThreadPoolExecutor(8) as threads:
        for number in range(200):
            threads.submit(kept[number % 2].put, digest(number // 4), 256, MADE)
    assert not list(tmp_path.rglob("*.tmp"))
    assert sum(path.stat().st_size for path in files_in(tmp_path)) <= 30_000 * 1.2
