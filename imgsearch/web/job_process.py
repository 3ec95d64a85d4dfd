"""Index a folder, make a map, find copies, or discard some of them, in a process of its own.

`imgsearch.web.job` starts it as ``python -m imgsearch.web.job_process``. So a search takes no
turns from queries, and can be ended at any time: what it has found out is kept, as for Ctrl-C in
`imgsearch duplicates` and `imgsearch index`, and a file is discarded or it is not. It decodes
nothing itself; worker processes do, with the limits of `index`.

It is sent one message (`imgsearch.embedding.wire`), with the fields of `Index`, `LayOut`, `Find` or
`Trash` and `job`, the name of one. It answers with `{"progress": [done, total]}` any number of
times, then with `{"indexed": ...}`, with `{"laid_out": ...}`, with `{"group": ...}` for each group
and `{"found": ...}`, with `{"discarded": ...}`, or with an error.
`CANCEL` interrupts it; once its stdin is closed, it also has to end within `GRACE`.
"""

from __future__ import annotations

import io
import os
import queue
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, TypeAlias

from imgsearch.embedding.wire import receive, send, send_error
from imgsearch.errors import ImgsearchError, NoMapError, StorageError
from imgsearch.maintenance.copies import Copy, Duplicates, Group

__all__ = ["CANCEL", "GRACE", "Find", "Index", "LayOut", "Trash", "group_in", "main"]

NICE = 5  # queries go first
CANCEL = b"\0"  # what the server sends to cancel the job
GRACE = 1.0  # seconds to end once the server has

