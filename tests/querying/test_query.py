"""What queries answer, and which are refused."""

from __future__ import annotations

import io
import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from PIL import Image

from imgsearch.collection import Collection
from imgsearch.errors import ImageError, ImgsearchError, InputError, SettingError
from imgsearch.indexing.report import Progress
from imgsearch.querying.hits import Answer, Search
from imgsearch.querying.options import QueryOptions
from tests.support.depth import examples
from tests.support.pictures import picture, save_pictures
from tests.support.small_network import DIM, random_embeddings


@pytest.fixture(params=["exact", "ivf", "ivf and tail"])
def any_kind(request: pytest.FixtureRequest, opened: Collection, tmp_path: Path) -> Collection:
    """Collections of at least `photos`, searched in each way that there is."""
    if request.param != "exact":
        opened.index(nlist=5)
    if request.param == "ivf and tail":
        leave_a_tail(opened, save_pictures(tmp_path / "tail", 6, first=100))
    return opened


def leave_a_tail(collection: Collection, paths: list[Path]) -> None:
    """Index `paths`, and be interrupted before they are in the index."""

    def interrupt(progress: Progress) -> None:
        if progress.training:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        collection.index(paths, progress=interrupt)
    assert collection.info().tail == len(paths)


def test_a_query_that_includes_itself_returns_the_image_itself_first(
    any_kind: Collection, photos: Path
) -> None:
    for path in photos.iterdir():
        hits = any_kind.query(path, k=3, include_self=True)
        assert (hits[0].path, hits[0].distance, hits[0].similarity) == (str(path), 0, 1)
        assert [hit.rank for hit in hits] == [1, 2, 3]
        assert hits[0].distance < hits[1].distance <= hits[2].distance


def test_hits_agree_with_brute_force(any_kind: Collection) -> None:
    paths = [hit.path for hit in any_kind.query(picture(0), k=100, exact=True)]
    vectors = any_kind.embed(paths)
    query = any_kind.embed([picture(777)])[0]
    hits = any_kind.query(query, k=10, exact=True)
    similarities = dict(zip(paths, vectors @ query, strict=True))
    best = sorted(paths, key=lambda path: -similarities[path])[:10]
    assert [hit.path for hit in hits] == best
    for hit in hits:
        assert hit.similarity == pytest.approx(similarities[hit.path], abs=1e-5)
        assert hit.distance == pytest.approx(np.sqrt(2 - 2 * hit.similarity), abs=1e-3)
    probed = any_kind.query(query, k=10, nprobe=5)
    assert [hit.id for hit in probed] == [hit.id for hit in hits]


def test_a_query_may_be_a_path_an_image_pixels_or_an_embedding(
    opened: Collection, photos: Path
) -> None:
    path = photos / "0003.png"
    with Image.open(path) as image:
        image.load()
    pixels = np.asarray(image)
    embedding = opened.embed([path])[0]
    queries = [path, str(path), image, pixels, embedding, embedding.astype(np.float64)]
    for query in queries:
        (hit,) = opened.query(query, k=1, include_self=True)
        assert (hit.id, hit.path) == (4, str(path))
        assert hit.distance == pytest.approx(0, abs=1e-6)
    answers = opened.query_many(queries, k=3, include_self=True)
    assert [hits[0].id for hits in answers] == [4] * len(queries)


def test_a_query_may_be_the_content_of_an_image_file(opened: Collection, photos: Path) -> None:
    for path in (photos / "0003.png", photos / "0004.jpg"):
        (hit,) = opened.query(path.read_bytes(), k=1)
        assert (hit.path, hit.distance) == (str(path), 0)


def test_grey_pixels_and_pixels_with_alpha_are_images(opened: Collection) -> None:
    grey = np.asarray(picture(3).convert("L"))
    alpha = np.asarray(picture(3).convert("RGBA"))
    assert len(opened.query(grey)) == len(opened.query(alpha)) == 10
    assert opened.query(alpha)[0].path.endswith("0003.png")


