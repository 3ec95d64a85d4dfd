"""Find copies, and act on them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageEnhance, ImageOps

from imgsearch.collection import Collection
from imgsearch.errors import NoCollectionError, SettingError
from imgsearch.images.fingerprint import Stated, fingerprint_of
from imgsearch.maintenance import candidates, grouping, looks
from imgsearch.maintenance.copies import Duplicates
from imgsearch.maintenance.discard import delete_copies, link_copies
from imgsearch.maintenance.duplicates import find_duplicates
from imgsearch.maintenance.turning import may_be_turned
from imgsearch.storage.fingerprints import Prints, rows_of_bytes, write_prints
from tests.images.test_compare import scene
from tests.support.textures import texture

pytestmark = pytest.mark.usefixtures("here")

WAYS: dict[str, Callable[[Image.Image], Image.Image]] = {
    "small": lambda image: image.resize((240, 180)),
    "crop": lambda image: image.crop((14, 10, 470, 352)),
    "bright": lambda image: ImageEnhance.Brightness(image).enhance(1.15),
}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no test know what another has compared."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten scenes; of the first three, copies made in several ways, and one exact copy."""
    folder = tmp_path_factory.mktemp("scenes")
    (folder / "copies").mkdir(parents=True)
    for seed in range(10):
        scene(seed).save(folder / f"{seed}.png")
    for seed in range(3):
        for name, way in WAYS.items():
            way(scene(seed)).save(folder / "copies" / f"{seed}-{name}.jpg", quality=80)
    shutil.copy(folder / "0.png", folder / "copies" / "0-exact.png")
    return folder


@pytest.fixture
def folder(scenes: Path, tmp_path: Path) -> Path:
    """The scenes, to be changed."""
    return shutil.copytree(scenes, tmp_path / "photos")


@pytest.fixture
def directory(empty: Path, folder: Path) -> Path:
    with Collection.open(empty, device="cpu") as collection:
        collection.index([folder])
    return empty


def names(found: Duplicates) -> dict[str, set[str]]:
    """Return the names of the others by that of the one to be kept."""
    return {
        Path(group.keep.path).name: {Path(copy.path).name for copy in group.others}
        for group in found.groups
    }


EXPECTED = {
    f"{seed}.png": {f"{seed}-{name}.jpg" for name in WAYS}
    | ({"0-exact.png"} if seed == 0 else set())
    for seed in range(3)
}


def test_copies_are_found_and_the_best_is_to_be_kept(directory: Path, folder: Path) -> None:
    told: list[tuple[int, int]] = []
    found = find_duplicates(directory, progress=lambda done, total: told.append((done, total)))
    by_name = names(found)
    # Of two files of one content, either may stand for it.
    if "0-exact.png" in by_name:
        others = by_name.pop("0-exact.png")
        by_name["0.png"] = others - {"0.png"} | {"0-exact.png"}
    assert by_name == EXPECTED
    assert (found.images, found.count, found.unreadable) == (20, 10, ())
    assert told[-1] == (19, 19)
    for group in found.groups:
        assert (group.keep.width, group.keep.height) == (480, 360)
        assert group.keep.exact
        assert group.keep.similarity == pytest.approx(1)
        for copy in group.others:
            assert copy.size == Path(copy.path).stat().st_size
            assert copy.exact == (Path(copy.path).suffix == ".png")
            assert copy.mtime == pytest.approx(Path(copy.path).stat().st_mtime)
    assert found.size == sum(copy.size for group in found.groups for copy in group.others)
    assert len(list(folder.rglob("*.*"))) == 20  # nothing is touched


