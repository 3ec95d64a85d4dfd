"""The forms of an answer for programs and for browsers: CSV, NUL-terminated paths, a page."""

from __future__ import annotations

import base64
import csv
import io
import os
import pty
import re
import stat
import subprocess
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote_to_bytes

import pytest
from click.testing import CliRunner, Result
from PIL import Image

from imgsearch.cli import main
from imgsearch.collection import Collection
from tests.support.commands import Run, imgsearch_command
from tests.support.hostile_files import NAMES
from tests.support.pictures import picture, save_pictures

# What imgsearch sends itself: styles other than what HOSTILE asks for, and links.
OURS = re.compile(r"\x1b\[(?!31)[0-9;]+m|\x1b\]8;;[!-~]*\x1b\\")

Invoke = Callable[..., Result]

HOSTILE = tuple(name + b".png" for name in NAMES)


@pytest.fixture
def hostile(empty: Path, tmp_path: Path) -> Path:
    """A collection of images with hostile names, in the folder `hostile`."""
    folder = os.fsencode(tmp_path / "hostile")
    os.mkdir(folder)
    for number, name in enumerate(HOSTILE):
        picture(number).save(tmp_path / "x.png")
        os.rename(tmp_path / "x.png", os.path.join(folder, name))
    with Collection.open(empty, device="cpu") as collection:
        assert collection.index(tmp_path / "hostile").indexed == len(HOSTILE)
    return empty


# CSV


FACTS = ("score", "z", "band")


def test_csv_has_a_header_and_a_row_for_each_hit(
    invoke: Invoke, indexed: Path, photos: Path
) -> None:
    images = [str(photos / "0003.png"), str(photos / "0004.jpg")]
    ended = invoke("-c", indexed, "query", *images, "--csv", "-k", "3", "--include-self")
    text = ended.stdout_bytes.decode()
    header, *rows = csv.reader(io.StringIO(text, newline=""), strict=True)
    assert header == ["query", "rank", "id", "path", "distance", "similarity", *FACTS]
    assert [row[0] for row in rows] == [images[0]] * 3 + [images[1]] * 3
    assert [row[1] for row in rows] == ["1", "2", "3"] * 2
    assert rows[0][2:] == ["4", images[0], "0.0", "1.0", "", "", ""]
    nothing = invoke("-c", indexed, "query", "no.jpg", "--csv")
    assert nothing.stdout_bytes == b"query,rank,id,path,distance,similarity,score,z,band\r\n"


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_csv_holds_hostile_names_as_json_does(
    run: Run, hostile: Path, tmp_path: Path, encoding: str
) -> None:
    environment = {"PYTHONIOENCODING": encoding}
    flags = ["--csv", "--include-self", "-k", str(len(HOSTILE))]
    ended = run("-c", hostile, "query", "hostile", *flags, env=environment)
    assert (ended.code, ended.err) == (0, "")
    rows = list(csv.reader(io.StringIO(ended.out, newline=""), strict=True))
    names = {str(tmp_path / "hostile" / name.decode(errors="replace")) for name in HOSTILE}
    assert len(rows) == 1 + len(HOSTILE) ** 2
    assert {row[0] for row in rows[1:]} == {row[3] for row in rows[1:]} == names


@pytest.mark.parametrize("sign", ["=", "+", "-", "@", "\t", "\r", " =", "\uff1d"])
def test_no_cell_of_csv_is_a_formula(invoke: Invoke, indexed: Path, sign: str) -> None:
    save_pictures(Path("some"), 2)
    Path("some/0000.jpg").rename(name := f"{sign}HYPERLINK(1).jpg")
    ended = invoke("-c", indexed, "query", "--csv", "--combine", "-k2", "--", name, "some/0001.png")
    assert ended.exit_code == 0, ended.stderr
    _, *rows = csv.reader(io.StringIO(ended.stdout_bytes.decode(), newline=""), strict=True)
    assert [row[0] for row in rows] == [f"'{name} + some/0001.png"] * 2
    assert all(row[3].startswith("/") for row in rows)


def test_numbers_and_stdin_are_no_formulas(indexed: Path, photos: Path) -> None:
    command = ["-c", str(indexed), "query", "-", "--csv", "-k", "40"]
    ended = CliRunner().invoke(main, command, input=(photos / "0003.png").read_bytes())
    _, *rows = csv.reader(io.StringIO(ended.stdout, newline=""))
    assert {row[0] for row in rows} == {"-"}
    assert min(float(row[5]) for row in rows) < 0