def test_a_path_may_begin_with_the_home_directory(
    opened: Collection, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(photos))
    hits = opened.query("~/0003.png", k=2, include_self=True)
    assert hits[0].path == str(photos / "0003.png")
    assert opened.query("~/0003.png", k=1) == [replace(hits[1], rank=1)]


@pytest.mark.usefixtures("several_threads")
def test_many_queries_are_answered_as_each_alone(any_kind: Collection, photos: Path) -> None:
    paths = sorted(photos.iterdir())[:25]
    together = any_kind.query_many(paths, k=4)
    for path, hits in zip(paths, together, strict=True):
        alone = any_kind.query(path, k=4)
        assert [hit.id for hit in hits] == [hit.id for hit in alone]
        for one, other in zip(hits, alone, strict=True):
            assert one.distance == pytest.approx(other.distance, abs=1e-5)


@pytest.mark.usefixtures("several_threads")
def test_a_batch_that_threads_share_is_answered_as_each_alone(any_kind: Collection) -> None:
    embeddings = random_embeddings(200, seed=6)
    together = any_kind.query_many(embeddings, k=4)
    for embedding, hits in zip(embeddings[::9], together[::9], strict=True):
        alone = any_kind.query(embedding, k=4)
        assert [hit.id for hit in hits] == [hit.id for hit in alone]


def test_arrays_hold_what_hits_hold(any_kind: Collection) -> None:
    embeddings = random_embeddings(30, seed=5)
    arrays = any_kind.query_many(embeddings, k=7, arrays=True)
    hits = any_kind.query_many(embeddings, k=7)
    assert arrays.ids.shape == arrays.distances.shape == arrays.similarities.shape == (30, 7)
    assert arrays.ids.dtype == np.int64
    assert arrays.distances.dtype == arrays.similarities.dtype == np.float32
    assert arrays.ids.tolist() == [[hit.id for hit in row] for row in hits]
    assert arrays.distances.tolist() == [[hit.distance for hit in row] for row in hits]
    assert arrays.similarities.tolist() == [[hit.similarity for hit in row] for row in hits]


def test_no_queries_have_no_answers(any_kind: Collection) -> None:
    assert any_kind.query_many([]) == []
    assert any_kind.query_many([], include_self=True) == []
    assert any_kind.query_many([], k=3, arrays=True).ids.shape == (0, 3)


def test_an_empty_collection_finds_nothing(collection: Collection) -> None:
    assert collection.query(picture(1)) == []
    assert collection.query(picture(1), exact=True, include_self=True) == []
    assert collection.query_many([picture(1)], arrays=True).ids.shape == (1, 0)


def test_no_more_hits_than_images(any_kind: Collection) -> None:
    images = any_kind.info().images
    for include_self in (False, True):
        hits = any_kind.query(picture(500), k=1000, include_self=include_self)
        assert len({hit.id for hit in hits}) == len(hits) == images
    arrays = any_kind.query_many([picture(500)], k=1000, arrays=True)
    assert arrays.ids.shape == (1, images)


def test_k_hits_are_found_even_if_the_lists_probed_hold_fewer(ivf: Collection) -> None:
    info = ivf.info()
    assert max(info.list_sizes) < 30
    for include_self in (False, True):
        assert len(ivf.query(picture(500), k=30, include_self=include_self)) == 30


def test_an_nprobe_that_was_asked_for_is_kept_to(ivf: Collection, photos: Path) -> None:
    sizes = ivf.info().list_sizes
    for query in (picture(500), photos / "0003.png"):
        assert len(ivf.query(query, k=40, nprobe=1, include_self=True)) in sizes
        assert len(ivf.query(query, k=40, nprobe=5, include_self=True)) == 40
        assert len(ivf.query(query, k=40, nprobe=500, include_self=True)) == 40
    arrays = ivf.query_many([picture(500)], k=40, nprobe=1, arrays=True)
    missing = arrays.ids[0] < 0
    assert 40 - missing.sum() in sizes
    assert np.isinf(arrays.distances[0, missing]).all()


