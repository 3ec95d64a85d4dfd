"""The directory of a collection: recognised, refused, taken over."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest

from imgsearch.errors import DamagedError, InputError, NoCollectionError, StorageError
from imgsearch.storage.layout import FORMAT_VERSION, Layout


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(tmp_path / "collection")


def test_a_directory_is_a_collection_once_its_manifest_is_written(layout: Layout) -> None:
    layout.make_folders()
    assert not layout.exists()
    with pytest.raises(NoCollectionError):
        layout.check()
    layout.write_manifest()
    assert layout.exists()
    layout.check()


def test_the_manifest_holds_the_format_version_and_nothing_else(layout: Layout) -> None:
    layout.make_folders()
    layout.write_manifest()
    assert json.loads(layout.manifest.read_text()) == {
        "format": "imgsearch collection",
        "version": FORMAT_VERSION,
    }


@pytest.mark.parametrize("place", ["missing", "file", "file/below"])
def test_where_there_is_no_collection_the_error_says_how_to_make_one(
    tmp_path: Path, place: str
) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(NoCollectionError, match="make one with `imgsearch index FOLDER`"):
        Layout(tmp_path / place).check()


def test_a_newer_format_asks_for_a_newer_imgsearch(layout: Layout) -> None:
    layout.make_folders()
    layout.manifest.write_text(
        json.dumps({"format": "imgsearch collection", "version": FORMAT_VERSION + 1})
    )
    with pytest.raises(DamagedError, match=f"version {FORMAT_VERSION + 1}.*update imgsearch"):
        layout.check()


@pytest.mark.parametrize(
    "content", [b"", b"\x00\xff", b"[]", b"{}", b'{"format": "other", "version": 1}', b'"format"']
)
def test_a_damaged_manifest_is_named(layout: Layout, content: bytes) -> None:
    layout.make_folders()
    layout.manifest.write_bytes(content)
    with pytest.raises(DamagedError, match=f"{layout.manifest} is damaged"):
        layout.check()


def test_a_manifest_that_cannot_be_read_is_a_storage_error(layout: Layout) -> None:
    layout.make_folders()
    layout.manifest.mkdir()
    with pytest.raises(StorageError, match="cannot read"):
        layout.check()


def test_a_directory_with_other_files_is_refused_and_left_alone(layout: Layout) -> None:
    layout.directory.mkdir()
    (layout.directory / "thesis.tex").write_text("precious")
    with pytest.raises(InputError, match=r"such as thesis\.tex; choose an empty directory"):
        layout.check_free()
    assert [path.name for path in layout.directory.iterdir()] == ["thesis.tex"]


def test_a_file_is_no_place_for_a_collection(layout: Layout) -> None:
    layout.directory.write_text("precious")
    with pytest.raises(InputError, match="is a file; a collection is a directory"):
        layout.check_free()


def test_what_an_unfinished_creation_left_is_taken_over(layout: Layout) -> None:
    layout.make_folders()
    for name in ("model.onnx.tmp", "catalog.sqlite", "catalog.sqlite-journal", "lock"):
        (layout.directory / name).write_bytes(b"")
    layout.check_free()
    layout.make_folders()
    layout.write_manifest()
    layout.check()
    assert layout.exists()


def test_the_size_is_that_of_all_files(layout: Layout) -> None:
    layout.make_folders()
    (layout.vectors / "00000001.npy").write_bytes(b"1" * 100)
    layout.segment(3).write_bytes(b"2" * 50)
    assert layout.segment(3).name == "00000003.faiss"
    assert layout.size() == 150


def test_the_size_can_be_asked_for_while_files_come_and_go(layout: Layout) -> None:
    layout.make_folders()
    (layout.vectors / "00000001.npy").write_bytes(b"1" * 100)
    done = threading.Event()

    def come_and_go() -> None:
        passing = layout.directory / "catalog.sqlite-journal"
        while not done.is_set():
            passing.write_bytes(b"2")
            passing.unlink()

    writer = threading.Thread(target=come_and_go)
    writer.start()
    try:
        assert {layout.size() for _ in range(300)} <= {100, 101}
    finally:
        done.set()
        writer.join()
