"""A server of the page, in a process of its own."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import urlopen

__all__ = ["Server", "command"]

STARTING = 60  # seconds


def command(directory: Path, port: int, *options: str) -> list[str]:
    """Return the command that serves a collection."""
    serve = ["-c", str(directory), "serve", "--port", str(port), *options]
    return [sys.executable, "-m", "imgsearch", *serve]


class Server:
    """Serves a collection until it is stopped, and again if it is started again."""

    def __init__(self, directory: Path, *options: str) -> None:
        self.directory = directory
        self._options = options
        with socket.create_server(("127.0.0.1", 0)) as free:
            self._port: int = free.getsockname()[1]
        self.address = f"http://127.0.0.1:{self._port}/"
        self.start()

    def start(self) -> None:
        """Start it, and wait until it answers."""
        self._process = subprocess.Popen(
            command(self.directory, self._port, *self._options),
            env=os.environ | {"XDG_CACHE_HOME": str(self.directory.parent / "cache")},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        until = time.monotonic() + STARTING
        while True:
            try:
                with urlopen(self.address + "api/v1/info", timeout=10):
                    return
            except HTTPError:  # it wants a token
                return
            except (URLError, ConnectionError):
                if self._process.poll() is not None or time.monotonic() > until:
                    raise RuntimeError(f"no server: {self._process.poll()}") from None
                time.sleep(0.1)

    def stop(self) -> None:
        """Stop it."""
        self._process.terminate()
        self._process.wait(30)