def test_files_that_differ_in_nothing_that_is_seen_are_found_with_all_their_copies(
    empty: Path, folder: Path
) -> None:
    """One of them stands for the others in the search, also once it is gone."""
    content = (folder / "1.png").read_bytes()
    for number in range(5):
        (folder / f"twin-{number}.png").write_bytes(content + b"%d" % number)
    twins = {f"twin-{number}.png" for number in range(5)} | {"1.png"}
    later = folder / "copies" / "1-bright.jpg"
    away = later.rename(folder.parent / "later.jpg")
    with Collection.open(empty, device="cpu") as collection:
        collection.index([folder])

        def group() -> set[str]:
            (found,) = (
                {keep, *others}
                for keep, others in names(find_duplicates(empty)).items()
                if keep in twins
            )
            return found

        assert group() == twins | {"1-small.jpg", "1-crop.jpg"}
        entries = collection.entries.after(0, 100)  # in the order of their ids
        gone = next(path for path in (Path(each.path) for each in entries) if path.name in twins)
        gone.unlink()
        away.rename(later)
        collection.index([folder])
        assert group() == twins - {gone.name} | {"1-small.jpg", "1-crop.jpg", later.name}


@pytest.mark.whole("test_copies_are_found_and_the_best_is_to_be_kept")
def test_with_lists_the_same_is_found(directory: Path) -> None:
    before = names(find_duplicates(directory))
    with Collection.open(directory, device="cpu") as collection:
        collection.index(nlist=4)
    assert names(find_duplicates(directory)) == before


