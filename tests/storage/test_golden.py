"""A collection of each format version, as it was written when that came, is read and updated today.

`make_golden.py` made `tests/data/collection-2` and those that follow. Each had 72 pictures in a
root, /tmp/golden/photos, two of them in `below`, and an index of 4 lists over them, which was to
keep a recall of 0.6. Then those with odd numbers and the first changed, by 100: they are its tail,
while the segment and the first shard were written anew without what they had been, which is why
that shard lists its ids. Picture 1 vanished, picture 2 was taken out, and so was `below`; 80 and 81
came in `new`, and 99 as a file given by name in a root of its own. One file failed, and one was
skipped.

Format version 1 is refused: of that there is the manifest.
"""

from __future__ import annotations

import hashlib
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from imgsearch.collection import Collection
from imgsearch.errors import DamagedError
from imgsearch.maintenance.verify import verify
from imgsearch.storage.catalog import Catalog
from imgsearch.storage.fingerprints import prints_name
from imgsearch.storage.layers import layer_name
from imgsearch.storage.layout import FORMAT_VERSION, OLDEST, Layout
from imgsearch.storage.migrations import migrate
from imgsearch.storage.records import Root, Settings
from imgsearch.storage.schema import SCHEMA
from imgsearch.storage.shards import open_ids, shard_files
from tests.support.pictures import picture, save_pictures

GOLDEN = Path(__file__).parent.parent / "data"
ODD = range(3, 70, 2)
EVEN = range(4, 70, 2)
NAMES = {
    **{number: f"photos/{number:04}.jpg" for number in EVEN},
    **{100 + number: f"photos/{number:04}.png" for number in ODD},
    100: "photos/0000.jpg",
    80: "photos/new/0080.jpg",
    81: "photos/new/0081.png",
    99: "single.png",
}


