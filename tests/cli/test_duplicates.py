"""`imgsearch duplicates`."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import json
import re
import shutil
from collections.abc import Callable
from html import unescape
from pathlib import Path

import pytest
from click.testing import Result

from imgsearch.collection import Collection
from imgsearch.maintenance import discard
from imgsearch.maintenance import duplicates as finding
from tests.images.test_compare import scene
from tests.support.embedding_here import decoders_here

Invoke = Callable[..., Result]


@pytest.fixture(autouse=True)
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compare in this process."""
    for module in (discard, finding):
        monkeypatch.setattr(module, "decoders", decoders_here)


@pytest.fixture(scope="module")
def _saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved")
    for seed in range(4):
        scene(seed).save(folder / f"{seed}.png")
    scene(1).resize((240, 180)).save(folder / "1 small.jpg")
    shutil.copy(folder / "2.png", folder / "2 again.png")
    return folder


@pytest.fixture
def folder(_saved: Path, tmp_path: Path) -> Path:
    """Four scenes, a smaller copy of one, and an exact one of another."""
    return shutil.copytree(_saved, tmp_path / "photos")


@pytest.fixture
def directory(empty: Path, folder: Path, here: None) -> Path:
    del here
    with Collection.open(empty, device="cpu") as collection:
        collection.index([folder])
    return empty


def test_groups_are_shown_the_one_to_be_kept_first(
    invoke: Invoke, directory: Path, folder: Path
) -> None:
    result = invoke("-c", directory, "duplicates")
    assert result.exit_code == 0
    groups = [group.splitlines() for group in result.stdout.split("\n\n")]
    assert sorted(len(group) for group in groups) == [2, 2]
    for keep, other in groups:
        assert keep.startswith("keep")
        assert "480 x 360" in keep
        assert other.startswith("    ")
    assert f"{folder}/1 small.jpg" in result.stdout
    assert "exact" in result.stdout
    assert result.stderr.startswith("6 images: 2 groups with 2 copies of ")


def test_json_has_all_there_is_to_know(invoke: Invoke, directory: Path, folder: Path) -> None:
    said = json.loads(invoke("-c", directory, "duplicates", "--json").stdout)
    assert (said["collection"], said["images"], said["unreadable"]) == (str(directory), 6, [])
    by_name = {Path(group["keep"]["path"]).name: group["others"] for group in said["groups"]}
    (small,) = by_name["1.png"]
    assert small["path"] == f"{folder}/1 small.jpg"
    assert (small["width"], small["height"], small["exact"]) == (240, 180, False)
    assert 0.8 < small["similarity"] <= 1
    assert len(small["digest"]) == 64


def copy_of_2(folder: Path, page: str) -> str:
    """Return which of two files with the same content is the copy."""
    kept = ">keep <a" in page and f'title="{folder}/2 again.png">2 again.png</a> (' in page
    return f"{folder}/2.png" if kept else f"{folder}/2 again.png"


@pytest.mark.whole("test_json_has_all_there_is_to_know")
def test_a_page_shows_the_pairs_and_lists_what_to_discard(
    invoke: Invoke, directory: Path, folder: Path, tmp_path: Path
) -> None:
    result = invoke("-c", directory, "duplicates", "--html", tmp_path / "copies.html")
    assert "wrote " in result.stderr
    page = (tmp_path / "copies.html").read_text()
    assert page.count("<figure>") == 4
    assert page.count("data:image/jpeg") == 4
    assert page.count(">keep <a") == 2
    boxes = re.findall(r"<input [^>]*data-path=\"([^\"]*)\" checked>", page)
    listed = {json.loads(unescape(box)) for box in boxes}
    assert listed == {f"{folder}/1 small.jpg", copy_of_2(folder, page)}
    (script,) = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"; script-src 'sha256-{digest}'" in page


def test_csv_has_a_row_for_each_image(invoke: Invoke, directory: Path, folder: Path) -> None:
    result = invoke("-c", directory, "duplicates", "--csv")
    rows = list(csv.DictReader(io.StringIO(result.stdout)))
    assert [(row["group"], row["role"]) for row in rows] == [
        *(("1", "keep"), ("1", "copy"), ("2", "keep"), ("2", "copy"))
    ]
    by_path = {row["path"]: row for row in rows}
    small = by_path[f"{folder}/1 small.jpg"]
    assert (small["kind"], small["width"], small["height"]) == ("resized", "240", "180")


@pytest.mark.usefixtures("trash")
def test_only_listed_files_that_are_copies_are_discarded(
    invoke: Invoke, directory: Path, folder: Path, tmp_path: Path
) -> None:
    listed = [folder / "1 small.jpg", folder / "1.png", folder / "3.png", folder / "nothing"]
    (tmp_path / "list").write_text("".join(f"{json.dumps(str(path))}\n" for path in listed))
    result = invoke("-c", directory, "duplicates", "--apply", tmp_path / "list")
    assert "pass --yes" in result.stderr
    result = invoke("-c", directory, "duplicates", "--apply", tmp_path / "list", "--yes")
    assert result.exit_code == 3
    assert "moved 1 file of " in result.stderr
    for path in listed[1:]:
        assert f"{path} is not a copy of any image; it was left unchanged" in result.stderr
    assert {path.name for path in folder.iterdir()} == {
        *("0.png", "1.png", "2.png", "2 again.png", "3.png")
    }


