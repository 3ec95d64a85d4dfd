"""`imgsearch info` and `--version`."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from importlib.metadata import version
from pathlib import Path

from click.testing import Result

from imgsearch.embedding.models import MODELS

Invoke = Callable[..., Result]


def test_info_as_json_has_everything(invoke: Invoke, indexed: Path, photos: Path) -> None:
    info = json.loads(invoke("-c", indexed, "info", "--json").stdout)
    assert info.keys() == {
        "directory",
        "images",
        "failed",
        "skipped",
        "excluded",
        "left_out",
        "roots",
        "model",
        "settings",
        "ivf",
        "nprobe",
        "outgrown",
        "segments",
        "list_sizes",
        "index_bytes",
        "tail",
        "bytes",
        "device",
        "faiss",
        "rank",
        "ranking_bytes",
        "unranked",
    }
    assert info["directory"] == str(indexed)
    assert info["images"] == 40
    assert info["roots"] == [{"path": str(photos)}]
    assert info["model"]["name"] == "mobilenet_v2"
    assert info["ivf"] is None
    invoke("-c", indexed, "index", "--nlist", "3")
    info = json.loads(invoke("-c", indexed, "info", "--json").stdout)
    assert info["settings"] == {
        "nlist": 3,
        "recall": 0.95,
        "storage": "flat",
        "pca": 256,
        "exclude": [],
        "include": [],
    }
    assert (info["ivf"]["nlist"], info["ivf"]["requested_nlist"]) == (3, 3)
    assert info["ivf"]["curve"][0].keys() >= {"nprobe", "recall", "recall_bound"}
    assert all(1 <= nprobe <= 3 for nprobe in info["nprobe"])


def test_info_says_in_six_lines_what_a_person_wants(
    invoke: Invoke, indexed: Path, photos: Path, tmp_path: Path
) -> None:
    def facts() -> dict[str, str]:
        lines = invoke("-c", indexed, "info").stdout.splitlines()
        assert len(lines) == 6
        return {line[:12].strip(): line[12:] for line in lines}

    told = facts()
    assert told["collection"].startswith(f"{indexed} (")
    assert (told["images"], told["folders"]) == ("40", str(photos))
    assert told["other files"] == "none"
    assert told["search"] == "exact: a query is compared with every image"
    for number in range(4):
        (tmp_path / f"more{number}").mkdir()
        (tmp_path / f"more{number}" / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0")
        invoke("-c", indexed, "index", tmp_path / f"more{number}", "--nlist", "3")
    told = facts()
    assert told["folders"].endswith(", 2 more")
    assert told["other files"] == "4 files failed (`imgsearch list --failed`)"
    finds = "by an index, which finds at least 95 % of the 10 nearest images on average"
    assert told["search"] == finds


def test_info_is_a_fact_a_line(invoke: Invoke, indexed: Path, photos: Path) -> None:
    text = invoke("-c", indexed, "info", "--verbose").stdout
    facts = dict(line.split(maxsplit=1) for line in text.splitlines())
    assert facts["collection"] == str(indexed)
    assert facts["images"] == "40 (0 files failed, 0 skipped)"
    assert facts["root"] == str(photos)
    assert facts["index"].startswith("none: every search is exact")
    assert facts["faiss"].startswith("faiss-")
    assert facts["device"] == "cpu"
    assert facts["models"] == ", ".join(MODELS)


def test_info_shows_the_lists_and_the_promise(invoke: Invoke, indexed: Path) -> None:
    invoke("-c", indexed, "index", "--nlist", "4")
    text = invoke("-c", indexed, "info", "--verbose").stdout
    facts = dict(line.split(maxsplit=1) for line in text.splitlines())
    info = json.loads(invoke("-c", indexed, "info", "--json").stdout)
    each = round(info["index_bytes"] / sum(info["list_sizes"]))
    assert facts["index"] == f"IndexIVFFlat, nlist 4, in 1 file, {each} bytes per image"
    assert facts["promise"].startswith("recall@10 0.95 by nprobe ")
    assert facts["promise"].endswith(" with 95 % confidence)")
    assert "images, median" in facts["lists"]
    assert facts["tail"] == "0 images not in the lists yet, searched exactly"


def test_info_says_what_an_older_decoder_means(invoke: Invoke, indexed: Path) -> None:
    assert "decoder" not in invoke("-c", indexed, "info", "--verbose").stdout
    with closing(sqlite3.connect(indexed / "catalog.sqlite")) as catalog, catalog:
        catalog.execute("UPDATE model SET decoder = 1")
    lines = invoke("-c", indexed, "info", "--verbose").stdout.splitlines()
    (line,) = (line for line in lines if line.startswith("decoder"))
    assert "with an ICC profile" in line
    assert line.endswith("to embed all images alike, index them into a new collection")
    assert json.loads(invoke("-c", indexed, "info", "--json").stdout)["model"]["decoder"] == 1


def test_the_version_is_that_of_the_package(invoke: Invoke) -> None:
    assert invoke("--version").stdout == f"imgsearch, version {version('imgsearch-faiss')}\n"


def test_info_shows_the_promise_and_the_curve_it_rests_on(invoke: Invoke, indexed: Path) -> None:
    invoke("-c", indexed, "index", "--nlist", "4", "--recall", "0.9")
    lines = invoke("-c", indexed, "info", "--verbose").stdout.splitlines()
    (promise,) = (line for line in lines if line.startswith("promise"))
    assert "recall@10 0.9 by nprobe" in promise
    first = next(at for at, line in enumerate(lines) if line.startswith("curve"))
    rows = [line.split() for line in lines[first + 1 :] if line.startswith(" ")]
    assert [int(row[0]) for row in rows] == list(range(1, len(rows) + 1))
    assert all(row[-1] == "ms" for row in rows)
    assert all(0 <= float(recall) <= 1 for row in rows for recall in row[1:-2])
    assert all(float(recall) >= 0.999 for recall in rows[-1][1:-2])
