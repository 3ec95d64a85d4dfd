"""Hits are looked at: which show the same object, and which are the same picture?"""

from __future__ import annotations

import builtins
import io
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw

from imgsearch.collection import Collection
from imgsearch.errors import ImageError, InputError, PackageError, SettingError
from imgsearch.indexing.policy import FoldPolicy
from imgsearch.querying.looking import order_verified
from tests.support.commands import Run
from tests.support.textures import texture

PICTURES = 8


@pytest.fixture(scope="module")
def _saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved")
    for seed in range(PICTURES):
        texture(seed).save(folder / f"{seed:02}.png")
    texture(0).save(folder / "00 encoded.jpg", quality=80)
    texture(0).resize((240, 180)).save(folder / "00 small.png")
    shot = texture(0)
    ImageDraw.Draw(shot).rectangle((120, 90, 170, 130), "white")
    shot.save(folder / "00 other shot.png")
    (folder / "00 the same.png").write_bytes((folder / "00.png").read_bytes())
    return folder


@pytest.fixture
def folder(_saved: Path, tmp_path: Path) -> Path:
    """A folder of 8 pictures; of the first, there are three versions and another shot."""
    return shutil.copytree(_saved, tmp_path / "textures")


@pytest.fixture
def textures(collection: Collection, folder: Path) -> Collection:
    collection.index([folder])
    return collection


def test_a_part_of_a_picture_finds_the_picture_first(textures: Collection) -> None:
    query = texture(5).crop((150, 20, 300, 160))
    plain = textures.query(query, k=20)
    assert plain[0].path[-6:] != "05.png"
    assert all(hit.inliers is None for hit in plain)
    verified = textures.query(query, k=20, verify=True)
    first, *others = verified
    assert first.path.endswith("05.png")
    assert first.inliers is not None
    assert first.inliers > 20
    assert first.band == "same thing"
    assert {hit.inliers for hit in others} == {0}
    assert [hit.id for hit in others] == [hit.id for hit in plain if hit.id != first.id]
    assert [hit.rank for hit in verified] == list(range(1, len(verified) + 1))


def test_hits_to_verify_are_the_nearest_by_cosine_whatever_the_ranking(
    collection: Collection, folder: Path
) -> None:
    collection.index([folder], policy=FoldPolicy(ranked_from=5))
    query = texture(5).crop((150, 20, 300, 160))
    assert all(hit.score is not None for hit in collection.query(query, k=20))
    verified = collection.query(query, k=20, verify=True)
    assert all(hit.score is None for hit in verified)
    by_cosine = [hit.id for hit in collection.query(query, k=20, rank="cosine")]
    rest = [hit.id for hit in verified if not hit.inliers]
    assert rest == [id_ for id_ in by_cosine if id_ in rest]


@pytest.mark.whole("test_a_part_of_a_picture_finds_the_picture_first")
def test_a_hit_beyond_k_comes_first_if_it_shows_the_very_thing(textures: Collection) -> None:
    query = texture(5).crop((150, 20, 300, 160)).transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    (hit,) = textures.query(query, k=1, verify=True)
    assert hit.path.endswith("05.png")


@pytest.mark.whole("test_a_part_of_a_picture_finds_the_picture_first")
def test_what_shows_the_very_thing_is_shown_whatever_its_cosine_means(
    collection: Collection, folder: Path
) -> None:
    collection.index([folder], policy=FoldPolicy(ranked_from=5))
    query = texture(5).crop((150, 20, 300, 160))
    (answer,) = collection.answer([query], k=3, verify=True, min_band="same thing")
    assert answer.hits[0].path.endswith("05.png")


@pytest.mark.few(1)
@pytest.mark.parametrize("kind", ["path", "file", "pixels"])
def test_a_query_of_any_kind_is_verified(kind: str, textures: Collection, tmp_path: Path) -> None:
    picture = texture(5).rotate(20)
    picture.save(tmp_path / "query.png")
    content = (tmp_path / "query.png").read_bytes()
    queries: dict[str, Any] = {
        "path": tmp_path / "query.png",
        "file": io.BytesIO(content),
        "pixels": np.asarray(picture),
    }
    hit = textures.query(queries[kind], k=1, verify=True)[0]
    assert hit.path.endswith("05.png")


