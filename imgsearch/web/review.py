"""The duplicates of the collection that is served: found, judged and discarded.

One job runs at a time: a search, or the discarding of copies. Each runs in a process of its own
(`imgsearch.web.job_process`), which ends with the server. The result of a search has a name, by
which clients refer to it, so that nobody discards what another result than theirs suggests.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from typing import Any

from imgsearch.collection import Collection
from imgsearch.errors import InputError, SettingError
from imgsearch.files.paths import is_at, path_fields
from imgsearch.maintenance.copies import Copy, Group, copy_fields
from imgsearch.maintenance.judging import forget_not_duplicates, mark_not_duplicates
from imgsearch.storage.layout import backend_of
from imgsearch.web.job import Jobs
from imgsearch.web.job_process import Find, Trash, group_in
from imgsearch.web.problems import ForgottenError

__all__ = ["Review"]

FAILURES = 100  # of copies that could not be discarded, to tell


@dataclass(slots=True)
class _Result:
    """What a search has found, and what was decided about it since.

    Attributes:
        groups: The groups as they were found.
        images: The number of images that were examined.
        unreadable: The number of images that could not be compared.
        photos: The number of raw files with images of the same name.
        name: The name by which clients refer to it.
        gone: The ids of the copies that were discarded.
        apart: The pairs of ids that were judged not to be copies.
        counts: What `facts` has counted; None once something is decided.
    """

    groups: Sequence[Group]
    images: int
    unreadable: int
    photos: int
    name: str = field(default_factory=lambda: secrets.token_hex(16))
    gone: set[int] = field(default_factory=set)
    apart: set[frozenset[int]] = field(default_factory=set)
    counts: dict[str, int] | None = None

    def shown(self, first: int = 0) -> Iterator[tuple[int, Group]]:
        """Yield the groups from a place on, with their numbers, as they are since."""
        for number, group in enumerate(self.groups[first:], first + 1):
            others: list[Copy] = []
            for copy in group.others:
                apart = any(
                    frozenset((copy.id, other.id)) in self.apart for other in (group.keep, *others)
                )
                if not apart and copy.id not in self.gone:
                    others.append(copy)
            if others:
                yield number, replace(group, others=tuple(others))

    def copies(self, ids: Sequence[int]) -> list[Group]:
        """Return the groups with only the copies that have some ids.

        Raises:
            InputError: If an image is no copy that may be discarded.
        """
        left, found = set(ids), []
        for _, group in self.shown():
            others = [copy for copy in group.others if copy.id in left and _may_go(copy)]
            left -= {copy.id for copy in others}
            if others:
                found.append(replace(group, others=tuple(others)))
        if left:
            raise InputError(f"the image {min(left)} is not a copy that may be discarded")
        return found

    def facts(self) -> dict[str, Any]:
        """Return what the status tells of it."""
        if self.counts is None:
            copies = [copy for _, group in self.shown() for copy in group.others]
            freed = [copy.size for copy in copies if copy.discardable]
            self.counts = {
                "groups": sum(1 for _ in self.shown()),
                "copies": len(freed),
                "size": sum(freed),
                "turned": sum(bool(copy.orientation) for copy in copies),
                "related": sum(bool(copy.own) for copy in copies),
            }
        own = {"images": self.images, "unreadable": self.unreadable, "photos": self.photos}
        return {"found": self.name, **self.counts, **own}


class Review:
    """The review of one collection. Its methods may be called from any thread, and may block."""

    def __init__(self, collection: Collection) -> None:
        self._collection = collection
        self._jobs = Jobs("another search for duplicates is in progress")
        self._lock = self._jobs.lock
        self._groups: list[Group] = []  # that the search has found so far
        self._result: _Result | None = None
        self._discarded: dict[str, Any] | None = None

    def find(self, min_similarity: float, keep_in: str | None, prefer: str | None) -> None:
        """Begin a search; the arguments are those of `find_duplicates`.

        Raises:
            SettingError: If the collection is not in a directory.
            InputError: If `keep_in` is not a folder of the collection.
            HTTPException: 409 if a job is running already.
        """
        if keep_in is not None:
            self._check_folder(keep_in)
        wanted = Find(
            directory=self._directory(),
            min_similarity=min_similarity,
            keep_in=() if keep_in is None else (keep_in,),
            prefer=prefer,
        )
        self._start("find", wanted.message())

    def discard(self, found: str, ids: Sequence[int]) -> None:
        """Begin to move copies to the trash, in the order of their groups.

        Raises:
            ForgottenError: If the result `found` is not the latest.
            InputError: If an image is no copy that may be discarded.
            HTTPException: 409 if a job is running already.
        """
        with self._lock:
            wanted = Trash(groups=tuple(self._latest(found).copies(ids)))
            self._start("discard", wanted.message())

    def judge(self, ids: Sequence[int], *, forget: bool) -> int:
        """Remember, or forget, that no two of some images are copies; return how many images.

        Raises:
            NoImageError: If there is no such image.
            SettingError: If there are fewer than two, or the collection is not in a directory.
            InputError: If a file has changed.
            BusyError: If another process is writing to the collection.
        """
        paths = [self._collection.entries.get(id_).path for id_ in ids]
        judge = forget_not_duplicates if forget else mark_not_duplicates
        count = judge(self._directory(), paths)
        with self._lock:
            if self._result is not None:
                pairs = set(map(frozenset, combinations(ids, 2)))
                apart = self._result.apart
                self._result.apart = apart - pairs if forget else apart | pairs
                self._result.counts = None
        return count

    def cancel(self) -> None:
        """End the job that is running, if there is one."""
        self._jobs.cancel()

    def status(self) -> dict[str, Any]:
        """Tell what is running, what was found, and how the latest job ended."""
        with self._lock:
            result = self._result
            return {
                **self._jobs.status(),
                "discarded": self._discarded,
                "result": result.facts() if result is not None else None,
            }

    def page(self, found: str | None, after: int, limit: int) -> dict[str, Any]:
        """Return groups of the latest result that come after one.

        Raises:
            ForgottenError: If there is no result, or `found` is not the latest.
        """
        with self._lock:
            result = self._latest(found)
            groups: list[dict[str, Any]] = []
            for number, group in result.shown(after):
                if len(groups) == limit:
                    break
                groups.append(
                    {
                        "number": number,
                        "reason": group.reason,
                        "keep": copy_fields(group.keep),
                        "others": [
                            {**copy_fields(copy), "discardable": _may_go(copy)}
                            for copy in group.others
                        ],
                    }
                )
            return {"found": result.name, "groups": groups}

    def close(self) -> None:
        """End the job that is running, and accept no other."""
        self._jobs.close()

    def _latest(self, found: str | None) -> _Result:
        if self._result is None or found not in (None, self._result.name):
            raise ForgottenError("the server has no such result; search for duplicates again")
        return self._result

    def _directory(self) -> str:
        directory = self._collection.info().directory
        if backend_of(directory) is not None:
            raise SettingError("duplicates are found only in a collection in a directory")
        return os.path.abspath(directory)

    def _check_folder(self, folder: str) -> None:
        """Refuse what is not a folder of the collection, whether or not it is there."""
        path = os.fsencode(folder)
        there = (os.fsencode(each) for each, _ in self._collection.entries.folders())
        if not any(is_at(each, path) for each in there):
            raise InputError(f"{folder}: the collection has no image in this folder")

    def _start(self, kind: str, message: dict[str, Any]) -> None:
        with self._lock:
            self._jobs.start(kind, message, self._hear)
            self._groups, self._discarded = [], None

    def _hear(self, told: dict[str, Any]) -> bool:
        """Take what a job tells, and tell whether it is the result."""
        if "group" in told:
            self._groups.append(group_in(told["group"]))
            return False
        with self._lock:
            if "found" in told:
                self._result = _Result(self._groups, **told["found"])
            elif "discarded" in told:
                self._note_discarded(told["discarded"])
        return "found" in told or "discarded" in told

    def _note_discarded(self, fields: dict[str, Any]) -> None:
        result = self._result
        done = set(fields["done"])
        if result is not None:
            copies = (copy for group in result.groups for copy in group.others)
            result.gone.update(copy.id for copy in copies if copy.path in done)
            result.counts = None
        self._discarded = {
            "count": len(done),
            "size": fields["size"],
            "left": len(fields["failures"]),
            "failures": [
                {**path_fields(path), "reason": reason}
                for path, reason in fields["failures"][:FAILURES]
            ],
            "stopped": fields["stopped"] or None,
        }


def _may_go(copy: Copy) -> bool:
    """Tell whether a copy that somebody has picked may be discarded, as it may even if turned."""
    return replace(copy, orientation=0).discardable
