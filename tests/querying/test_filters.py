"""Filters: which images pass, and that a search among them is as good as one among all."""

from __future__ import annotations

import fnmatch
import hashlib
import os
import random
import re
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import Result
from hypothesis import given, settings
from hypothesis import strategies as st

from imgsearch.ann.inverted import Chosen
from imgsearch.ann.vectors import Ids, Vectors
from imgsearch.collection import Collection
from imgsearch.errors import SettingError
from imgsearch.indexing.policy import FoldPolicy
from imgsearch.querying import view as viewing
from imgsearch.querying.filters import Filter
from imgsearch.querying.view import View
from imgsearch.storage.changes import Commit, FileLocation, NewImage
from imgsearch.storage.files import exclusive
from imgsearch.storage.layout import Layout
from imgsearch.storage.records import Facts, Storage
from imgsearch.storage.shards import write_shard
from imgsearch.storage.writer import CatalogWriter
from tests.support.depth import examples
from tests.support.grower import Grower, clustered
from tests.support.pictures import picture, save_pictures
from tests.support.small_network import make_small_collection, random_embeddings

Invoke = Callable[..., Result]

ROOTS = ("/home/cat/Summer", "/home/cat/winter", "s3://bucket/photos")
FOLDERS = ("", "Beach 2019", "Beach 2019/raw", "Zürich", "cats_and_dogs/2019-05")
NAMES = ("IMG_0001.jpg", "beach.png", "Beach-2.JPG", "beaches.png", "cat.2019.webp", "straße.jpg")
WORDS = (
    "beach",
    "BEACH 2019",
    "2019",
    "cat",
    "cats and",
    "img",
    "STRASSE",
    "zürich",
    "png",
    "0001",
)
PATTERNS = ("*.jpg", "*each*", "beach.*", "Be?ch*", "[bc]*", "z*rich", "raw")
IN = ("/home", "/home/cat/Summer/Beach 2019", "/home/cat/winter", "s3://bucket/photos/Zürich", "/x")
SIZES = (">2MB", ">=1.5mb", "<1 MB", "<=500kB", "500kB..2MB", "1MB..", "..1MB", "=1MB")
EDGES = (">2000", "<=800px", "1000..3000", "640", ">12MP", "<0.5mp")
CAMERAS = ("Canon EOS 5D", "NIKON CORPORATION NIKON D850", "Apple iPhone 12", None)
BEGIN = datetime(2019, 1, 1)


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of an image."""

    id: int
    path: str
    root: str
    size: int
    time: datetime | None
    edges: tuple[int, int] | None
    camera: str | None


@pytest.fixture(scope="module")
def album(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[Collection, list[Known]]]:
    """A collection of embeddings of images of many names, times and sizes, and what is known."""
    directory = make_small_collection(tmp_path_factory.mktemp("album") / "collection")
    layout, chance = Layout(directory), random.Random(1)
    known, images = list[Known](), list[NewImage]()
    with closing(CatalogWriter(layout.catalog)) as catalog, exclusive(directory):
        for root in ROOTS:
            catalog.add_root(root.encode(), recursive=True)
        roots = {os.fsdecode(root.path): root.id for root in catalog.roots()}
        places = [(root, folder, name) for root in ROOTS for folder in FOLDERS for name in NAMES]
        chance.shuffle(places)
        for id_, (root, folder, name) in enumerate(places, 1):
            if chance.random() < 0.3:  # as macOS writes names
                name = unicodedata.normalize("NFD", name)
            time = BEGIN + timedelta(hours=chance.randrange(24 * 800))
            mtime_ns, size = round(time.timestamp()) * 10**9, chance.randrange(1, 3_000_000)
            recent, unknown = id_ % 9 == 0, id_ % 27 == 0
            facts = Facts()
            if id_ % 4:  # its fingerprint was made
                taken = BEGIN + timedelta(seconds=chance.randrange(86_400 * 800))
                facts = Facts(
                    *(chance.choice((640, 1_000, 5_000)), chance.choice((480, 2_000, 3_000))),
                    taken=round((taken - datetime(1970, 1, 1)).total_seconds())
                    if id_ % 3
                    else None,
                    camera=chance.choice(CAMERAS),
                )
                time, unknown = (taken, False) if id_ % 3 else (time, unknown)
            images.append(
                NewImage(
                    FileLocation(roots[root], folder.encode(), name.encode()),
                    *(size, None if recent else mtime_ns),
                    *(hashlib.sha256(str(id_).encode()).digest(), None),
                    ctime_ns=None if id_ % 27 == 0 else mtime_ns + (0 if recent else 10**18),
                    facts=facts,
                )
            )
            path = "/".join(part for part in (root, folder, name) if part)
            edges = None if facts.width is None else (facts.width, facts.height or 0)
            fact = (None if unknown else time), edges, facts.camera
            known.append(Known(id_, path, root, size, *fact))
        vectors = random_embeddings(len(images), seed=3)
        ids = np.arange(1, len(images) + 1, dtype=np.int64)
        shard = write_shard(layout.vectors, 1, ids, vectors)
        catalog.commit(Commit(shard, tuple(images)))
    with Collection.open(directory, device="cpu") as collection:
        yield collection, known


def passes(image: Known, wanted: dict[str, Any]) -> bool:
    """Tell whether an image passes, by a definition that looks at this image alone."""
    names = [image.root.split("/")[-1], *image.path[len(image.root) + 1 :].split("/")]
    for each in wanted.get("name", ()):
        if not any(has(name, each) for name in names):
            return False
    folders = wanted.get("folder", ())
    if folders and not any(image.path.startswith(f"{folder}/") for folder in folders):
        return False
    first, end = wanted.get("after", datetime.min), wanted.get("before", datetime.max)
    if ("after" in wanted or "before" in wanted) and not first <= (image.time or end) < end:
        return False
    formats = {"jpeg": (".jpg", ".jpeg"), "PNG": (".png",), "webp": (".webp",), "raw": (".nef",)}
    named = [ending for each in wanted.get("format", ()) for ending in formats[each]]
    if "format" in wanted and not image.path.lower().endswith(tuple(named)):
        return False
    cameras = wanted.get("camera", ())
    if cameras and not any(has(image.camera or "", each) for each in cameras):
        return False
    sizes = wanted.get("size", ())
    return all(is_of_size(image, each) for each in sizes)


def has(name: str, wanted: str) -> bool:
    name, wanted = (
        unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).casefold())
        for text in (name, wanted)
    )
    if re.search(r"[*?\[]", wanted):
        return fnmatch.fnmatchcase(name, wanted)
    words, sought = (re.findall(r"[^\W\d_]+|\d+", text) for text in (name, wanted))
    starts = range(len(words) - len(sought) + 1)
    return any(words[start : start + len(sought)] == sought for start in starts)


def is_of_size(image: Known, wanted: str) -> bool:
    """Tell whether the size of an image is in one of `SIZES` or `EDGES`."""
    size = image.size
    if wanted in EDGES:
        edge = max(image.edges or (0,))
        pixels = image.edges[0] * image.edges[1] if image.edges else 0
        return (
            image.edges is not None
            and {
                ">2000": edge > 2_000,
                "<=800px": edge <= 800,
                "1000..3000": 1_000 <= edge <= 3_000,
                "640": edge == 640,
                ">12MP": pixels > 12_000_000,
                "<0.5mp": pixels < 500_000,
            }[wanted]
        )
    fits = {
        ">2MB": size > 2_000_000,
        ">=1.5mb": size >= 1_500_000,
        "<1 MB": size < 1_000_000,
        "<=500kB": size <= 500_000,
        "500kB..2MB": 500_000 <= size <= 2_000_000,
        "1MB..": size >= 1_000_000,
        "..1MB": size <= 1_000_000,
        "=1MB": size == 1_000_000,
    }
    return fits[wanted]


def few(values: tuple[str, ...]) -> st.SearchStrategy[list[str]]:
    return st.lists(st.sampled_from(values), min_size=1, max_size=2)


TIMES = st.integers(0, 24 * 800).map(lambda hours: BEGIN + timedelta(hours=hours))
FILTERS = st.fixed_dictionaries(
    {},
    optional={
        "name": few(WORDS + PATTERNS),
        "folder": few(IN),
        "size": few(SIZES + EDGES),
        "format": few(("jpeg", "PNG", "webp", "raw")),
        "camera": few(("canon", "D 850", "iphone 12", "*eos*", "5d")),
        "after": TIMES,
    },
)


@pytest.mark.whole("test_a_search_among_some_images_finds_the_nearest_of_them")
@settings(max_examples=examples(100))
@given(wanted=FILTERS, days=st.integers(1, 500) | st.none())
def test_the_images_that_pass_are_those_of_the_definition(
    album: tuple[Collection, list[Known]], wanted: dict[str, Any], days: int | None
) -> None:
    collection, known = album
    if days is not None:
        wanted["before"] = wanted.get("after", BEGIN) + timedelta(days=days)
    found = [entry.id for entry in collection.entries.where(**wanted)]
    expected = [image.id for image in known if passes(image, wanted)]
    assert found == expected
    hits = collection.query(random_embeddings(1, seed=4)[0], k=1_000, **wanted)
    assert sorted(hit.id for hit in hits) == expected


def test_a_listing_is_in_the_order_that_is_asked_for(
    album: tuple[Collection, list[Known]],
) -> None:
    collection, known = album
    where = collection.entries.where
    paths = [entry.path for entry in where(order="path", name="beach")]
    assert [os.path.dirname(path) for path in paths] == sorted(map(os.path.dirname, paths))
    sizes = [entry.size for entry in where(order="size", reverse=True)]
    assert sizes == sorted((image.size for image in known), reverse=True)
    dated = [entry.id for entry in where(order="date")]
    times = {image.id: image.time or datetime.min for image in known}
    assert dated == sorted(times, key=lambda id_: (times[id_], id_))


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"name": "---"}, "no letters or digits"),
        ({"name": 3}, "name is 3"),
        ({"after": "yesterday"}, "give a date such as 2024-05-17"),
        ({"before": "2024-13"}, "give a date such as"),
        ({"after": "2024", "before": "2023"}, "swap the two"),
        ({"size": "huge"}, "size is 'huge'"),
        ({"size": ">1..2MB"}, "size is"),
        ({"size": "12x12"}, "size is"),
        ({"size": "12px..3MB"}, "size is"),
        ({"format": "p/g"}, "give one such as png"),
        ({"camera": "?"[1:]}, "no letters or digits"),
        ({"folder": 7}, "folder is 7"),
        ({"nonsense": 1}, "there is no filter 'nonsense'"),
    ],
)
def test_a_filter_that_makes_no_sense_is_refused(keywords: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingError, match=re.escape(message)):
        Filter.of(**keywords)


def test_a_date_may_be_given_in_many_ways() -> None:
    expected = datetime(2024, 5, 1)
    for given_as in ("2024-05", "2024-05-01", "2024-05-01 00:00", "20240501", date(2024, 5, 1)):
        assert Filter.of(after=given_as).after == expected
    assert Filter.of(after="2024").after == datetime(2024, 1, 1)
    aware = expected.astimezone(UTC)
    assert Filter.of(before=aware).before == expected
    assert Filter.of(before="0001").before == datetime(1, 1, 1)


# -- searching among the images that pass ---------------------------------------------------------


@pytest.fixture(scope="module", params=["flat", "compact"])
def grown(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> View:
    """A view of two segments and a tail, some of whose images were removed."""
    storage: Storage = request.param
    directory = make_small_collection(tmp_path_factory.mktemp("grown") / "collection")
    with Grower(directory) as grower:
        grower.catalog.change_settings(nlist=24, recall=None, storage=storage, pca=40)
        grower.policy = FoldPolicy(tail_least=50, merge=1)
        grower.add(clustered(1_000, seed=1))
        grower.fold()
        grower.add(clustered(100, seed=2))
        grower.fold()
        grower.add(clustered(40, seed=3))
        grower.remove(np.arange(1, 1_140, 13))
        view = grower.view()
    assert (len(view.segments), view.tail_count > 30) == (2, True)
    return view


def nearest(view: View, queries: Vectors, ids: Ids, k: int) -> list[set[int]]:
    """Return the ids of the nearest of some images, by NumPy alone."""
    blocks = list(view.live_blocks())
    there = np.concatenate([block.ids for block in blocks])
    vectors = np.concatenate([block.vectors for block in blocks])
    among = np.isin(there, ids)
    order = np.argsort(-(queries @ vectors[among].T), axis=1)[:, :k]
    return [set(row) for row in there[among][order].tolist()]


@pytest.mark.few(1)
@settings(max_examples=examples(40))
@given(
    share=st.sampled_from([0.002, 0.05, 0.5, 1.0]),
    alike=st.booleans(),
    k=st.sampled_from([1, 10, 150]),
    sparse=st.booleans(),
    seed=st.integers(0, 99),
)
def test_a_search_among_some_images_finds_the_nearest_of_them(
    grown: View, share: float, alike: bool, k: int, sparse: bool, seed: int
) -> None:
    live = grown.live_ids()
    count = max(1, round(share * len(live)))
    order = np.random.default_rng(seed).permutation(len(live))
    if alike:
        order = np.argsort(-(grown.rows(live) @ grown.rows(live[order[:1]])[0]))
    ids = np.sort(live[order[:count]])
    # Ids that are not in the view change nothing, but for the kind of selector.
    among = Chosen(np.append(ids, [1 << 40]) if sparse else ids)
    queries = clustered(5, seed=seed, first=seed % 2 * 20)
    true = nearest(grown, queries, ids, k)
    for way in ({"exact": True}, {"recall": 1.0}):
        given_way: dict[str, Any] = {"recall": None, "nprobe": None, "exact": False} | way
        found = grown.search(queries, k, among=among, **given_way).ids
        assert [set(row) - {-1} for row in found.tolist()] == true
    found = grown.search(queries, k, recall=None, nprobe=24, exact=False, among=among).ids
    same = [len(set(one) & other) for one, other in zip(found.tolist(), true, strict=True)]
    assert set(found.ravel().tolist()) <= {*ids.tolist(), -1}
    assert sum(same) >= (0.9 if grown.segments[0].lossy else 1.0) * sum(map(len, true))


@pytest.mark.parametrize("alike", [False, True])
@pytest.mark.parametrize("share", [0.5, 0.05])
def test_the_promise_is_kept_among_some_images_whatever_is_exact(
    grown: View, share: float, alike: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(viewing, "FEW_CHOSEN", 0)
    live = grown.live_ids()
    order = np.random.default_rng(1).permutation(len(live))
    if alike:
        order = np.argsort(-(grown.rows(live) @ grown.rows(np.sort(live[order[:5]])).T).max(axis=1))
    ids = np.sort(live[order[: round(share * len(live))]])
    queries = np.concatenate([clustered(60, seed=5), clustered(60, seed=6, first=20)])
    _, found, searches = grown.search(
        queries, 10, recall=0.9, nprobe=None, exact=False, among=Chosen(ids)
    )
    true = nearest(grown, queries, ids, 10)
    same = [len(set(one) & other) for one, other in zip(found.tolist(), true, strict=True)]
    assert np.mean(same) / 10 >= 0.89
    assert {search.kind for search in searches} <= {"ivf", "exact"}
    if share == 0.5 and not alike:
        assert any(search.kind == "ivf" for search in searches)


# -- on the command line --------------------------------------------------------------------------


def test_a_query_on_the_command_line_is_limited_to_what_passes(
    invoke: Invoke, indexed: Path, photos: Path
) -> None:
    query = ("-c", indexed, "query", photos / "0003.png", "--all", "-k", "40", "--paths")
    paths = invoke(*query, "--name", "*.jpg").stdout.split()
    assert sorted(paths) == sorted(map(str, photos.glob("*.jpg")))
    assert (
        len(invoke(*query, "--in", photos, "--before", "2100", "--size", ">0.1kB").stdout.split())
        == 39
    )
    nothing = invoke(*query, "--name", "unheard")
    assert (nothing.exit_code, nothing.stdout) == (1, "")
    assert "the collection holds no other image that passes the filter" in nothing.stderr
    refused = invoke(*query, "--after", "someday")
    assert (refused.exit_code, refused.stdout) == (2, "")
    assert "after is 'someday'; give a date such as 2024-05-17" in refused.stderr


def test_a_filter_follows_what_is_committed(
    collection: Collection, tree: Path, tmp_path: Path
) -> None:
    collection.index(tree)
    assert len(collection.query(picture(1), k=99, name="below")) == 4
    save_pictures(tree / "below", 3, first=50)
    collection.index()
    assert len(collection.query(picture(1), k=99, name="below")) == 7
    (tmp_path / "link").symlink_to(tree / "below")
    assert len(collection.query(picture(1), k=99, folder=tmp_path / "link")) == 7
    collection.remove(tree / "below")
    assert collection.query(picture(1), k=99, folder=[tree / "below"]) == []
