"""A collection in a directory keeps the contract; what is elsewhere is told by its URL."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

import imgsearch
from imgsearch.backends.milvus.rows import Address, Row
from imgsearch.collection import Collection, DirectoryCollection
from imgsearch.errors import PackageError, SettingError
from imgsearch.storage.layout import BACKENDS, Layout, Location
from tests.support.contract import Contract


class TestDirectory(Contract):
    @pytest.fixture
    def location(self, empty: Path) -> str:
        return str(empty)


def test_without_pymilvus_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pymilvus", None)
    with pytest.raises(PackageError, match=r"`pip install '\.\[milvus\]'` in a checkout"):
        Collection.open("milvus://127.0.0.1:19530/photos")


class Shelf(DirectoryCollection):
    """What somebody might register: a directory, by a URL of its own."""

    @classmethod
    def _open(
        cls, location: Location, *, device: str, threads: int = 0, trust_model: bool = False
    ) -> Shelf:
        layout = Layout.at(str(location).removeprefix("shelf:"))
        return cls(layout, device, threads, trust_model=trust_model)

    @classmethod
    def _exists(cls, location: Location) -> bool:
        return str(location).endswith("/here")


def test_a_line_in_the_table_registers_a_backend(
    indexed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(BACKENDS, "shelf", f"{__name__}.Shelf")
    with Collection.open(f"shelf:{indexed}", device="cpu") as collection:
        assert type(collection) is Shelf
        assert collection.info().images == 40
    assert Collection.exists("shelf:/here")
    assert not Collection.exists("shelf:/there")


def test_a_path_is_a_directory_whatever_its_name(
    empty: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    empty.rename(tmp_path / "milvus")
    monkeypatch.chdir(tmp_path)
    assert Collection.exists("milvus")
    with Collection.open("milvus", device="cpu") as collection:
        assert collection.info().directory == str(tmp_path / "milvus")
    assert not Collection.exists(Path("milvus:photos.db"))


def test_opened_opens_what_open_does(indexed: Path) -> None:
    with imgsearch.opened(indexed, device="cpu") as collection:
        assert isinstance(collection, Collection)
        assert collection.info().images == 40


@pytest.mark.parametrize(
    "location",
    ["milvus://host/name", "milvus://host:1/a b", "milvus:", "milvus:photos", "milvus://"],
)
def test_a_url_that_names_nothing_is_refused(location: str) -> None:
    with pytest.raises(SettingError, match="is not a collection in Milvus"):
        Collection.open(location)


def test_an_address_is_that_of_a_server_or_of_a_file() -> None:
    server = Address.of("milvus://db.example.org:19530/photos")
    assert (server.uri, server.name) == ("http://db.example.org:19530", "photos")
    assert Address.of("milvus:~/a b.db").uri == str(Path.home() / "a b.db")


def test_an_id_is_that_of_a_path_and_a_content() -> None:
    one = Row.of(b"/a", b"1" * 32, 5, None)
    assert one.id == Row.of(b"/a", b"1" * 32, 6, 7).id
    assert one.id not in {
        Row.of(b"/b", b"1" * 32, 5, None).id,
        Row.of(b"/a", b"2" * 32, 5, None).id,
    }
    assert Row.read({**one.written()}) == one
    assert 0 <= one.id < 2**63