def test_an_answer_leaves_out_the_own_path_of_its_query_but_not_a_copy_of_it(
    any_kind: Collection, photos: Path, tmp_path: Path
) -> None:
    own = str(photos / "0003.png")
    copy = str(shutil.copy(own, tmp_path / "copy.png"))
    any_kind.index([copy])
    (before, *rest) = any_kind.query(own, k=5)
    assert (before.rank, before.path, before.distance) == (1, copy, 0)
    assert own not in {hit.path for hit in rest}
    assert len(rest) == 4
    both = any_kind.query_many([own, copy, picture(3)], k=2)
    assert [hits[0].path for hits in both[:2]] == [copy, own]
    assert {hit.path for hit in both[2]} == {own, copy}
    arrays = any_kind.query_many([own, picture(3)], k=2, arrays=True)
    assert arrays.ids.tolist() == [[hit.id for hit in both[row]] for row in (0, 2)]


def test_the_own_path_may_be_written_in_any_way(
    opened: Collection, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = photos / "0003.png"
    (tmp_path / "folder").symlink_to(photos)
    (tmp_path / "link.png").symlink_to(own)
    monkeypatch.chdir(photos.parent)
    ways: list[str | Path] = [f"{photos.name}/./0003.png"]
    ways += [tmp_path / "folder" / own.name, tmp_path / "link.png"]
    for way in ways:
        assert str(own) not in [hit.path for hit in opened.query(way, k=40)]
        assert opened.query(way, k=1, include_self=True)[0].path == str(own)


def test_exclude_self_is_the_opposite_of_include_self(opened: Collection, photos: Path) -> None:
    own = photos / "0003.png"
    assert opened.query(own, exclude_self=True) == opened.query(own)
    assert opened.query(own, exclude_self=False) == opened.query(own, include_self=True)
    with pytest.raises(SettingError, match="include_self and exclude_self"):
        opened.query(own, include_self=True, exclude_self=True)


def test_a_collection_of_one_image_finds_nothing_but_it(
    collection: Collection, tmp_path: Path
) -> None:
    (path,) = save_pictures(tmp_path / "one", 1)
    collection.index(path)
    assert collection.query(path) == []
    assert [hit.path for hit in collection.query(path, include_self=True)] == [str(path)]


@pytest.mark.parametrize("nprobe", [1, 2, None])
def test_leaving_oneself_out_works_with_few_lists(
    ivf: Collection, photos: Path, nprobe: int | None
) -> None:
    foreign = picture(500)
    answers = ivf.query_many([photos / "0003.png", foreign], k=40, nprobe=nprobe)
    assert str(photos / "0003.png") not in {hit.path for hit in answers[0]}
    everything = ivf.query(foreign, k=40, nprobe=nprobe)
    assert [hit.id for hit in answers[1]] == [hit.id for hit in everything]


def test_an_answer_tells_how_it_was_searched(any_kind: Collection) -> None:
    promised, exact, probed = (
        any_kind.answer([picture(500)], **options)[0]
        for options in cast(list[QueryOptions], [{}, {"exact": True}, {"nprobe": 2}])
    )
    assert exact.search == Search("exact", 0, 1.0)
    if any_kind.info().ivf is None:
        assert promised.search == probed.search == exact.search
        return
    assert (probed.search.kind, probed.search.nprobe) == ("ivf", 2)
    assert promised.search.recall is None or promised.search.recall >= 0.9
    assert promised.search.kind in ("ivf", "wide", "exact")


def test_answers_hold_the_hits_of_the_queries(any_kind: Collection, photos: Path) -> None:
    paths = sorted(photos.iterdir())[:7]
    answers = any_kind.answer(paths, k=4)
    assert all(isinstance(answer, Answer) for answer in answers)
    assert [list(answer.hits) for answer in answers] == any_kind.query_many(paths, k=4)


def test_a_higher_recall_finds_no_less(ivf: Collection) -> None:
    queries = [picture(seed) for seed in range(500, 530)]
    exact = [{hit.id for hit in hits} for hits in ivf.query_many(queries, exact=True)]
    found = []
    for recall in (0.1, 1.0):
        answers = ivf.query_many(queries, recall=recall)
        found.append(
            sum(
                len({hit.id for hit in hits} & best)
                for hits, best in zip(answers, exact, strict=True)
            )
        )
    assert found[0] <= found[1]


def test_hits_may_have_to_be_similar(any_kind: Collection, photos: Path) -> None:
    query = photos / "0003.png"
    everything = any_kind.query(query, k=100, exact=True, include_self=True)
    for least in (-1, 0.3, 1):
        similar = any_kind.query(query, k=100, exact=True, include_self=True, min_similarity=least)
        assert similar == [hit for hit in everything if hit.similarity >= least - 1e-6]
        assert similar[0].path == str(query)
    assert any_kind.query(picture(500), min_similarity=1) == []


def test_images_may_be_left_out_by_their_paths(any_kind: Collection, photos: Path) -> None:
    one, other, third = sorted(photos.iterdir())[:3]
    everything = any_kind.query(one, k=100, exact=True)
    left = any_kind.query(one, k=100, exact=True, exclude=[[other, str(third), "/no/such.jpg"]])
    assert [hit.path for hit in left] == [
        hit.path for hit in everything if hit.path not in (str(other), str(third))
    ]
    assert [hit.rank for hit in left] == list(range(1, len(everything) - 1))
    both = any_kind.query_many([one, other], k=100, exclude=[[other], []])
    assert {str(one), str(other)}.isdisjoint(hit.path for hit in both[0])
    assert str(one) in {hit.path for hit in both[1]}


def test_images_may_be_left_out_by_their_ids(any_kind: Collection, photos: Path) -> None:
    one, other, third = sorted(photos.iterdir())[:3]
    everything = any_kind.query(one, k=100, exact=True)
    ids = {hit.path: hit.id for hit in everything}
    out: list[list[Any]] = [[np.int64(ids[str(other)]), third, 1 << 62]]
    left = any_kind.query(one, k=100, exact=True, exclude=out)
    assert [hit.path for hit in left] == [
        hit.path for hit in everything if hit.path not in (str(other), str(third))
    ]


@pytest.mark.parametrize("k", [1, 5, 40])
def test_all_images_but_some_may_be_left_out(any_kind: Collection, photos: Path, k: int) -> None:
    some, *most = sorted(photos.iterdir())
    hits = any_kind.query(most[0], k=k, exclude=[most])
    assert hits[0].rank == 1
    assert {str(path) for path in most}.isdisjoint(hit.path for hit in hits)
    if k > 1:
        assert str(some) in {hit.path for hit in hits}


def test_combined_images_find_what_is_like_all_of_them(opened: Collection, photos: Path) -> None:
    one, other = photos / "0003.png", photos / "0004.jpg"
    embedding = opened.combine([one, other])
    assert embedding.shape == (DIM,)
    assert np.linalg.norm(embedding) == pytest.approx(1, abs=1e-6)
    best = opened.query(embedding, k=2)
    assert {hit.path for hit in best} == {str(one), str(other)}
    assert best[0].similarity == pytest.approx(best[1].similarity, abs=1e-5)
    (hit,) = opened.query(embedding, k=1, exclude=[[one, other]])
    assert hit.path not in (str(one), str(other))


def test_what_is_unlike_an_image_is_farther_from_it(opened: Collection, photos: Path) -> None:
    one, other = photos / "0003.png", photos / "0004.jpg"
    liked, away = opened.embed([one])[0], opened.combine([one], unlike=[other])
    unliked = opened.embed([other])[0]
    assert away @ unliked < liked @ unliked
    np.testing.assert_allclose(opened.combine([liked], unlike=[unliked]), away, atol=1e-6)


def test_part_of_an_image_can_be_searched_for(opened: Collection, photos: Path) -> None:
    path = photos / "0003.png"
    with Image.open(path) as image:
        part = image.crop((8, 5, 40, 35))
    for query in (path, str(path), path.read_bytes(), Image.open(path)):
        (embedding,) = opened.embed([query], crop=(8, 5, 40, 35))
        np.testing.assert_array_equal(embedding, opened.embed([part])[0])
    whole = opened.embed([path], crop=(-5, 0, 1, 7))
    np.testing.assert_array_equal(whole, opened.embed([path], crop=(0, 0, 1, 7)))


def kinds_of_pixels(pixels: npt.NDArray[np.uint8]) -> dict[str, Any]:
    """Return the same picture in every way in which pixels may be given."""
    odd = np.zeros((2 * pixels.shape[0], pixels.shape[1], 3), np.uint8)[::2]
    odd[:] = pixels
    read_only = pixels.copy()
    read_only.flags.writeable = False
    return {
        "float32": (pixels / 255).astype(np.float32),
        "big-endian": (pixels / 255).astype(">f8"),
        "int64": pixels.astype(np.int64),
        "not contiguous": odd,
        "read-only": read_only,
        "lists": pixels.tolist(),
        "channels first": np.moveaxis(pixels, -1, 0),
        "a tensor": torch.from_numpy(np.moveaxis(pixels, -1, 0) / np.float32(255)),
        "a tensor with a gradient": torch.tensor(pixels / 255.0, requires_grad=True),
    }


def test_pixels_may_be_given_in_every_way_whose_meaning_is_plain(opened: Collection) -> None:
    pixels = np.asarray(picture(3))
    expected = opened.embed([pixels])
    for kind, query in kinds_of_pixels(pixels).items():
        np.testing.assert_array_equal(opened.embed([query]), expected, err_msg=kind)
    grey = np.asarray(picture(3).convert("L"))
    for query in (grey / 255.0, grey[..., None], torch.from_numpy(grey.copy())):
        np.testing.assert_array_equal(opened.embed([query]), opened.embed([grey]))


def test_an_embedding_may_be_given_in_every_way_whose_meaning_is_plain(opened: Collection) -> None:
    unit = random_embeddings(1, seed=3)[0]
    expected = [hit.id for hit in opened.query(unit, exact=True)]
    ways: list[Any] = [unit * 7, unit.tolist(), tuple(unit.tolist()), unit[None], unit[::-1][::-1]]
    ways += [unit.astype(">f4"), unit.astype(np.float64) * 1e200, torch.from_numpy(unit)]
    ways.append(torch.tensor(unit, requires_grad=True))
    for way in ways:
        assert [hit.id for hit in opened.query(way, exact=True)] == expected
    together = opened.query_many(ways, exact=True)
    assert [[hit.id for hit in hits] for hits in together] == [expected] * len(ways)
    pictures = np.stack([np.asarray(picture(seed)) for seed in (1, 2)])
    np.testing.assert_array_equal(opened.embed(pictures), opened.embed([*pictures]))
    several = torch.from_numpy(random_embeddings(4))
    np.testing.assert_array_equal(opened.embed(cast(Any, several)), random_embeddings(4))


def test_the_content_of_an_image_may_be_any_kind_of_bytes_or_an_open_file(
    opened: Collection, photos: Path
) -> None:
    path = photos / "0003.png"
    content = path.read_bytes()
    for query in (bytearray(content), memoryview(content), io.BytesIO(content)):
        assert opened.query(query, k=1)[0].path == str(path)
    with path.open("rb") as file:
        assert opened.query(file, k=1)[0].path == str(path)


def test_numbers_may_be_those_of_numpy_and_torch(opened: Collection, photos: Path) -> None:
    path = photos / "0003.png"
    for k in (np.int64(3), np.uint8(3), torch.tensor(3)):
        assert opened.query(path, k=cast(Any, k)) == opened.query(path, k=3)
    low = np.float32(0.5)
    assert opened.query(path, min_similarity=cast(Any, low)) == opened.query(
        path, min_similarity=0.5
    )
    assert opened.query(path, recall=np.float64(1)) == opened.query(path, exact=True)
    assert opened.query(path, exact=cast(Any, np.True_)) == opened.query(path, exact=True)
    crop = np.array([1, 2, 30, 31])
    np.testing.assert_array_equal(
        opened.embed([path], crop=cast(Any, crop)), opened.embed([path], crop=(1, 2, 30, 31))
    )
    (hit,) = opened.query(path, k=1)
    assert opened.entries.get(cast(Any, np.int64(hit.id))).path == hit.path
    ids = np.array([hit.id, 1])
    assert opened.entries.embeddings(cast(Any, ids)).shape == (2, DIM)


def test_queries_may_be_generated(opened: Collection, photos: Path) -> None:
    paths = sorted(photos.iterdir())[:3]
    generated = opened.query_many(cast(Any, (path for path in paths)))
    assert generated == opened.query_many(paths)


def test_a_closed_collection_says_so(indexed: Path, photos: Path) -> None:
    collection = Collection.open(indexed, device="cpu")
    collection.query(picture(1))
    collection.close()
    collection.close()
    uses: list[Callable[[], Any]] = [
        lambda: collection.query(photos / "0003.png"),
        lambda: collection.query_many(random_embeddings(2), arrays=True),
        lambda: collection.index(photos),
        lambda: collection.remove(photos),
        collection.info,
        lambda: collection.entries.get(1),
        lambda: collection.entries.embeddings([1]),
    ]
    for use in uses:
        with pytest.raises(InputError, match=f"the collection at {indexed} is closed; open it"):
            use()


KINDS = ["f4", "i8", "u1", "?", "c8", "U2", "M8[s]"]
ANYTHING: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.binary(max_size=5)
    | st.just(object())
    | arrays(
        st.sampled_from(["f4", "i8", "u1", "?", "c8", "U2", "M8[s]"]), array_shapes(max_side=4)
    ),
    lambda each: (
        st.lists(each, max_size=3) | st.dictionaries(st.text(max_size=2), each, max_size=2)
    ),
    max_leaves=4,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=examples(200))