@pytest.mark.whole("test_a_part_of_a_picture_finds_the_picture_first")
def test_files_that_are_gone_or_broken_or_have_changed_are_not_verified(
    textures: Collection, folder: Path
) -> None:
    (folder / "05.png").unlink()
    (folder / "06.png").write_bytes(b"something else")
    texture(9).save(folder / "07.png")
    for seed in (5, 6, 7):
        hits = textures.query(texture(seed), k=30, verify=True, fold=True)
        assert {hit.inliers for hit in hits} == {0}
        assert len(hits) >= PICTURES


def test_versions_of_a_picture_are_one_hit_and_another_shot_is_not(textures: Collection) -> None:
    hits = textures.query(texture(0), k=20, fold=True)
    first = next(hit for hit in hits if hit.copies)
    assert first.copies is not None
    names = {Path(hit.path).name for hit in (first, *first.copies)}
    assert names == {"00.png", "00 encoded.jpg", "00 small.png", "00 the same.png"}
    alone = {Path(hit.path).name for hit in hits if not hit.copies}
    assert alone == {"00 other shot.png", *(f"{seed:02}.png" for seed in range(1, PICTURES))}
    assert [hit.rank for hit in hits] == list(range(1, len(hits) + 1))


@pytest.mark.whole("test_versions_of_a_picture_are_one_hit_and_another_shot_is_not")
def test_versions_are_folded_although_the_file_of_the_first_is_gone(
    textures: Collection, folder: Path
) -> None:
    for name in ("00.png", "00 the same.png"):
        (folder / name).rename(folder / f"{name}.away")
    hits = textures.query(texture(0), k=20, fold=True)
    assert len(hits) == PICTURES + 2
    (copies,) = (hit.copies for hit in hits if "encoded" in hit.path or "small" in hit.path)
    assert len(copies or ()) == 1
    for name in ("00.png", "00 the same.png"):
        (folder / f"{name}.away").rename(folder / name)
    hits = textures.query(texture(0), k=20, fold=True)
    assert len(hits) == PICTURES + 1  # what could not be compared before is compared now


def test_as_many_pictures_are_shown_as_are_asked_for(textures: Collection) -> None:
    hits = textures.query(texture(0), k=5, fold=True)
    assert len(hits) == 5
    assert sum(len(hit.copies or ()) for hit in hits) == 3


@pytest.mark.whole("test_versions_of_a_picture_are_one_hit_and_another_shot_is_not")
def test_the_band_of_a_version_of_the_query_is_same_picture(textures: Collection) -> None:
    for options in ({"fold": True}, {"verify": True}):
        hits = textures.query(texture(0), k=20, **options)  # type: ignore[arg-type]  # a dict
        same = {Path(hit.path).name for hit in hits if hit.band == "same picture"}
        same |= {Path(copy.path).name for hit in hits for copy in hit.copies or ()}
        assert same == {"00.png", "00 encoded.jpg", "00 small.png", "00 the same.png"}


def test_what_is_not_an_image_cannot_be_verified(textures: Collection, folder: Path) -> None:
    embedding = textures.embed([folder / "01.png"])[0]
    with pytest.raises(InputError, match="an embedding has no pixels"):
        textures.query(embedding, verify=True)
    assert len(textures.query(embedding, k=5, fold=True)) == 5
    with pytest.raises(SettingError, match="verify and fold do not apply to arrays"):
        textures.query_many([embedding], arrays=True, fold=True)
    with pytest.raises(SettingError, match="verify is 'yes'"):
        textures.query(folder / "01.png", verify="yes")  # type: ignore[arg-type]  # on purpose
    with pytest.raises(ImageError):
        textures.query(b"no image", verify=True)


