"""`imgsearch evaluate`: what it prints, and its exit codes."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from imgsearch.indexing import create
from tests.support.commands import Run
from tests.support.pictures import save_pictures
from tests.support.small_network import small_export

Invoke = Callable[..., Result]


@pytest.fixture
def labels(photos: Path, tmp_path: Path) -> Path:
    """Labels of 30 of the 40 pictures, one of which is alone in its class, and of one more."""
    path = tmp_path / "labels.csv"
    rows = [f"{image},class {number % 3}" for number, image in enumerate(sorted(photos.iterdir()))]
    lines = ["path,label", *rows[:29], f"{photos / '0029.png'},rare", "gone.jpg,class 0"]
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.mark.usefixtures("ivf")
def test_it_prints_what_was_measured_a_table_and_the_worst_queries(
    run: Run, indexed: Path, labels: Path, photos: Path
) -> None:
    asked = ("-c", indexed, "evaluate", labels, "-k", "3", "--nprobe", "2")
    ended = run(*asked, "--worst", "10")
    assert (ended.code, ended.err) == (0, "")
    assert run(*asked).out == ended.out[: ended.out.index("\nworst ")]
    head, table, worst = ended.out.split("\n\n")
    assert head.splitlines() == [
        f"collection  {indexed}",
        f"labels      {labels}",
        f"images      30 with a label, of 4 classes; 1 labelled file is not in the collection, "
        f"such as {labels.parent}/gone.jpg",
        "left out    as hits, 10 images without a label; "
        "as queries, 1 image without another of the class",
        "queries     29, each against all other labelled images",
        "index       29 queries by nprobe 2",
    ]
    rows = table.splitlines()
    assert rows[0] == "             exact  95 % interval      index  95 % interval"
    number = r"[01]\.\d{4}"
    for name, row in zip(("P@1", "P@3", "recall@3", "mAP"), rows[1:5], strict=True):
        assert re.fullmatch(rf"{name} +(?:{number}  {number} to {number}(?:  |$)){{2}}", row)
    assert (
        rows[5] == "(In the mAP of the index, an image in a list that is not scanned counts as 0.)"
    )
    lines = worst.splitlines()
    assert lines[0] == "worst       by the average precision (AP) of exact search"
    assert len(lines) == 1 + 10 * (1 + 3)
    assert re.fullmatch(rf"AP 0\.\d{{4}}   class \d: {photos}/\d{{4}}\.\w+", lines[1])
    for rank, line in enumerate(lines[2:5], 1):
        pattern = rf"   {rank}  (right|wrong)  [ -]0\.\d{{4}}  (class \d|rare): {photos}/\d+\.\w+"
        assert re.fullmatch(pattern, line)


def test_without_an_index_there_is_one_column(invoke: Invoke, indexed: Path, labels: Path) -> None:
    ended = invoke("-c", indexed, "evaluate", labels)
    assert ended.exit_code == 0
    assert "index       none: every search is exact\n" in ended.stdout
    assert "             exact  95 % interval\n" in ended.stdout
    assert "mAP of the index" not in ended.stdout


@pytest.mark.usefixtures("ivf")
def test_json_has_all_of_it(invoke: Invoke, indexed: Path, labels: Path, photos: Path) -> None:
    ended = invoke("-c", indexed, "evaluate", labels, "--json")
    assert (ended.exit_code, ended.stderr) == (0, "")
    found = json.loads(ended.stdout)
    assert found["collection"] == str(indexed)
    assert (found["labelled"], found["images"], found["queries"]) == (31, 30, 29)
    assert (found["alone"], found["unlabelled"], found["classes"]) == (1, 10, 4)
    assert found["missing"] == [{"path": str(labels.parent / "gone.jpg")}]
    assert found["k"] == 10
    for way in ("exact", "index"):
        assert list(found[way]) == [
            *("precision_at_1", "precision_at_k", "recall_at_k", "mean_average_precision"),
        ]
        for estimate in found[way].values():
            assert 0 <= estimate["low"] <= estimate["mean"] <= estimate["high"] <= 1
    ranked = ("by_collection", "index_by_collection", "gain", "index_gain")
    assert [found[way] for way in ranked] == [None] * 4  # of so few images
    assert sum(found["searched"][kind] for kind in ("ivf", "wide", "exact")) == 29
    assert len(found["worst"]) == 10
    query = found["worst"][0]
    assert query.keys() == {"path", "label", "average_precision", "hits"}
    assert [hit["rank"] for hit in query["hits"]] == list(range(1, 11))
    for hit in query["hits"]:
        assert hit["path"].startswith(str(photos))
        assert hit["right"] == (hit["label"] == query["label"])


@pytest.mark.usefixtures("ivf")
def test_the_nearer_of_recall_and_nprobe_is_heeded(
    invoke: Invoke, indexed: Path, labels: Path
) -> None:
    base = ("-c", indexed, "evaluate", labels, "--json")
    ended = invoke(*base, "--nprobe", "1", env={"IMGSEARCH_RECALL": "0.9"})
    assert json.loads(ended.stdout)["searched"]["nprobe"] == [1, 1]
    ended = invoke(*base, "--recall", "1", env={"IMGSEARCH_NPROBE": "1"})
    found = json.loads(ended.stdout)
    assert found["searched"]["exact"] == 29
    assert found["index"] == found["exact"]
    ended = invoke(*base, "--recall", "0.9", "--nprobe", "1")
    assert ended.exit_code == 2
    assert "--recall and --nprobe are mutually exclusive" in ended.stderr


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("path,class\n1.jpg,x\n", ", line 1: there must be one column 'label'"),
        ("path,label\n1.jpg,x\n", "/1.jpg was looked for; index them, or check the paths"),
    ],
)
def test_labels_that_cannot_be_used_end_with_3_and_one_line(
    invoke: Invoke, indexed: Path, labels: Path, content: str, reason: str
) -> None:
    labels.write_text(content)
    ended = invoke("-c", indexed, "evaluate", labels)
    assert (ended.exit_code, ended.stdout) == (3, "")
    assert ended.stderr.startswith("imgsearch: ")
    assert ended.stderr.count("\n") == 1
    assert str(labels) in ended.stderr
    assert reason in ended.stderr


@pytest.mark.parametrize(
    ("written", "by"),
    [
        ("{folder}\\0003.png", "backslashes in place of slashes"),
        ("{folder}/0003.PNG", "upper and lower case"),
        ("{folder}/0003.png ", "spaces"),
        (" {folder}/0003.png", None),
        ('"{folder}/""0003.png"""', "quotation marks"),
        ("elsewhere/0003.png", None),
    ],
)
def test_a_path_that_is_nearly_that_of_an_image_is_told(
    invoke: Invoke, indexed: Path, labels: Path, photos: Path, written: str, by: str | None
) -> None:
    there = photos / "0003.png"
    text = labels.read_text().replace(str(there), written.format(folder=photos))
    labels.write_text(text)
    ended = invoke("-c", indexed, "evaluate", labels, "--json")
    assert ended.exit_code == 0
    (line,) = ended.stderr.splitlines()
    assert line.startswith("imgsearch: warning: ")
    how = f"they differ by {by}" if by else "they have the same name"
    assert line.endswith(f" is not in the collection, while {there} is: {how}")
    assert f"imgsearch: warning: {json.loads(ended.stdout)['warnings'][0]}" == line
    labels.write_text(
        "\n".join(row for row in text.splitlines() if "/00" not in row or "0003" in row)
    )
    if str(there) in labels.read_text():
        return
    alone = invoke("-c", indexed, "evaluate", labels)
    assert (alone.exit_code, alone.stderr.count("\n")) == (3, 1)