def test_of_a_list_only_what_still_is_a_copy_is_discarded(
    invoke: Invoke, directory: Path, folder: Path, tmp_path: Path
) -> None:
    small = folder / "1 small.jpg"
    (tmp_path / "list").write_text(f"{small}\n")
    scene(5).save(small)
    arguments = "duplicates", "--apply", tmp_path / "list", "--delete-forever", "--yes"
    result = invoke("-c", directory, *arguments)
    assert result.exit_code == 3
    assert small.exists()
    invoke("-c", directory, "index")
    assert invoke("-c", directory, *arguments).exit_code == 3
    assert small.exists()
    (tmp_path / "list").write_bytes(b'"not JSON\n')
    result = invoke("-c", directory, *arguments)
    assert (result.exit_code, "is not a list of paths" in result.stderr) == (3, True)


def test_without_copies_the_exit_code_is_1(invoke: Invoke, indexed: Path) -> None:
    result = invoke("-c", indexed, "duplicates")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == "no copies among 40 images\n"


@pytest.mark.whole("test_who_is_asked_decides")
def test_nothing_is_done_without_a_confirmation(
    invoke: Invoke, directory: Path, folder: Path
) -> None:
    for option in ("--delete", "--delete-forever", "--link"):
        result = invoke("-c", directory, "duplicates", option)
        assert result.exit_code == 2
        assert "pass --yes" in result.stderr
    assert invoke("-c", directory, "duplicates", "--delete", "--link", "--yes").exit_code == 2
    assert len(list(folder.iterdir())) == 6


@pytest.mark.few(2)
@pytest.mark.parametrize(("answer", "left"), [("y\n", 4), ("n\n", 6), ("\n", 6)])
@pytest.mark.usefixtures("trash")
def test_who_is_asked_decides(
    invoke: Invoke,
    directory: Path,
    folder: Path,
    answer: str,
    left: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = []

    def confirm(question: str, **_: object) -> bool:
        asked.append(question)
        return answer == "y\n"

    monkeypatch.setattr("click.testing._NamedTextIOWrapper.isatty", lambda _: True)
    monkeypatch.setattr("click.confirm", confirm)
    result = invoke("-c", directory, "duplicates", "--delete")
    assert asked == ["Move 2 files to the trash?"]
    assert result.exit_code == 0
    assert len(list(folder.iterdir())) == left


def test_what_is_deleted_is_in_the_trash_unless_it_is_deleted_forever(
    invoke: Invoke, directory: Path, folder: Path, trash: Path
) -> None:
    (folder / "2 again.png").rename(folder.parent / "2 again.png")
    result = invoke("-c", directory, "duplicates", "--delete", "--yes")
    assert result.exit_code == 3  # the other copy is missing
    assert "moved 1 file of " in result.stderr
    assert [path.name for path in trash.iterdir()] == ["1 small.jpg"]
    (folder.parent / "2 again.png").rename(folder / "2 again.png")
    result = invoke("-c", directory, "duplicates", "--delete-forever", "--yes")
    assert "deleted 1 file of " in result.stderr
    assert [path.name for path in trash.iterdir()] == ["1 small.jpg"]
    assert len(list(folder.iterdir())) == 4


def test_without_a_trash_nothing_is_deleted_and_the_remedy_is_said(
    invoke: Invoke, directory: Path, folder: Path, trash: Path, tmp_path: Path
) -> None:
    (tmp_path / "data").write_text("no folder")
    result = invoke("-c", directory, "duplicates", "--delete", "--yes")
    assert result.exit_code == 3
    assert "cannot be moved to the trash: Not a directory" in result.stderr
    assert "1 other file cannot be moved there, either" in result.stderr
    assert result.stderr.endswith(
        "left unchanged: 2 files; --delete-forever deletes files for which there is no trash\n"
    )
    assert len(list(folder.iterdir())) == 6
    assert not trash.exists()


def test_with_yes_it_is_done(invoke: Invoke, directory: Path, folder: Path) -> None:
    result = invoke("-c", directory, "duplicates", "--link", "--yes")
    assert result.exit_code == 0
    assert "linked 2 files of " in result.stderr
    assert (folder / "1 small.jpg").samefile(folder / "1.png")
    result = invoke("-c", directory, "index")
    assert result.exit_code == 0
    result = invoke("-c", directory, "duplicates", "--delete-forever", "--yes")
    assert result.exit_code == 3
    assert "is the same file as" in result.stderr
    assert len(list(folder.iterdir())) == 6
