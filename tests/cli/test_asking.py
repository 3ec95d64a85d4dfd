"""What `imgsearch query` is asked with: folders, stdin, several images combined, parts of them."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from imgsearch.cli import main
from imgsearch.cli.query import BLOCK, Picture, pictures
from imgsearch.collection import Collection
from tests.support.commands import imgsearch_command, run_python
from tests.support.pictures import picture, save_pictures
from tests.support.privileges import give_away, ordinary_folder, ordinary_user
from tests.support.small_network import INPUT_SIZE

Invoke = Callable[..., Result]


def answers(ended: Result) -> list[dict[str, Any]]:
    return [json.loads(line) for line in ended.stdout.splitlines()]


def paths(answer: dict[str, Any]) -> list[str]:
    return [hit["path"] for hit in answer["hits"]]


# Folders


def test_a_folder_stands_for_all_images_under_it(invoke: Invoke, indexed: Path, tree: Path) -> None:
    (tree / "notes.txt").write_text("milk")
    ended = invoke("-c", indexed, "query", "tree", "--json", "-k", "1")
    assert (ended.exit_code, ended.stderr) == (0, "")
    images = sorted(tree.glob("*.*g")) + sorted((tree / "below").iterdir())
    assert [answer["query"] for answer in answers(ended)] == list(map(str, images))


def test_images_of_a_folder_are_called_as_the_folder_was(
    invoke: Invoke, indexed: Path, tree: Path
) -> None:
    tables = invoke("-c", indexed, "query", f"{tree.name}/", "-k", "1").stdout.split("\n\n")
    assert tables[0].splitlines()[0] == "tree/0000.jpg"
    assert tables[-1].splitlines()[0] == "tree/below/0011.png"


def test_a_broken_image_in_a_folder_ends_with_3_and_the_others_are_answered(
    invoke: Invoke, indexed: Path, tree: Path
) -> None:
    (tree / "0003.png").write_bytes(b"")
    (tree / "gone.jpg").symlink_to("nowhere")
    ended = invoke("-c", indexed, "query", "tree", "--json")
    assert ended.exit_code == 3
    assert ended.stderr == (
        "imgsearch: tree/0003.png: is named like an image but is empty\n"
        "imgsearch: tree/gone.jpg: cannot be read: No such file or directory\n"
    )
    assert len(answers(ended)) == 11


@pytest.mark.parametrize("content", [None, "notes.txt"])
def test_a_folder_without_an_image_ends_with_3(
    invoke: Invoke, indexed: Path, photos: Path, content: str | None
) -> None:
    Path("bare").mkdir()
    if content:
        (Path("bare") / content).write_text("milk")
    ended = invoke("-c", indexed, "query", "bare", photos / "0003.png", "--paths", "-k", "1")
    assert ended.exit_code == 3
    assert ended.stderr == "imgsearch: bare: there is no image in this folder\n"
    assert len(ended.stdout.splitlines()) == 1


def test_a_folder_that_cannot_be_listed_ends_with_3(
    indexed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ordinary_folder() as folder:
        give_away(shutil.copytree(indexed, folder / "collection"))
        save_pictures(folder / "tree", 2)
        (folder / "tree" / "below").mkdir(mode=0)
        monkeypatch.chdir(folder)
        with ordinary_user():
            ended = CliRunner().invoke(main, ["-c", "collection", "query", "tree", "--json"])
    assert ended.exit_code == 3
    assert ended.stderr == f"imgsearch: {folder}/tree/below: cannot be listed: Permission denied\n"
    assert len(answers(ended)) == 2


def test_more_images_than_a_block_are_answered_in_their_order(
    invoke: Invoke, indexed: Path
) -> None:
    many = save_pictures(Path("many").absolute(), 2 * BLOCK + 1)
    ended = invoke("-c", indexed, "query", "many", "--json", "-k", "1", "--include-self")
    assert [answer["query"] for answer in answers(ended)] == list(map(str, many))
    for answer in answers(ended)[:40]:
        assert Path(answer["hits"][0]["path"]).name == Path(answer["query"]).name


def test_answers_are_printed_while_later_images_are_still_to_be_read(
    indexed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    many = save_pictures(tmp_path / "many", BLOCK + 1)
    embed = Collection.embed

    def stop_at_the_last(collection: Collection, queries: Any, **options: Any) -> Any:
        if queries == [str(many[-1])]:
            raise KeyboardInterrupt
        return embed(collection, queries, **options)

    monkeypatch.setattr(Collection, "embed", stop_at_the_last)
    command = ["-c", str(indexed), "query", str(tmp_path / "many"), "--paths", "-k", "1"]
    ended = CliRunner().invoke(main, command)
    assert ended.exit_code == 130
    assert len(ended.stdout.splitlines()) == BLOCK


# stdin


def ask_with(content: bytes, *arguments: str | Path) -> Result:
    return CliRunner().invoke(
        main, list(map(str, arguments)), input=content, catch_exceptions=False
    )


def test_an_image_may_come_from_stdin(indexed: Path, photos: Path) -> None:
    content = (photos / "0003.png").read_bytes()
    ended = ask_with(content, "-c", indexed, "query", "-", photos / "0004.jpg", "--json", "-k", "1")
    assert (ended.exit_code, ended.stderr) == (0, "")
    one, other = answers(ended)
    assert (one["query"], paths(one)) == ("-", [str(photos / "0003.png")])
    assert other["query"] == str(photos / "0004.jpg")
    table = ask_with(content, "-c", indexed, "query", "-", "-k", "1").stdout
    assert table.splitlines()[0] == "-"
    assert str(photos / "0003.png") in table  # which image of the collection it is, nobody knows


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "stdin is empty; send it an image, as in `< cat.jpg`"),
        (b"no image", "is not an image of a supported format"),
        (b"\x89PNG\r\n\x1a\n", "cannot be decoded: its header is malformed"),
    ],
)
def test_what_is_no_image_on_stdin_ends_with_3(
    indexed: Path, photos: Path, content: bytes, reason: str
) -> None:
    ended = ask_with(content, "-c", indexed, "query", "-", photos / "0004.jpg", "--paths")
    assert ended.exit_code == 3
    assert ended.stderr == f"imgsearch: -: {reason}\n"
    assert len(ended.stdout.splitlines()) == 10


def test_a_closed_stdin_is_an_empty_one(indexed: Path) -> None:
    command = imgsearch_command("-c", indexed, "query", "-")
    ended = run_python(command, cwd=indexed, before=lambda: os.close(0))
    assert ended.code == 3
    assert ended.err.startswith("imgsearch: -: stdin is empty")


# Several images in one query


def test_combined_images_make_one_query(invoke: Invoke, indexed: Path, photos: Path) -> None:
    two = [str(photos / "0003.png"), str(photos / "0004.jpg")]
    ended = invoke("-c", indexed, "query", *two, "--combine", "--json", "-k", "2", "--include-self")
    (answer,) = answers(ended)
    assert answer["queries"] == [{"path": path} for path in two]
    assert answer["unlike"] == []
    assert "query" not in answer
    assert set(paths(answer)) == set(two)
    table = invoke("-c", indexed, "query", *two, "--combine").stdout
    assert table.splitlines()[0] == " + ".join(two)
    assert len(table.splitlines()) == 12


@pytest.mark.usefixtures("tree")
def test_a_folder_may_be_combined(invoke: Invoke, indexed: Path) -> None:
    ended = invoke("-c", indexed, "query", "tree", "--combine", "--unlike", "tree/below")
    assert ended.stdout.splitlines()[0] == (
        "tree/0000.jpg + tree/0001.png + tree/0002.jpg + 9 more"
        " - tree/below/0008.jpg - tree/below/0009.png - tree/below/0010.jpg - 1 more"
    )


def test_a_bad_image_is_left_out_of_a_combination(
    invoke: Invoke, indexed: Path, photos: Path
) -> None:
    good = [str(photos / "0003.png"), str(photos / "0004.jpg")]
    command = ["-c", indexed, "query", *good, "no.jpg", "--combine", "--json"]
    ended = invoke(*command)
    assert ended.exit_code == 3
    (answer,) = answers(ended)
    assert [part["path"] for part in answer["queries"]] == good
    ended = invoke("-c", indexed, "query", "no.jpg", "--combine", "--json")
    assert (ended.exit_code, ended.stdout) == (3, "")


def test_images_that_cancel_one_another_out_end_with_3(invoke: Invoke, indexed: Path) -> None:
    # To the small network, whose input they have the size of, they are opposites.
    pixels = np.random.default_rng(0).integers(0, 256, (INPUT_SIZE, INPUT_SIZE, 3), dtype=np.uint8)
    Image.fromarray(pixels).save("one.png")
    Image.fromarray(255 - pixels).save("other.png")
    ended = invoke("-c", indexed, "query", "one.png", "other.png", "--combine", "--json")
    assert (ended.exit_code, ended.stdout) == (3, "")
    assert ended.stderr == (
        "imgsearch: these images cancel one another out; leave one of them out\n"
    )


def test_each_image_is_searched_for_away_from_those_that_it_is_to_be_unlike(
    invoke: Invoke, indexed: Path, photos: Path
) -> None:
    two, other = [photos / "0003.png", photos / "0004.jpg"], str(photos / "0005.png")
    command = ["-c", indexed, "query", *two, "--json", "-k", "40", "--include-self"]
    plain, away = answers(invoke(*command)), answers(invoke(*command, "--unlike", other))
    for before, after in zip(plain, away, strict=True):
        assert after["query"] == before["query"]
        assert after["unlike"] == [{"path": other}]
        assert paths(after).index(other) > paths(before).index(other)


def test_all_images_of_a_query_are_left_out(invoke: Invoke, indexed: Path, photos: Path) -> None:
    one, two, three = (str(photos / name) for name in ("0003.png", "0004.jpg", "0005.png"))
    command = ["-c", indexed, "query", one, two, "--unlike", three, "--json"]
    command += ["-k", "99"]
    (combined,) = answers(invoke(*command, "--combine"))
    assert len(paths(combined)) == 37
    assert {one, two, three}.isdisjoint(paths(combined))
    first, second = answers(invoke(*command))
    assert {one, three}.isdisjoint(paths(first))
    assert two in paths(first)
    assert {two, three}.isdisjoint(paths(second))
    assert one in paths(second)


# Parts, thresholds


def test_part_of_an_image_is_searched_for(invoke: Invoke, indexed: Path, photos: Path) -> None:
    path = photos / "0003.png"
    with Collection.open(indexed, device="cpu") as collection:
        embedding = collection.embed([path], crop=(10, 5, 40, 35))
        ids = [hit.id for hit in collection.query(embedding[0])]
    for crop in ("10,5,40,35", "0.20833333,0.125,0.83333333,0.875"):
        ended = invoke("-c", indexed, "query", path, "--crop", crop, "--json", "--include-self")
        (answer,) = answers(ended)
        assert [hit["id"] for hit in answer["hits"]] == ids


def test_a_part_outside_of_an_image_ends_with_3_and_the_others_are_answered(
    invoke: Invoke, indexed: Path, photos: Path
) -> None:
    picture(3, width=90, height=90).save("large.png")
    small = photos / "0003.png"
    ended = invoke("-c", indexed, "query", small, "large.png", "--crop", "60,60,80,80", "--json")
    assert ended.exit_code == 3
    assert ended.stderr == (
        f"imgsearch: {small}: the crop 60,60,80,80 lies outside of the image, "
        "which has 48 x 40 pixels\n"
    )
    assert len(answers(ended)) == 1


def test_only_images_that_are_similar_enough_are_shown(
    invoke: Invoke, indexed: Path, photos: Path
) -> None:
    shutil.copy(photos / "0003.png", "same.png")
    picture(500).save("other.png")
    command = ["-c", indexed, "query", "same.png", "other.png", "--min-similarity", "1", "--json"]
    ended = invoke(*command)
    assert ended.exit_code == 1
    assert ended.stderr == (
        "imgsearch: nothing found for other.png: no other image has a similarity of 1 or more\n"
    )
    same, other = answers(ended)
    assert paths(same) == [str(photos / "0003.png")]
    assert other["hits"] == []


def test_a_file_url_is_the_path_of_a_file() -> None:
    (found,) = pictures("file:///photos/cat.jpg")
    assert isinstance(found, Picture)
    assert (found.path, found.source) == ("/photos/cat.jpg", "/photos/cat.jpg")
