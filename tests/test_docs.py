"""The pages are true: their commands and their Python run as shown, and their links lead somewhere.

A fenced block of `sh`, `console` or `python` is run in a folder that is prepared for it, in the
order of its page. One that cannot be (it needs a GPU, a cluster, another package, minutes) follows
a line `<!-- not run: REASON -->`; of its commands, the options are checked all the same.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from imgsearch import Collection
from imgsearch.cli import main
from imgsearch.cli.config import commands_of
from tests.support.pictures import picture, save_pictures
from tests.support.small_network import make_small_collection

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
LANGUAGES = {"console", "diff", "python", "sh", "text", "toml"}
RUN = {"console", "python", "sh"}
SHELL = re.compile(r"[|&;*<>$=]")  # what only a shell understands

NOT_RUN = re.compile(r"<!-- not run: (.+) -->")


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block of a page; `reason` says why it is not run."""

    page: Path
    line: int
    language: str
    text: str
    reason: str | None

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    def commands(self) -> Iterator[tuple[str, list[str]]]:
        """Yield each command of a console, and the lines that it is shown to print."""
        for part in re.split(r"^\$ ", self.text, flags=re.M)[1:]:
            command, *shown = part.splitlines()
            yield command, shown


def blocks_of(page: Path) -> list[Block]:
    found, lines = [], iter(enumerate(page.read_text(encoding="utf-8").splitlines(), 1))
    before = ""
    for number, line in lines:
        if line.lstrip().startswith("```"):
            text = []
            for _, inner in lines:
                if inner.lstrip().startswith("```"):
                    break
                text.append(inner)
            reason = NOT_RUN.fullmatch(before.strip())
            language = line.strip().lstrip("`")
            whole = "\n".join(text)
            found.append(Block(page, number, language, whole, reason and reason[1]))
        before = line
    return found


BLOCKS = [block for page in PAGES for block in blocks_of(page)]
#: The blocks that are run, by page; those of docs/rest.md are by tests/web/test_rest_docs.py.
RUNNABLE = {
    page: [
        block
        for block in BLOCKS
        if block.page == page and block.language in RUN and not block.reason
    ]
    for page in PAGES
    if page.name != "rest.md"
}


# -- running ------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def _prepared(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The home of somebody with 280 pictures and a collection of them, and a copy of it."""
    home = tmp_path_factory.mktemp("docs") / "ana"
    pictures = home / "Pictures"
    save_pictures(pictures, 260)
    save_pictures(pictures / "private", 2, first=260)
    for number, name in enumerate(["chelsea", "chelsea-left", "chelsea-right"]):
        picture(300 + number).save(pictures / f"{name}.jpg")
    picture(310, width=300, height=200).save(pictures / "coffee.png")
    picture(311).save(pictures / "dancing.gif")
    (pictures / "backup").mkdir()
    shutil.copy(pictures / "coffee.png", pictures / "backup")
    save_pictures(home / "Scans", 3, first=330)
    save_pictures(home / "new", 2, first=340)
    picture(300, width=60, height=50).save(home / "cat.jpg")  # like chelsea.jpg
    for number, name in enumerate(["dog", "tabby"]):
        picture(350 + number).save(home / f"{name}.jpg")
    picture(360, width=480, height=360).save(home / "street.jpg")
    rows = [f"Pictures/{path.name},{path.suffix[1:]}" for path in sorted(pictures.glob("0*"))[:40]]
    (home / "labels.csv").write_text("\n".join(["path,label", *rows, ""]))
    shutil.copytree(ROOT / "configs", home / "configs")
    with Collection.open(make_small_collection(home / ".imgsearch"), device="cpu") as collection:
        collection.index([pictures])
    return home, Path(shutil.copytree(home, home.with_name("pristine")))


