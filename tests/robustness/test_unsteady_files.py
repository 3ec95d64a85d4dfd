"""Files that change, grow, vanish or turn into something else while a run reads them."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from imgsearch.collection import Collection
from tests.robustness.test_going_away import run_and_harm
from tests.support.commands import imgsearch_command, run_python
from tests.support.depth import Harm
from tests.support.integrity import check, check_tidy
from tests.support.outcomes import age, did, holds
from tests.support.pictures import picture, save_pictures

IMAGES = 120


def become_a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def become_a_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def become_a_link_to_itself(path: Path) -> None:
    path.unlink()
    path.symlink_to(path)


def become_unlike_an_image(path: Path) -> None:
    path.write_bytes(b"no image any more")


def become_empty(path: Path) -> None:
    path.write_bytes(b"")


def become_half(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def become_another(path: Path) -> None:
    picture(1_000 + int(path.stem)).save(path)


LEFT: list[Callable[[Path], object]] = [
    Path.unlink,
    become_a_folder,
    become_a_pipe,
    become_a_link_to_itself,
    become_empty,
]
LEFT += [become_unlike_an_image, become_half]


@pytest.mark.few(1)
@pytest.mark.parametrize("harmed", [*LEFT, become_another])
def test_an_image_that_is_no_more_between_listing_and_reading_costs_nothing_else(
    empty: Path, tmp_path: Path, harmed: Callable[[Path], object], harm: Harm
) -> None:
    photos = save_pictures(tmp_path / "many", IMAGES)
    age(tmp_path / "many")
    victims = photos[-20:]

    def do_harm() -> None:
        for path in victims:
            harmed(path)

    ended = run_and_harm(tmp_path, do_harm, "-c", empty, "index", tmp_path / "many")
    assert ended.code == 0, ended.err
    assert "Traceback" not in ended.err
    kept = photos if harmed is become_another else photos[:-20]
    assert check(empty).keys() == set(map(str, kept))
    with Collection.open(empty, device="cpu") as collection:
        assert holds(collection, kept)
    harm.done("unsteady files", len(victims))


@pytest.mark.whole("test_an_image_that_is_no_more_between_listing_and_reading_costs_nothing_else")
def test_a_folder_that_becomes_a_file_between_listing_and_reading_costs_nothing_else(
    empty: Path, tmp_path: Path, harm: Harm
) -> None:
    kept = save_pictures(tmp_path / "many" / "a", 80)
    save_pictures(tmp_path / "many" / "b", 40, first=100)

    def do_harm() -> None:
        shutil.rmtree(tmp_path / "many" / "b")
        (tmp_path / "many" / "b").write_bytes(b"a file")

    ended = run_and_harm(tmp_path, do_harm, "-c", empty, "index", tmp_path / "many")
    assert ended.code == 0, ended.err
    assert check(empty).keys() == set(map(str, kept))
    check_tidy(empty)
    harm.done("unsteady files", 40)


@contextmanager
def growing(paths: list[Path]) -> Iterator[None]:
    """Append to files, one after the other, again and again."""
    done = threading.Event()

    def grow() -> None:
        while not done.is_set():
            for path in paths:
                with path.open("ab") as file:
                    file.write(bytes(4_096))

    thread = threading.Thread(target=grow)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


@pytest.mark.whole("test_an_image_that_is_no_more_between_listing_and_reading_costs_nothing_else")
def test_images_that_grow_while_they_are_read_are_never_known_by_what_they_were(
    empty: Path, tmp_path: Path, harm: Harm
) -> None:
    photos = save_pictures(tmp_path / "many", 40)
    age(tmp_path / "many")
    growers = photos[::4]
    command = ["-c", str(empty), "index", str(tmp_path / "many")]
    for _ in range(harm.times(1, 5)):
        with growing(growers):
            ended = run_python(imgsearch_command(*command), cwd=tmp_path)
        assert ended.code == 0, ended.err
        there = check(empty).keys()
        assert there >= set(map(str, photos)) - set(map(str, growers))
        harm.done("unsteady files", len(growers))
    with Collection.open(empty, device="cpu") as collection:
        report = collection.index()
        assert report.failed == 0
        assert sum(did(report).values()) == len(photos)
        assert holds(collection, photos)
        age(tmp_path / "many")
        collection.index()
        assert did(collection.index()) == {"unchanged": len(photos)}