@pytest.mark.few(1)
@pytest.mark.parametrize("form", ["--csv", "--paths", "-0", "--json", "-k9"])
def test_a_terminal_is_sent_no_character_that_it_would_obey(
    form: str, hostile: Path, tmp_path: Path
) -> None:
    master, terminal = pty.openpty()
    image = tmp_path / "0.png"
    picture(HOSTILE.index(b"red\x1b[31m and \x1b]0;title\x07.png")).save(image)
    command = imgsearch_command("-c", hostile, "query", image, form)
    subprocess.run(command, cwd=tmp_path, stdout=terminal, check=True)
    os.close(terminal)
    shown = b""
    while True:
        try:
            part = os.read(master, 65536)
        except OSError:  # Linux's way to say that it is the end
            break
        if not part:
            break
        shown += part
    os.close(master)
    text = shown.decode()
    assert ("red\\u001b[31m" if form == "--json" else "red\\x1b[31m") in text
    text = OURS.sub("", text)
    assert text.replace("\r", "").replace("\n", "").replace("\0", "").isprintable()


# Paths


def test_paths_may_end_with_nul_and_are_exact(run: Run, hostile: Path, tmp_path: Path) -> None:
    for flags in (["-0"], ["--null"], ["--paths", "-0"]):
        picture(0).save(tmp_path / "0.png")
        ended = run("-c", hostile, "query", tmp_path / "0.png", *flags, "-k", "99")
        (*paths, rest) = os.fsencode(ended.out).split(b"\0")
        assert rest == b""
        folder = os.fsencode(tmp_path / "hostile")
        assert sorted(paths) == sorted(os.path.join(folder, name) for name in HOSTILE)


# The page