@pytest.fixture
def home(_prepared: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The home, as it was; a collection that is made in it has the small network."""
    home, pristine = _prepared
    shutil.rmtree(home)
    shutil.copytree(pristine, home)
    command = tmp_path / "imgsearch"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m imgsearch "$@"\n')
    command.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setenv("PYTHONPATH", str(ROOT), prepend=os.pathsep)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("BROWSER", "true")

    def create(directory: str | Path, **_: object) -> Collection:
        return Collection.open(make_small_collection(Path(directory)), device="cpu")

    monkeypatch.setattr(Collection, "create", create)
    monkeypatch.chdir(home)
    return home


@pytest.mark.few(1)
@pytest.mark.parametrize(
    "page",
    [page for page in RUNNABLE if RUNNABLE[page]],
    ids=lambda page: str(page.relative_to(ROOT)),
)
def test_what_a_page_shows_runs(page: Path, home: Path) -> None:
    blocks = RUNNABLE[page]
    if "imgsearch index ~/Pictures" in blocks[0].text:  # it begins with making the collection
        shutil.rmtree(home / ".imgsearch")
    for block in blocks:
        if block.language == "python":
            exec(compile(block.text, str(block), "exec"), {})
        elif block.language == "sh":
            for line in filter(str.strip, block.text.replace("\\\n", " ").splitlines()):
                run(line, block)
        else:
            for command, shown in block.commands():
                printed = run(command, block)
                columns = [line.split() for line in printed.splitlines()]
                for line in shown:
                    if line.lstrip().startswith("#") and line.split() not in columns:
                        pytest.fail(f"{block}: {command} printed no {line.split()}:\n{printed}")
                    label = re.match(r"[A-Za-z][\w@-]*", line)
                    if label and not re.search(rf"^{re.escape(label[0])}\b", printed, re.M):
                        pytest.fail(f"{block}: {command} printed no {label[0]!r}:\n{printed}")


def is_for_a_shell(line: str) -> bool:
    words = shlex.split(line, comments=True)
    return bool(words) and (words[0] != "imgsearch" or any(map(SHELL.search, unquoted(line))))


def unquoted(line: str) -> list[str]:
    return [re.sub(r"'[^']*'", "", word) for word in shlex.split(line, comments=True, posix=False)]


def run(command: str, block: Block) -> str:
    """Run a command, and return what it printed."""
    if " && " in command:
        return "".join(run(part, block) for part in command.split(" && "))
    if is_for_a_shell(command):
        return run_in_a_shell(command, block)
    words = [os.path.expanduser(word) for word in shlex.split(command, comments=True)[1:]]
    if words[:1] == ["serve"]:
        return run_server(words, block)
    result = CliRunner().invoke(main, words, catch_exceptions=False, prog_name="imgsearch")
    assert result.exit_code == 0, f"{block}: {command}\n{result.output}"
    return result.output


def run_in_a_shell(script: str, block: Block) -> str:
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, f"{block}: {script}\n{done.stdout}"
    return done.stdout


def run_server(words: list[str], block: Block) -> str:
    """Start a server at any port that is free, and end it once it says where it is."""
    server = subprocess.Popen(
        [sys.executable, "-m", "imgsearch", *words, "--port", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert server.stdout
    printed = ""
    try:
        for line in server.stdout:
            printed += line
            if url := re.search(r"http://[\w.:]+/", line):
                urllib.request.urlopen(url[0], timeout=30).close()
                break
        server.send_signal(signal.SIGINT)
        printed += server.communicate(timeout=30)[0]
    finally:
        server.kill()
    assert server.returncode == 0, f"{block}: {words}\n{printed}"
    assert "http://" in printed, f"{block}: {words}\n{printed}"
    return printed


# -- what is not run ----------------------------------------------------------------------------


def test_every_block_names_its_language() -> None:
    for block in BLOCKS:
        assert block.language in LANGUAGES, f"{block}: {block.language!r}"


def test_few_blocks_are_not_run() -> None:
    reasons = [f"{block}: {block.reason}" for block in BLOCKS if block.reason is not None]
    runnable = [block for block in BLOCKS if block.language in RUN]
    assert len(reasons) <= len(runnable) / 2, "\n".join(reasons)
    assert all(block.language in RUN for block in BLOCKS if block.reason is not None)


def mentioned_commands() -> Iterator[tuple[str, str, list[str]]]:
    """Yield where a command of imgsearch is mentioned, its name and its options."""
    for page in PAGES:
        text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
        for code in re.findall(r"`(imgsearch [^`]+)`", text):
            yield from options_of(str(page.relative_to(ROOT)), code)
    for block in BLOCKS:
        if block.language in ("console", "sh"):
            for line in block.text.splitlines():
                yield from options_of(str(block), line.partition(" #")[0])


def options_of(where: str, code: str) -> Iterator[tuple[str, str, list[str]]]:
    for call in re.findall(r"(?:^|[\s|])imgsearch ([^|&;>]*)", code):
        words = call.split()
        name = next((word for word in words if word in COMMANDS), None)
        if name is not None:
            after = words[words.index(name) + 1 :]
            yield where, name, [word for word in after if re.match(r"-[-a-z0]", word)]


COMMANDS = commands_of(main)


def test_every_option_that_a_page_mentions_is_there() -> None:
    checked = 0
    for where, name, options in mentioned_commands():
        known = {
            flag
            for parameter in COMMANDS[name].params
            for flag in (*parameter.opts, *parameter.secondary_opts)
        } | {"-h", "--help"}
        assert set(options) <= known, f"{where}: imgsearch {name}: {set(options) - known}"
        checked += 1
    assert checked > 50


def test_every_target_and_every_extra_that_a_page_mentions_is_there() -> None:
    makefile = (ROOT / "Makefile").read_text()
    project = (ROOT / "pyproject.toml").read_text()
    for page in PAGES:
        if page.name == "CHANGELOG.md":  # older releases had others
            continue
        text = page.read_text(encoding="utf-8")
        for target in re.findall(r"`make ([a-z-]+)|^make ([a-z-]+)", text, re.M):
            assert re.search(rf"^{''.join(target)}:", makefile, re.M), f"{page}: make {target}"
        for extras in re.findall(r"'\.\[([a-z,]+)\]'", text):
            for extra in extras.split(","):
                assert re.search(rf"^{extra} = \[", project, re.M), f"{page}: [{extra}]"


# -- links and files ----------------------------------------------------------------------------


def headings(page: Path) -> set[str]:
    """Return the anchors of a page, as GitHub makes them of its headings."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    found = re.findall(r"^#+ (.+)$", text, re.M)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in found}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_of_a_page_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = page.parent / path if path else page
        assert file.exists(), f"{page}: {target}"
        assert not anchor or anchor in headings(file), f"{page}: {target}"


def test_the_index_lists_every_page() -> None:
    index = (ROOT / "docs" / "index.md").read_text()
    for page in ROOT.glob("docs/*.md"):
        assert f"({page.name})" in index or page.name == "index.md", page.name
    decisions = (ROOT / "docs" / "decisions" / "README.md").read_text()
    for page in ROOT.glob("docs/decisions/0*.md"):
        assert f"({page.name})" in decisions, page.name


def test_the_readme_is_short_and_has_two_pictures() -> None:
    readme = (ROOT / "README.md").read_text()
    assert len(readme.split()) <= 700
    assert len(re.findall(r"^!\[", readme, re.M)) == 2


def test_every_file_that_a_page_names_is_there() -> None:
    checked = 0
    for page in PAGES:
        if page.name == "CHANGELOG.md":
            continue
        text = page.read_text(encoding="utf-8")
        for path in re.findall(r"`([\w.-]+/[\w./-]+\.(?:py|md|toml|txt|yml))\b", text):
            places = (ROOT, ROOT / "imgsearch", page.parent)
            assert any((place / path).is_file() for place in places), f"{page}: {path}"
            checked += 1
    assert checked > 30


def test_a_diff_fits_what_it_changes() -> None:
    kept = 0
    for block in BLOCKS:
        if block.language != "diff":
            continue
        for part in re.split(r"^--- ", block.text, flags=re.M)[1:]:
            path, *lines = part.splitlines()
            text = (ROOT / path).read_text(encoding="utf-8").splitlines()
            for line in lines:
                if line.strip() and not line.startswith("+"):
                    kept += 1
                    assert any(there.startswith(line[1:]) for there in text), f"{path}: {line}"
    assert kept


# -- the command line ---------------------------------------------------------------------------


def test_the_command_line_is_documented() -> None:
    page = (ROOT / "docs" / "cli.md").read_text()
    for code in (0, 1, 2, 3, 4, 5, 6, 7, 8, 130):
        assert re.search(rf"^\| {code} \|", page, re.M), code
    common = page.partition("## Common options")[2].partition("\n## ")[0]
    for name, command in COMMANDS.items():
        assert f"`imgsearch {name}`" in page
        section = page.partition(f"\n## {name}\n")[2].partition("\n## ")[0]
        for parameter in command.params:
            if isinstance(parameter, click.Option):
                flag = max(parameter.opts, key=len)
                there = section if f"`{flag}" in section else common
                assert re.search(rf"`{flag}\b", there), f"{name} {flag}"
