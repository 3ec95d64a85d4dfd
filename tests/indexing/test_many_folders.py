"""Thousands of folders with a few files each: all is accounted for, in little memory."""

from __future__ import annotations

import io
import os
import tracemalloc
from pathlib import Path

import pytest

from imgsearch.collection import Collection
from tests.support.depth import Harm
from tests.support.outcomes import did
from tests.support.pictures import picture

FILES = 4  # in a folder
BRANCHES = 50  # folders in a folder


@pytest.mark.whole("test_a_folder_of_many_files_comes_in_sorted_blocks")
@pytest.mark.usefixtures("here")
def test_many_folders_take_little_memory_and_nothing_is_forgotten(
    collection: Collection, tmp_path: Path, harm: Harm
) -> None:
    count = harm.times(2_000, 50_000, fast=500)
    tree = tmp_path / "tree"
    _fill(tree, count)
    files = FILES * count
    assert did(collection.index(tree)) == {"indexed": files}

    tracemalloc.start()
    assert did(collection.index()) == {"unchanged": files}
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 3_000_000 + 450 * count

    branch = FILES * BRANCHES
    (tree / "0000").rename(tree / "renamed")
    assert did(collection.index()) == {"moved": branch, "unchanged": files - branch}
    (tree / "renamed").rename(tmp_path / "away")
    assert did(collection.index()) == {"unchanged": files - branch, "removed": branch}
    assert collection.remove(tree / "0001") == branch
    assert collection.remove(tree / "000[4-7]/*.png") == 4 * branch
    left = files - 6 * branch
    assert did(collection.index()) == {"unchanged": left, "excluded": 4 * branch}
    assert collection.remove(tree) == left
    assert collection.info().images == 0
    harm.done("folders", count)


def _fill(tree: Path, count: int) -> None:
    """Make folders of 4 images, each with bytes of its own at the end, at which decoders stop."""
    pictures = []
    for seed in range(FILES):
        file = io.BytesIO()
        picture(seed, width=4, height=4).save(file, "PNG")
        pictures.append(file.getvalue())
    for number in range(count):
        folder = tree / f"{number // BRANCHES:04}" / f"{number % BRANCHES:02}"
        folder.mkdir(parents=True)
        for index, content in enumerate(pictures):
            path = folder / f"{FILES * number + index:06}.png"
            path.write_bytes(content + b"%d" % (FILES * number + index))
            os.utime(path, (1_000_000_000 + number, 1_000_000_000 + index))
