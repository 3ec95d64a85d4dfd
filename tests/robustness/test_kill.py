"""Killed at any moment, nothing committed is lost, and the same command resumes."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from PIL import Image, ImageOps

from imgsearch.storage.catalog import Catalog
from imgsearch.storage.layout import Layout
from tests.support.depth import Harm
from tests.support.integrity import Embeddings, busily, check, check_alike, check_tidy
from tests.support.pictures import save_pictures

IMAGES = 200
FOLDERS = 4

# Takes a folder out and in again, until it is killed.
_IN_AND_OUT = """
from imgsearch import Collection
directory, folder = sys.argv[1:]
with Collection.open(directory, device="cpu") as collection:
    while True:
        collection.index(folder)
        collection.remove(folder)
"""


def take_photos(folder: Path) -> None:
    """Fill four folders with real photos where there are any, else with pictures."""
    source = Path(os.environ.get("IMGSEARCH_DATA", ""), "corel1k", "images")
    photos = sorted(source.glob("*.jpg"))[:IMAGES] if source.is_absolute() else []
    photos = photos or save_pictures(folder.parent / "pictures", IMAGES)
    for number, photo in enumerate(photos):
        place = folder / str(number % FOLDERS) / photo.name
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(photo, place)


class Victim:
    """A collection whose writers are killed, and a folder of photos that changes meanwhile."""

    def __init__(self, directory: Path, photos: Path) -> None:
        self.directory = directory
        self.photos = photos
        self.chance = random.Random(1234)
        self.seconds = 2.0  # within which to kill
        self._nlist = 4

    def index(self) -> list[str]:
        """Return the command that indexes, and trains anew: with another nlist each time."""
        self._nlist = 4 + self._nlist % 9
        return busily("-c", self.directory, "index", self.photos, "--nlist", str(self._nlist))

    def after_changes(self) -> list[str]:
        """Change, move and delete photos; return the command that indexes."""
        photos = sorted(path for path in self.photos.rglob("*.*g") if path.is_file())
        for path in self.chance.sample(photos, 40):
            with Image.open(path) as image:
                ImageOps.mirror(image.convert("RGB")).save(path)
        for path in self.chance.sample(photos, 20):
            path.rename(path.with_name(f"m{path.name}"))
        if len(photos) > IMAGES // 2:
            for path in sorted(self.photos.rglob("m*"))[:2]:
                path.unlink()
        return self.index()

    def in_and_out(self) -> list[str]:
        """Return a command that takes a folder out and in again, without an end."""
        return busily(self.directory, self.photos / "0", code=_IN_AND_OUT)

    def elsewhere(self) -> list[str]:
        """Move all photos; return the command that says so."""
        old, self.photos = self.photos, self.photos.with_name(f"{self.photos.name}+")
        old.rename(self.photos)
        return busily("-c", self.directory, "index", "--moved", old, self.photos)

    def kill(self, command: list[str]) -> bool:
        """Kill a command at some moment; tell whether it was still at work."""
        with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
            time.sleep(self.chance.uniform(0.2, 1.2) * self.seconds)
            workers = psutil.Process(process.pid).children() if process.poll() is None else []
            process.kill()
        _, alive = psutil.wait_procs(workers, timeout=30)
        assert not alive
        killed = process.returncode == -9
        self.seconds *= 1.1 if killed else 0.8  # as fast as this machine is just now
        return killed

    def run(self, command: list[str]) -> None:
        """Run a command to its end."""
        ended = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
        assert ended.returncode == 0, ended.stderr

    def has_moved(self) -> bool:
        """Tell whether the collection knows where the photos are now."""
        catalog = Catalog(Layout(self.directory).catalog)
        roots = catalog.roots()
        catalog.close()
        return all(Path(os.fsdecode(root.path)).is_relative_to(self.photos) for root in roots)

    def lasting(self, embeddings: Embeddings) -> set[str]:
        """Return those images, by their names, that no command may lose."""
        above = len(self.photos.parts)
        names = {"/".join(Path(path).parts[above:]) for path in embeddings}
        kept = {name for name in names if (self.photos / name).exists()}
        return {name for name in kept if not name.startswith("0/")}


@pytest.fixture
def unused(harm: Harm, request: pytest.FixtureRequest) -> Path:
    """An empty collection with MobileNetV2, to be copied; in `make test` with the small network."""
    found: Path = request.getfixturevalue("empty" if harm.fast else "mobilenet_empty")
    return found


@pytest.fixture
def victim(unused: Path, tmp_path: Path) -> Victim:
    take_photos(tmp_path / "photos")
    directory = shutil.copytree(unused, tmp_path / "disturbed")
    return Victim(directory, tmp_path / "photos")


@pytest.mark.whole("test_any_history_of_files_ends_as_a_collection_made_afresh")
def test_killed_at_any_moment_it_loses_nothing_and_ends_as_undisturbed(
    victim: Victim, unused: Path, tmp_path: Path, harm: Harm
) -> None:
    undisturbed = shutil.copytree(unused, tmp_path / "undisturbed")
    ways: list[Callable[[], list[str]]] = [
        victim.index,
        victim.after_changes,
        victim.in_and_out,
        victim.elsewhere,
        victim.index,
    ]
    kills, wanted = 0, harm.times(5, 50, fast=1)
    before: Embeddings = {}
    for attempt in range(3 * wanted):
        command = ways[attempt % len(ways)]()
        lasting = victim.lasting(before)
        killed = victim.kill(command)
        before = check(victim.directory)
        assert victim.lasting(before) >= lasting
        if "--moved" in command and not victim.has_moved():
            victim.run(command)
            before = check(victim.directory)
        kills += killed
        if kills == wanted:
            break
    assert kills == wanted

    for directory in (victim.directory, undisturbed):
        paths = victim.photos / "0", victim.photos
        victim.run(busily("-c", directory, "index", *paths, "--nlist", "8"))
    check_alike(victim.directory, undisturbed)
    assert check(undisturbed).keys() == {str(path) for path in victim.photos.rglob("*.*g")}
    check_tidy(victim.directory)
    harm.done("kills", kills)


@pytest.mark.whole("test_an_unfinished_creation_is_made_anew")
def test_killed_while_it_is_made_a_collection_is_made_by_the_same_command(
    tmp_path: Path, harm: Harm
) -> None:
    photos = save_pictures(tmp_path / "photos", 12)
    victim = Victim(tmp_path / "collection", tmp_path / "photos")
    victim.seconds = 3
    kills = 0
    for _ in range(harm.times(1, 4)):
        kills += victim.kill(victim.index())
        if (victim.directory / "collection.json").exists():
            check(victim.directory)
            shutil.rmtree(victim.directory)
    victim.run(busily("-c", victim.directory, "index", victim.photos, "--nlist", "5"))
    assert check(victim.directory).keys() == set(map(str, photos))
    check_tidy(victim.directory)
    harm.done("kills", kills)
