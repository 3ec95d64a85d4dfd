"""Everything stays on this machine: no report to anybody, and no file that is not imgsearch's own.

Each test starts the program with a home, a cache and a temporary folder of its own, without the
variables by which a library takes it for a test, and looks at what is left there and at what it
asked of the network.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.request import urlopen

import pytest

from tests.support.commands import imgsearch_command
from tests.support.grower import Grower, clustered
from tests.support.pictures import save_pictures

# Of a process that runs in CI, or in a test, some libraries report nothing, and keep nothing.
TELLING = re.compile(
    r"CI|GITHUB_.*|ORT_.*|MPL.*|RAY_.*|HF_.*|PYTEST_.*|XDG_.*|DO_NOT_TRACK|COVERAGE_.*"
)

needs_strace = pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")


@dataclass(frozen=True, slots=True)
class Home:
    """A home folder that nothing was in."""

    path: Path

    @property
    def environment(self) -> Mapping[str, str]:
        kept = {name: text for name, text in os.environ.items() if not TELLING.fullmatch(name)}
        own = {
            "HOME": self.path / "home",
            "XDG_CACHE_HOME": self.path / "cache",
            "XDG_CONFIG_HOME": self.path / "config",
            "XDG_DATA_HOME": self.path / "data",
            "XDG_STATE_HOME": self.path / "state",
            "TMPDIR": self.path / "temporary",
        }
        return kept | {name: str(folder) for name, folder in own.items()}

    def left(self) -> list[str]:
        """Return the files that are there, but for imgsearch's own."""
        files = [path.relative_to(self.path) for path in self.path.rglob("*") if path.is_file()]
        return sorted(str(path) for path in files if path.parts[:2] != ("cache", "imgsearch"))


@pytest.fixture
def home(tmp_path: Path) -> Home:
    for name in ("home", "cache", "config", "data", "state", "temporary"):
        (tmp_path / "at home" / name).mkdir(parents=True)
    return Home(tmp_path / "at home")


@pytest.fixture
def check(home: Home, tmp_path: Path) -> Callable[..., None]:
    """Run imgsearch at `home`, and check what it leaves there and asks of the network."""

    def check(*arguments: str | Path) -> None:
        calls = tmp_path / "calls"
        traced = _traced(calls) if shutil.which("strace") else ()
        ended = subprocess.run(
            [*traced, *imgsearch_command(*arguments)],
            cwd=tmp_path,
            env=home.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert ended.returncode == 0, ended.stderr
        assert home.left() == []
        assert not traced or _reached(calls) == []

    return check


def test_a_query_reports_nothing(
    indexed: Path, photos: Path, check: Callable[..., None], tmp_path: Path
) -> None:
    photo = min(photos.iterdir())
    check("-c", indexed, "query", photo, "--include-self", "--html", tmp_path / "page.html")


@pytest.mark.whole("test_a_query_reports_nothing")
def test_indexing_reports_nothing(
    indexed: Path, check: Callable[..., None], tmp_path: Path
) -> None:
    save_pictures(tmp_path / "new", 3, first=300)
    check("-c", indexed, "index", tmp_path / "new")


@pytest.mark.whole("test_a_query_reports_nothing")
def test_making_a_collection_reports_nothing(check: Callable[..., None], tmp_path: Path) -> None:
    save_pictures(tmp_path / "new", 3)
    check("-c", tmp_path / "made", "index", tmp_path / "new")


@pytest.mark.whole("test_a_query_reports_nothing")
def test_verifying_reports_nothing(indexed: Path, check: Callable[..., None]) -> None:
    check("-c", indexed, "verify")


@pytest.mark.whole("test_a_query_reports_nothing")
def test_drawing_a_plot_reports_nothing(
    empty: Path, check: Callable[..., None], tmp_path: Path
) -> None:
    with Grower(empty) as grower:
        grower.add(clustered(500, seed=1))
    options = "--nlist", "4", "--nprobe", "1", "--queries", "20"
    check("-c", empty, "tune", *options, "--plot", tmp_path / "plot.png")


@pytest.mark.whole("test_a_query_reports_nothing")
def test_a_program_that_uses_imgsearch_reports_nothing(
    home: Home, indexed: Path, photos: Path, tmp_path: Path
) -> None:
    code = (
        "import sys, imgsearch\n"
        "with imgsearch.Collection.open(sys.argv[1]) as photos:\n"
        "    photos.query(sys.argv[2])\n"
    )
    command = [sys.executable, "-c", code, str(indexed), str(min(photos.iterdir()))]
    environment = dict(home.environment) | {"ORT_DISABLE_TELEMETRY": "0"}
    ended = subprocess.run(command, cwd=tmp_path, env=environment, timeout=60, check=False)
    assert ended.returncode == 0
    assert home.left() == []


@pytest.mark.whole("test_a_query_reports_nothing")
@needs_strace
def test_a_server_talks_to_those_who_ask_it_and_to_nobody_else(
    home: Home, indexed: Path, tmp_path: Path
) -> None:
    server = subprocess.Popen(
        [*_traced(tmp_path / "calls"), *imgsearch_command("-c", indexed, "serve", "--port", "0")],
        cwd=tmp_path,
        env=home.environment,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        assert server.stderr is not None
        address = re.search(r"http://\S+/", server.stderr.readline())
        assert address is not None
        for path in ("", "api/v1/info"):
            with urlopen(address[0] + path, timeout=60) as answer:
                assert answer.status == 200
    finally:
        os.killpg(server.pid, signal.SIGINT)
        server.communicate(timeout=30)
    assert home.left() == []
    assert _reached(tmp_path / "calls") == ["bind 127.0.0.1"]


def _traced(calls: Path) -> tuple[str, ...]:
    """Return what a command starts with whose calls to the network are to be written to a file."""
    return (
        "strace",
        "-f",
        "--seccomp-bpf",
        "-qq",
        "-e",
        "trace=%network",
        "-e",
        "signal=none",
        "-o",
        str(calls),
    )


def _reached(calls: Path) -> list[str]:
    """Return what was asked of the network, and of which address."""
    found = []
    for line in calls.read_text().splitlines():
        call = re.search(r"(connect|bind|sendto|sendmsg|sendmmsg)\(.*sin6?_\w*addr", line)
        address = re.search(r'inet_(?:addr\(|pton\(AF_INET6, )"([^"]+)"', line)
        if call:
            found.append(f"{call[1]} {address[1] if address else '?'}")
    return found