@pytest.mark.whole("test_copies_are_found_and_the_best_is_to_be_kept")
def test_more_copies_than_are_looked_at_at_first(
    empty: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(candidates, "NEIGHBOURS", 2)
    monkeypatch.setattr(looks, "GLANCES", 40_000)  # three
    monkeypatch.setattr(looks, "INSPECTIONS", 2_500_000)  # four
    monkeypatch.setattr(grouping, "AT_ONCE", 2)
    monkeypatch.setattr(looks, "AT_ONCE", 2)
    (tmp_path / "many").mkdir()
    for number in range(30):
        scene(0).save(tmp_path / "many" / f"{number}.jpg", quality=60 + number)
    scene(1).save(tmp_path / "many" / "other.png")
    with Collection.open(empty, device="cpu") as collection:
        collection.index([tmp_path / "many"])
    (group,) = find_duplicates(empty).groups
    assert len(group.others) == 29


def test_an_empty_collection_and_one_without_copies_have_none(empty: Path, folder: Path) -> None:
    assert find_duplicates(empty) == Duplicates((), 0, ())
    shutil.rmtree(folder / "copies")
    with Collection.open(empty, device="cpu") as collection:
        collection.index([folder])
    assert find_duplicates(empty) == Duplicates((), 10, ())


def test_a_copy_whose_embedding_is_only_just_near_enough_is_found(
    empty: Path, tmp_path: Path
) -> None:
    scene(8).save(tmp_path / "original.png")
    WAYS["bright"](scene(8)).save(tmp_path / "bright.jpg", quality=80)
    with Collection.open(empty, device="cpu") as collection:
        collection.index([tmp_path / "original.png", tmp_path / "bright.jpg"])
    ((copy,),) = (group.others for group in find_duplicates(empty).groups)
    assert 0.75 < copy.similarity < 0.87


def test_what_cannot_be_read_is_told_and_exact_copies_are_found_all_the_same(
    directory: Path, folder: Path
) -> None:
    (folder / "copies" / "1-small.jpg").unlink()
    (folder / "copies" / "1-crop.jpg").write_bytes(b"something else")
    found = find_duplicates(directory)
    reasons = {Path(failure.path).name: failure.reason for failure in found.unreadable}
    assert reasons == {
        "1-small.jpg": "cannot be read: No such file or directory",
        "1-crop.jpg": "has changed since it was indexed",
    }
    assert names(found)["1.png"] == {"1-bright.jpg"}


def test_what_makes_no_sense_is_refused(directory: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="min_similarity"):
        find_duplicates(directory, min_similarity=2)
    with pytest.raises(NoCollectionError):
        find_duplicates(tmp_path / "nothing")


# Acting


def test_copies_are_deleted_and_what_is_kept_stays(directory: Path, folder: Path) -> None:
    found = find_duplicates(directory)
    done = delete_copies(found)
    assert (len(done.done), done.size, done.failures) == (10, found.size, ())
    assert len(list(folder.rglob("*.*"))) == 10
    assert all(Path(group.keep.path).exists() for group in found.groups)
    with Collection.open(directory, device="cpu") as collection:
        collection.index(prune=True)
    assert find_duplicates(directory).groups == ()


@pytest.mark.whole("test_links_take_the_place_of_copies_and_nothing_is_left_over")
def test_copies_are_linked_and_read_the_same(directory: Path, folder: Path) -> None:
    found = find_duplicates(directory)
    done = link_copies(found)
    assert (len(done.done), done.failures) == (10, ())
    assert len(list(folder.rglob("*.*"))) == 20
    assert not list(folder.rglob(".imgsearch-*"))
    for group in found.groups:
        assert all(os.path.samefile(group.keep.path, copy.path) for copy in group.others)
    again = link_copies(found)  # it was said of files that are there no more
    assert again.done == ()
    assert len(again.failures) == 10
    assert len(list(folder.rglob("*.*"))) == 20


def test_nothing_is_touched_that_is_not_what_was_compared(directory: Path, folder: Path) -> None:
    found = find_duplicates(directory)
    by_name = {Path(group.keep.path).name: group for group in found.groups}
    (folder / "1.png").write_bytes(b"changed since")
    (folder / "copies" / "0-crop.jpg").write_bytes(b"changed since")
    outside = folder.parent / "outside.png"
    shutil.move(folder / "2.png", outside)
    (folder / "2.png").symlink_to(outside)
    done = delete_copies(found)
    reasons = {Path(failure.path).name: failure.reason for failure in done.failures}
    for name in ("1-small.jpg", "1-crop.jpg", "1-bright.jpg"):
        assert "which was to be kept, has changed" in reasons[name]
        assert (folder / "copies" / name).exists()
    assert "is a link" in reasons["2-small.jpg"]
    assert (folder / "copies" / "2-crop.jpg").exists()
    assert reasons["0-crop.jpg"] == "has changed since it was indexed"
    assert outside.exists()
    assert len(by_name) == 3


@pytest.mark.whole("test_nothing_is_touched_that_is_not_what_was_compared")
def test_two_names_of_one_file_are_left_alone(directory: Path, folder: Path) -> None:
    found = find_duplicates(directory)
    (group,) = (group for group in found.groups if any(copy.exact for copy in group.others))
    (exact,) = (copy for copy in group.others if copy.exact)
    os.unlink(exact.path)
    os.link(group.keep.path, exact.path)
    done = delete_copies(found)
    (failure,) = done.failures
    assert "is the same file" in failure.reason
    assert Path(exact.path).exists()
    assert folder.exists()


MIRRORED, TURNED = "mirrored", "turned"

#: How a copy is made of a picture, and its kind.
MADE: dict[str, tuple[Callable[[Image.Image], Image.Image], str]] = {
    "lossless": (lambda image: image, "same pixels"),
    "encoded": (lambda image: image, "re-encoded"),
    "smaller": (lambda image: image.resize((300, 225)), "resized"),
    "lit": (lambda image: ImageEnhance.Brightness(image).enhance(1.2), "colour-changed"),
    "grey": (lambda image: image.convert("L"), "colour-changed"),
    "part": (lambda image: image.crop((20, 15, 465, 350)), "cropped"),
    "mirrored": (lambda image: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT), MIRRORED),
    "upside down": (lambda image: image.transpose(Image.Transpose.FLIP_TOP_BOTTOM), MIRRORED),
    "transposed": (lambda image: image.transpose(Image.Transpose.TRANSPOSE), MIRRORED),
    "left": (lambda image: image.transpose(Image.Transpose.ROTATE_90), TURNED),
    "right": (lambda image: image.transpose(Image.Transpose.ROTATE_270), TURNED),
    "half": (lambda image: image.transpose(Image.Transpose.ROTATE_180).resize((400, 300)), TURNED),
}