Tell: TypeAlias = Callable[[dict[str, Any]], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Index:
    """A run of `index` over a folder; `done` equals `total` while the index is being built."""

    directory: str
    folder: str

    def run(self, tell: Tell) -> None:
        """Tell how many files became images, failed, and are no images."""
        from imgsearch.collection import Collection
        from imgsearch.indexing.report import Progress

        def progress(seen: Progress) -> None:
            _progress(tell, seen.done, seen.total or 0)

        with Collection.open(self.directory) as collection:
            report = collection.index([self.folder], progress=progress)
        counts = {"failed": report.failed, "skipped": report.skipped}
        tell({"indexed": {"images": report.found - sum(counts.values()), **counts}})

    def message(self) -> dict[str, Any]:
        """Return the message that asks for this."""
        return {"job": "index", **asdict(self)}

    @classmethod
    def of(cls, fields: dict[str, Any]) -> Index:
        """Return the job that a message asks for."""
        return cls(**fields)


@dataclass(frozen=True, slots=True, kw_only=True)
class LayOut:
    """The making of the map of a collection, which is brought up to date if there is one."""

    directory: str

    def run(self, tell: Tell) -> None:
        """Tell how many images are on the map."""
        from imgsearch.collection import Collection

        with Collection.open(self.directory) as collection:
            made = collection.map(progress=partial(_progress, tell))
            try:
                collection.map(update=False)
            except NoMapError as error:
                kept = "the map was made, but cannot be kept in the user's cache folder"
                raise StorageError(kept) from error
        tell({"laid_out": len(made.ids)})

    def message(self) -> dict[str, Any]:
        """Return the message that asks for this."""
        return {"job": "lay out", **asdict(self)}

    @classmethod
    def of(cls, fields: dict[str, Any]) -> LayOut:
        """Return the job that a message asks for."""
        return cls(**fields)


@dataclass(frozen=True, slots=True, kw_only=True)
class Find:
    """A search for copies; the fields are arguments of `find_duplicates`."""

    directory: str
    min_similarity: float
    keep_in: tuple[str, ...]
    prefer: str | None

    def run(self, tell: Tell) -> None:
        """Tell of the groups, one after the other, and then how many images were examined."""
        from imgsearch.maintenance.duplicates import find_duplicates

        found = find_duplicates(
            self.directory,
            min_similarity=self.min_similarity,
            keep_in=self.keep_in,
            prefer=self.prefer,
            progress=partial(_progress, tell),
        )
        for group in found.groups:
            tell({"group": _fields_of(group)})
        counts = {"unreadable": len(found.unreadable), "photos": len(found.photos)}
        tell({"found": {"images": found.images, **counts}})

    def message(self) -> dict[str, Any]:
        """Return the message that asks for this."""
        return {"job": "find", **asdict(self)}

    @classmethod
    def of(cls, fields: dict[str, Any]) -> Find:
        """Return the job that a message asks for."""
        return cls(**{**fields, "keep_in": tuple(fields["keep_in"])})


@dataclass(frozen=True, slots=True, kw_only=True)
class Trash:
    """The copies of some groups, which go to the trash."""

    groups: tuple[Group, ...]

    def run(self, tell: Tell) -> None:
        """Tell what became of the copies."""
        from imgsearch.maintenance.discard import trash_copies

        done = trash_copies(
            Duplicates(self.groups, 0, ()), turned=True, progress=partial(_progress, tell)
        )
        left = [*done.failures, *done.untrashed]
        fields = {
            "done": done.done,
            "size": done.size,
            "failures": [(failure.path, failure.reason) for failure in left],
            "stopped": done.stopped or ("it was cancelled" if done.interrupted else ""),
        }
        tell({"discarded": fields})

    def message(self) -> dict[str, Any]:
        """Return the message that asks for this."""
        return {"job": "trash", "groups": [_fields_of(group) for group in self.groups]}

    @classmethod
    def of(cls, fields: dict[str, Any]) -> Trash:
        """Return the job that a message asks for."""
        return cls(groups=tuple(map(group_in, fields["groups"])))


def main() -> None:
    """Do what the message on stdin asks for, and answer on stdout."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # which the server may ignore
    os.nice(NICE)
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # keep the output of libraries out of the answers
    messages: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    try:
        threading.Thread(target=_listen, args=(messages,), daemon=True).start()
        message, _ = receive(io.BytesIO(messages.get()))
        del message["bytes"]
        jobs: dict[str, Callable[[dict[str, Any]], Index | LayOut | Find | Trash]]
        jobs = {"index": Index.of, "lay out": LayOut.of, "find": Find.of, "trash": Trash.of}
        job = jobs[message.pop("job")](message)
        job.run(partial(send, answers))
    except ImgsearchError as error:
        send_error(answers, error)
    except (KeyboardInterrupt, EOFError, BrokenPipeError):
        pass  # the server has cancelled this, or is gone


def _listen(messages: queue.SimpleQueue[bytes]) -> None:
    """Hand over the message on stdin; interrupt the job if anything follows, even the end."""
    line = b""
    while not line.endswith((b"\n", CANCEL)) and (more := os.read(0, 1 << 16)):
        line += more
    messages.put(line)
    if line.endswith(CANCEL) or os.read(0, 1) == CANCEL:
        _interrupt()
        os.read(0, 1)
    _interrupt()
    time.sleep(GRACE)
    os._exit(1)  # it is busy with something that no signal interrupts


def _interrupt() -> None:
    signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)


def _progress(tell: Tell, done: int, total: int) -> None:
    tell({"progress": (done, total)})


def _fields_of(group: Group) -> dict[str, Any]:
    copies = [{**asdict(copy), "digest": copy.digest.hex()} for copy in (group.keep, *group.others)]
    return {"copies": copies, "reason": group.reason}


def group_in(fields: dict[str, Any]) -> Group:
    """Return the group that a message carries."""
    keep, *others = (
        Copy(
            **{
                **each,
                "digest": bytes.fromhex(each["digest"]),
                "region": None if each["region"] is None else tuple(each["region"]),
            }
        )
        for each in fields["copies"]
    )
    return Group(keep, tuple(others), fields["reason"])


if __name__ == "__main__":
    main()
