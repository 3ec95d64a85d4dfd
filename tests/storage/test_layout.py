"""The directory of a collection: recognised, refused, taken over."""

from __future__ import annotations

import json
import os
import shutil
import threading
from pathlib import Path

import pytest

from imgsearch.errors import DamagedError, InputError, NoCollectionError, StorageError
from imgsearch.storage.layout import FORMAT_VERSION, MAX_MODEL, Layout
from tests.support.privileges import ordinary_folder, ordinary_user

GOLDEN = Path(__file__).parent.parent / "data"


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(tmp_path / "collection")


def test_a_collection_is_named_by_its_absolute_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/ana")
    here = Path.cwd()
    assert Layout.at("photos").directory == here / "photos"
    assert Layout.at("photos/../other/").directory == here / "other"
    assert Layout.at(Path("/photos")).directory == Path("/photos")
    assert Layout.at("~/photos").directory == Path("/home/ana/photos")


def test_a_path_that_faiss_cannot_open_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="the path of a collection must be UTF-8"):
        Layout.at(os.fsdecode(bytes(tmp_path) + b"/\xff"))
    assert Layout.at(tmp_path / "é").directory.name == "é"


def test_the_url_of_another_collection_is_refused_with_what_works_there() -> None:
    with pytest.raises(InputError, match=r"milvus://h:1/photos is not a directory, .* both"):
        Layout.at("milvus://h:1/photos")


def test_a_directory_is_a_collection_once_its_manifest_is_written(layout: Layout) -> None:
    layout.make_folders()
    assert not layout.exists()
    with pytest.raises(NoCollectionError):
        layout.version()
    layout.write_manifest()
    assert layout.exists()
    layout.version()


def test_a_model_that_is_too_large_to_be_one_is_damage_and_not_read(layout: Layout) -> None:
    layout.make_folders()
    with layout.model.open("wb") as file:
        file.truncate(MAX_MODEL + 1)
        for start in range(0, MAX_MODEL, 32 << 20):  # not nearly all holes, which is told sooner
            file.seek(start)
            file.write(bytes(1 << 20))
    with pytest.raises(DamagedError, match="2,147,483,648 bytes, which is more than it can have"):
        layout.check_model("0" * 64)


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
    with pytest.raises(NoCollectionError, match="create it with `imgsearch index FOLDER`"):
        Layout(tmp_path / place).version()


def test_a_newer_format_asks_for_a_newer_imgsearch(layout: Layout) -> None:
    layout.make_folders()
    layout.manifest.write_text(
        json.dumps({"format": "imgsearch collection", "version": FORMAT_VERSION + 1})
    )
    with pytest.raises(DamagedError, match=f"version {FORMAT_VERSION + 1}.*update imgsearch"):
        layout.version()


def test_an_older_format_is_refused_with_what_to_do_about_it(layout: Layout) -> None:
    shutil.copytree(GOLDEN / "collection-1", layout.directory)
    with pytest.raises(
        DamagedError,
        match=f"{layout.directory} has format version 1, written by imgsearch 0.1, "
        rf"but this imgsearch reads {FORMAT_VERSION}; index its folders into a new .* -c",
    ):
        layout.version()
    assert layout.exists()  # it is no place for another


@pytest.mark.parametrize("version", [0, -1, "3", 3.0, [3], True, None])
def test_a_version_that_is_none_is_damage(layout: Layout, version: object) -> None:
    layout.make_folders()
    layout.manifest.write_text(json.dumps({"format": "imgsearch collection", "version": version}))
    with pytest.raises(DamagedError, match=r"collection\.json is damaged"):
        layout.version()


@pytest.mark.parametrize(
    "content", [b"", b"\x00\xff", b"[]", b"{}", b'{"format": "other", "version": 1}', b'"format"']
)
def test_a_damaged_manifest_is_named(layout: Layout, content: bytes) -> None:
    layout.make_folders()
    layout.manifest.write_bytes(content)
    with pytest.raises(DamagedError, match=f"{layout.manifest} is damaged"):
        layout.version()


def test_a_folder_in_the_place_of_the_manifest_is_damage(layout: Layout) -> None:
    layout.make_folders()
    layout.manifest.mkdir()
    assert layout.exists()  # it is no place for another collection
    with pytest.raises(DamagedError, match=r"collection\.json is a folder"):
        layout.version()


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


def test_a_directory_that_may_not_be_read_is_a_storage_error() -> None:
    with ordinary_folder() as folder:
        folder.chmod(0)
        with ordinary_user(), pytest.raises(StorageError, match=f"cannot read {folder}"):
            Layout(folder).check_free()
        folder.chmod(0o755)


def test_a_directory_that_is_missing_is_free(layout: Layout) -> None:
    layout.check_free()
    assert not layout.directory.exists()


def test_what_an_unfinished_creation_left_is_taken_over(layout: Layout) -> None:
    layout.make_folders()
    for name in ("model.onnx.tmp", "catalog.sqlite", "catalog.sqlite-journal", "lock"):
        (layout.directory / name).write_bytes(b"")
    layout.check_free()
    layout.make_folders()
    layout.write_manifest()
    layout.version()
    assert layout.exists()


def test_the_size_is_that_of_all_files(layout: Layout) -> None:
    layout.make_folders()
    (layout.vectors / "00000001.npy").write_bytes(b"1" * 100)
    layout.segment(3).write_bytes(b"2" * 50)
    assert layout.segment(3).name == "00000003.faiss"
    assert layout.size() == 150


def test_what_is_gone_when_it_is_weighed_weighs_nothing(layout: Layout) -> None:
    layout.make_folders()
    layout.segment(1).write_bytes(b"1" * 30)
    layout.segment(2).symlink_to("nowhere")  # as a file that was deleted since it was listed
    assert layout.size() == 30


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
