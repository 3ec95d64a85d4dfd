"""A drive that goes away in the middle of a run ends it in one line, and costs nothing."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from imgsearch.collection import Collection
from imgsearch.indexing.policy import FoldPolicy
from tests.support.commands import Ended, imgsearch_command, run_python
from tests.support.depth import Harm
from tests.support.drives import Drive, with_drives
from tests.support.injection import begin_with
from tests.support.outcomes import age, files_in, holds
from tests.support.pictures import save_pictures
from tests.support.small_network import make_small_collection

# `imgsearch`, with workers, which commits after every 10 images and after COUNT commits waits until
# the file GO is there. It looks only a few files ahead.
IN_STEPS = f"""
{begin_with(FoldPolicy(commit_files=10, commit_seconds=1_000))}
import time
from pathlib import Path
from imgsearch.cli import main
from imgsearch.embedding import pipeline
from imgsearch.indexing.commit import Batch
count, go = int(sys.argv.pop(1)), Path(sys.argv.pop(1))
pipeline.WINDOW = 4
commit = Batch.commit
def commit_and_wait(self):
    global count
    images = commit(self)
    count -= 1
    while count == 0 and not go.exists():
        go.with_suffix(".reached").touch()
        time.sleep(0.01)
    return images
Batch.commit = commit_and_wait
main()
"""
COMMITS = 4


def run_and_harm(folder: Path, harm: Callable[[], object], *arguments: str | Path) -> Ended:
    """Index, and do harm in the middle of the run."""
    go = folder / "go"
    command = [sys.executable, "-c", IN_STEPS, str(COMMITS), str(go), *map(str, arguments)]
    with subprocess.Popen(
        command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        while not go.with_suffix(".reached").exists():
            assert process.poll() is None, process.stderr and process.stderr.read()
            time.sleep(0.01)
        harm()
        go.touch()
        out, err = process.communicate(timeout=60)
    go.unlink()
    go.with_suffix(".reached").unlink()
    return Ended(process.returncode, out, err)


def imgsearch(folder: Path, *arguments: str | Path) -> Ended:
    return run_python(imgsearch_command(*arguments), cwd=folder)


def ended_in_one_line(ended: Ended, code: int, *words: str | Path) -> None:
    """Check that a run said what it had done, and what went wrong in one line more."""
    *report, error = ended.err.splitlines()
    assert ended.code == code, ended.err
    assert len(report) <= 1, ended.err
    assert all("found:" in line and " 0 failed" in line for line in report), ended.err
    for word in words:
        assert str(word) in error


def make_photos(folder: Path, count: int, first: int) -> None:
    """Save pictures in folders of 10."""
    for number in range(first, first + count, 10):
        save_pictures(folder / f"{number:04}", 10, first=number)
    age(folder)


def holds_all(directory: Path, *tops: Path) -> bool:
    """Tell whether a collection is what an undisturbed run makes of folders."""
    with Collection.open(directory, device="cpu") as collection:
        facts = collection.info()
        assert (facts.failed, facts.skipped, facts.excluded) == (0, 0, 0)
        return holds(collection, files_in(*tops))


def images_in(directory: Path) -> int:
    with Collection.open(directory, device="cpu") as collection:
        return collection.info().images


def a_root(folder: Path) -> None:
    drive = Drive(folder / "drive", folder / "kept")
    drive.plug()
    make_photos(folder / "drive", 100, 0)
    make_photos(folder / "disk", 20, 200)
    made = make_small_collection(folder / "collection")
    roots = folder / "drive", folder / "disk"
    ended = run_and_harm(folder, drive.tear_out, "-c", made, "index", *roots)
    ended_in_one_line(ended, 3, f"{folder / 'drive'} became unavailable during the run")
    images = images_in(made)
    assert 40 + 20 <= images < 120  # what is on the disk was indexed all the same
    answer = imgsearch(folder, "-c", made, "query", next((folder / "disk").rglob("*.jpg")))
    assert answer.code == 0
    ended = imgsearch(folder, "-c", made, "index")
    ended_in_one_line(ended, 3, f"{folder / 'drive'} is empty: its {images - 20} images are kept")
    drive.plug()
    ended = imgsearch(folder, "-c", made, "index")
    assert ended.code == 0, ended.err
    assert f"{120 - images} indexed, {images} unchanged, 0 failed" in ended.err
    assert holds_all(made, *roots)


def a_folder_in_a_root(folder: Path) -> None:
    tree = folder / "tree"
    drive = Drive(tree / "b drive", folder / "kept")
    drive.plug()
    make_photos(tree / "a", 20, 200)
    make_photos(tree / "b drive", 100, 0)
    make_photos(tree / "c", 20, 300)
    made = make_small_collection(folder / "collection")
    ended = run_and_harm(folder, drive.tear_out, "-c", made, "index", tree)
    ended_in_one_line(ended, 3, f"{tree / 'b drive'} became unavailable during the run")
    images = images_in(made)
    assert 40 + 20 <= images < 140
    ended = imgsearch(folder, "-c", made, "index")  # it is known for a drive by now
    ended_in_one_line(ended, 3, f"{tree / 'b drive'} is no longer mounted", "images are kept")
    assert images_in(made) == images
    drive.plug()
    assert imgsearch(folder, "-c", made, "index").code == 0
    assert holds_all(made, tree)


def while_pruning(folder: Path) -> None:
    """What was there when the run began has not been deleted, whatever is asked for."""
    tree = folder / "tree"
    drive = Drive(tree / "b drive", folder / "kept")
    drive.plug()
    make_photos(tree / "b drive", 100, 0)
    made = make_small_collection(folder / "collection")
    assert imgsearch(folder, "-c", made, "index", tree).code == 0
    make_photos(tree / "a", 60, 200)
    ended = run_and_harm(folder, drive.tear_out, "-c", made, "index", "--prune")
    ended_in_one_line(ended, 3, f"{tree / 'b drive'} became unavailable during the run")
    assert images_in(made) == 160
    drive.plug()
    assert holds_all(made, tree)


def the_collection(folder: Path) -> None:
    drive = Drive(folder / "drive", folder / "kept")
    drive.plug()
    make_photos(folder / "photos", 100, 0)
    made = make_small_collection(folder / "drive" / "collection")
    ended = run_and_harm(folder, drive.tear_out, "-c", made, "index", folder / "photos")
    ended_in_one_line(ended, 7, made)
    assert list((folder / "drive").iterdir()) == []  # nothing was written to where it was mounted
    ended = imgsearch(folder, "-c", made, "query", next((folder / "photos").rglob("*.jpg")))
    ended_in_one_line(ended, 3, f"there is no collection at {made}")
    drive.plug()
    assert images_in(made) == 40
    assert imgsearch(folder, "-c", made, "index", folder / "photos").code == 0
    assert holds_all(made, folder / "photos")


@pytest.mark.whole("test_images_on_an_unplugged_drive_are_kept")
@pytest.mark.parametrize("play", [a_root, a_folder_in_a_root, while_pruning, the_collection])
def test_a_drive_torn_out_in_the_middle_of_a_run_costs_nothing(
    play: Callable[[Path], None], tmp_path: Path, harm: Harm
) -> None:
    with_drives(play, tmp_path)
    harm.done("drives torn out")


@pytest.mark.whole("test_images_on_an_unplugged_drive_are_kept")
@pytest.mark.parametrize("place", ["root", "link"])
def test_a_folder_that_is_renamed_in_the_middle_of_a_run_costs_nothing(
    empty: Path, tmp_path: Path, place: str, harm: Harm
) -> None:
    tree, photos = tmp_path / "tree", tmp_path / "elsewhere" / "photos"
    make_photos(photos, 100, 0)
    if place == "root":
        tree = photos
    else:
        tree.mkdir()
        (tree / "link").symlink_to(photos)
    away = photos.with_name("away")
    command = "-c", empty, "index", tree
    ended = run_and_harm(tmp_path, lambda: photos.rename(away), *command)
    gone = tree if place == "root" else tree / "link"
    ended_in_one_line(ended, 3, f"{gone} became unavailable during the run")
    assert 40 <= images_in(empty) < 100
    away.rename(photos)
    assert imgsearch(tmp_path, *command).code == 0
    with Collection.open(empty, device="cpu") as collection:
        assert collection.info().failed == 0
        assert holds(collection, files_in(tree, *tree.glob("link/*")))
    harm.done("drives torn out")
