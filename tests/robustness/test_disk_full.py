"""A disk that is full, or may not be written to or read: one line, its exit code, nothing lost."""

from __future__ import annotations

import resource
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from imgsearch.cli import main
from imgsearch.collection import Collection
from tests.support.commands import Ended, imgsearch_command, run_python
from tests.support.depth import Harm
from tests.support.drives import with_drives
from tests.support.integrity import busily, check
from tests.support.pictures import save_pictures
from tests.support.privileges import ordinary_folder, ordinary_user
from tests.support.small_network import make_small_collection

ROOMS = (0, 8, 24, 40, 60, 80, 110, 150, 200, 280, 400)  # KiB that are left on the disk
FOUND = 30, 60  # images before, and together with those that come


def mount(folder: Path, options: str) -> None:
    command = ["mount", "-t", "tmpfs", "-o", options, "disk", str(folder)]
    subprocess.run(command, check=True, capture_output=True)


def prepare(folder: Path) -> Path:
    """Make a collection of 30 images in lists; return it, beside `photos`, which has 30 more."""
    directory = make_small_collection(folder / "model")
    save_pictures(folder / "photos", FOUND[0])
    with Collection.open(directory, device="cpu") as collection:
        collection.index(folder / "photos", nlist=4)
    save_pictures(folder / "photos", FOUND[1])
    return directory


def one_line(ended: Ended) -> str:
    """Return what a command says that could not write."""
    assert ended.code == 7, ended.err
    (line,) = ended.err.splitlines()
    assert line.startswith("imgsearch: ")
    return line


def check_kept(directory: Path, photos: Path) -> None:
    paths = {str(path) for path in photos.iterdir()}
    names = check(directory).keys()
    assert names <= paths
    assert names >= set(sorted(paths)[: FOUND[0]])


def fill_up(folder: Path) -> None:
    """Index and remove with ever more room on the disk; each time there is enough in the end."""
    (folder / "disk").mkdir()
    mount(folder / "disk", "size=2m")
    model, photos = prepare(folder), folder / "photos"
    rooms = [int(room) for room in (folder / "rooms").read_text().split()]
    ballast, directory = folder / "disk" / "ballast", folder / "disk" / "collection"
    codes = []
    for room in rooms:
        shutil.copytree(model, directory)
        free = shutil.disk_usage(directory).free
        ballast.write_bytes(bytes(max(0, free - 1024 * room)))
        command = busily("-c", directory, "index", photos, "--nlist", "5")
        ended = run_python(command, cwd=folder)
        codes.append(ended.code)
        if ended.code:
            assert str(directory) in one_line(ended)
        check_kept(directory, photos)
        if room == 0:
            remove = imgsearch_command("-c", directory, "remove", photos / "0001.png")
            one_line(run_python(remove, cwd=folder))
            check_kept(directory, photos)
        ballast.unlink()
        again = run_python(command, cwd=folder)
        assert again.code == 0, again.err
        assert len(check(directory)) == FOUND[1]
        shutil.rmtree(directory)
    assert codes[0] == 7
    assert codes == sorted(codes, reverse=True)
    assert codes[-1] == 0


@pytest.mark.whole("test_a_quota_ends_in_one_line_and_loses_nothing")
def test_a_full_disk_ends_in_one_line_and_the_same_command_goes_on_once_there_is_room(
    tmp_path: Path, harm: Harm
) -> None:
    rooms = ROOMS[:: harm.times(5, 1, fast=len(ROOMS) - 1)]
    (tmp_path / "rooms").write_text(" ".join(map(str, rooms)))
    with_drives(fill_up, tmp_path)
    harm.done("full disks", len(rooms) - 1)


def create_on_a_full_disk(folder: Path) -> None:
    disk = folder / "disk"
    disk.mkdir()
    mount(disk, "size=1m")
    (photo,) = save_pictures(folder / "photos", 1)
    command = imgsearch_command("-c", disk / "collection", "index", photo)
    ended = run_python(command, cwd=folder)
    assert ended.code == 7
    assert "model.onnx: No space left on device" in ended.err.splitlines()[-1]
    subprocess.run(["mount", "-o", "remount,size=64m", str(disk)], check=True)
    assert run_python(command, cwd=folder).code == 0
    assert list(check(disk / "collection")) == [str(photo)]


