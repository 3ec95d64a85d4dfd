"""`imgsearch info`, `--help` and `--version`."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

from click.testing import Result

Invoke = Callable[..., Result]


def test_info_as_json_has_everything(invoke: Invoke, indexed: Path, photos: Path) -> None:
    info = json.loads(invoke("-c", indexed, "info", "--json").stdout)
    assert info.keys() == {
        "directory",
        "images",
        "failed",
        "skipped",
        "roots",
        "model",
        "ivf",
        "list_sizes",
        "tail",
        "bytes",
        "device",
        "faiss",
    }
    assert info["directory"] == str(indexed)
    assert info["images"] == 40
    assert info["roots"] == [{"path": str(photos)}]
    assert info["model"]["name"] == "mobilenet_v2"
    assert info["ivf"] is None
    invoke("-c", indexed, "index", "--nlist", "3")
    ivf = json.loads(invoke("-c", indexed, "info", "--json").stdout)["ivf"]
    assert ivf.keys() == {"nlist", "requested_nlist", "nprobe", "recall", "recall_bound"}


def test_info_is_a_fact_a_line(invoke: Invoke, indexed: Path, photos: Path) -> None:
    text = invoke("-c", indexed, "info").stdout
    facts = dict(line.split(maxsplit=1) for line in text.splitlines())
    assert facts["collection"] == str(indexed)
    assert facts["images"] == "40 (0 files failed, 0 skipped)"
    assert facts["root"] == str(photos)
    assert facts["index"].startswith("none: every search is exact")
    assert facts["faiss"].startswith("faiss-")
    assert facts["device"] == "cpu"
    assert facts["models"] == "mobilenet_v2, inception_v3"


def test_info_shows_the_lists_and_the_promise(invoke: Invoke, indexed: Path) -> None:
    invoke("-c", indexed, "index", "--nlist", "4")
    text = invoke("-c", indexed, "info").stdout
    facts = dict(line.split(maxsplit=1) for line in text.splitlines())
    assert facts["index"].startswith("IndexIVFFlat, nlist 4, nprobe ")
    assert "recall@10" in facts["index"]
    assert "images, median" in facts["lists"]


def test_the_help_of_every_command_is_there(invoke: Invoke) -> None:
    text = invoke("--help").stdout
    for command in ("index", "query", "info"):
        assert f"\n  {command} " in text
        assert invoke(command, "-h").exit_code == 0
    assert "Exit codes: 0 done, 1 nothing found, 2 usage, 3 bad input" in text


def test_the_version_is_that_of_the_package(invoke: Invoke) -> None:
    assert invoke("--version").stdout == f"imgsearch, version {version('imgsearch-faiss')}\n"