@pytest.fixture
def made(empty: Path, tmp_path: Path) -> Path:
    """A collection of a scene, its copies of all kinds, and other scenes."""
    folder = tmp_path / "made"
    folder.mkdir()
    scene(3).save(folder / "original.png")
    for name, (change, _) in MADE.items():
        suffix = ".webp" if name == "lossless" else ".jpg"
        options = {"lossless": True} if name == "lossless" else {"quality": 85}
        change(scene(3)).save(folder / f"{name}{suffix}", **options)
    for seed in range(4, 9):
        scene(seed).save(folder / f"{seed}.jpg")
    with Collection.open(empty, device="cpu") as collection:
        collection.index([folder])
    return empty


def test_copies_of_all_kinds_are_found_and_their_kind_is_told(made: Path) -> None:
    found = find_duplicates(made)
    (group,) = found.groups
    assert Path(group.keep.path).stem in ("original", "lossless")
    kinds = {Path(copy.path).stem: copy.kind for copy in group.others}
    expected = {name: kind for name, (_, kind) in MADE.items()}
    expected["original"] = "same pixels"
    del expected[Path(group.keep.path).stem]
    assert kinds == expected
    part = next(copy for copy in group.others if copy.kind == "cropped")
    assert part.share == pytest.approx(445 * 335 / (480 * 360), abs=0.02)


@pytest.mark.whole("test_copies_of_all_kinds_are_found_and_their_kind_is_told")
def test_mirrored_and_turned_copies_stay_unless_their_deletion_is_asked_for(
    made: Path, tmp_path: Path
) -> None:
    found = find_duplicates(made)
    turned = {name for name, (_, kind) in MADE.items() if kind in (MIRRORED, TURNED)}
    assert (found.turned, found.count) == (len(turned), len(MADE) - len(turned))
    assert link_copies(found).failures == ()
    there = {path.stem for path in (tmp_path / "made").iterdir()}
    assert there == {*MADE, "original", *"45678"}
    done = delete_copies(found)
    assert len(done.done) <= found.count
    there = {path.stem for path in (tmp_path / "made").iterdir()}
    assert turned < there
    done = delete_copies(find_duplicates(made), turned=True)
    assert {Path(path).stem for path in done.done} >= turned
    there = {path.stem for path in (tmp_path / "made").iterdir()}
    assert not turned & there


@pytest.mark.whole("test_copies_of_all_kinds_are_found_and_their_kind_is_told")
def test_a_mirrored_picture_with_another_detail_is_no_copy(empty: Path, tmp_path: Path) -> None:
    folder = tmp_path / "changed"
    folder.mkdir()
    scene(3).save(folder / "original.png")
    other = scene(3).transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    ImageDraw.Draw(other).rectangle((200, 150, 240, 180), fill="red")
    other.save(folder / "mirrored.png")
    with Collection.open(empty, device="cpu") as collection:
        collection.index([folder])
    assert find_duplicates(empty).groups == ()


