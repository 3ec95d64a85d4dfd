"""A collection in a directory keeps the contract; what is elsewhere is told by its URL."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from imgsearch.backends.milvus.rows import Address, Row
from imgsearch.collection import Collection
from imgsearch.errors import PackageError, SettingError
from tests.contract import Contract


class TestDirectory(Contract):
    @pytest.fixture
    def location(self, empty: Path) -> str:
        return str(empty)


def test_without_pymilvus_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pymilvus", None)
    with pytest.raises(PackageError, match=r"`pip install '\.\[milvus\]'` in a checkout"):
        Collection.open("milvus://127.0.0.1:19530/photos")


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
