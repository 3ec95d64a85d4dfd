"""A collection is exported to files that other programs read."""

from __future__ import annotations

import csv
import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import Result

from imgsearch.collection import Collection
from imgsearch.errors import BusyError, InputError, PackageError, SettingError
from imgsearch.querying import export
from imgsearch.querying.tables import csv_row
from tests.support.pictures import picture

Invoke = Callable[..., Result]


@pytest.fixture
def odd(collection: Collection, tree: Path, monkeypatch: pytest.MonkeyPatch) -> Collection:
    """A collection of 14 images, some with odd names, of which three are written at a time."""
    picture(20).save(tree / "=cmd().jpg")
    picture(21).save(os.fsencode(tree) + b"/\xff.png", format="png")
    collection.index(tree)
    monkeypatch.setattr(export, "BLOCK", 3)
    return collection


def read(place: Path) -> tuple[Any, Any, Any]:
    """Return the ids, paths and embeddings of an export."""
    if place.suffix == ".parquet":
        import pyarrow.parquet as pq

        table = pq.read_table(place)
        vectors = np.array(table["embedding"].to_pylist(), np.float32)
        return table["id"].to_pylist(), table["path"].to_pylist(), vectors
    if place.is_dir():
        assert len(list(place.iterdir())) == 4
        arrays = {path.stem: np.load(path, mmap_mode="r") for path in place.glob("*.npy")}
    else:
        with np.load(place, allow_pickle=False) as archive:
            arrays = dict(archive)
    return arrays["ids"].tolist(), arrays["paths"].tolist(), arrays["embeddings"]


@pytest.mark.parametrize("name", ["a.parquet", "a.NPZ", "folder", "v1.2/"])
def test_an_export_has_the_ids_paths_and_embeddings(
    odd: Collection, tmp_path: Path, name: str
) -> None:
    told: list[tuple[int, int]] = []
    before = set(tmp_path.iterdir())
    assert odd.export(f"{tmp_path}/{name}", progress=lambda *done: told.append(done)) == 14
    (place,) = set(tmp_path.iterdir()) - before
    ids, paths, embeddings = read(place)
    assert ids == odd.ids.tolist()
    lossy = [os.fsencode(path).decode("utf-8", "replace") for path in odd.paths]
    assert paths == (lossy if place.suffix == ".parquet" else odd.paths)
    np.testing.assert_array_equal(embeddings, odd.embeddings())
    assert told[-1] == (14, 14)


def test_rows_of_parquet_have_what_list_tells(
    odd: Collection, invoke: Invoke, empty: Path, tmp_path: Path
) -> None:
    import pyarrow.parquet as pq

    odd.export(tmp_path / "a.parquet")
    rows = pq.read_table(tmp_path / "a.parquet").drop(["embedding"]).to_pylist()
    listed = invoke("list", "-c", empty, "--sort", "added", "--json").stdout.splitlines()
    hashes = odd.entries.hashes(odd.ids.tolist())
    assert [int(row.pop("hash"), 16) for row in rows] == [hashes[row["id"]] for row in rows]
    assert len(set(hashes.values())) == 14
    assert rows == [{"path_bytes": None, **json.loads(line)} for line in listed]


