"""What the command line makes of a collection that is not a directory."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

Invoke = Callable[..., Result]
NOWHERE = "milvus://127.0.0.1:1/photos"


@pytest.mark.parametrize("command", ["tune", "verify"])
def test_what_needs_a_directory_says_so_in_one_line(invoke: Invoke, command: str) -> None:
    result = invoke(command, "-c", NOWHERE)
    assert result.exit_code == 2
    assert f"`imgsearch {command}` works only on a collection in a directory" in result.stderr
    assert result.stderr.count("\n") == 1


def test_a_url_may_stand_before_the_command_or_in_a_variable(invoke: Invoke) -> None:
    for result in (
        invoke("-c", NOWHERE, "tune"),
        invoke("tune", env={"IMGSEARCH_COLLECTION": NOWHERE}),
    ):
        assert f"not on {NOWHERE}" in result.stderr


def test_an_export_to_another_url_is_refused(invoke: Invoke, indexed: Path) -> None:
    result = invoke("-c", indexed, "export", "--to", "s3://bucket/somewhere")
    assert result.exit_code == 2
    assert "give the path of a file or folder here" in result.stderr
