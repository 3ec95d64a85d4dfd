"""An explanation tells where the similarity of a query and a hit comes from."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest

from imgsearch.ann.vectors import Vectors
from imgsearch.collection import Collection
from imgsearch.errors import ImageError, InputError, ModelError, NoImageError, SettingError
from imgsearch.images.decode import Pixels
from imgsearch.indexing.policy import FoldPolicy
from imgsearch.querying.explanation import parts_of
from tests.support.foreign_models import harmless_model, put_model
from tests.support.tiny_pictures import content_of, pixels_of


def values_of(pixels: Pixels) -> Vectors:
    """Return the embedding of 4 x 4 pixels before it is normalised, float32 `[4, 4, 3]`."""
    return np.asarray(pixels.astype(np.float32) - np.float32(127.5), np.float32)


def quarters(values: Vectors) -> list[float]:
    """Return the sums of the quarters of float32 `[4, 4, 3]`, row by row."""
    return [float(values[y : y + 2, x : x + 2].sum()) for y in (0, 2) for x in (0, 2)]


def unit(values: Vectors) -> Vectors:
    return np.asarray(values / np.linalg.norm(values), np.float32)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "tiny"
    folder.mkdir()
    for seed in range(80):
        (folder / f"{seed}.png").write_bytes(content_of(seed))
    return folder


@pytest.fixture
def tiny(collection: Collection, folder: Path) -> Collection:
    """A collection of 80 pictures of 4 x 4 pixels, which is too small to know itself."""
    collection.index([folder])
    return collection


def test_the_cells_of_each_image_sum_to_the_cosine(tiny: Collection, folder: Path) -> None:
    for hit in tiny.query(folder / "3.png", k=5):
        found = tiny.explain(folder / "3.png", hit)
        assert found.query_map.shape == found.hit_map.shape == (2, 2)
        assert found.query_map.sum() == pytest.approx(hit.similarity, abs=1e-5)
        assert found.hit_map.sum() == pytest.approx(hit.similarity, abs=1e-5)
        assert found.similarity == pytest.approx(hit.similarity, abs=1e-5)
        assert found.centred == pytest.approx(hit.similarity, abs=1e-5)
        assert (found.id, found.path, found.z, found.band) == (hit.id, hit.path, None, None)


def test_a_cell_contributes_what_its_own_pixels_have_in_common(
    tiny: Collection, folder: Path
) -> None:
    one, other = unit(values_of(pixels_of(3))), unit(values_of(pixels_of(11)))
    found = tiny.explain(folder / "3.png", folder / "11.png")
    assert found.query_map.ravel().tolist() == pytest.approx(quarters(one * other), abs=1e-5)
    assert found.hit_map.ravel().tolist() == pytest.approx(quarters(one * other), abs=1e-5)


def test_in_a_collection_that_knows_itself_they_sum_to_the_centred_cosine(
    collection: Collection, folder: Path
) -> None:
    collection.index([folder], policy=FoldPolicy(ranked_from=5))
    vectors = collection.entries.embeddings([entry.id for entry in collection.entries.after(0, 99)])
    mean = vectors.mean(axis=0)
    for hit in collection.query(folder / "3.png", k=5):
        one = unit(values_of(pixels_of(3))).ravel() - mean
        (own,) = collection.entries.embeddings([hit.id]) - mean
        expected = one @ own / np.linalg.norm(one) / np.linalg.norm(own)
        found = collection.explain(folder / "3.png", hit.id)
        assert found.centred == pytest.approx(float(expected), abs=1e-4)
        assert found.query_map.sum() == pytest.approx(found.centred, abs=1e-5)
        assert found.hit_map.sum() == pytest.approx(found.centred, abs=1e-5)
        assert found.z == pytest.approx(hit.z, abs=1e-3)
        assert found.band == hit.band


def test_a_part_of_the_query_is_explained_as_it_is_searched_for(
    tiny: Collection, folder: Path
) -> None:
    (part,) = tiny.embed([folder / "3.png"], crop=(0, 0, 0.5, 0.5))
    hit = tiny.query(part, k=1)[0]
    found = tiny.explain(folder / "3.png", hit, crop=(0, 0, 0.5, 0.5))
    assert found.similarity == pytest.approx(hit.similarity, abs=1e-5)


def test_a_query_may_be_bytes_or_pixels_and_a_hit_its_path_or_id(
    tiny: Collection, folder: Path
) -> None:
    hit = tiny.query(folder / "3.png", k=1)[0]
    expected = tiny.explain(folder / "3.png", hit)
    for query in (content_of(3), io.BytesIO(content_of(3)), pixels_of(3)):
        found = tiny.explain(query, hit.id)
        assert np.array_equal(found.query_map, expected.query_map)
    for image in (hit.id, hit.path, Path(hit.path)):
        found = tiny.explain(folder / "3.png", image)
        assert np.array_equal(found.query_map, expected.query_map)
        assert np.array_equal(found.hit_map, expected.hit_map)


def test_what_shows_nothing_or_is_not_in_the_collection_is_refused(
    tiny: Collection, folder: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other.png"
    other.write_bytes(content_of(500))
    with pytest.raises(InputError, match="an embedding has no pixels"):
        tiny.explain(np.ones(48, np.float32), 1)
    with pytest.raises(InputError, match=r"other\.png is not in the collection"):
        tiny.explain(folder / "3.png", other)
    with pytest.raises(NoImageError):
        tiny.explain(folder / "3.png", 81)
    with pytest.raises(SettingError):
        tiny.explain(folder / "3.png", 1, crop=(1, 1, 0, 0))


def test_a_hit_whose_file_has_changed_is_not_explained(tiny: Collection, folder: Path) -> None:
    hit = tiny.query(folder / "3.png", k=1)[0]
    Path(hit.path).write_bytes(content_of(500))
    with pytest.raises(ImageError, match="has changed since it was indexed"):
        tiny.explain(folder / "3.png", hit)


def test_the_share_of_a_part_is_that_of_its_positive_cells() -> None:
    contributions = np.zeros((7, 7), np.float32)
    contributions[3, 3], contributions[0, 0], contributions[6, 6] = 3, 1, -5
    first, second, third, *_ = parts_of(contributions)
    assert (first.name, second.name) == ("the centre", "the top left")
    assert [part.share for part in (first, second, third)] == pytest.approx([0.75, 0.25, 0])
    even = parts_of(np.ones((7, 7), np.float32))
    assert [part.share for part in even] == pytest.approx([1 / 9] * 9)


def test_pictures_in_which_nothing_is_alike_have_no_part_that_contributes() -> None:
    assert {part.share for part in parts_of(-np.ones((7, 7), np.float32))} == {0.0}


def test_nobody_can_tell_what_a_foreign_model_sees_even_if_it_is_trusted(
    tiny: Collection, folder: Path
) -> None:
    directory = Path(tiny.info().directory)
    put_model(directory, harmless_model())
    with (
        Collection.open(directory, device="cpu", trust_model=True) as trusted,
        pytest.raises(ModelError, match="was not exported by imgsearch"),
    ):
        trusted.explain(folder / "3.png", 1)