def test_a_csv_file_is_guarded_against_formulas(
    odd: Collection, tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tree)
    odd.export(tmp_path / "a.csv", name="cmd")
    with (tmp_path / "a.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert row["path"] == str(tree / "=cmd().jpg")  # which is absolute, and no formula
    assert "embedding" not in row
    assert csv_row("=1+1", -1.0) == b"'=1+1,-1.0\r\n"


@pytest.mark.parametrize("name", ["a.csv", "a.npz"])
def test_an_export_tells_how_similar_each_image_is_to_a_query(
    opened: Collection, photos: Path, tmp_path: Path, name: str
) -> None:
    own = photos / "0003.png"
    assert opened.export(tmp_path / name, query=own, format="png") == 20
    hits = opened.query(own, k=20, exact=True, include_self=True, format="png")
    if name == "a.npz":
        with np.load(tmp_path / name) as arrays:
            found = dict(zip(arrays["ids"].tolist(), arrays["similarities"], strict=True))
            ranks = dict(zip(arrays["ids"].tolist(), arrays["ranks"].tolist(), strict=True))
    else:
        with (tmp_path / name).open(newline="") as file:
            rows = list(csv.DictReader(file))
        found = {int(row["id"]): float(row["similarity"]) for row in rows}
        ranks = {int(row["id"]): int(row["rank"]) for row in rows}
    assert ranks == {hit.id: hit.rank for hit in hits}
    assert found == pytest.approx({hit.id: hit.similarity for hit in hits}, abs=1e-5)


@pytest.mark.parametrize("name", ["a.csv", "folder"])
def test_an_export_replaces_nothing_unless_it_is_forced(
    opened: Collection, tmp_path: Path, name: str
) -> None:
    opened.export(tmp_path / name)
    with pytest.raises(InputError, match="exists already; --force"):
        opened.export(tmp_path / name)
    assert opened.export(tmp_path / name, force=True, format="png") == 20
    if name == "folder":
        assert len(np.load(tmp_path / name / "ids.npy")) == 20
        (tmp_path / name / "mine.txt").touch()
        with pytest.raises(InputError, match=r"holds mine\.txt, which is not part of one"):
            opened.export(tmp_path / name, force=True)
    assert not [path for path in tmp_path.iterdir() if path.suffix in (".tmp", ".old")]


@pytest.mark.parametrize("removals", [1, 99])
def test_an_export_begins_again_if_images_are_removed_meanwhile(
    opened: Collection, photos: Path, tmp_path: Path, removals: int
) -> None:
    left = sorted(map(str, photos.iterdir()))
    real = opened.entries.ids

    def ids(**keywords: Any) -> list[int]:
        found = real(**keywords)
        if len(left) > 40 - removals:
            opened.remove(left.pop())
        return found

    opened.entries.ids = ids  # type: ignore[method-assign]
    if removals == 1:
        assert opened.export(tmp_path / "a.npz") == 39
    else:
        with pytest.raises(BusyError, match="try again later"):
            opened.export(tmp_path / "a.npz")
    assert [path for path in tmp_path.iterdir() if path.suffix == ".tmp"] == []


def test_what_cannot_be_exported_is_said_in_one_line(
    invoke: Invoke, indexed: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def code(*arguments: str | Path) -> int:
        ended = invoke("export", "-c", indexed, *arguments)
        assert ended.stdout == ""
        assert "Traceback" not in ended.stderr
        return ended.exit_code

    before = set(tmp_path.iterdir())
    assert code("--to", "a.csv", "--name", "unheard") == 1
    assert code("--to", "a.xlsx") == 2
    assert code("--to", "s3://bucket/a.csv") == 2
    assert code("--to", "a.csv", "--verify") == 2
    assert code("--to", "milvus://127.0.0.1:1/a", "--format", "png") == 2
    assert code("--to", "a.csv", "--query", "none.jpg") == 3
    assert code("--to", "a.csv", "--query", photos) == 3
    assert code("--to", photos / "0000.jpg" / "a.csv") == 7
    assert code() == 2
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert code("--to", "a.parquet") == 6
    assert set(tmp_path.iterdir()) == before
    with pytest.raises(SettingError), Collection.open(indexed) as found:
        found.export("a.txt")
    assert PackageError.exit_code == 6


def test_the_command_exports_what_passes_a_filter(
    invoke: Invoke, indexed: Path, photos: Path, tmp_path: Path
) -> None:
    shutil.copy(photos / "0003.png", tmp_path / "own.png")
    ended = invoke(
        *("export", "-c", indexed, "--to", "a.csv", "--query", "own.png"),
        *("--format", "png", "--json"),
    )
    assert (ended.exit_code, ended.stderr) == (0, "exported 20 images to a.csv\n")
    assert json.loads(ended.stdout) == {"collection": str(indexed), "to": "a.csv", "images": 20}
    with (tmp_path / "a.csv").open(newline="") as file:
        best = min(csv.DictReader(file), key=lambda row: int(row["rank"]))
    assert best["path"] == str(photos / "0003.png")