@given(query=ANYTHING, option=st.sampled_from(sorted(QueryOptions.__annotations__)), value=ANYTHING)
def test_whatever_is_asked_is_answered_or_refused(
    opened: Collection, query: Any, option: str, value: Any
) -> None:
    with suppress(ImgsearchError):
        opened.query(query)
    with suppress(ImgsearchError):
        opened.query_many(query)
    with suppress(ImgsearchError):
        opened.query(picture(1), **cast(Any, {option: value}))
    with suppress(ImgsearchError):
        opened.entries.find(value)
    with suppress(ImgsearchError):
        opened.embed([picture(1)], crop=value)


REFUSED: dict[str, tuple[Callable[[Collection], Any], type[Exception], str]] = {
    "no hits": (lambda c: c.query(picture(1), k=0), SettingError, "k is 0"),
    "no lists": (lambda c: c.query(picture(1), nprobe=-1), SettingError, "nprobe is -1"),
    "exact and nprobe": (
        lambda c: c.query(picture(1), nprobe=3, exact=True),
        SettingError,
        "give one of recall, nprobe and exact",
    ),
    "recall and nprobe": (
        lambda c: c.query_many([], recall=0.9, nprobe=3),
        SettingError,
        "give one of recall, nprobe and exact",
    ),
    "no recall": (lambda c: c.query(picture(1), recall=0), SettingError, "recall is 0"),
    "no such recall": (lambda c: c.answer([], recall=1.1), SettingError, "recall is 1.1"),
    "no such similarity": (
        lambda c: c.query(picture(1), min_similarity=2),
        SettingError,
        "min_similarity is 2; it must be from -1 to 1",
    ),
    "a threshold for arrays": (
        lambda c: c.query_many([], min_similarity=0.5, arrays=True),
        SettingError,
        "compare their similarities yourself",
    ),
    "too few to exclude": (
        lambda c: c.answer([picture(1), picture(2)], exclude=[[]]),
        InputError,
        "exclude has 1 entries for 2 queries",
    ),
    "an empty box": (lambda c: c.embed([picture(1)], crop=(3, 0, 3, 9)), SettingError, "is empty"),
    "a box outside": (
        lambda c: c.embed([picture(1)], crop=(50, 0, 60, 9)),
        ImageError,
        "image: the crop 50,0,60,9 lies outside of the image, which has 48 x 40 pixels",
    ),
    "part of an embedding": (
        lambda c: c.embed([random_embeddings(1)[0]], crop=(0, 0, 1, 0.5)),
        InputError,
        "an embedding cannot be cropped",
    ),
    "nothing to combine": (lambda c: c.combine([]), InputError, "nothing to combine"),
    "opposites": (
        lambda c: c.combine([*random_embeddings(1), *-random_embeddings(1)]),
        InputError,
        "cancel one another out",
    ),
    "bytes that are no image": (lambda c: c.query(b"no image"), ImageError, "is not an image"),
    "bytes for several": (lambda c: c.embed(cast(Any, b"a")), InputError, "give a list"),
    "a missing file": (lambda c: c.query("/no/such.jpg"), ImageError, "/no/such.jpg: cannot be"),
    "a folder": (lambda c: c.query("/"), ImageError, "/: cannot be read"),
    "nothing": (lambda c: c.query(cast(Any, None)), InputError, "give either a query .* or an id"),
    "a number": (lambda c: c.query(cast(Any, 5)), InputError, "an? int is not a valid query"),
    "a list of words": (lambda c: c.query(["a", "b"]), InputError, "made of numbers"),
    "a ragged list": (lambda c: c.query([[1, 2], [3]]), InputError, "not an array of numbers"),
    "a mapping": (
        lambda c: c.query(cast(Any, {"a": 1})),
        InputError,
        "a dict is not a valid query",
    ),
    "nothing for several": (lambda c: c.embed(cast(Any, None)), InputError, "give a list"),
    "a path for several": (lambda c: c.query_many("a.jpg"), InputError, "give a list"),
    "text from a file": (
        lambda c: c.query(cast(Any, io.StringIO("a"))),
        InputError,
        "a str is not a valid query",
    ),
    "k as a fraction": (lambda c: c.query(picture(1), k=cast(Any, 3.0)), SettingError, "k is 3.0"),
    "k as a word": (lambda c: c.query(picture(1), k=cast(Any, "3")), SettingError, "k is '3'"),
    "k as a switch": (lambda c: c.query(picture(1), k=True), SettingError, "k is True"),
    "no k": (lambda c: c.query(picture(1), k=cast(Any, None)), SettingError, "k is None"),
    "a large k": (lambda c: c.query(picture(1), k=2**70), SettingError, "k is 118"),
    "recall as a word": (
        lambda c: c.query(picture(1), recall=cast(Any, "high")),
        SettingError,
        "recall is 'high'; it must be a number",
    ),
    "no number as recall": (
        lambda c: c.query(picture(1), recall=float("nan")),
        SettingError,
        "recall is nan",
    ),
    "exact as a word": (
        lambda c: c.query(picture(1), exact=cast(Any, "no")),
        SettingError,
        "exact is 'no'; it must be True or False",
    ),
    "an option that is none": (
        lambda c: c.query(picture(1), **cast(Any, {"top": 3})),
        SettingError,
        "no option 'top'; there are k, recall",
    ),
    "one list to exclude": (
        lambda c: c.query(picture(1), exclude=cast(Any, "a.jpg")),
        InputError,
        "exclude is a str; give a list",
    ),
    "fractions to exclude": (
        lambda c: c.query(picture(1), exclude=cast(Any, [[1.5]])),
        InputError,
        "1.5 is not a path or an id",
    ),
    "three sides": (
        lambda c: c.embed([picture(1)], crop=cast(Any, (1, 2, 3))),
        SettingError,
        "is not a box",
    ),
    "a box of words": (
        lambda c: c.embed([picture(1)], crop=cast(Any, "abcd")),
        SettingError,
        "is not a box",
    ),
    "no limit": (
        lambda c: c.embed([picture(1)], max_pixels=cast(Any, None)),
        SettingError,
        "max_pixels is None",
    ),
    "weights as words": (
        lambda c: c.combine([picture(1)], weights=cast(Any, ["a"])),
        InputError,
        "weights must be numbers",
    ),
    "nothing to index": (lambda c: c.index(cast(Any, 5)), InputError, "paths is a int"),
    "None to index": (lambda c: c.index(cast(Any, [None])), InputError, "None is not a path"),
    "an empty path": (lambda c: c.index(""), InputError, "is not a path: it is empty"),
    "bytes to index": (lambda c: c.index(cast(Any, b"a")), InputError, "give a list"),
    "a NUL to index": (lambda c: c.index("a\0b"), InputError, "is not a path"),
    "half an nlist": (
        lambda c: c.index(nlist=cast(Any, 2.5)),
        SettingError,
        "nlist is 2.5; it must be a whole number",
    ),
    "workers as a word": (
        lambda c: c.index(workers=cast(Any, "all")),
        SettingError,
        "workers is 'all'",
    ),
    "one place moved": (lambda c: c.index(moved=cast(Any, ["a"])), SettingError, "two folders"),
    "nothing to remove": (lambda c: c.remove(cast(Any, None)), InputError, "give a list"),
    "a word for an id": (
        lambda c: c.entries.get(cast(Any, "7")),
        SettingError,
        "an id is '7'; it must be a whole number",
    ),
    "a large id": (lambda c: c.entries.get(2**63), SettingError, "an id is 922"),
    "one id for several": (lambda c: c.entries.find(cast(Any, 7)), InputError, "give a list"),
    "a negative limit": (lambda c: c.entries.after(0, -1), SettingError, "limit is -1"),
    "another length": (lambda c: c.query(np.ones(7)), InputError, "has 48 values"),
    "only zeros": (lambda c: c.query(np.zeros(DIM)), InputError, "or only zeros"),
    "no number": (lambda c: c.query(np.full(DIM, np.nan)), InputError, "not finite"),
    "no pixels in an image": (
        lambda c: c.query(Image.new("RGB", (0, 9))),
        ImageError,
        "image: has no pixels",
    ),
    "numbers beyond pixels": (
        lambda c: c.query(np.full((9, 9), 256, np.int64)),
        InputError,
        "go from 0 to 255, but these go from 256 to 256",
    ),
    "floats beyond pixels": (
        lambda c: c.query(np.full((9, 9, 3), 254.0)),
        InputError,
        "go from 0 to 1, but these go from 254 to 254",
    ),
    "pixels that are no numbers": (
        lambda c: c.query(np.full((9, 9), np.nan)),
        InputError,
        "go from 0 to 1",
    ),
    "complex pixels": (lambda c: c.query(np.ones((9, 9), complex)), InputError, "is not an image"),
    "words": (lambda c: c.query(np.array(["a"])), InputError, "made of numbers"),
    "no pixels": (lambda c: c.query(np.empty((0, 4, 3), np.uint8)), InputError, "is not an image"),
    "five channels": (
        lambda c: c.query(np.ones((4, 4, 5), np.uint8)),
        InputError,
        "is not an image",
    ),
    "an image for several": (
        lambda c: c.query_many(np.ones((4, 4, 3), np.uint8)),
        InputError,
        "several queries are expected, and this array has the shape",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_query_makes_no_sense_with(name: str, opened: Collection) -> None:
    ask, error, message = REFUSED[name]
    with pytest.raises(error, match=message):
        ask(opened)


def test_an_image_that_was_opened_but_is_cut_off_is_refused(opened: Collection) -> None:
    whole = io.BytesIO()
    picture(1, width=300, height=300).save(whole, "PNG")
    image = Image.open(io.BytesIO(whole.getvalue()[:2000]))
    with pytest.raises(ImageError, match="image: cannot be decoded"):
        opened.query(image)


def test_a_pipe_is_no_query_and_is_not_waited_for(opened: Collection, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    with pytest.raises(InputError, match="is not a regular file"):
        opened.query(tmp_path / "pipe.jpg")


def test_several_embeddings_are_not_one_query(opened: Collection) -> None:
    with pytest.raises(InputError, match="2 embeddings are not one query; give one"):
        opened.query(random_embeddings(2))


def test_one_path_is_not_several_queries(opened: Collection) -> None:
    with pytest.raises(InputError, match="give a list, even for one"):
        opened.query_many("cat.jpg")