@pytest.mark.whole("test_a_query_of_any_kind_is_verified")
def test_the_command_prints_inliers_and_versions(
    textures: Collection, run: Run, tmp_path: Path
) -> None:
    directory = textures.info().directory
    query = tmp_path / "query.png"
    texture(0).rotate(15).save(query)
    asked = "query", query, "-c", directory, "-k", "4"
    table = run(*asked, "--verify", "--fold")
    assert table.code == 0
    heading, first, *_ = table.out.splitlines()[1:]
    assert heading.split() == ["#", "inliers", "similarity", "band", "path"]
    assert int(first.split()[1]) > 20
    assert first.endswith(" (and 3 more versions)")
    hits = json.loads(run(*asked, "--verify", "--fold", "--json").out)["hits"]
    assert hits[0]["inliers"] == int(first.split()[1])
    assert {len(copy["path"]) > 0 for copy in hits[0]["copies"]} == {True}
    assert "inliers" not in json.loads(run(*asked, "--json").out)["hits"][0]
    rows = run(*asked, "--verify", "--fold", "--csv").out.splitlines()
    assert rows[0].endswith("band,inliers,copies")
    assert rows[1].endswith(f"{hits[0]['inliers']},3")
    page = tmp_path / "page.html"
    assert run(*asked, "--verify", "--fold", "--html", page).code == 0
    assert "(and 3 more versions)" in page.read_text()


@pytest.mark.whole("test_a_part_of_a_picture_finds_the_picture_first")
def test_the_command_verifies_the_part_that_is_searched_for(
    textures: Collection, run: Run, tmp_path: Path
) -> None:
    query, directory = tmp_path / "query.png", textures.info().directory
    pair = Image.new("RGB", (640, 240))
    pair.paste(texture(5), (0, 0))
    pair.paste(texture(6), (320, 0))
    pair.save(query)
    for crop, name in (("0,0,0.5,1", "05.png"), ("0.5,0,1,1", "06.png")):
        found = run(*("query", query, "-c", directory, "--crop", crop, "--verify", "--json"))
        hits = json.loads(found.out)["hits"]
        assert [Path(hit["path"]).name for hit in hits if hit["inliers"]] == [name]


def test_combined_images_are_not_verified(textures: Collection, run: Run, folder: Path) -> None:
    query = "query", folder / "01.png", folder / "02.png", "-c", textures.info().directory
    found = run(*query, "--combine", "--verify")
    assert found.code == 2
    assert "--verify compares one image" in found.err
    assert run(*query, "--combine", "--fold").code == 0


def test_without_opencv_an_error_says_what_to_install(
    textures: Collection, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = builtins.__import__

    def without(name: str, *arguments: Any, **keywords: Any) -> Any:
        if name == "cv2":
            raise ImportError("No module named 'cv2'", name="cv2")
        return real(name, *arguments, **keywords)

    monkeypatch.setattr(builtins, "__import__", without)
    directory = Path(textures.info().directory)
    with (
        Collection.open(directory, device="cpu") as other,
        pytest.raises(PackageError, match="needs OpenCV") as error,
    ):
        other.query(folder / "01.png", verify=True)
    assert error.value.exit_code == 6


def test_an_explanation_tells_where_the_query_lies(textures: Collection, folder: Path) -> None:
    found = textures.explain(texture(5).crop((160, 60, 300, 180)), folder / "05.png")
    assert found.match is not None
    corners = np.array(found.match.hit_outline) * (320, 240)
    assert corners.min(axis=0) == pytest.approx([160, 60], abs=4)
    assert corners.max(axis=0) == pytest.approx([300, 180], abs=4)
    assert textures.explain(texture(5), folder / "06.png").match is None


def test_a_verified_near_copy_comes_before_other_views_of_the_thing() -> None:
    inliers, similarities = [0, 40, 60, 0, 80], [0.99, 0.97, 0.9, 0.85, 0.6]
    assert order_verified(inliers, similarities) == [1, 4, 2, 0, 3]