class Page(HTMLParser):
    """What a browser would make of a page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(path.read_text(encoding="utf-8"))
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, tag: str) -> list[dict[str, str]]:
        return [
            {name: value or "" for name, value in attributes.items()}
            for name, attributes in self.tags
            if name == tag
        ]

    def pictures(self) -> list[Image.Image]:
        head = "data:image/jpeg;base64,"
        sources = [image["src"] for image in self.all("img")]
        assert all(source.startswith(head) for source in sources)
        data = [base64.b64decode(source.removeprefix(head)) for source in sources]
        return [Image.open(io.BytesIO(jpeg)) for jpeg in data]


def test_a_page_shows_the_query_and_its_hits(invoke: Invoke, indexed: Path, photos: Path) -> None:
    images = [photos / "0003.png", photos / "0004.jpg"]
    ended = invoke(
        "-c", indexed, "query", *images, "--html", "page.html", "-k", "3", "--include-self"
    )
    assert (ended.exit_code, ended.stdout) == (0, "")
    assert ended.stderr == "wrote page.html\n"
    page = Page(Path("page.html"))
    assert [image.size for image in page.pictures()] == [(48, 40)] * 8
    assert [image["alt"] for image in page.all("img")][:2] == [str(images[0]), "0003.png"]
    assert [link["href"] for link in page.all("a")][:2] == [f"file://{images[0]}"] * 2
    assert [link["href"] for link in page.all("a")][4:6] == [f"file://{images[1]}"] * 2
    assert page.text.count("similarity 1.0000") == 2
    assert "distance 0.0000" in page.text
    assert "compared with every image" in page.text


def test_a_page_tells_how_it_was_searched(invoke: Invoke, indexed: Path, photos: Path) -> None:
    invoke("-c", indexed, "index", "--nlist", "5")
    command = ["-c", indexed, "query", photos / "0003.png", "--html", "page.html", "-k", "1"]
    invoke(*command, "--nprobe", "2")
    assert "1 image, 2 inverted lists searched" in Page(Path("page.html")).text


def test_a_page_needs_no_script_and_no_network(invoke: Invoke, indexed: Path, photos: Path) -> None:
    invoke("-c", indexed, "query", photos / "0003.png", "--html", "page.html")
    page = Page(Path("page.html"))
    (policy,) = [
        tag["content"]
        for tag in page.all("meta")
        if tag.get("http-equiv") == "Content-Security-Policy"
    ]
    assert policy.startswith("default-src 'none'; img-src data:; style-src 'sha256-")
    tags = {tag for tag, _ in page.tags}
    assert tags.isdisjoint({"script", "link", "iframe", "object", "embed", "base", "form"})
    source = Path("page.html").read_text()
    assert "prefers-color-scheme: dark" in source
    assert "http://" not in source
    assert "https://" not in source


def test_a_page_escapes_hostile_names_and_links_to_their_files(
    invoke: Invoke, hostile: Path, tmp_path: Path
) -> None:
    ended = invoke("-c", hostile, "query", "hostile", "--html", "page.html")
    assert ended.exit_code == 0
    page = Page(tmp_path / "page.html")
    assert {tag for tag, _ in page.tags} <= {
        *("html", "head", "meta", "title", "style", "body", "h1", "main", "section", "h2", "p"),
        *("ol", "li", "figure", "img", "figcaption", "a", "small", "br", "b"),
    }
    names = {name for _, attributes in page.tags for name in attributes}
    assert not any(name.startswith("on") for name in names)
    links = {unquote_to_bytes(link["href"].removeprefix("file://")) for link in page.all("a")}
    folder = os.fsencode(tmp_path / "hostile")
    assert links == {os.path.join(folder, name) for name in HOSTILE}
    assert '"><img src=x onerror=alert(1)>.png' in page.text
    assert "\\udcff\\udcfe.png" in page.text
    assert "line\\nbreak\\r.png" in page.text
    assert "left\\u202egnp.png" in page.text


def test_a_hit_that_is_gone_or_broken_has_a_placeholder(
    invoke: Invoke, empty: Path, tree: Path
) -> None:
    with Collection.open(empty, device="cpu") as collection:
        collection.index(tree)
    (tree / "0001.png").unlink()
    (tree / "0002.jpg").write_bytes(b"<script>")
    command = ["-c", empty, "query", tree / "0003.png", "--html", "page.html", "-k", "12"]
    ended = invoke(*command)
    assert ended.exit_code == 0
    page = Page(Path("page.html"))
    assert len(page.pictures()) == 10
    assert "no picture: cannot be read: No such file or directory" in page.text
    assert "no picture: is named like an image but holds no image" in page.text


def test_thumbnails_are_small_upright_and_show_the_part_that_was_searched_for(
    invoke: Invoke, indexed: Path, tmp_path: Path
) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x010E] = "where I live"
    picture(3, width=1200, height=600).save(tmp_path / "large.jpg", exif=exif)
    command = ["-c", indexed, "query", "large.jpg", "--html", "page.html", "-k", "1"]
    invoke(*command)
    assert Page(tmp_path / "page.html").pictures()[0].size == (128, 256)
    assert "exif" not in Page(tmp_path / "page.html").pictures()[0].info
    invoke(*command, "--crop", "0,0,1,0.25")
    assert Page(tmp_path / "page.html").pictures()[0].size == (256, 128)


def test_a_page_of_combined_images_shows_some_of_them(
    invoke: Invoke, indexed: Path, photos: Path
) -> None:
    command = ["-c", indexed, "query", photos, "--unlike", photos / "0001.png", "--combine"]
    ended = invoke(*command, "--html", "page.html", "-k", "2", "--include-self")
    assert ended.exit_code == 0
    page = Page(Path("page.html"))
    assert len(page.pictures()) == 12 + 1 + 2
    assert "and 28 more" in page.text
    assert "unlike 0001.png" in page.text


def test_an_image_from_stdin_is_shown_too(indexed: Path, photos: Path, tmp_path: Path) -> None:
    content = (photos / "0003.png").read_bytes()
    command = ["-c", str(indexed), "query", "-", "--html", str(tmp_path / "page.html"), "-k", "1"]
    ended = CliRunner().invoke(main, command, input=content)
    assert ended.exit_code == 0
    page = Page(tmp_path / "page.html")
    assert len(page.pictures()) == 2
    assert len(page.all("a")) == 1


def test_a_page_is_there_whole_or_not_at_all(
    invoke: Invoke, indexed: Path, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("page.html").write_text("old")
    command = ["-c", indexed, "query", photos / "0003.png", photos / "0004.jpg"]
    embed = Collection.embed

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Collection, "embed", interrupted)
    assert invoke(*command, "--html", "page.html").exit_code == 130
    monkeypatch.setattr(Collection, "embed", embed)
    assert invoke("-c", indexed, "query", "no.jpg", "--html", "page.html").exit_code == 3
    assert Path("page.html").read_text() == "old"
    assert not list(Path().glob("page.html.*"))
    ended = invoke(*command, "no.jpg", "--html", "page.html", "-k", "1")
    assert ended.exit_code == 3
    assert len(Page(Path("page.html")).pictures()) == 4


def test_a_page_replaces_the_file_that_a_link_leads_to(
    invoke: Invoke, indexed: Path, photos: Path
) -> None:
    Path("pages").mkdir()
    Path("page.html").symlink_to("pages/page.html")
    invoke("-c", indexed, "query", photos / "0003.png", "--html", "page.html")
    assert Path("page.html").is_symlink()
    assert stat.S_ISREG(Path("pages/page.html").stat().st_mode)


def test_a_page_that_cannot_be_written_ends_with_7_before_anything_is_searched(
    invoke: Invoke, indexed: Path
) -> None:
    ended = invoke("-c", indexed, "query", "no.jpg", "--html", "no/page.html")
    assert (ended.exit_code, ended.stdout) == (7, "")
    assert ended.stderr == (
        "imgsearch: cannot write the page no/page.html: No such file or directory\n"
    )


def test_a_page_does_not_take_the_place_of_a_pipe(invoke: Invoke, indexed: Path) -> None:
    os.mkfifo("page.html")
    ended = invoke("-c", indexed, "query", "no.jpg", "--html", "page.html")
    assert ended.exit_code == 7
    assert ended.stderr == "imgsearch: cannot write the page page.html: it is not a regular file\n"
    assert stat.S_ISFIFO(Path("page.html").stat().st_mode)
