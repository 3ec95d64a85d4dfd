"""`imgsearch tune`: what it prints and draws, and its exit codes."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pytest
from click.testing import Result
from PIL import Image

from imgsearch.ann.kmeans import choose_nlist
from tests.support.commands import Run
from tests.support.grower import Grower, clustered

Invoke = Callable[..., Result]


@pytest.fixture
def grown(empty: Path) -> Path:
    with Grower(empty) as grower:
        grower.add(clustered(500, seed=1))
    return empty


@pytest.mark.whole("test_json_has_all_of_it")
def test_a_table_a_recommendation_and_a_plot_of_both_kinds(
    grown: Path, run: Run, tmp_path: Path
) -> None:
    plot = tmp_path / "plot"
    options = ("--nlist", "4", "--nlist", "8", "--queries", "80", "--recall", "0.9", "--plot", plot)
    ended = run("-c", grown, "tune", *options)
    assert (ended.code, ended.err) == (0, "")
    lines = ended.out.splitlines()
    assert " ".join(lines[0].split()) == (
        "nlist build s nprobe recall@10 at least distance ms/query 95 % interval"
    )
    assert [line.split()[0] for line in lines if re.match(r" *[48] +\d+\.\d\d +1 ", line)] == [
        "4",
        "8",
    ]
    assert all(re.search(r" \d+\.\d{3} to \d+\.\d{3}$", line) for line in lines[1:-3])
    assert re.search(r"^(recommended for|these nlist keep) recall@10 0\.9", ended.out, re.M)
    with Image.open(f"{plot}.png") as image:
        assert image.format == "PNG"
        assert len(image.getcolors(1 << 20) or ()) > 100
    text = "".join(ElementTree.parse(f"{plot}.svg").getroot().itertext())
    assert "nlist" in text or "<path" in Path(f"{plot}.svg").read_text()


def test_json_has_all_of_it(grown: Path, run: Run) -> None:
    ended = run("-c", grown, "tune", "--nlist", "4", "--nprobe", "1", "--nprobe", "4", "--json")
    told = json.loads(ended.out)
    assert (told["images"], told["queries"], told["complete"]) == (500, 100, True)
    points = told["trials"][0]["points"]
    assert [point["nprobe"] for point in points] == [1, 4]
    for point in points:
        assert point["milliseconds"] == point["timing"]["median"]
        assert len(point["timing"]["turns"]) == 9
    assert told["choice"]["nlist"] == 4
    assert told["fastest"] == [told["choice"]]
    assert told["exact_distance"] > 0
    assert told["exact_milliseconds"] == told["exact_timing"]["median"]


def test_settings_that_cannot_be_told_apart_are_named_and_not_applied(
    grown: Path, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("imgsearch.evaluation.tune.SAME", 1e9)
    sizes = ("--nlist", "4", "--nlist", "8", "--nprobe", "4")
    ended = invoke("-c", grown, "tune", *sizes, "--recall", "0.5", "--apply")
    assert ended.exit_code == 0
    assert ended.stderr == "nothing was applied: none of the settings is clearly the fastest\n"
    assert ended.stdout.endswith(
        "these nlist keep recall@10 0.5, and none is clearly the fastest: "
        "4 (nprobe 4), 8 (nprobe 4)\nany of them will do: --nlist N --apply\n"
    )
    assert json.loads(invoke("-c", grown, "info", "--json").stdout)["ivf"] is None
    sizes = ("--nlist", "4", "--nlist", f"{choose_nlist(500)}", "--nprobe", "30")
    ended = invoke("-c", grown, "tune", *sizes, "--recall", "0.5")
    assert ended.stdout.endswith(f"\nkeep the present nlist, {choose_nlist(500)}\n")


def test_what_is_applied_is_shown_by_info(grown: Path, run: Run) -> None:
    ended = run("-c", grown, "tune", "--nlist", "6", "--apply")
    assert (ended.code, ended.err) == (0, "applied: the index was rebuilt\n")
    assert json.loads(run("-c", grown, "info", "--json").out)["ivf"]["nlist"] == 6


def test_where_nothing_keeps_the_recall_nothing_is_applied(grown: Path, run: Run) -> None:
    options = ("--nlist", "20", "--nprobe", "1", "--recall", "0.999", "--apply")
    ended = run("-c", grown, "tune", *options)
    assert ended.code == 2
    assert "none of these settings keeps recall@10 0.999" in ended.out
    assert ended.err == "imgsearch: none of the settings that were tried keeps recall@10 0.999\n"
    assert json.loads(run("-c", grown, "info", "--json").out)["ivf"] is None


@pytest.mark.parametrize(
    ("options", "code", "reason"),
    [
        (("--nlist", "0"), 2, "0 is not in the range"),
        (("--nlist", "500"), 2, "only 400 of 500 images are available to train"),
        (("--plot", "nowhere/plot.png"), 2, "there is no folder nowhere for the plot"),
    ],
)
def test_bad_options_end_in_one_line(
    grown: Path, run: Run, options: tuple[str, ...], code: int, reason: str
) -> None:
    ended = run("-c", grown, "tune", *options)
    assert ended.code == code
    assert reason in ended.err
