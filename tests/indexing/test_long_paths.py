"""Paths as long as the system takes them, and longer."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from imgsearch.collection import Collection
from tests.support.commands import Run
from tests.support.depth import Harm
from tests.support.outcomes import age, did, files_in, holds
from tests.support.pictures import picture, save_pictures

PATH_MAX = 4_096  # bytes, of Linux, with the zero at the end
NAME_MAX = 255

pytestmark = pytest.mark.skipif(
    os.pathconf("/", "PC_PATH_MAX") != PATH_MAX, reason="paths are limited to other lengths here"
)


@contextmanager
def folder_of_length(top: Path, length: int) -> Iterator[Path]:
    """Make folders below `top`, the last of which has a path of so many bytes, and be in it."""
    before = Path.cwd()
    os.chdir(top)
    left = length - len(os.fsencode(top))
    while left:
        # Of 1 byte at least, and never so long that a slash alone is left.
        name = "d" * min(left - 1, NAME_MAX if left - 1 - NAME_MAX != 1 else NAME_MAX - 1)
        os.mkdir(name)
        os.chdir(name)
        left -= 1 + len(name)
    try:
        yield Path.cwd()
    finally:
        os.chdir(before)


def save_here(name: str, seed: int) -> None:
    picture(seed).save(name)
    os.utime(name, (1_000_000_000 + seed, 1_000_000_000 + seed))


@pytest.mark.whole("test_names_of_255_bytes_are_names")
@pytest.mark.few(1)
@pytest.mark.parametrize("length", [4_000, PATH_MAX - 1])
def test_an_image_at_a_long_path_is_found_moved_and_removed(
    empty: Path, tmp_path: Path, run: Run, length: int, harm: Harm
) -> None:
    tree, new = tmp_path / "tree", tmp_path / "neu!"
    save_pictures(tree, 2)
    age(tree)
    with folder_of_length(tree, length - len("/i.png")) as deep:
        save_here("i.png", 5)
    path = f"{deep}/i.png"
    assert len(os.fsencode(path)) == length
    assert " 3 indexed" in run("-c", empty, "index", tree).err
    asked = run("-c", empty, "query", path, "-k", "1", "--include-self", "--json")
    assert json.loads(asked.out)["hits"][0]["path"] == path
    assert run("-c", empty, "query", path, "-k", "1", "--include-self", "-0").out == f"{path}\0"
    assert path in run("-c", empty, "query", path, "-k", "1", "--include-self").out
    tree.rename(new)
    assert " 3 unchanged" in run("-c", empty, "index", "--moved", tree, new).err
    path = path.replace(str(tree), str(new))
    assert run("-c", empty, "query", path, "-k", "1", "--include-self", "-0").out == f"{path}\0"
    assert "removed 1 image\n" in run("-c", empty, "remove", path).err
    assert path not in run("-c", empty, "query", new / "0000.jpg", "-0").out
    harm.done("long paths")


@pytest.mark.usefixtures("here")
def test_what_is_beyond_the_longest_path_is_reported_and_loses_nothing(
    collection: Collection, tmp_path: Path, harm: Harm
) -> None:
    tree = tmp_path / "tree"
    save_pictures(tree, 4)
    age(tree)
    assert did(collection.index(tree)) == {"indexed": 4}
    with folder_of_length(tree, PATH_MAX - len("/12.png")) as deep:
        save_here("1.png", 5)  # of 4,095 bytes, the longest
        save_here("12.png", 6)
        os.mkdir("folder")
        save_here("folder/3.png", 7)
    for _ in range(2):
        report = collection.index()
        assert report.found == 6
        assert [failure.path for failure in report.failures] == [f"{deep}/12.png"]
        assert [failure.path for failure in report.unreadable] == [f"{deep}/folder"]
        for failure in (*report.failures, *report.unreadable):
            assert failure.reason.startswith("its path is too long")
    assert holds(collection, [*tree.glob("*g"), deep / "1.png"])
    shutil.rmtree(tree / deep.relative_to(tree).parts[0])
    assert did(collection.index()) == {"unchanged": 4, "removed": 1}
    harm.done("long paths", 2)


@pytest.mark.usefixtures("here")
def test_names_of_255_bytes_are_names(collection: Collection, tmp_path: Path, harm: Harm) -> None:
    tree = tmp_path / "tree"
    long = tree / ("ö" * 127 + "f") / ("ü" * 125 + "x.png")
    long.parent.mkdir(parents=True)
    picture(1).save(long)
    save_pictures(tree, 3, first=10)
    age(tree)
    assert did(collection.index(tree)) == {"indexed": 4}
    assert holds(collection, files_in(tree))
    assert collection.remove(long) == 1
    assert did(collection.index()) == {"unchanged": 3, "excluded": 1}
    harm.done("long paths")
