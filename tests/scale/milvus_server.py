"""The standalone server of the package `milvus`, for tests, on a network of its own."""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import struct
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import psutil

__all__ = ["APART", "PORT", "Server", "raise_loopback"]

PORT = 19530
#: Runs a command in namespaces of its own: what it starts ends with it, and nobody else reaches it.
APART = ["unshare", "-U", "-r", "-n", "-p", "-f", "--mount-proc", "--kill-child"]
_SECONDS = 150.0
_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 1


def raise_loopback() -> None:
    """Bring 127.0.0.1 up in a new network namespace."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        request = fcntl.ioctl(control, _SIOCGIFFLAGS, struct.pack("16sh14x", b"lo", 0))
        flags = struct.unpack("16sh14x", request)[1]
        fcntl.ioctl(control, _SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", flags | _IFF_UP))


class Server:
    """A server whose files are in `folder`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._wrapper: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and wait until it is well."""
        program = Path(sys.executable).with_name("milvus-server")
        with (self._folder.parent / "milvus.log").open("ab") as log:
            self._wrapper = subprocess.Popen(
                [program, "--data", self._folder], stdout=log, stderr=log, start_new_session=True
            )
        until = time.monotonic() + _SECONDS
        while not _is_well():
            assert time.monotonic() < until, "the server does not start"
            time.sleep(0.5)

    def kill(self) -> None:
        """Kill the server itself, which is a child of its wrapper, and the wrapper."""
        assert self._wrapper is not None
        family = psutil.Process(self._wrapper.pid).children(recursive=True)
        for process in family:
            process.send_signal(signal.SIGKILL)
        self._wrapper.kill()
        self._wrapper.wait()
        psutil.wait_procs(family, timeout=30)


def _is_well() -> bool:
    try:
        with urllib.request.urlopen("http://127.0.0.1:9091/healthz", timeout=2) as answer:
            return bytes(answer.read()).strip() == b"OK"
    except OSError:
        return False


if __name__ == "__main__":
    raise_loopback()
    os.execvp(sys.argv[1], sys.argv[1:])
