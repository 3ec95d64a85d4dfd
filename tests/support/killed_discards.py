"""Kill a run that discards a copy before each of its steps in turn, and see what the next finds.

`python -m tests.support.killed_discards delete_copies FOLDER` prints how often it killed a run, and
which outcomes the journal had. A step is a call that changes a file.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from imgsearch.maintenance import discard
from imgsearch.maintenance.copies import Copy, Discarded, Duplicates, Group
from tests.support.embedding_here import decoders_here

STEPS = ("fsync", "link", "rename", "replace", "unlink", "write")
CONTENT = b"the same content, which is why no pixels need to be compared"


def _set_up(top: Path, number: int) -> Duplicates:
    """Fill a folder with two files; its number is in the name of the copy."""
    photos, names = top / str(number) / "photos", ("keep.png", f"copy {number}.png")
    photos.mkdir(parents=True)
    for name in names:
        (photos / name).write_bytes(CONTENT)
    digest = hashlib.sha256(CONTENT).digest()
    keep, copy = (
        Copy(1, str(photos / name), 1, 1, len(CONTENT), 0, digest, True, 1) for name in names
    )
    os.environ["XDG_STATE_HOME"] = str(photos.parent / "state")
    return Duplicates((Group(keep, (copy,)),), 2, ())


def _kill_before(step: int, act: Callable[[Duplicates], Discarded], found: Duplicates) -> bool:
    """Run in another process, and kill it before a step; tell whether it got that far."""
    child = os.fork()
    if child == 0:
        _count_down(step)
        act(found)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0, "it failed"
    return os.WIFSIGNALED(status)


def _count_down(step: int) -> None:
    left = [step]

    def counted(call: Callable[..., Any]) -> Callable[..., Any]:
        def counting(*arguments: Any, **options: Any) -> Any:
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            left[0] -= 1
            return call(*arguments, **options)

        return counting

    for name in STEPS:
        setattr(os, name, counted(getattr(os, name)))


def _check(top: Path, number: int, word: str) -> str:
    """Check that nothing is lost, and return the outcome in the journal, if there is any."""
    photos = top / str(number) / "photos"
    keep, copy = photos / "keep.png", photos / f"copy {number}.png"
    assert keep.read_bytes() == CONTENT
    assert {path.name for path in photos.iterdir()} <= {keep.name, copy.name}
    is_left = copy.exists() and not copy.samefile(keep)
    if is_left:
        assert copy.read_bytes() == CONTENT
    elif word == "trash":
        assert not copy.exists()
        assert (top / "data" / "Trash" / "files" / copy.name).read_bytes() == CONTENT
        assert (top / "data" / "Trash" / "info" / f"{copy.name}.trashinfo").exists()
    else:
        assert copy.exists() == (word == "link")
    journal = photos.parent / "state" / "imgsearch" / "duplicates.jsonl"
    lines = [json.loads(line) for line in journal.read_text().splitlines() if line]
    if not lines:
        assert is_left, "something happened that the journal does not know"
        return ""
    assert [line["state"] for line in lines] == ["intended", "left" if is_left else "done"], lines
    return str(lines[-1]["state"])


def main() -> None:
    name, top = sys.argv[1], Path(sys.argv[2])
    act: Callable[[Duplicates], Discarded] = getattr(discard, name)
    discard.decoders = decoders_here  # type: ignore[attr-defined, assignment]
    sys.modules["gi"] = None  # type: ignore[assignment] # the trash of a desktop
    os.environ |= {"HOME": str(top), "XDG_DATA_HOME": str(top / "data")}
    states = set()
    for step in range(1_000):
        found = _set_up(top, step)
        was_killed = _kill_before(step, act, found)
        act(Duplicates((), 0, ()))
        states.add(_check(top, step, name.removesuffix("_copies")))
        if not was_killed:
            sys.stdout.write(f"{step} {','.join(sorted(states - {''}))}\n")
            return


if __name__ == "__main__":
    main()
