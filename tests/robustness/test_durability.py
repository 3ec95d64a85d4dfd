"""What a power cut may do: nothing is named before it is on the disk, and no file is half there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from imgsearch.storage.layout import Layout
from tests.support.strace import Life

CALLS = (
    "open,openat,creat,write,pwrite64,writev,pwritev,ftruncate,truncate,fallocate,mmap,"
    "fsync,fdatasync,rename,renameat,renameat2,link,linkat,unlink,unlinkat,mkdir,mkdirat"
)
IN_PLACE = ("catalog.sqlite", "catalog.sqlite-journal", "lock")  # SQLite's own, and an empty file


@pytest.fixture(scope="module")
def steps(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """A collection, and all that was done to its files from its making on, in order."""
    folder = tmp_path_factory.mktemp("durability")
    directory = folder / "collection"
    traced = Life(folder).trace(directory, CALLS)
    assert traced.code == 0, traced.err
    return directory, traced.lines


def renames(steps: tuple[Path, list[str]]) -> list[tuple[int, str, str]]:
    """Return when which file got which name."""
    directory, lines = steps
    pattern = re.compile(r'rename(?:at2?)?\(.*"([^"]+)", .*"([^"]+)"')
    found = ((number, pattern.match(line)) for number, line in enumerate(lines))
    return [
        (number, match[1], match[2])
        for number, match in found
        if match and str(directory) in match[2]
    ]


def is_synced(line: str, path: str) -> bool:
    return line.startswith(("fsync(", "fdatasync(")) and f"<{path}>" in line and " = 0" in line


def commits(lines: list[str]) -> list[int]:
    """Return when the catalog was committed: in its journal mode, the journal is unlinked then."""
    return [
        n for n, line in enumerate(lines) if re.match(r"unlink.*/catalog\.sqlite-journal", line)
    ]


def test_every_kind_of_file_is_written_under_another_name_first(
    steps: tuple[Path, list[str]],
) -> None:
    directory, _ = steps
    kinds = {
        re.sub(r"\d+", "N", str(Path(new).relative_to(directory))) for _, _, new in renames(steps)
    }
    assert kinds >= {
        "collection.json",
        "fingerprints/N.prints",
        "layers/N.layer",
        "model.onnx",
        "segments/N.faiss",
        "vectors/N.ids.npy",
        "vectors/N.npy",
    }


def test_no_file_is_ever_written_in_place(steps: tuple[Path, list[str]]) -> None:
    """What a library probes for beside our files is its own affair: these are the files we name."""
    directory, lines = steps
    opened = re.compile(r'(?:open|openat|creat)\(.*?"([^"]+)".*(?:O_WRONLY|O_RDWR|creat)')
    written = {match[1] for match in map(opened.match, lines) if match}
    renamed = {new for _, _, new in renames(steps)}
    assert not written & renamed
    kept = {str(path) for path in directory.rglob("*") if path.is_file()}
    assert kept <= renamed | {str(directory / name) for name in IN_PLACE}
    assert any(re.search(r"\.npy\.[0-9a-f]{16}\.tmp$", path) for path in written)


def test_every_file_is_on_the_disk_before_it_gets_its_name_and_the_name_before_the_next_commit(
    steps: tuple[Path, list[str]],
) -> None:
    _, lines = steps
    ends = [*commits(lines), len(lines)]
    for number, old, new in renames(steps):
        synced = max(n for n in range(number) if is_synced(lines[n], old))
        assert not any(f"<{old}>" in line for line in lines[synced + 1 : number])
        folder = next(
            n for n in range(number, len(lines)) if is_synced(lines[n], str(Path(new).parent))
        )
        assert folder < min(end for end in ends if end > number)


def test_the_catalog_is_on_the_disk_when_it_is_committed(steps: tuple[Path, list[str]]) -> None:
    directory, lines = steps
    catalog = str(directory / "catalog.sqlite")
    previous = 0
    ends = commits(lines)
    assert len(ends) > 10
    for end in ends:
        writes = [
            n
            for n in range(previous, end)
            if re.match(rf"p?write.*<{re.escape(catalog)}>", lines[n])
        ]
        syncs = [n for n in range(previous, end) if is_synced(lines[n], catalog)]
        assert syncs
        assert syncs[-1] > writes[-1]
        journal = [n for n in range(previous, end) if is_synced(lines[n], catalog + "-journal")]
        assert journal[0] < writes[0] or "-journal" not in "".join(lines[previous : writes[0]])
        assert any(is_synced(line, str(directory)) for line in lines[end : end + 3])
        previous = end


def test_new_folders_are_on_the_disk(steps: tuple[Path, list[str]]) -> None:
    directory, lines = steps
    for folder in (directory, *Layout(directory).folders):
        made = next(
            n
            for n, line in enumerate(lines)
            if re.match(rf'mkdir.*"{re.escape(str(folder))}"', line)
        )
        synced = next(
            n for n, line in enumerate(lines) if n > made and is_synced(line, str(folder.parent))
        )
        assert synced < min(number for number, _, _ in renames(steps))


def test_a_collection_is_declared_when_all_else_of_it_is_on_the_disk(
    steps: tuple[Path, list[str]],
) -> None:
    directory, lines = steps
    declared = next(n for n, _, new in renames(steps) if Path(new).name == "collection.json")
    model = next(n for n, _, new in renames(steps) if Path(new).name == "model.onnx")
    assert model < commits(lines)[0] < declared
    assert any(is_synced(line, str(directory)) for line in lines[commits(lines)[0] : declared])
