"""Files at URLs: what they are listed as, and fetched as."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import quote

import pytest
from click.testing import Result
from fsspec.implementations.memory import MemoryFileSystem
from hypothesis import given
from hypothesis import strategies as st

from imgsearch.errors import ImageError, InputError, PackageError, SettingError
from imgsearch.files import urls
from imgsearch.files.listing import BLOCK, File, Kind, Listing, Unreadable, list_files, list_one
from imgsearch.files.paths import is_url, located, plain_url
from imgsearch.files.sources import exists, is_folder, open_source, status_of
from imgsearch.files.stamps import Stamp
from imgsearch.images.decode import ImageFile
from tests.support.memory_urls import Bucket, bucket, image_of


@pytest.fixture
def files() -> Iterator[Bucket]:
    with bucket() as made:
        yield made


@pytest.mark.parametrize("path", ["s3://bucket/photos", "gs://b", "https://h/x", "memory://m"])
def test_a_url_is_told_from_a_path(path: str) -> None:
    assert is_url(path)
    assert is_url(path.encode())


@pytest.mark.parametrize("path", ["/photos", "s3:/photos", "photos", "file:///x", "./s3://x", ""])
def test_a_path_is_told_from_a_url(path: str) -> None:
    assert not is_url(path)


@pytest.mark.parametrize(
    ("url", "why"),
    [
        (b"s3://", "names no folder"),
        (b"memory:///", "names no folder"),
        (b"zip://a::s3://b/c.zip", "chain of URLs"),
        (b"ftp://me:secret@host/photos", "password"),
    ],
)
def test_a_url_that_cannot_be_indexed_is_refused(url: bytes, why: str) -> None:
    with pytest.raises(InputError, match=why) as caught:
        plain_url(url)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("file:///a/b.jpg", "/a/b.jpg"),
        ("file:/a/b.jpg", "/a/b.jpg"),
        ("file://localhost/a/b.jpg", "/a/b.jpg"),
        ("File://LOCALHOST/a/b.jpg", "/a/b.jpg"),
        ("file:////a/b.jpg", "/a/b.jpg"),
        ("file:///a%20b/%C3%BC%2fc.jpg", "/a b/ü/c.jpg"),
        ("file:///100%.jpg", "/100%.jpg"),
        ("file:///a b?c#d.jpg", "/a b?c#d.jpg"),
        ("file:///%7E/a.jpg", "/~/a.jpg"),
        ("local:///a/b.jpg", "/a/b.jpg"),
        ("file:a.jpg", "file:a.jpg"),
        ("./file:/a.jpg", "./file:/a.jpg"),
        ("a%20b.jpg", "a%20b.jpg"),
        ("S3://Bucket/A%20b/", "s3://Bucket/A%20b"),
    ],
)
def test_every_form_of_a_file_url_is_the_path_it_stands_for(url: str, path: str) -> None:
    assert located(url) == located(url.encode()) == path.encode()
    assert is_url(url) == path.startswith("s3:")


@given(st.binary(min_size=1).filter(lambda name: b"\0" not in name and not name.startswith(b"/")))
def test_a_path_survives_being_a_file_url(name: bytes) -> None:
    for scheme in ("file://", "file:", "FILE://localhost"):
        assert located(scheme + quote(b"/" + name)) == b"/" + name


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("file://server/share/a.jpg", "a file on the host 'server'"),
        ("file://photos", "a file on the host 'photos'"),
        ("file://", "names no file"),
        ("file:///a%00b.jpg", "names no file"),
        ("", "is not a path"),
        ("a\0b", "is not a path"),
    ],
)
def test_what_names_no_file_of_this_machine_is_refused(url: str, why: str) -> None:
    with pytest.raises(InputError, match=why):
        located(url)


def test_slashes_at_the_end_are_left_out() -> None:
    assert plain_url(b"s3://bucket/photos//") == b"s3://bucket/photos"


def test_a_folder_is_listed_with_all_below_it(files: Bucket) -> None:
    for name in ("b.png", "a.png", "deep/er/c.png", ".hidden/d.png", "out/e.png", "deep/.f"):
        files.put(name, b"12345")
    url = files.url.encode()
    found = list(list_files([url, url + b"/deep"], set(), {url + b"/out"}))
    assert all(isinstance(listing, Listing) for listing in found)
    names = [
        (listing.folder, [file.name for file in listing.files])
        for listing in found
        if isinstance(listing, Listing)
    ]
    assert names == [
        (url, [b"a.png", b"b.png"]),
        (url + b"/deep", [b".f"]),
        (url + b"/deep/er", [b"c.png"]),
    ]


def test_size_and_time_come_with_the_listing(files: Bucket) -> None:
    files.put("a.png", b"12345")
    (listing,) = list_files([files.url.encode()], set())
    assert isinstance(listing, Listing)
    (file,) = listing.files
    assert file.size == 5
    assert status_of(files.at("a.png")) == Stamp(5, file.mtime_ns)
    assert list_one(files.at("a.png").encode()).files == (file,)
    assert file.mtime_ns is not None
    assert datetime.fromtimestamp(file.mtime_ns / 1e9, UTC).date() <= datetime.now(UTC).date()


def test_the_time_of_what_was_just_written_is_not_trusted(files: Bucket) -> None:
    MemoryFileSystem().pipe_file(files.at("a.png"), b"12345")
    (listing,) = list_files([files.url.encode()], set())
    assert isinstance(listing, Listing)
    assert [file.mtime_ns for file in listing.files] == [None]


def test_a_large_folder_is_listed_in_blocks(files: Bucket) -> None:
    for number in range(BLOCK + 2):
        files.put(f"{number:05}.png", b"")
    first, last = list_files([files.url.encode()], set())
    assert isinstance(first, Listing)
    assert isinstance(last, Listing)
    assert [len(first.files), len(last.files)] == [BLOCK, 2]
    assert first.upto is not None
    assert (first.first, last.first, last.upto) == (b"", first.upto + b"\0", None)


def test_what_is_not_there_is_said_to_be_so(files: Bucket) -> None:
    url = files.at("a.png")
    assert not exists(url.encode())
    assert not is_folder(url.encode())
    assert list_one(url.encode()).files == (File(b"a.png", 0, 0, Kind.BROKEN),)
    assert list(list_files([url.encode()], set())) == [
        Unreadable(url.encode(), "No such file or directory")
    ]
    with pytest.raises(FileNotFoundError):
        status_of(url)


def test_a_server_that_does_not_answer_says_nothing_about_a_file(
    files: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    def info(*_: object, **__: object) -> None:
        raise FileNotFoundError("a.png") from ConnectionError("connection refused")

    monkeypatch.setattr(MemoryFileSystem, "info", info)
    with pytest.raises(OSError, match="connection refused") as caught:
        status_of(files.at("a.png"))
    assert not isinstance(caught.value, FileNotFoundError)


def test_whatever_a_storage_raises_is_an_error_of_reading(
    files: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ls(*_: object, **__: object) -> None:
        raise RuntimeError("no credentials")

    url = files.put("a.png", 1).rpartition("/")[0].encode()
    monkeypatch.setattr(MemoryFileSystem, "ls", ls)
    assert list(list_files([url], set())) == [Unreadable(url, "no credentials")]


@pytest.mark.parametrize(
    ("info", "expected"),
    [
        ({"LastModified": datetime(2020, 1, 1, tzinfo=UTC)}, 1_577_836_800_000_000_000),
        ({"last_modified": datetime(2020, 1, 1)}, 1_577_836_800_000_000_000),
        ({"updated": "2020-01-01T00:00:00Z"}, 1_577_836_800_000_000_000),
        ({"mtime": 1577836800.5}, 1_577_836_800_500_000_000),
        ({"mtime": None, "modified": "yesterday"}, None),
        ({}, None),
    ],
)
def test_each_storage_has_its_own_word_for_time(
    files: Bucket, monkeypatch: pytest.MonkeyPatch, info: dict[str, Any], expected: int | None
) -> None:
    whole = {"name": "/x/a.png", "size": None, "type": "file", **info}
    with monkeypatch.context() as patched:
        patched.setattr(MemoryFileSystem, "info", lambda *_, **__: whole)
        assert status_of(files.at("a.png")) == Stamp(0, expected)


def test_a_folder_that_lists_itself_and_others_is_seen_through(
    files: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = files.url.encode()
    root = MemoryFileSystem._strip_protocol(files.url)
    names = [root, f"{root}/", f"{root}/a.png", f"{root}/b/c.png", "/elsewhere/d.png"]
    infos = [{"name": name, "size": 1, "type": "file"} for name in names]
    monkeypatch.setattr(MemoryFileSystem, "ls", lambda *_, **__: infos)
    (listing,) = list_files([url], set())
    assert isinstance(listing, Listing)
    assert [file.name for file in listing.files] == [b"a.png"]


def test_what_begins_like_no_image_is_not_fetched(files: Bucket) -> None:
    taken: list[int] = []

    def refuse(head: BinaryIO) -> None:
        taken.append(len(head.read()))
        raise ImageError("x", "is not an image", recognised=False)

    url = files.put("film.mov", bytes(1 << 20))
    with pytest.raises(ImageError, match="is not an image"):
        open_source(url, refuse)
    assert taken == [urls.HEAD]
    with pytest.raises(ImageError) as caught:
        ImageFile(url)
    assert not caught.value.recognised


def test_a_file_is_read_as_one_on_a_disk_is(files: Bucket, tmp_path: Path) -> None:
    content = image_of(3)
    (tmp_path / "a.png").write_bytes(content)
    with (
        ImageFile(str(tmp_path / "a.png")) as here,
        ImageFile(files.put("a.png", content)) as there,
    ):
        assert (here.digest, here.size) == (there.digest, there.size)
        assert there.mtime_ns == status_of(files.at("a.png")).mtime_ns
        assert (here.decode(32) == there.decode(32)).all()
    with open_source(files.at("a.png")) as file:
        assert file.read() == content


def test_a_file_that_is_gone_is_tried_again(files: Bucket) -> None:
    with pytest.raises(ImageError, match="cannot be read: No such file") as caught:
        ImageFile(files.at("a.png"))
    assert caught.value.transient


def test_a_missing_package_is_named() -> None:
    with pytest.raises(SettingError, match="cannot use nosuch://x/y: Protocol not known"):
        status_of("nosuch://x/y")
    with pytest.raises(PackageError, match=r"^oss://x/y needs a package .*: Install ossfs"):
        status_of("oss://x/y")  # of a package that nothing here needs


def test_without_fsspec_one_line_says_what_to_install(
    invoke: Callable[..., Result], empty: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "fsspec.core", None)
    ended = invoke("-c", empty, "index", "s3://bucket/photos")
    assert (ended.exit_code, ended.stderr) == (
        6,
        "imgsearch: s3://bucket/photos needs fsspec, which is not installed; install it with "
        "`pip install '.[fsspec]'` in a checkout of imgsearch\n",
    )


def test_a_server_that_refuses_to_be_connected_to_cannot_be_listed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise RuntimeError("authentication failed")

    monkeypatch.setattr("fsspec.core.url_to_fs", refuse)
    assert list(list_files([b"sftp://host/photos"], set())) == [
        Unreadable(b"sftp://host/photos", "authentication failed")
    ]


def test_a_file_whose_package_is_missing_is_tried_again() -> None:
    with pytest.raises(ImageError, match="cannot be read: cannot use nosuch://x/y") as caught:
        ImageFile("nosuch://x/y")
    assert caught.value.transient
