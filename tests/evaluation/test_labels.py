"""Labels: a CSV file, or a folder a class."""

from __future__ import annotations

from pathlib import Path

import pytest

from imgsearch.errors import InputError
from imgsearch.evaluation.labels import near_labels, read_labels
from tests.support.privileges import ordinary_folder, ordinary_user


def read(path: Path) -> dict[str, str]:
    """Return the label of each path."""
    return {row.path: row.label for row in read_labels(path)}


@pytest.fixture
def labels(tmp_path: Path) -> Path:
    return tmp_path / "labels.csv"


def refused(labels: Path, content: str | bytes) -> str:
    """Return why a CSV file is refused, without its name."""
    labels.write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(InputError) as caught:
        read_labels(labels)
    message = str(caught.value)
    assert message.startswith(str(labels))
    assert "\n" not in message
    return message.removeprefix(str(labels)).lstrip(", :")


def test_relative_paths_begin_at_the_folder_of_the_file(labels: Path, tmp_path: Path) -> None:
    labels.write_text("path,label\na/1.jpg,cat\n../2.jpg,dog\n/x/3.jpg,dog\n")
    expected = {f"{tmp_path}/a/1.jpg": "cat", f"{tmp_path.parent}/2.jpg": "dog"}
    assert read(labels) == expected | {"/x/3.jpg": "dog"}


def test_paths_may_be_urls_and_begin_with_the_home_directory(
    labels: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/home/ana")
    labels.write_text(
        "path,label\nfile:///a%20b/%C3%BC.jpg,x\nFILE:/2.jpg,x\nS3://b/3.jpg,x\n~/4.jpg,x\n"
        "file.jpg,x\n"
    )
    assert list(read(labels)) == [
        "/a b/ü.jpg", "/2.jpg", "s3://b/3.jpg", "/home/ana/4.jpg", f"{tmp_path}/file.jpg"
    ]  # fmt: skip
    assert read(Path(f"file:{labels}")) == read(labels)


@pytest.mark.parametrize(
    ("one", "other", "by"),
    [
        ("cat", "Cat", "upper and lower case"),
        ("cat", "cat ", "spaces"),
        ("two cats", "two  cats", "spaces"),
        ("B\u00e4r", "Ba\u0308r", "the Unicode form of their letters (NFC or NFD)"),
        ("cat", "'cat'", "quotation marks"),
        ("cat", " CAT", "spaces, case or the form of their letters"),
    ],
)
def test_labels_that_are_nearly_the_same_are_told(one: str, other: str, by: str) -> None:
    first, second = sorted((one, other))
    assert near_labels([one, "dog", other, one]) == [
        f"{first!r} and {second!r} count as two classes, and differ only by {by}"
    ]


def test_labels_that_differ_are_not_told() -> None:
    assert near_labels(["cat", "cats", "c at", "1", "01", "a-b", "a_b"]) == []


def test_columns_may_be_in_any_order_among_others(labels: Path, tmp_path: Path) -> None:
    labels.write_text('label,year,path\n"cat, tabby",1999,1.jpg\n\n"two\nlines",,2.jpg\n')
    assert read(labels) == {
        str(tmp_path / "1.jpg"): "cat, tabby",
        str(tmp_path / "2.jpg"): "two\nlines",
    }


def test_what_a_spreadsheet_saves_is_read(labels: Path, tmp_path: Path) -> None:
    labels.write_bytes("\ufeffpath,label\r\n1.jpg,Bär\r\n".encode())
    assert read(labels) == {str(tmp_path / "1.jpg"): "Bär"}


def test_the_same_line_twice_is_one(labels: Path) -> None:
    labels.write_text("path,label\n1.jpg,cat\n./1.jpg,cat\n")
    assert len(read_labels(labels)) == 1


def test_a_path_with_two_labels_is_refused_with_both_lines(labels: Path) -> None:
    message = refused(labels, "path,label\n1.jpg,cat\n2.jpg,cat\n1.jpg,dog\n")
    image = labels.parent / "1.jpg"
    assert message == f"line 4: {image} is 'dog' here, and 'cat' in {labels}, line 2; " + (
        "keep one of them"
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "line 1: there must be one column 'path', in ''; the first line must be"),
        (
            "path;label\n1;x\n",
            "line 1: there must be one column 'path', in 'path;label'; "
            "separate the columns by commas, not by semicolons; the first line must be",
        ),
        (
            "path\tlabel\n1\tx\n",
            "line 1: there must be one column 'path', in 'path\\tlabel'; sep",
        ),
        (
            "path,label\n1;x\n",
            "line 2: has 1 of the 2 columns; separate the columns by commas",
        ),
        (
            "Path , label\n1.jpg,x\n",
            "line 1: there must be one column 'path', in 'Path , label'; "
            "'Path ' differs by spaces, case or the form of its letters; the first line",
        ),
        ("path,Label\n1,x\n", "line 1: there must be one column 'label', in 'path,Label'; 'La"),
        ("path,label\nfile://server/a.jpg,x\n", "line 2: file://server/a.jpg: names a file on the"),
        ("path,class\n1,x\n", "line 1: there must be one column 'label', in 'path,class'; "),
        ("path,label,label\n1,x,y\n", "line 1: there must be one column 'label'"),
        ("path,label\n1.jpg,x\n2.jpg\n", "line 3: has 1 of the 2 columns; add the rest"),
        ("path,label\n1.jpg,\n", "line 2: has no usable path, or no label; complete or"),
        ("path,label\n,x\n", "line 2: has no usable path, or no label"),
        ("path,label\na\0b,x\n", "line 2: has no usable path, or no label"),
        (
            'path,label\n1.jpg,"x\n',
            "line 2: is not valid CSV: unexpected end of data; correct the line",
        ),
        ("path,label\n", "labels no image; give each a line, or a sub-folder for its class"),
        (b"path,label\n1.jpg,x\n2.jpg,B\xe4r\n", "line 3: is not UTF-8; save the file as such"),
    ],
)
def test_what_is_wrong_is_told_with_its_line_and_the_remedy(
    labels: Path, content: str | bytes, message: str
) -> None:
    assert refused(labels, content).startswith(message)


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cannot be read: No such file or directory; give a CSV"):
        read_labels(tmp_path / "nowhere.csv")


def test_in_a_folder_every_sub_folder_is_a_class(tmp_path: Path) -> None:
    for name in ("cat/1.jpg", "cat/tabby/2.jpg", "dog/3.jpg", "4.jpg", ".git/5.jpg", "dog/.6.jpg"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    assert read(tmp_path) == {
        str(tmp_path / "cat" / "1.jpg"): "cat",
        str(tmp_path / "cat" / "tabby" / "2.jpg"): "cat",
        str(tmp_path / "dog" / "3.jpg"): "dog",
    }


def test_a_folder_without_a_class_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="labels no image; give each a line, or a sub-folder"):
        read_labels(tmp_path)


@pytest.mark.parametrize("closed", ["", "cat"])
def test_a_folder_that_cannot_be_listed_is_refused(closed: str) -> None:
    with ordinary_folder() as folder:
        (folder / "top" / "cat").mkdir(parents=True)
        (folder / "top" / closed).chmod(0)
        message = "cannot be listed: Permission denied; make it readable"
        with ordinary_user(), pytest.raises(InputError, match=message):
            read_labels(folder / "top")
        (folder / "top" / closed).chmod(0o755)