@pytest.fixture(params=range(OLDEST, FORMAT_VERSION + 1))
def directory(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """A copy of each, which the first to open it brings up to date."""
    directory = shutil.copytree(GOLDEN / f"collection-{request.param}", tmp_path / "collection")
    migrate(Layout(directory))
    return directory


@pytest.fixture
def golden(directory: Path) -> Iterator[Collection]:
    with Collection.open(directory, device="cpu") as collection:
        yield collection


def test_every_format_version_is_here() -> None:
    manifests = sorted(path.parent.name for path in GOLDEN.glob("collection-*/collection.json"))
    assert manifests == [f"collection-{n}" for n in range(1, FORMAT_VERSION + 1)]


def test_what_a_golden_collection_holds_is_known(golden: Collection) -> None:
    info = golden.info()
    assert (info.images, info.failed, info.skipped, info.excluded) == (71, 1, 1, 2)
    assert info.roots == ("/tmp/golden/photos", "/tmp/golden")
    assert info.settings == Settings(nlist=4, recall=0.6)
    assert info.ivf is not None
    assert (info.ivf.nlist, info.ivf.requested_nlist) == (4, 4)
    assert (info.ivf.trained, info.ivf.held_out, info.ivf.strangers) == (72, 72, 72)
    assert (info.segments, sum(info.list_sizes), info.tail) == (1, 36, 38)
    assert len({step.up_to for step in info.ivf.curve}) == 3
    assert {step.nprobe for step in info.ivf.curve} == {1, 2, 3, 4}
    assert info.nprobe == (2, 2, 2)
    assert not info.outgrown


def test_the_catalog_of_a_golden_collection_is_known(directory: Path) -> None:
    catalog = Catalog(directory / "catalog.sqlite")
    snapshot = catalog.snapshot()
    assert snapshot.removed == snapshot.stale == (3, 71, 72, 74)
    assert [(part.first_id, part.last_id, part.count) for part in snapshot.segments] == [
        (1, 72, 36)
    ]
    shards = [(shard.first_id, shard.last_id, shard.count) for shard in snapshot.shards]
    assert shards == [(3, 72, 36), (73, 108, 36), (109, 110, 2), (111, 111, 1)]
    assert [shard.ids_sha256 is None for shard in snapshot.shards] == [False, True, True, True]
    listed = open_ids(directory / "vectors", snapshot.shards[0])
    assert listed.tolist() == [*range(3, 70, 2), 71, 72]
    assert catalog.roots() == [Root(1, b"/tmp/golden/photos", True), Root(2, b"/tmp/golden", False)]
    assert catalog.excluded_folders() == [b"/tmp/golden/photos/below"]
    assert catalog.known(1, b"0002.jpg", b"0002.jpg")[b"0002.jpg"].excluded
    assert catalog.known(1, b"broken.jpg")[b"broken.jpg"].reason is not None
    catalog.close()


def test_the_files_of_a_golden_collection_are_those_that_its_catalog_names(
    directory: Path,
) -> None:
    layout = Layout(directory)
    catalog = Catalog(layout.catalog)
    snapshot = catalog.snapshot()
    prints = catalog.prints()
    catalog.close()
    digests: dict[Path, bytes | None] = {
        layout.fingerprints / prints_name(file.number): file.sha256 for file in prints
    }
    for shard in snapshot.shards:
        vectors, *ids = sorted(shard_files(shard), key=len)
        digests[layout.vectors / vectors] = shard.sha256
        digests.update({layout.vectors / name: shard.ids_sha256 for name in ids})
    for segment in snapshot.segments:
        digests[layout.segment(segment.number)] = segment.sha256
    for layer in snapshot.layers:
        digests[layout.layers / layer_name(layer.number)] = layer.sha256
    there = {path for folder in layout.folders for path in folder.glob("*")}
    assert {path: hashlib.sha256(path.read_bytes()).digest() for path in there} == digests


def test_what_a_golden_collection_answers_is_known(golden: Collection) -> None:
    pictures = [picture(number) for number in NAMES]
    for exact in (False, True):
        answers = golden.query_many(pictures, k=1, exact=exact)
        paths = [hits[0].path for hits in answers]
        assert paths == [f"/tmp/golden/{name}" for name in NAMES.values()]
        assert all(hits[0].similarity > 0.99 for hits in answers)
        for gone in (1, 2, 70, 71, 101):
            hits = golden.query(picture(gone), k=100, exact=exact)
            assert sorted(hit.path for hit in hits) == sorted(paths)
            assert hits[0].similarity < 0.99


@pytest.mark.few(1)
def test_a_golden_collection_can_be_updated(golden: Collection, tmp_path: Path) -> None:
    paths = save_pictures(tmp_path / "new", 3, first=50)
    report = golden.index(tmp_path / "new")
    assert (report.indexed, report.copied) == (1, 2)  # 50 and 52 are known: nobody changed them
    assert (golden.info().images, golden.info().tail) == (74, 41)
    assert golden.query(paths[1], k=1, include_self=True)[0].path == str(paths[1])
    assert {hit.path for hit in golden.query(paths[0], k=2, include_self=True)} == {
        str(paths[0]),
        "/tmp/golden/photos/0050.jpg",
    }


@pytest.mark.few(1)
def test_a_golden_collection_can_be_trained_again(golden: Collection, tmp_path: Path) -> None:
    save_pictures(tmp_path / "new", 1, first=300)
    golden.index(tmp_path / "new", nlist=2)
    info = golden.info()
    assert (info.images, sum(info.list_sizes), info.tail) == (72, 72, 0)
    assert info.ivf is not None
    assert info.ivf.nlist == 2


def test_a_golden_collection_is_verified_as_sound(directory: Path) -> None:
    report = verify(directory)
    assert (report.damages, report.sealed, report.leftovers) == ((), True, 0)
    assert (report.images, report.sampled, report.embedded) == (71, 20, 0)


def test_an_older_golden_collection_is_read_as_it_is_and_brought_up_to_date_by_who_writes(
    tmp_path: Path,
) -> None:
    directory = shutil.copytree(GOLDEN / f"collection-{OLDEST}", tmp_path / "collection")
    before = {path: path.read_bytes() for path in directory.rglob("*") if path.is_file()}
    with Collection.open(directory, device="cpu") as collection:
        assert collection.query(picture(80), k=1)[0].path == "/tmp/golden/photos/new/0080.jpg"
        assert collection.info().images == 71
        assert verify(directory).damages == ()
        assert {path: path.read_bytes() for path in before} == before
        assert set(before) == {path for path in directory.rglob("*") if path.is_file()}
        assert Layout(directory).version() == OLDEST
        collection.remove("/tmp/golden/photos/new/0080.jpg")
        assert Layout(directory).version() == FORMAT_VERSION
        assert collection.info().images == 70
        assert collection.query(picture(81), k=1)[0].path == "/tmp/golden/photos/new/0081.png"
    assert (directory / "catalog.seal").exists()


def test_the_manifest_of_format_1_is_refused() -> None:
    with pytest.raises(DamagedError, match="index its folders into a new collection"):
        Collection.open(GOLDEN / "collection-1")


def test_the_schema_of_the_golden_catalog_is_that_of_today(directory: Path) -> None:
    made = sqlite3.connect(":memory:")
    made.executescript(SCHEMA)
    golden = sqlite3.connect(directory / "catalog.sqlite")
    statement = "SELECT name, replace(replace(sql, char(10), ''), ' ', '') FROM sqlite_schema"
    tables = [sorted(each.execute(statement).fetchall()) for each in (golden, made)]
    assert tables[0] == tables[1]
    version = "PRAGMA user_version"
    assert golden.execute(version).fetchall() == made.execute(version).fetchall()
    golden.close()
    made.close()
