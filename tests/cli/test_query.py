"""`imgsearch query`: tables, JSON, paths, and what is refused."""

from __future__ import annotations

import base64
import json
import os
import shutil
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from imgsearch.collection import Collection
from tests.support.commands import Run, run_python
from tests.support.pictures import picture, save_pictures

Invoke = Callable[..., Result]


def answers(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


@pytest.fixture
def odd_names(empty: Path, tmp_path: Path) -> Path:
    """A collection of images whose names are hostile; the last one is not UTF-8."""
    folder = tmp_path / "odd"
    folder.mkdir()
    for number, name in enumerate(("red\x1b[31m.png", "left\u202egnp.png", "new\nline.png")):
        picture(number).save(folder / name)
    picture(9).save(tmp_path / "last.png")
    (tmp_path / "last.png").rename(os.fsdecode(os.fsencode(folder) + b"/\xff\xfe.png"))
    with Collection.open(empty, device="cpu") as collection:
        assert collection.index(folder).indexed == 4
    return empty


def test_the_image_itself_comes_first_where_it_is_included(
    invoke: Invoke, indexed: Path, photos: Path
) -> None:
    ended = invoke("-c", indexed, "query", photos / "0003.png", "-k", "3", "--include-self")
    lines = ended.stdout.splitlines()
    assert (ended.exit_code, ended.stderr) == (0, "")
    assert lines[0] == str(photos / "0003.png")
    assert lines[1].split() == ["#", "similarity", "path"]
    assert lines[2].split() == ["1", "1.0000", str(photos / "0003.png")]
    assert len(lines) == 5


def test_several_queries_are_answered_in_their_order(
    invoke: Invoke, indexed: Path, photos: Path
) -> None:
    names = [photos / "0003.png", photos / "0004.jpg"]
    ended = invoke("-c", indexed, "query", *names, "-k", "1")
    tables = ended.stdout.split("\n\n")
    assert [table.splitlines()[0] for table in tables] == list(map(str, names))


@pytest.mark.usefixtures("indexed")
def test_json_is_a_line_for_each_query_with_absolute_paths(
    invoke: Invoke, photos: Path, tmp_path: Path
) -> None:
    shutil.copy(photos / "0003.png", tmp_path / "here.png")
    ended = invoke("-c", "indexed", "query", "here.png", photos / "0004.jpg", "--json", "-k", "2")
    one, other = answers(ended.stdout)
    assert one.keys() == {"query", "search", "nprobe", "recall", "hits"}
    assert (one["search"], one["nprobe"], one["recall"]) == ("exact", 0, 1.0)
    assert one["query"] == str(tmp_path / "here.png")
    assert other["query"] == str(photos / "0004.jpg")
    assert [hit["rank"] for hit in one["hits"]] == [1, 2]
    assert one["hits"][0] == {
        "rank": 1,
        "id": 4,
        "path": str(photos / "0003.png"),
        "distance": 0.0,
        "similarity": 1.0,
        "score": None,
        "z": None,
        "band": None,
    }


def test_a_name_that_is_not_utf_8_has_its_bytes_in_json(
    run: Run, odd_names: Path, tmp_path: Path
) -> None:
    path = os.fsencode(tmp_path / "odd") + b"/\xff\xfe.png"
    path_text = os.fsdecode(path)
    ended = run("-c", odd_names, "query", path_text, "--json", "-k", "1", "--include-self")
    (answer,) = answers(ended.out)
    for fields, name in ((answer, "query"), (answer["hits"][0], "path")):
        assert base64.b64decode(fields[f"{name}_bytes"]) == path
        assert fields[name] == str(tmp_path / "odd" / "\ufffd\ufffd.png")
    assert all(ord(character) < 128 for character in ended.out)


def test_what_a_terminal_would_obey_is_escaped_in_the_table(
    invoke: Invoke, odd_names: Path, tmp_path: Path
) -> None:
    for query in (tmp_path / "odd" / "red\x1b[31m.png", tmp_path / "odd" / "left\u202egnp.png"):
        ended = invoke("-c", odd_names, "query", query, "--include-self")
        assert "red\\x1b[31m.png" in ended.stdout
        assert "left\\u202egnp.png" in ended.stdout
        assert "new\\nline.png" in ended.stdout
        assert "\\udcff\\udcfe.png" in ended.stdout
        assert len(ended.stdout.splitlines()) == 6
        assert ended.stdout.replace("\n", "").isprintable()


def test_an_error_about_a_hostile_name_is_escaped_too(invoke: Invoke, indexed: Path) -> None:
    ended = invoke("-c", indexed, "query", "no\x1b[31m\nsuch.png")
    assert ended.stderr == (
        "imgsearch: no\\x1b[31m\\nsuch.png: cannot be read: No such file or directory\n"
    )


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_paths_are_printed_as_they_are(
    run: Run, odd_names: Path, tmp_path: Path, encoding: str
) -> None:
    query = tmp_path / "odd" / "red\x1b[31m.png"
    environment = {"PYTHONIOENCODING": encoding}  # strict, as in most locales
    flags = ["--paths", "--include-self"]
    ended = run("-c", odd_names, "query", query, *flags, env=environment)
    assert (ended.code, ended.err) == (0, "")
    printed = ended.out.removesuffix("\n").replace("new\nline", "newline").split("\n")
    assert printed[0] == str(query)
    names = {os.fsencode(Path(path).name) for path in printed}
    expected = {b"red\x1b[31m.png", "left\u202egnp.png".encode(), b"newline.png", b"\xff\xfe.png"}
    assert names == expected


@pytest.mark.parametrize("flags", [[], ["--exclude-self"], ["--no-include-self"]])
def test_the_image_at_the_own_path_is_no_hit_and_a_copy_of_it_is(
    invoke: Invoke, indexed: Path, photos: Path, flags: list[str]
) -> None:
    own, copy = photos / "0003.png", shutil.copy(photos / "0003.png", "copy.png")
    invoke("-c", indexed, "index", copy)
    ended = invoke("-c", indexed, "query", own, "--paths", "-k", "100", *flags)
    found = ended.stdout.splitlines()
    assert (found[0], len(found)) == (str(Path(copy).absolute()), 40)
    assert str(own) not in found


def test_the_image_at_the_own_path_may_be_brought_in(
    invoke: Invoke, indexed: Path, photos: Path
) -> None:
    own = photos / "0003.png"
    command = ["-c", indexed, "query", own, "--paths", "-k", "1"]
    for flags, env in (
        (["--include-self"], {}),
        ([], {"IMGSEARCH_INCLUDE_SELF": "1"}),
        (["--include-self"], {"IMGSEARCH_EXCLUDE_SELF": "1"}),
    ):
        assert invoke(*command, *flags, env=env).stdout == f"{own}\n"
    nearer = invoke(*command, "--exclude-self", env={"IMGSEARCH_INCLUDE_SELF": "1"})
    assert nearer.stdout != f"{own}\n"
    both = invoke(*command, "--exclude-self", "--include-self")
    assert both.exit_code == 2
    assert "are mutually exclusive" in both.stderr


def test_all_lists_or_exact_search_find_the_same(
    invoke: Invoke, indexed: Path, photos: Path
) -> None:
    invoke("-c", indexed, "index", "--nlist", "6")
    query = ["-c", indexed, "query", photos / "0003.png", "--json", "-k", "20"]
    (exact,) = answers(invoke(*query, "--exact").stdout)
    (probed,) = answers(invoke(*query, "--nprobe", "6").stdout)
    assert [hit["path"] for hit in probed["hits"]] == [hit["path"] for hit in exact["hits"]]
    one_list = answers(invoke(*query, "--nprobe", "1").stdout)
    assert len(one_list[0]["hits"]) < 20


def test_an_empty_collection_ends_with_1_and_says_so(
    invoke: Invoke, empty: Path, photos: Path
) -> None:
    ended = invoke("-c", empty, "query", photos / "0003.png", "--json")
    assert ended.exit_code == 1
    line = "nothing found: the collection is empty; add images with `imgsearch index FOLDER`"
    assert ended.stderr == f"imgsearch: {line}\n"
    (answer,) = answers(ended.stdout)
    assert (answer["query"], answer["hits"]) == (str(photos / "0003.png"), [])
    table = invoke("-c", empty, "query", photos)  # 40 images, one line
    assert (table.exit_code, table.stdout, table.stderr) == (1, "", ended.stderr)


def test_of_a_folder_only_some_images_without_hits_are_reported_one_by_one(
    invoke: Invoke, indexed: Path
) -> None:
    save_pictures(Path("others"), 5, first=900)
    ended = invoke("-c", indexed, "query", "others", "--min-similarity", "1")
    assert (ended.exit_code, ended.stdout) == (1, "")
    *each, rest = ended.stderr.splitlines()
    assert len(each) == 3
    assert each[0] == (
        "imgsearch: nothing found for others/0900.jpg: no other image has a similarity of 1 or more"
    )
    assert rest == "imgsearch: nothing found for 2 more images"


def test_a_collection_without_another_image_ends_with_1_and_without_an_empty_table(
    invoke: Invoke, empty: Path, tmp_path: Path
) -> None:
    one, other = save_pictures(tmp_path / "two", 2)
    with Collection.open(empty, device="cpu") as collection:
        collection.index([one])
    ended = invoke("-c", empty, "query", one, other)
    assert ended.exit_code == 1
    assert ended.stderr == (
        f"imgsearch: nothing found for {one}: the collection holds no other image\n"
    )
    title, _, hit = ended.stdout.splitlines()
    assert (title, hit.split()[-1]) == (str(other), "two/0000.jpg")
    alone = invoke("-c", empty, "query", one, "--csv")
    assert (alone.exit_code, len(alone.stdout.splitlines())) == (1, 1)
    invoke("-c", empty, "query", one, "--html", "page.html")
    assert "<p>nothing found, compared with" in Path("page.html").read_text()


def test_lists_without_another_image_are_told_apart_from_such_a_collection(
    invoke: Invoke, empty: Path, tmp_path: Path
) -> None:
    save_pictures(tmp_path / "few", 12)
    with Collection.open(empty, device="cpu") as collection:
        collection.index([tmp_path / "few"], nlist=12)
    ended = invoke("-c", empty, "query", tmp_path / "few", "--nprobe", "1")
    assert ended.exit_code == 1
    *each, rest = ended.stderr.splitlines()
    assert (len(each), rest) == (3, "imgsearch: nothing found for 9 more images")
    for line in each:
        assert line.endswith(
            ": the inverted lists that were searched hold no other image; pass --exact to compare "
            "with every image"
        )
    assert invoke("-c", empty, "query", tmp_path / "few", "--exact").exit_code == 0


@pytest.mark.parametrize("bad", ["missing.jpg", "text.jpg", "~nobody-of-that-name/a.jpg"])
def test_a_query_that_is_no_image_ends_with_3_and_the_others_are_answered(
    invoke: Invoke, indexed: Path, photos: Path, tmp_path: Path, bad: str
) -> None:
    (tmp_path / "text.jpg").write_text("no image")
    images = [photos / "0003.png", bad, photos / "0004.jpg"]
    ended = invoke("-c", indexed, "query", *images, "--json", "-k", "1")
    assert ended.exit_code == 3
    assert ended.stderr.startswith(f"imgsearch: {bad}: ")
    assert len(ended.stderr.splitlines()) == 1
    assert [Path(answer["query"]).name for answer in answers(ended.stdout)] == [
        "0003.png",
        "0004.jpg",
    ]


def test_json_tells_how_each_query_was_searched(
    invoke: Invoke, indexed: Path, photos: Path
) -> None:
    invoke("-c", indexed, "index", "--nlist", "6")
    query = ["-c", indexed, "query", photos / "0003.png", photos / "0004.jpg", "--json"]
    for answer in answers(invoke(*query, "--exact").stdout):
        assert (answer["search"], answer["nprobe"], answer["recall"]) == ("exact", 0, 1.0)
    for answer in answers(invoke(*query, "--nprobe", "2").stdout):
        assert (answer["search"], answer["nprobe"]) == ("ivf", 2)
        assert answer["recall"] is None or 0 <= answer["recall"] <= 1
    for answer in answers(invoke(*query, "--recall", "1").stdout):
        assert answer["search"] in ("ivf", "wide", "exact")


@pytest.mark.whole("test_embedding_on_a_cpu_does_not_import_torch")
def test_neither_querying_nor_info_imports_torch(indexed: Path, photos: Path) -> None:
    script = (
        "import sys\n"
        "from imgsearch.cli import main\n"
        "try:\n    main()\n"
        "except SystemExit as end:\n    assert end.code == 0\n"
        "unused = {'torch', 'torchvision', 'onnx', 'tqdm', 'imgsearch.storage.changes'}\n"
        "print(*sorted(unused & set(sys.modules)))\n"
    )
    for command, imported in [
        (["query", str(photos / "0003.png")], ""),
        (["info"], "imgsearch.storage.changes"),
    ]:
        arguments = [sys.executable, "-c", script, "-c", str(indexed), *command]
        ended = run_python(arguments, cwd=indexed)
        assert (ended.out.splitlines()[-1], ended.err) == (imported, "")


def test_what_decoders_say_about_an_odd_file_does_not_reach_the_terminal(
    run: Run, indexed: Path, tmp_path: Path
) -> None:
    tables = struct.pack("<HHII", 347, 7, 4, 0x6E6F6E65)  # JPEGTables that are none
    fields = b"".join(
        struct.pack("<HHII", tag, kind, 1, value)
        for tag, kind, value in (
            (256, 3, 16), (257, 3, 16), (258, 3, 8), (259, 3, 7), (262, 3, 1), (273, 4, 8),
            (277, 3, 1), (278, 3, 16), (279, 4, 4),
        )
    )  # fmt: skip
    odd = tmp_path / "odd.tif"
    odd.write_bytes(
        b"II*\0" + struct.pack("<I", 12) + b"\0" * 4 + struct.pack("<H", 10) + fields + tables
        + b"\0" * 4
    )  # fmt: skip
    ended = run("-c", indexed, "query", odd)
    assert ended.code == 3
    assert len(ended.err.splitlines()) == 1
    assert ended.err.startswith(f"imgsearch: {odd}: cannot be decoded")
