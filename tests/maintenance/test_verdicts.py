"""What `duplicates` remembers between runs spares work, and is never trusted beyond that."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from PIL import ImageDraw

from imgsearch.collection import Collection
from imgsearch.images.holdings import Holdings
from imgsearch.images.inspection import Judgement
from imgsearch.maintenance import looks, verdicts
from imgsearch.maintenance.copies import Duplicates
from imgsearch.maintenance.discard import delete_copies
from imgsearch.maintenance.duplicates import find_duplicates
from imgsearch.maintenance.looks import Looks
from imgsearch.maintenance.verdicts import Verdicts
from tests.images.test_compare import scene
from tests.support.outcomes import age

ONE, OTHER, THIRD = (bytes([number]) * 32 for number in range(3))
IS, IS_NOT = Judgement("", "cropped", 0.87), Judgement("the two differ in a detail")
HELD = Holdings(640, 480, frames=3, bits=16, lossless=True, quality=None, scale=0.7, dated=True)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path / "cache"


def filled() -> Path:
    """Save some verdicts; return their file."""
    some = Verdicts()
    some.note_may(ONE, OTHER, IS)
    some.note_may(OTHER, ONE, IS_NOT)
    some.note_held(ONE, HELD)
    some.note_held(OTHER, Holdings(10, 20, quality=80))
    some.save()
    return Path(os.environ["XDG_CACHE_HOME"], "imgsearch", "duplicates", "verdicts")


def is_empty(found: Verdicts) -> bool:
    told = found.may(ONE, OTHER), found.may(OTHER, ONE), found.held(ONE)
    return told == (None, None, None)


def test_what_was_found_is_known_to_the_next_run() -> None:
    path = filled()
    found = Verdicts.load()
    known, other = found.may(ONE, OTHER), found.may(OTHER, ONE)
    assert known == IS
    assert other is not None
    assert other.reason
    assert found.may(ONE, THIRD) is None
    assert (found.held(ONE), found.held(OTHER)) == (HELD, Holdings(10, 20, quality=80))
    assert found.held(THIRD) is None
    assert path.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("at", [0, 30, 60, -1])
def test_a_damaged_file_is_not_believed(at: int) -> None:
    path = filled()
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)
    assert is_empty(Verdicts.load())


@pytest.mark.parametrize("content", [b"", b"imgsearch", b"x" * 5_000])
def test_a_file_that_is_something_else_is_not_believed(content: bytes) -> None:
    filled().write_bytes(content)
    assert is_empty(Verdicts.load())


def test_a_link_a_pipe_and_a_folder_are_not_believed(tmp_path: Path) -> None:
    path = filled()
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    assert is_empty(Verdicts.load())
    path.unlink()
    os.mkfifo(path)
    assert is_empty(Verdicts.load())
    path.unlink()
    path.mkdir()
    assert is_empty(Verdicts.load())
    filled()  # which cannot be written, and nobody is told


def test_verdicts_of_another_comparison_are_not_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    filled()
    monkeypatch.setattr(verdicts, "_version", lambda: b"\1" * 32)
    assert is_empty(Verdicts.load())


def test_what_was_used_stays_when_room_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    filled()
    some = Verdicts.load()
    assert some.may(OTHER, ONE) not in (None, IS)
    some.note_may(ONE, THIRD, IS)
    with monkeypatch.context() as patch:
        patch.setattr(verdicts, "MOST_PAIRS", 2)
        patch.setattr(verdicts, "MOST_FILES", 1)
        some.save()
    found = Verdicts.load()
    assert found.may(OTHER, ONE) not in (None, IS)
    assert found.may(ONE, THIRD) == IS
    assert found.may(ONE, OTHER) is None


# Together with a collection


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for seed in range(3):
        scene(seed).save(folder / f"{seed}.png")
        scene(seed).resize((360, 270)).save(folder / f"{seed}-small.jpg", quality=80)
    other = scene(0)
    ImageDraw.Draw(other).rectangle((100, 100, 180, 160), fill="red")
    other.save(folder / "0-changed.png")
    age(folder)
    return folder


@pytest.fixture
def directory(empty: Path, folder: Path) -> Path:
    with Collection.open(empty, device="cpu") as collection:
        collection.index([folder])
    return empty


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the paths of what is decoded from now on."""
    paths: list[str] = []
    for name in ("_glance", "_inspection"):
        plain = getattr(Looks, name)

        def noted(self: Looks, entry: object, plain: object = plain) -> object:
            paths.append(Path(entry.path).name)  # type: ignore[attr-defined]  # an Entry
            return plain(self, entry)  # type: ignore[operator]  # the method

        monkeypatch.setattr(looks.Looks, name, noted)
    return paths


