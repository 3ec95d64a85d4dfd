"""`imgsearch duplicates`."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from imgsearch.collection import Collection
from tests.images.test_compare import scene

Invoke = Callable[..., Result]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Four scenes, a smaller copy of one, and an exact one of another."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for seed in range(4):
        scene(seed).save(folder / f"{seed}.png")
    scene(1).resize((240, 180)).save(folder / "1 small.jpg")
    shutil.copy(folder / "2.png", folder / "2 again.png")
    return folder


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


def test_a_page_shows_them(invoke: Invoke, directory: Path, tmp_path: Path) -> None:
    result = invoke("-c", directory, "duplicates", "--html", tmp_path / "copies.html")
    assert "wrote " in result.stderr
    page = (tmp_path / "copies.html").read_text()
    assert page.count("<figure>") == 4
    assert page.count("data:image/jpeg") == 4
    assert page.count(">keep <a") == 2
    assert "<script" not in page


def test_without_copies_the_exit_code_is_1(invoke: Invoke, indexed: Path) -> None:
    result = invoke("-c", indexed, "duplicates")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == "no copies among 40 images\n"


def test_nothing_is_done_without_a_confirmation(
    invoke: Invoke, directory: Path, folder: Path
) -> None:
    for option in ("--delete", "--link"):
        result = invoke("-c", directory, "duplicates", option)
        assert result.exit_code == 2
        assert "pass --yes" in result.stderr
    assert invoke("-c", directory, "duplicates", "--delete", "--link", "--yes").exit_code == 2
    assert len(list(folder.iterdir())) == 6


@pytest.mark.parametrize(("answer", "left"), [("y\n", 4), ("n\n", 6), ("\n", 6)])
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
    assert asked == ["Delete 2 files?"]
    assert result.exit_code == 0
    assert len(list(folder.iterdir())) == left


def test_with_yes_it_is_done(invoke: Invoke, directory: Path, folder: Path) -> None:
    result = invoke("-c", directory, "duplicates", "--link", "--yes")
    assert result.exit_code == 0
    assert "linked 2 files of " in result.stderr
    assert (folder / "1 small.jpg").samefile(folder / "1.png")
    result = invoke("-c", directory, "index")
    assert result.exit_code == 0
    result = invoke("-c", directory, "duplicates", "--delete", "--yes")
    assert result.exit_code == 3
    assert "is the same file as" in result.stderr
    assert len(list(folder.iterdir())) == 6
