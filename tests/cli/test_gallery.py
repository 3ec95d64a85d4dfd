"""`imgsearch gallery` writes a folder of pages."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from click.testing import Result
from PIL import Image

from imgsearch.collection import Collection
from tests.support.pictures import picture

Invoke = Callable[..., Result]


def shown(folder: Path) -> tuple[str, list[dict[str, Any]]]:
    """Return the title of a gallery, and what its page knows of each image."""
    text = (folder / "images.js").read_text("ascii")
    found = re.fullmatch(r"window\.gallery = \{ title: (.+), images: (\[.*\]) \};\n", text, re.S)
    assert found, text
    return json.loads(found[1]), json.loads(found[2].replace(",\n]", "\n]"))


def test_a_gallery_shows_each_image_with_the_most_similar_ones(
    invoke: Invoke, indexed: Path, opened: Collection, photos: Path, tmp_path: Path
) -> None:
    ended = invoke("gallery", "out", "-c", indexed, "-k", "5", "--format", "png")
    assert (ended.exit_code, ended.stdout) == (0, "")
    assert ended.stderr == "wrote 20 images to out/index.html\n"
    title, images = shown(tmp_path / "out")
    names = [image["name"] for image in images]
    assert (title, names) == ("Images", sorted(path.name for path in photos.glob("*.png")))
    for number, image in enumerate(images):
        hits = opened.query(photos / image["name"], k=5, format="png")
        assert [names[place] for place, _ in image["near"]] == [
            os.path.basename(hit.path) for hit in hits
        ]
        with Image.open(tmp_path / "out" / "images" / f"{number}.jpg") as thumbnail:
            assert thumbnail.size == (image["width"], image["height"]) == (48, 40)
            assert not thumbnail.getexif()
    everything = b"".join(path.read_bytes() for path in (tmp_path / "out").glob("*.*"))
    assert os.fsencode(photos) not in everything
    assert b"http" not in everything.replace(b"http-equiv", b"").replace(
        b'xmlns="http://www.w3.org/2000/svg"', b""
    )


def test_export_writes_galleries_too(
    invoke: Invoke, indexed: Path, photos: Path, tmp_path: Path
) -> None:
    options = ("-c", indexed, "--name", "0003", "--query", photos / "0005.png")
    assert invoke("gallery", "one", *options).exit_code == 0
    ended = invoke("export", "--to", "gallery", "two", *options)
    assert (ended.exit_code, ended.stderr) == (0, "wrote 1 image to two/index.html\n")
    for path in (tmp_path / "one").rglob("*.*"):
        assert (
            path.read_bytes()
            == (tmp_path / "two" / path.relative_to(tmp_path / "one")).read_bytes()
        )
    assert invoke("export", "--to", "gallery", "two", *options).exit_code == 3  # exists already
    for refused in (("--json",), ("--verify",)):
        assert invoke("export", "--to", "gallery", "three", *refused).exit_code == 2
    assert "only with --to gallery" in invoke("export", "--to", "x.csv", "three").stderr


def test_a_gallery_may_show_the_answer_of_a_query(
    invoke: Invoke, indexed: Path, opened: Collection, photos: Path, tmp_path: Path
) -> None:
    shutil.copy(photos / "0003.png", "own.png")
    ended = invoke("gallery", "out", "-c", indexed, "--query", "own.png", "-n", "4", "-k", "9")
    assert ended.exit_code == 0
    title, images = shown(tmp_path / "out")
    hits = opened.query("own.png", k=4)
    assert title == "Most similar to own.png"
    assert [image["name"] for image in images] == [os.path.basename(hit.path) for hit in hits]
    assert [image["similarity"] for image in images] == [round(hit.similarity, 3) for hit in hits]
    for number, image in enumerate(images):
        assert {place for place, _ in image["near"]} == {0, 1, 2, 3} - {number}


def test_an_image_without_its_file_is_shown_by_its_name(
    invoke: Invoke, collection: Collection, empty: Path, tree: Path, tmp_path: Path
) -> None:
    odd = os.fsencode(tree) + b"/\xff\x1b\xe2\x80\xae<script>.png"
    picture(20).save(odd, format="png")
    collection.index(tree)
    (tree / "0000.jpg").unlink()
    picture(99).save(tree / "0001.png")
    ended = invoke("gallery", "out", "-c", empty)
    assert ended.exit_code == 0
    assert ended.stderr.count("no thumbnail: ") == 2
    _, images = shown(tmp_path / "out")
    lost = {image["name"] for image in images if image.get("lost")}
    assert lost == {"0000.jpg", "0001.png"}
    assert r"\udcff\x1b\u202e<script>.png" in {image["name"] for image in images}
    assert {image["folder"] for image in images} == {"", "below"}


def test_a_gallery_replaces_only_a_gallery_and_only_if_it_is_forced(
    invoke: Invoke, indexed: Path, tmp_path: Path
) -> None:
    gallery = ("gallery", "out", "-c", indexed, "-n", "3")
    assert invoke(*gallery).exit_code == 0
    refused = invoke(*gallery)
    assert refused.exit_code == 3
    assert "exists already; --force" in refused.stderr
    assert invoke(*gallery[:-1], "2", "--force").exit_code == 0
    assert len(list((tmp_path / "out" / "images").iterdir())) == 2
    (tmp_path / "out" / "mine.txt").touch()
    assert invoke(*gallery, "--force").exit_code == 3
    assert (tmp_path / "out" / "mine.txt").exists()
    assert invoke("gallery", "none", "-c", indexed, "--name", "unheard").exit_code == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["indexed", "out"]
