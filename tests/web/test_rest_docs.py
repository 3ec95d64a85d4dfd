"""The examples of docs/rest.md do what it says."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from imgsearch.collection import Collection
from imgsearch.web.options import ServerOptions
from tests.web.serving import listening

DOCS = Path(__file__).parents[2] / "docs" / "rest.md"
EXAMPLES = re.findall(r"```sh\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.S)

pytestmark = pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl")


@pytest.fixture
def port(indexed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))  # of the map
    directory = shutil.copytree(indexed, tmp_path / "copy")  # as one example removes an image
    with Collection.open(directory, device="cpu") as collection:
        collection.map()
    with listening(directory, ServerOptions(cache=tmp_path / "cache", token="open-sesame")) as port:
        yield port


def test_there_are_examples_of_each_route() -> None:
    text = "\n".join(EXAMPLES)
    for route in (
        "query",
        "explain",
        "images?",
        "images/7",
        "original",
        "thumbnail?",
        "layout?",
        "timeline?",
        "facets",
        "map",
        "archive?",
        "duplicates",
        "duplicates/groups?",
        "duplicates/judgements?",
        "info",
        "health",
    ):
        assert f"/api/v1/{route}" in text or f"/{route}" in text


@pytest.mark.parametrize("example", EXAMPLES)
def test_an_example_does_what_it_says(
    example: str, port: int, photos: Path, tmp_path: Path
) -> None:
    shutil.copy(photos / "0004.jpg", tmp_path / "cat.jpg")
    script = example.replace("http://127.0.0.1:8765", f"http://127.0.0.1:{port}")
    # The server of the tests wants a token everywhere, so that its own example is one.
    curl = "curl --fail -sS"
    if "Authorization" not in script:
        curl += " -H 'Authorization: Bearer open-sesame'"
    script = re.sub(r"\bcurl\b", curl, script)
    ended = subprocess.run(
        ["bash", "-euc", script.replace("\ncurl", "\necho; curl")],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    answers = [json.loads(line) for line in ended.stdout.splitlines() if line]
    if "explain" in example:
        assert sum(map(sum, answers[-1]["hit_map"])) == pytest.approx(
            answers[-1]["centred"], abs=1e-4
        )
    if "query" in example:
        assert answers[-1]["hits"]
    if "original" in example:
        assert (tmp_path / "original").read_bytes() == (photos / "0006.jpg").read_bytes()
        assert (tmp_path / "thumbnail.jpg").stat().st_size > 500
    if "archive" in example:
        assert (tmp_path / "images.zip").read_bytes().startswith(b"PK")
        assert answers[-1] == {"removed": 1}
    if "min_similarity" in example:
        assert all(hit["similarity"] >= 0.3 for hit in answers[-1]["hits"])
    if "offset" in example:
        assert answers[-1]["hits"][0]["rank"] == 11