def names(found: Duplicates) -> dict[str, set[str]]:
    return {
        Path(group.keep.path).name: {Path(copy.path).name for copy in group.others}
        for group in found.groups
    }


EXPECTED = {f"{seed}.png": {f"{seed}-small.jpg"} for seed in range(3)}


def test_a_second_run_decodes_nothing_and_finds_the_same(
    directory: Path, decoded: list[str]
) -> None:
    first = find_duplicates(directory)
    assert names(first) == EXPECTED
    assert decoded
    decoded.clear()
    assert find_duplicates(directory) == first
    assert decoded == []


@pytest.mark.whole("test_a_second_run_decodes_nothing_and_finds_the_same")
def test_a_new_image_is_compared_and_nothing_else_is(
    directory: Path, folder: Path, decoded: list[str]
) -> None:
    find_duplicates(directory)
    scene(1).save(folder / "1-again.jpg", quality=60)
    with Collection.open(directory, device="cpu") as collection:
        collection.index()
    decoded.clear()
    found = names(find_duplicates(directory))
    assert found == {**EXPECTED, "1.png": {"1-small.jpg", "1-again.jpg"}}
    assert not {"2.png", "2-small.jpg"} & set(decoded)


@pytest.mark.whole("test_what_cannot_be_read_is_told_and_exact_copies_are_found_all_the_same")
def test_files_that_have_gone_or_changed_are_noticed_by_the_second_run_too(
    directory: Path, folder: Path
) -> None:
    find_duplicates(directory)
    (folder / "0-small.jpg").unlink()
    (folder / "1-small.jpg").write_bytes(b"something else")
    found = find_duplicates(directory)
    reasons = {Path(failure.path).name: failure.reason for failure in found.unreadable}
    assert reasons == {
        "0-small.jpg": "cannot be read: No such file or directory",
        "1-small.jpg": "has changed since it was indexed",
    }
    assert names(found) == {"2.png": {"2-small.jpg"}}


def test_verdicts_that_somebody_forged_delete_nothing(directory: Path, folder: Path) -> None:
    forged = Verdicts()
    digests = {}
    with Collection.open(directory, device="cpu") as collection:
        for entry in collection.entries.after(0, 100):
            digests[entry.id] = entry.digest
    for one in digests.values():
        forged.note_held(one, Holdings(480, 360))
        for other in digests.values():
            forged.note_may(one, other, IS)
    forged.save()
    found = find_duplicates(directory)
    assert "0-changed.png" in {
        name for keep, others in names(found).items() for name in (keep, *others)
    }
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    done = delete_copies(found)
    gone = {Path(path).name for path in done.done}
    assert gone <= {f"{seed}-small.jpg" for seed in range(3)}
    assert all((folder / name).read_bytes() == before[name] for name in before if name not in gone)


@pytest.mark.whole("test_a_second_run_decodes_nothing_and_finds_the_same")
def test_a_cache_that_cannot_be_written_changes_nothing(
    directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert names(find_duplicates(directory)) == EXPECTED
    shutil.rmtree(tmp_path / "cache", ignore_errors=True)
    assert names(find_duplicates(directory)) == EXPECTED
