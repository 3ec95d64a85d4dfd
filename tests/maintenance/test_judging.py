"""What somebody judged not to be copies of one another stays apart."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from imgsearch.collection import Collection
from imgsearch.errors import BusyError, DamagedError, InputError, SettingError
from imgsearch.maintenance import duplicates
from imgsearch.maintenance.copies import Duplicates
from imgsearch.maintenance.damage import Part
from imgsearch.maintenance.duplicates import find_duplicates
from imgsearch.maintenance.judging import forget_not_duplicates, mark_not_duplicates
from imgsearch.maintenance.verify import verify
from imgsearch.storage.files import exclusive
from imgsearch.storage.layout import Layout
from tests.images.test_compare import scene
from tests.support.embedding_here import decoders_here

pytestmark = pytest.mark.usefixtures("here")

ALL = {"0.png", "0 small.jpg", "0 again.jpg"}


@pytest.fixture(autouse=True)
def quickly(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Compare in this process, and what has not been compared before."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "judging"))
    monkeypatch.setattr(duplicates, "decoders", decoders_here)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A scene with two copies."""
    folder = tmp_path / "photos"
    folder.mkdir()
    scene(0).save(folder / "0.png")
    scene(0).save(folder / "0 again.jpg", quality=80)
    scene(0).resize((240, 180)).save(folder / "0 small.jpg")
    return folder


@pytest.fixture
def directory(empty: Path, folder: Path) -> Path:
    index(empty, folder)
    return empty


def index(directory: Path, *folders: Path) -> None:
    with Collection.open(directory, device="cpu") as collection:
        collection.index(folders)


def groups(found: Duplicates) -> list[set[str]]:
    return [
        {Path(copy.path).name for copy in (group.keep, *group.others)} for group in found.groups
    ]


def test_a_judged_pair_is_in_no_group_again_and_the_rest_of_its_group_is(
    directory: Path, folder: Path
) -> None:
    assert groups(find_duplicates(directory)) == [ALL]
    assert mark_not_duplicates(directory, [folder / "0.png", folder / "0 small.jpg"]) == 2
    assert groups(find_duplicates(directory)) == [ALL - {"0 small.jpg"}]
    (folder / "0 small.jpg").rename(folder / "moved.jpg")
    shutil.copy(folder / "0.png", folder / "0 exactly.png")
    index(directory)
    (found,) = groups(find_duplicates(directory))
    assert "moved.jpg" not in found


def test_two_copies_of_one_image_that_were_judged_are_not_in_one_group(
    directory: Path, folder: Path
) -> None:
    mark_not_duplicates(directory, [folder / "0 again.jpg", folder / "0 small.jpg"])
    for group in groups(find_duplicates(directory)):
        assert not {"0 again.jpg", "0 small.jpg"} <= group
    mark_not_duplicates(directory, [folder / name for name in sorted(ALL)])
    assert find_duplicates(directory).groups == ()
    forget_not_duplicates(directory, [folder / "0.png", folder / "0 again.jpg"])
    assert groups(find_duplicates(directory)) == [ALL - {"0 small.jpg"}]


def test_files_of_one_content_stay_if_they_were_judged(directory: Path, folder: Path) -> None:
    same = [folder / "0 small.jpg", folder / "0 small again.jpg"]
    shutil.copy(*same)
    index(directory)
    mark_not_duplicates(directory, same)
    for group in groups(find_duplicates(directory)):
        assert not {path.name for path in same} <= group
    forget_not_duplicates(directory, same)
    assert {path.name for path in same} <= groups(find_duplicates(directory))[0]


def test_what_cannot_be_judged_is_refused_and_nothing_is_remembered(
    directory: Path, folder: Path
) -> None:
    image = folder / "0.png"
    with pytest.raises(SettingError, match="at least two"):
        mark_not_duplicates(directory, [image, image])
    with pytest.raises(InputError, match="has no image there; nothing was changed"):
        mark_not_duplicates(directory, [image, folder / "nowhere.png"])
    scene(3).save(folder / "0 small.jpg")
    with pytest.raises(InputError, match="has changed since it was indexed"):
        mark_not_duplicates(directory, [image, folder / "0 small.jpg"])
    with exclusive(directory), pytest.raises(BusyError):
        mark_not_duplicates(directory, [image, folder / "0 again.jpg"])
    assert not Layout.at(directory).distinct.exists()


def test_damage_to_the_judgements_is_found_and_the_others_are_kept(
    directory: Path, folder: Path
) -> None:
    names = sorted(ALL)
    mark_not_duplicates(directory, [folder / names[0], folder / names[1]])
    mark_not_duplicates(directory, [folder / names[1], folder / names[2]])
    report = verify(directory, sample=0)
    assert (report.damages, report.oddities) == ((), ())
    file = Layout.at(directory).distinct
    content = bytearray(file.read_bytes())
    for at in (0, 50, len(content) // 2, len(content) - 1):
        file.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
        assert [damage.part for damage in verify(directory, sample=0).damages] == [Part.DISTINCT]
        with pytest.raises(DamagedError, match=r"not-duplicates is damaged"):
            find_duplicates(directory)
    report = verify(directory, repair=True, sample=0)
    assert (report.left, len(report.repairs)) == ((), 1)
    (found,) = groups(find_duplicates(directory))
    assert len(found) == 2
    assert not set(names[:2]) <= found


def test_a_link_in_the_place_of_the_judgements_is_replaced_and_not_followed(
    directory: Path, tmp_path: Path
) -> None:
    (tmp_path / "elsewhere").write_text("mine")
    Layout.at(directory).distinct.symlink_to(tmp_path / "elsewhere")
    assert [each.part for each in verify(directory, sample=0).damages] == [Part.DISTINCT]
    assert verify(directory, repair=True, sample=0).left == ()
    assert (tmp_path / "elsewhere").read_text() == "mine"
    assert not Layout.at(directory).distinct.is_symlink()


def test_the_command_remembers_and_forgets(
    invoke: Callable[..., Result], directory: Path, folder: Path
) -> None:
    pair = folder / "0.png", folder / "0 small.jpg"
    result = invoke("-c", directory, "duplicates", "--not-duplicates", *pair)
    assert (result.exit_code, result.stdout) == (0, "")
    assert result.stderr == "remembered: these 2 images are not copies of one another\n"
    assert "0 small.jpg" not in invoke("-c", directory, "duplicates").stdout
    assert invoke("-c", directory, "duplicates", "--forget", *pair).exit_code == 0
    assert "0 small.jpg" in invoke("-c", directory, "duplicates").stdout
    for wrong in (pair, ("--not-duplicates", "--delete", *pair), ("--not-duplicates", pair[0])):
        result = invoke("-c", directory, "duplicates", *wrong)
        assert result.exit_code == 2
