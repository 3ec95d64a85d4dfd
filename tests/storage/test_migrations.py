"""A collection of an older format is brought up to date, whatever comes between."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from imgsearch.collection import Collection
from imgsearch.errors import BusyError, DamagedError, StorageError
from imgsearch.maintenance.verify import verify
from imgsearch.storage import layout as layouts
from imgsearch.storage import migrations, schema, seal
from imgsearch.storage.catalog import Catalog
from imgsearch.storage.database import Database
from imgsearch.storage.files import exclusive
from imgsearch.storage.layout import FORMAT_VERSION, OLDEST, Layout, manifest_of
from imgsearch.storage.migrations import migrate
from imgsearch.storage.schema import SCHEMA
from tests.support.pictures import picture

GOLDEN = Path(__file__).parent.parent / "data"
NEXT = FORMAT_VERSION + 1
STARS = "ALTER TABLE images ADD COLUMN stars INTEGER NOT NULL DEFAULT 3"


@pytest.fixture
def old(tmp_path: Path) -> Layout:
    """A collection of the oldest format that can be brought up to date."""
    return Layout(shutil.copytree(GOLDEN / f"collection-{OLDEST}", tmp_path / "collection"))


def version_of(layout: Layout) -> int:
    with closing(Catalog(layout.catalog)) as catalog:
        return catalog.format_version()


def is_up_to_date(layout: Layout) -> bool:
    """Bring a collection up to date; tell whether it is of this format, and as sound as before."""
    migrate(layout)
    with Collection.open(layout.directory, device="cpu") as collection:
        best = collection.query(picture(80), k=1)[0]
        assert (best.path, collection.info().images) == ("/tmp/golden/photos/new/0080.jpg", 71)
    assert verify(layout.directory).damages == ()
    return layout.version() == version_of(layout) == FORMAT_VERSION


def test_what_is_up_to_date_is_left_alone(old: Layout) -> None:
    migrate(old)
    before = {path: path.stat().st_mtime_ns for path in old.directory.rglob("*")}
    migrate(old)
    assert {path: path.stat().st_mtime_ns for path in old.directory.rglob("*")} == before
    assert is_up_to_date(old)


@pytest.mark.parametrize("interrupted", ["_from_2", "seal", "write_manifest"])
def test_interrupted_anywhere_it_goes_on_from_there(
    old: Layout, monkeypatch: pytest.MonkeyPatch, interrupted: str
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        if interrupted == "_from_2":
            patch.setitem(migrations._STEPS, 2, interrupt)
        elif interrupted == "seal":
            patch.setattr(migrations, "seal", interrupt)
        else:
            patch.setattr(Layout, "write_manifest", interrupt)
        with pytest.raises(KeyboardInterrupt):
            migrate(old)
    assert old.version() == OLDEST
    assert is_up_to_date(old)


def test_a_step_that_fails_leaves_the_old_version_as_it_was(
    old: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = migrations._STEPS[2]

    def fail(layout: Layout, catalog: Database) -> None:
        step(layout, catalog)
        raise StorageError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setitem(migrations._STEPS, 2, fail)
        with pytest.raises(StorageError):
            migrate(old)
    with closing(sqlite3.connect(old.catalog)) as catalog:
        columns = [row[1] for row in catalog.execute("PRAGMA table_info(segments)")]
    assert "size" not in columns
    assert is_up_to_date(old)


def test_a_writer_is_not_disturbed(old: Layout) -> None:
    with exclusive(old.directory), pytest.raises(BusyError):
        migrate(old)
    assert is_up_to_date(old)


def test_a_damaged_collection_of_an_older_format_is_named(old: Layout) -> None:
    old.catalog.write_bytes(b"no catalog" * 100)
    with pytest.raises(DamagedError, match=r"catalog\.sqlite is damaged"):
        migrate(old)
    assert old.version() == OLDEST


@pytest.fixture
def bump(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Raise the format version by one, as a later release does: see `storage.migrations`."""

    def step(_: Layout, catalog: Database) -> None:
        catalog.run(STARS)

    def bump() -> None:
        for module in (layouts, migrations, schema):
            monkeypatch.setattr(module, "FORMAT_VERSION", NEXT)
        with closing(sqlite3.connect(":memory:")) as made:
            made.executescript(f"{SCHEMA} {STARS};")
            (images,) = made.execute("SELECT sql FROM sqlite_schema WHERE name = 'images'")
        before = SCHEMA[SCHEMA.index("CREATE TABLE images") :].partition(";")[0]
        monkeypatch.setattr(schema, "SCHEMA", SCHEMA.replace(before, images[0]))
        monkeypatch.setitem(migrations._STEPS, FORMAT_VERSION, step)

    return bump


@pytest.mark.parametrize("start", range(OLDEST, FORMAT_VERSION + 1))
def test_with_the_next_version_every_step_up_to_it_is_taken(
    tmp_path: Path, bump: Callable[[], None], start: int
) -> None:
    layout = Layout(shutil.copytree(GOLDEN / f"collection-{start}", tmp_path / "collection"))
    bump()
    migrate(layout)
    assert layout.manifest.read_bytes() == manifest_of(NEXT)
    assert (layout.version(), version_of(layout)) == (NEXT, NEXT)
    with closing(sqlite3.connect(layout.catalog)) as catalog:
        assert catalog.execute("SELECT DISTINCT stars FROM images").fetchall() == [(3,)]
        assert catalog.execute("SELECT count(*) FROM images").fetchone() == (71,)
    assert seal.check_sealed(layout)


def test_what_the_next_version_has_made_is_refused_by_this_one(
    tmp_path: Path, bump: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = shutil.copytree(GOLDEN / f"collection-{FORMAT_VERSION}", tmp_path / "collection")
    bump()
    migrate(Layout(directory))
    monkeypatch.undo()
    with pytest.raises(DamagedError, match=f"has format version {NEXT}, .*; update imgsearch"):
        Collection.open(directory, device="cpu")
    with pytest.raises(DamagedError, match="update imgsearch"):
        verify(directory)