def use_read_only(folder: Path) -> None:
    disk = folder / "disk"
    disk.mkdir()
    mount(disk, "size=4m")
    directory = shutil.copytree(prepare(folder), disk / "collection")
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    photo = folder / "photos" / "0001.png"
    for works in (["query", photo, "-k", "1"], ["info"]):
        ended = run_python(imgsearch_command("-c", directory, *works), cwd=folder)
        assert (ended.code, ended.err) == (0, "")
    for fails in (["index"], ["remove", photo]):
        line = one_line(run_python(imgsearch_command("-c", directory, *fails), cwd=folder))
        assert line == f"imgsearch: cannot lock {directory}: Read-only file system"
    ended = run_python(imgsearch_command("-c", disk / "new", "index", photo), cwd=folder)
    assert (ended.code, len(ended.err.splitlines())) == (7, 2)
    subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)
    assert run_python(imgsearch_command("-c", directory, "index"), cwd=folder).code == 0
    assert len(check(directory)) == FOUND[1]


@pytest.mark.whole("test_a_quota_ends_in_one_line_and_loses_nothing")
@pytest.mark.parametrize("play", [use_read_only, create_on_a_full_disk])
def test_a_disk_that_cannot_be_written_to_ends_in_one_line(
    play: Callable[[Path], None], tmp_path: Path, harm: Harm
) -> None:
    with_drives(play, tmp_path)
    harm.done("full disks" if play is create_on_a_full_disk else "read-only disks")


@pytest.mark.usefixtures("uncovered")
def test_a_quota_ends_in_one_line_and_loses_nothing(tmp_path: Path, harm: Harm) -> None:
    model, photos = prepare(tmp_path), tmp_path / "photos"
    catalog = (model / "catalog.sqlite").stat().st_size
    sizes = [0, 1_000, 4_096, 6_000, 10_000, catalog, catalog + 4_096]
    for size in sizes[:: harm.times(3, 1, fast=7)]:

        def limit(size: int = size) -> None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))

        directory = shutil.copytree(model, tmp_path / f"limited to {size}")
        command = busily("-c", directory, "index", photos, "--nlist", "5")
        ended = run_python(command, cwd=tmp_path, before=limit)
        if ended.code:
            assert str(directory) in one_line(ended)
        check_kept(directory, photos)
        assert run_python(command, cwd=tmp_path).code == 0
        assert len(check(directory)) == FOUND[1]
        harm.done("quotas")


@pytest.mark.few(2)
@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(
    ("victim", "command"),
    [
        (".", "query"),
        (".", "info"),
        (".", "index"),
        ("collection.json", "info"),
        ("catalog.sqlite", "info"),
        ("catalog.sqlite", "index"),
        ("catalog.sqlite", "remove"),
        ("lock", "index"),
        ("lock", "remove"),
        ("model.onnx", "query"),
        ("vectors", "query"),
        ("vectors", "index"),
        ("vectors/*.npy", "query"),
        ("vectors/*.npy", "index"),
        ("segments", "index"),
        ("segments/*.faiss", "query"),
        ("segments/*.faiss", "index"),
    ],
)
def test_what_may_not_be_read_or_written_ends_in_one_line(
    victim: str, command: str, harm: Harm
) -> None:
    with ordinary_folder() as folder:
        folder.chmod(0o777)
        with ordinary_user():
            directory = prepare(folder)
            photo = str(folder / "photos" / "0003.png")
            ways = {
                "query": ["query", photo, "--exact"],
                "index": ["index", str(folder / "photos")],
                "info": ["info"],
            }
            arguments = ["-c", str(directory), *ways.get(command, [command, photo])]
            (path,) = sorted(directory.glob(victim))[:1] if victim != "." else [directory]
            mode = path.stat().st_mode
            path.chmod(0)
            ended = CliRunner().invoke(main, arguments, catch_exceptions=False)
            path.chmod(mode)
            *_, line = ended.stderr.splitlines()
            assert (ended.exit_code, line[:11]) == (7, "imgsearch: ")
            assert str(directory) in line
            assert "traceback" not in ended.stderr.lower()
            check_kept(directory, folder / "photos")
            assert CliRunner().invoke(main, arguments).exit_code == 0
            harm.done("file faults")
