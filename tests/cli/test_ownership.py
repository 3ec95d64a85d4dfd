"""A collection that was found by itself is used if it is the user's own, or trusted by name."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from imgsearch.cli import main

SOMEBODY = 12_345
Use = Callable[..., Result]


@pytest.fixture(autouse=True)
def _as_root(monkeypatch: pytest.MonkeyPatch) -> None:
    if os.geteuid():
        pytest.skip("only root can give files away")
    monkeypatch.delenv("SUDO_UID", raising=False)


@pytest.fixture
def found(indexed: Path, tmp_path: Path) -> Path:
    """The directory of a collection that is found from a folder below."""
    (tmp_path / "shared" / "photos").mkdir(parents=True)
    return shutil.copytree(indexed, tmp_path / "shared" / ".imgsearch")


@pytest.fixture
def use(found: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Use:
    """`imgsearch` in that folder, with an empty configuration in `config`."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.chdir(found.parent / "photos")
    return lambda *arguments: CliRunner().invoke(main, [str(part) for part in arguments])


def write_config(tmp_path: Path, content: str) -> Path:
    path = tmp_path / "config" / "imgsearch" / "config.toml"
    path.parent.mkdir(parents=True)
    path.write_text(content)
    return path


@pytest.mark.parametrize("part", [".", "catalog.sqlite", "vectors", "vectors/00000001.npy"])
@pytest.mark.parametrize("command", ["info", "verify", "index"])
def test_what_belongs_to_another_user_is_refused_with_the_remedy(
    found: Path, use: Use, part: str, command: str
) -> None:
    os.chown(found / part, SOMEBODY, -1)
    ended = use(command)
    assert ended.exit_code == 3
    assert ended.stderr == (
        f"imgsearch: {found / part} belongs to user {SOMEBODY}: to trust this collection, name it "
        f"with -c {found}, or list it as trusted in "
        f"{os.environ['XDG_CONFIG_HOME']}/imgsearch/config.toml\n"
    )


def test_a_link_of_another_user_to_a_collection_of_ones_own_is_refused(
    found: Path, use: Use
) -> None:
    moved = found.rename(found.parent / "moved")
    found.symlink_to(moved)
    assert use("info").exit_code == 0
    os.chown(found, SOMEBODY, -1, follow_symlinks=False)
    assert use("info").exit_code == 3


def test_what_is_named_is_trusted(found: Path, use: Use, monkeypatch: pytest.MonkeyPatch) -> None:
    os.chown(found, SOMEBODY, -1)
    assert use("-c", found, "info").exit_code == 0
    assert use("info", "-c", found).exit_code == 0
    monkeypatch.setenv("IMGSEARCH_COLLECTION", str(found))
    assert use("info").exit_code == 0


@pytest.mark.parametrize(("listed", "code"), [(".imgsearch", 0), (".", 0), ("photos", 3)])
def test_what_is_listed_or_below_what_is_listed_is_trusted(
    found: Path, use: Use, tmp_path: Path, listed: str, code: int
) -> None:
    os.chown(found, SOMEBODY, -1)
    write_config(tmp_path, f'trusted = ["/elsewhere", "{found.parent / listed}"]')
    assert use("info").exit_code == code


@pytest.mark.parametrize("content", ["trusted = [", 'trusted = "/x"', 'trusted = ["x"]', "\xff"])
def test_a_list_that_makes_no_sense_is_refused(
    found: Path, use: Use, tmp_path: Path, content: str
) -> None:
    os.chown(found, SOMEBODY, -1)
    path = write_config(tmp_path, "")
    path.write_bytes(content.encode("latin-1"))
    ended = use("info")
    assert ended.exit_code == 2
    assert ended.stderr.startswith(f"imgsearch: {path}")


def test_with_sudo_the_collection_of_who_called_it_is_ones_own(
    found: Path, use: Use, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in [found, *found.rglob("*")]:
        os.chown(path, SOMEBODY, -1)
    assert use("info").exit_code == 3
    monkeypatch.setenv("SUDO_UID", str(SOMEBODY))
    assert use("info").exit_code == 0
    monkeypatch.setenv("SUDO_UID", str(SOMEBODY + 1))
    assert use("info").exit_code == 3