@pytest.mark.whole("test_copies_are_found_and_the_best_is_to_be_kept")
def test_candidates_are_found_without_decoding_a_file(
    made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(looks.Looks, "_glance", None)
    assert find_duplicates(made).groups


def captioned(image: Image.Image) -> Image.Image:
    found = Image.new("RGB", (image.width, image.height + 50), "white")
    found.paste(image, (0, 0))
    ImageDraw.Draw(found).text((20, image.height + 5), "a caption", fill="black", font_size=30)
    return found


RELATED: dict[str, Callable[[Image.Image], Image.Image]] = {
    "cropped": lambda image: image.crop((120, 60, 390, 262)),
    "turned": lambda image: image.rotate(33, Image.Resampling.BICUBIC, expand=True),
    "framed": lambda image: ImageOps.expand(image, 30, fill="white"),
    "captioned": captioned,
}


@pytest.fixture
def related(empty: Path, tmp_path: Path) -> Path:
    """A collection of a picture, a part of it, and three that have something of their own."""
    folder = tmp_path / "related"
    folder.mkdir()
    original = texture(1, width=480, height=360)
    original.save(folder / "original.jpg", quality=95)
    for name, change in RELATED.items():
        change(original).save(folder / f"{name}.jpg", quality=85)
    for seed in range(2, 5):
        texture(seed, width=480, height=360).save(folder / f"{seed}.jpg")
    with Collection.open(empty, device="cpu") as collection:
        collection.index([folder])
    return empty


def test_parts_and_framed_captioned_and_turned_pictures_are_shown_with_their_original(
    related: Path,
) -> None:
    found = find_duplicates(related, min_similarity=-1)
    (group,) = found.groups
    assert Path(group.keep.path).stem == "original"
    assert {Path(copy.path).stem: copy.kind for copy in group.others} == {
        name: name for name in RELATED
    }
    part, turned = (
        next(copy for copy in group.others if copy.kind == kind) for kind in ("cropped", "turned")
    )
    assert part.share == pytest.approx(270 * 202 / (480 * 360), abs=0.02)
    assert turned.angle == pytest.approx(-33, abs=0.2)


@pytest.mark.whole(
    "test_parts_and_framed_captioned_and_turned_pictures_are_shown_with_their_original"
)
def test_only_a_part_is_ever_deleted_of_those_that_are_more_than_copies(
    related: Path, tmp_path: Path
) -> None:
    found = find_duplicates(related, min_similarity=-1)
    assert {copy.kind for copy in found.groups[0].others if copy.discardable} == {"cropped"}
    assert (found.count, found.related) == (1, len(RELATED) - 1)
    done = delete_copies(found, turned=True)
    assert [Path(path).stem for path in done.done] == ["cropped"]
    there = {path.stem for path in (tmp_path / "related").iterdir()}
    assert there == RELATED.keys() - {"cropped"} | {"original", "2", "3", "4"}


def test_a_mirrored_part_is_shown_with_the_picture_that_has_it(empty: Path, tmp_path: Path) -> None:
    folder = tmp_path / "parts"
    folder.mkdir()
    whole = texture(1, width=480, height=360)
    part = whole.crop((100, 40, 400, 262))
    whole.save(folder / "whole.jpg", quality=95)
    part.save(folder / "part.jpg", quality=90)
    part.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(folder / "mirrored.jpg", quality=85)
    with Collection.open(empty, device="cpu") as collection:
        collection.index([folder])
    for _ in range(2):  # the second run knows the verdicts of the first
        (group,) = find_duplicates(empty, min_similarity=-1).groups
        assert Path(group.keep.path).stem == "whole"
        kinds = {Path(copy.path).stem: copy.kind for copy in group.others}
        assert kinds == {"part": "cropped", "mirrored": "mirrored"}
        (mirrored,) = (copy for copy in group.others if copy.kind == "mirrored")
        assert mirrored.own
        assert not mirrored.discardable


@pytest.fixture(scope="module")
def turned_scenes(tmp_path_factory: pytest.TempPathFactory) -> Prints:
    """Fingerprints of thirty scenes, the even ones upright, each followed by itself turned."""
    folder, rows = tmp_path_factory.mktemp("prints"), []
    for seed in range(15):
        image = scene(seed)
        for picture in (image, image.rotate(20 + 20 * seed, Image.Resampling.BICUBIC, expand=True)):
            square = picture.resize((192, 192), Image.Resampling.BILINEAR)
            rows.append(fingerprint_of(square, Stated(*picture.size)).row)
    file = write_prints(folder, 1, np.arange(30), rows_of_bytes(rows))
    return Prints.open(folder, [file])


def test_pictures_turned_by_any_angle_are_candidates_by_their_rings(turned_scenes: Prints) -> None:
    found = may_be_turned(turned_scenes, frozenset(range(30)), frozenset())
    for one in range(0, 30, 2):
        assert one + 1 in found[one][:3] or one in found[one + 1][:3]
        assert one not in found[one]


def test_known_pictures_are_candidates_for_new_ones_only(turned_scenes: Prints) -> None:
    everything = frozenset(range(30))
    assert may_be_turned(turned_scenes, everything, everything) == {}
    found = may_be_turned(turned_scenes, everything, everything - {4})
    assert list(found) == [4]
    assert found[4] == may_be_turned(turned_scenes, everything, frozenset())[4]
