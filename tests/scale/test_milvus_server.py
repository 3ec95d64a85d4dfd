"""Start the tests of the real server, `inside_milvus.py`, in a network namespace of their own."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.scale.milvus_server import APART

HERE = Path(__file__).parent
SECONDS = 900


def test_the_standalone_server_keeps_the_contract(tmp_path: Path) -> None:
    if shutil.which("unshare") is None or subprocess.run([*APART, "true"], check=False).returncode:
        pytest.skip("this system allows no namespaces, and the server listens on every interface")
    tests = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--no-cov"]
    # A folder of its own: in the namespace, what other sessions left cannot be cleaned up.
    tests.append(f"--basetemp={tmp_path / 'inside'}")
    apart = [sys.executable, "-m", "tests.scale.milvus_server"]
    inside = [*APART, *apart, *tests, str(HERE / "inside_milvus.py")]
    ended = subprocess.run(
        inside, cwd=HERE.parent.parent, capture_output=True, text=True, timeout=SECONDS, check=False
    )
    print(ended.stdout)  # noqa: T201 - shown if it fails
    assert ended.returncode == 0, ended.stdout + ended.stderr