def test_names_whose_unicode_form_differs_are_told(
    invoke: Invoke, empty: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "photos"
    paths = save_pictures(folder, 4)
    paths[0].rename(folder / "Ba\u0308r.jpg")
    invoke("-c", empty, "index", folder)
    rows = ["path,label", f"{folder}/B\u00e4r.jpg,x", *(f"{path},x" for path in paths[1:])]
    (tmp_path / "labels.csv").write_text("\n".join(rows))
    ended = invoke("-c", empty, "evaluate", "labels.csv")
    assert ended.exit_code == 0
    assert "they differ by the Unicode form of its letters" in ended.stderr


def test_labels_that_are_nearly_the_same_are_told(
    invoke: Invoke, indexed: Path, labels: Path
) -> None:
    labels.write_text(labels.read_text().replace("0003.png,class 0", "0003.png,Class 0 "))
    ended = invoke("-c", indexed, "evaluate", labels)
    assert ended.stderr == (
        "imgsearch: warning: 'Class 0 ' and 'class 0' count as two classes, and differ only by "
        "spaces, case or the form of their letters\n"
    )


def test_what_a_terminal_would_obey_is_escaped(invoke: Invoke, indexed: Path, labels: Path) -> None:
    labels.write_text(labels.read_text().replace("class 1", "\x1b[31mred"))
    ended = invoke("-c", indexed, "evaluate", labels, "--worst", "10")
    assert ended.exit_code == 0
    assert "\x1b" not in ended.stdout
    assert "\\x1b[31mred" in ended.stdout


@pytest.mark.usefixtures("here")
def test_networks_are_compared_without_a_collection(
    invoke: Invoke, labels: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, stand_in in small_export().items():
        monkeypatch.setattr(create, name, stand_in)
    models = "mobilenet_v2,efficientnet_lite0"
    ended = invoke("evaluate", labels, "-k", "3", "--models", models)
    assert ended.exit_code == 0, ended.stderr
    lines = ended.stdout.splitlines()
    assert lines[0] == "30 images of 4 classes, exact search by the cosine"
    assert re.split(r"  +", lines[2]) == [
        *("model", "P@1", "P@3", "recall@3", "mAP", "95 % interval")
    ]
    number = r"[01]\.\d{4}"
    for name, row in zip(models.split(","), lines[3:], strict=True):
        assert re.fullmatch(rf"{name}  +{number}  {number} +{number}  {number}  .* to .*", row)
    told = json.loads(invoke("evaluate", labels, "--models", models, "--json").stdout)["models"]
    assert [each["model"] for each in told] == models.split(",")
    # Their embeddings have the same values in another order.
    assert told[0]["exact"] == told[1]["exact"]
    assert 0 < told[0]["exact"]["mean_average_precision"]["mean"] < 1
    refused = invoke("evaluate", labels, "--models", "mobilenet_v2,no_such")
    assert (refused.exit_code, "there is no model 'no_such'" in refused.stderr) == (6, True)
    assert invoke("evaluate", labels, "--models", models, "--nprobe", "2").exit_code == 2


def test_without_a_collection_it_ends_with_3(invoke: Invoke, labels: Path) -> None:
    ended = invoke("evaluate", labels)
    assert ended.exit_code == 3
    assert ended.stderr.startswith("imgsearch: there is no collection at ")


def test_a_class_may_be_a_folder_whose_name_is_not_utf_8(
    run: Run, empty: Path, tmp_path: Path
) -> None:
    names = [os.fsdecode(b"B\xe4r"), "cat"]
    for number, name in enumerate(names):
        save_pictures(tmp_path / "classes" / name, 3, first=3 * number)
    assert run("-c", empty, "index", tmp_path / "classes").code == 0
    assert "AP 0." in run("-c", empty, "evaluate", tmp_path / "classes", "--worst", "3").out
    ended = run("-c", empty, "evaluate", tmp_path / "classes", "--json")
    assert ended.code == 0
    labels = [
        (query["label"], query.get("label_bytes")) for query in json.loads(ended.out)["worst"]
    ]
    assert set(labels) <= {("B\ufffdr", "QuRy"), ("cat", None)}
