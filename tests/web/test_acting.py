"""Downloads of several images, and removal from the collection: what is allowed, and to whom."""

from __future__ import annotations

import hashlib
import io
import shutil
import zipfile
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from imgsearch.collection import Collection
from imgsearch.storage.files import exclusive
from imgsearch.storage.layout import Layout
from imgsearch.storage.records import Entry
from imgsearch.web.archives import LEFT_OUT, archive
from tests.support.pictures import save_pictures
from tests.web.conftest import Served

IMAGES = "/api/v1/images"
PUBLIC = {"host": "0.0.0.0", "allowed_hosts": ("127.0.0.1",)}
TOKEN = "open-sesame"


@pytest.fixture
def few(empty: Path, tmp_path: Path) -> Path:
    """A folder of 5 pictures, ids 1 to 5, in the collection `empty`."""
    save_pictures(tmp_path / "few", 5)
    with Collection.open(empty, device="cpu") as collection:
        collection.index([tmp_path / "few"])
    return tmp_path / "few"


def ids_of(client: TestClient) -> list[int]:
    return [each["id"] for each in client.get(IMAGES).json()["images"]]


def unpacked(content: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(content)) as made:
        assert made.testzip() is None
        assert {info.compress_type for info in made.infolist()} == {zipfile.ZIP_STORED}
        return {name: made.read(name) for name in made.namelist()}


@pytest.mark.usefixtures("few")
def test_an_archive_has_the_files_as_they_are_and_says_what_it_lacks(
    served: Served, empty: Path
) -> None:
    client = served(empty)
    paths = [Path(each["path"]) for each in client.get(IMAGES).json()["images"]]
    paths[1].unlink()
    paths[2].write_bytes(b"another")
    answer = client.get("/api/v1/archive?ids=4,2,3,1,999,4")
    assert answer.headers["content-disposition"] == 'attachment; filename="images.zip"'
    found = unpacked(answer.content)
    lacks = found.pop(LEFT_OUT).decode()
    assert list(found) == [paths[3].name, paths[0].name]
    assert [*found.values()] == [paths[3].read_bytes(), paths[0].read_bytes()]
    for part in (f"{paths[1]} is gone", f"{paths[2]} has changed", "no image with the id 999"):
        assert part in lacks
    assert client.get("/api/v1/archive?ids=998,999").status_code == 404
    for wrong in ("", "?ids=", "?ids=../etc/passwd", "?ids=1&path=/etc/passwd"):
        assert client.get(f"/api/v1/archive{wrong}").status_code == 422
    assert client.head("/api/v1/archive?ids=1").content == b""


def test_no_name_in_an_archive_leads_out_of_its_folder(few: Path) -> None:
    odd = ["..", "a\\..\\..\\b.png", "con.png", "x" * 250 + ".png", "C:d.png", "a\x00\u202egpj.exe"]
    odd += ["same.png", "SAME.png", LEFT_OUT, b"caf\xe9.png".decode("utf-8", "surrogateescape")]
    source = min(few.glob("*.png"))
    content = source.read_bytes()
    entries = {}
    for id_, name in enumerate(odd, 1):
        path = few / f"{id_:02}"
        path.mkdir()
        try:
            target = path / name.replace("\x00", "")
            target.write_bytes(content)
        except OSError:
            target = path / "dots"
            target.write_bytes(content)
        entries[id_] = entry_of(id_, target)
    found = unpacked(b"".join(archive([*entries], entries)))
    assert len(found) == len(odd)
    assert len({name.casefold() for name in found}) == len(odd)
    for name in found:
        assert Path(name).name == name
        assert not set(name) & set('\\:*?"<>|\u202e')
        assert name.strip(". ") == name
        assert len(name.encode()) <= 210
    assert "_con.png" in found


def entry_of(id_: int, path: Path) -> Entry:
    content = path.read_bytes()
    return Entry(id_, str(path), len(content), None, hashlib.sha256(content).digest())


def test_removed_images_stay_out_and_their_files_stay(
    served: Served, empty: Path, few: Path
) -> None:
    client = served(empty)
    files = sorted(few.iterdir())
    assert client.get("/api/v1/info").json()["read_only"] is False
    assert client.delete(f"{IMAGES}?ids=2,4,999").json() == {"removed": 2}
    assert ids_of(client) == [1, 3, 5]
    assert client.get("/api/v1/layout").json()["ids"] == [1, 3, 5]
    assert sorted(few.iterdir()) == files
    with Collection.open(empty, device="cpu") as collection:
        collection.index()
    assert ids_of(client) == [1, 3, 5]
    assert client.delete(f"{IMAGES}?ids=2").json() == {"removed": 0}


def test_a_name_like_a_pattern_removes_no_other_image(
    served: Served, empty: Path, few: Path
) -> None:
    shutil.copy(min(few.glob("*.png")), few / "*")
    with Collection.open(empty, device="cpu") as collection:
        collection.index([few])
        (id_,) = (entry.id for entry in collection.entries.where() if entry.path.endswith("*"))
    client = served(empty)
    for _ in range(2):  # the second time, it is gone
        client.delete(f"{IMAGES}?ids={id_}")
        assert ids_of(client) == [1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Host": "evil.example"},
    ],
)
@pytest.mark.usefixtures("few")
def test_other_sites_remove_nothing(served: Served, empty: Path, headers: dict[str, str]) -> None:
    client = served(empty)
    answer = client.delete(f"{IMAGES}?ids=1", headers=headers)
    assert answer.status_code in (403, 421)
    assert ids_of(client) == [1, 2, 3, 4, 5]


@pytest.mark.usefixtures("few")
def test_nothing_is_removed_where_it_is_not_allowed(served: Served, empty: Path) -> None:
    for options in (
        {"read_only": True},
        {"read_only": True, "token": TOKEN},
        {"insecure": True, **PUBLIC},
        {"insecure": True, "allowed_hosts": ("photos.example",)},
    ):
        client = served(empty, **options)
        client.headers["Authorization"] = f"Bearer {TOKEN}"
        assert client.delete(f"{IMAGES}?ids=1").status_code == 403
        assert client.get("/api/v1/info").json()["read_only"] is True
    client = served(empty, token=TOKEN, **PUBLIC)
    assert client.delete(f"{IMAGES}?ids=1").status_code == 401
    assert len(ids_of(served(empty))) == 5
    client.headers["Authorization"] = f"Bearer {TOKEN}"
    assert client.delete(f"{IMAGES}?ids=1").json() == {"removed": 1}
    for wrong in ("", "?ids=", "?ids=*", "?ids=1&ids=2", "?folder=/"):
        assert client.delete(f"{IMAGES}{wrong}").status_code in (400, 422)
    for address in (f"{IMAGES}/2", "/api/v1/archive?ids=2", "/"):
        assert client.delete(address).status_code == 405
    assert ids_of(client) == [2, 3, 4, 5]


@pytest.mark.usefixtures("few")
def test_a_removal_while_another_process_writes_is_refused_and_changes_nothing(
    served: Served, empty: Path
) -> None:
    client = served(empty)
    with exclusive(Layout(empty).directory):
        answer = client.delete(f"{IMAGES}?ids=1")
    assert answer.status_code == 503
    assert "another imgsearch is writing" in answer.json()["detail"]
    assert ids_of(client) == [1, 2, 3, 4, 5]
