"""Milvus Lite, in this process, keeps the contract."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from click.testing import Result
from starlette.testclient import TestClient

from imgsearch.backends.milvus.export import export
from imgsearch.backends.milvus.rows import Address
from imgsearch.backends.milvus.store import Store
from imgsearch.collection import Collection
from imgsearch.errors import SettingError, StorageError
from imgsearch.web.app import create_app
from imgsearch.web.options import ServerOptions
from imgsearch.web.service import Service
from tests.scale.corel import assert_same_answers
from tests.support.commands import Run
from tests.support.contract import Contract
from tests.support.pictures import save_pictures
from tests.support.small_network import make_small_collection, random_embeddings


class TestLite(Contract):
    @pytest.fixture
    def location(self, empty: Path, tmp_path: Path) -> str:
        location = f"milvus:{tmp_path / 'lite.db'}"
        export(empty, location)
        return location


def test_corel_gives_the_same_answers(data: Path, tmp_path: Path) -> None:
    assert_same_answers(data, tmp_path / "collection", f"milvus:{tmp_path / 'lite.db'}")


def test_the_command_line_works_on_a_url(
    invoke: Callable[..., Result], indexed: Path, photos: Path, tmp_path: Path
) -> None:
    to = f"milvus:{tmp_path / 'lite.db'}"
    first = sorted(photos.iterdir())[0]
    results = [
        invoke("-c", indexed, "export", "--to", to),
        invoke("-c", indexed, "export", "--to", to, "--verify", "--json"),
        invoke("query", first, "-c", to, "--paths", "--include-self"),
        invoke("index", photos, "-c", to),
        invoke("info", "-c", to, "--verbose"),
        invoke("remove", first, "-c", to),
    ]
    assert [result.exit_code for result in results] == [0] * 6, [r.output for r in results]
    assert "40 sent" in results[0].stderr
    assert results[2].stdout.splitlines()[0] == str(first)
    assert "40 unchanged" in results[3].stderr
    assert "Milvus" in results[4].stdout
    assert "removed 1 image" in results[5].stderr
    behind = invoke("-c", indexed, "export", "--to", to, "--verify")
    assert behind.exit_code == 4
    assert "lacks 1 image;" in behind.stderr


def test_another_process_finds_it_and_adds_to_it(
    run: Run, indexed: Path, photos: Path, tmp_path: Path
) -> None:
    to = f"milvus:{tmp_path / 'lite.db'}"
    assert run("-c", indexed, "export", "--to", to).code == 0
    first = sorted(photos.iterdir())[0]
    asked = run("query", first, "-c", to, "--paths", "--include-self")
    assert (asked.code, asked.out.splitlines()[0]) == (0, str(first)), asked.err
    save_pictures(tmp_path / "more", 3, first=90)
    added = run("index", tmp_path / "more", "-c", to, "--workers", "1")
    assert "3 indexed" in added.err
    assert json.loads(run("info", "-c", to, "--json").out)["images"] == 43


def test_an_index_that_a_crash_took_away_is_made_again(indexed: Path, tmp_path: Path) -> None:
    to = f"milvus:{tmp_path / 'lite.db'}"
    export(indexed, to)
    store = Store(Address.of(to))
    store.load()
    client = vars(store)["_client"]
    client.release_collection("images")
    client.drop_index("images", "embedding")
    store.close()
    with Collection.open(to, device="cpu") as collection:
        assert len(collection.answer(random_embeddings(1), k=40)[0].hits) == 40


def test_an_export_that_broke_off_is_taken_up_again(
    indexed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    to = f"milvus:{tmp_path / 'lite.db'}"
    upsert, calls = Store.upsert, []

    def break_off(store: Store, rows: object, vectors: object) -> None:
        calls.append(0)
        upsert(store, list(rows)[:7], list(vectors)[:7])  # type: ignore[call-overload]  # of any
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Store, "upsert", break_off)
        with pytest.raises(KeyboardInterrupt):
            export(indexed, to)
    assert calls
    done = export(indexed, to)
    assert (done.there, done.sent) == (7, 33)


def test_another_model_is_refused(indexed: Path, tmp_path: Path) -> None:
    to = f"milvus:{tmp_path / 'lite.db'}"
    export(indexed, to)
    other = make_small_collection(tmp_path / "other")
    catalog = other / "catalog.sqlite"
    with sqlite3.connect(catalog) as database:
        database.execute("UPDATE model SET weights_sha256 = ?", ("1" * 64,))
    with pytest.raises(SettingError, match="other weights"):
        export(other, to)


def test_a_server_that_is_not_there_is_told_in_one_line() -> None:
    with pytest.raises(StorageError, match="Milvus says: ") as caught:
        Collection.open("milvus://127.0.0.1:1/photos")
    assert "\n" not in str(caught.value)


def test_it_is_served(indexed: Path, photos: Path, tmp_path: Path) -> None:
    location = f"milvus:{tmp_path / 'lite.db'}"
    export(indexed, location)
    options = ServerOptions(cache=tmp_path / "cache")
    with (
        Collection.open(location, device="cpu", threads=1) as collection,
        closing(Service(collection, options)) as service,
    ):
        client = TestClient(create_app(service, options), base_url="http://127.0.0.1:8765")
        sent = {"image": (photos / "0004.jpg").read_bytes()}
        (first, *_) = client.post("/api/v1/query", files=sent).json()["hits"]
        assert first["path"] == str(photos / "0004.jpg")
        like = {"like": (None, str(first["id"])), "include_self": (None, "true")}
        again = client.post("/api/v1/query", files=like).json()
        assert again["hits"][0]["id"] == first["id"]
        address = f"/api/v1/images/{first['id']}"
        assert client.get(f"{address}/original").content == sent["image"]
        assert client.get(f"{address}/thumbnail").status_code == 200
        images = client.get("/api/v1/images?limit=30").json()["images"]
        assert len(images) == 30
        assert client.get("/api/v1/info").json()["images"] == 40
